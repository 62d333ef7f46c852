//! The shell without its terminal, before a server that answers by script.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const BOOKMARK: &str = "00000001-00000000-00000007-000000000000000000000000deadbeef";

/// A server that gives each request the next answer and keeps what it was asked.
struct Scripted {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

struct Asked {
    /// Method and path.
    line: String,
    /// Lowercase.
    headers: String,
    body: String,
}

impl Scripted {
    async fn start(answers: &[(u16, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut answers: VecDeque<(u16, String)> = answers
            .iter()
            .map(|(status, body)| (*status, (*body).to_owned()))
            .collect();
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (status, body) = answers.pop_front().unwrap_or((400, "{}".to_owned()));
                serve(socket, status, &body, &log).await;
            }
        });
        Self { url, asked }
    }

    fn console(&self, form: Form) -> Console {
        let client = Client::builder(&self.url).build().unwrap();
        Console::new(client, form, Scope::Unconstrained)
    }

    fn bodies(&self) -> Vec<String> {
        self.asked
            .lock()
            .unwrap()
            .iter()
            .map(|asked| asked.body.clone())
            .collect()
    }
}

/// One request on one connection.
async fn serve(socket: TcpStream, status: u16, body: &str, log: &Mutex<Vec<Asked>>) {
    let mut socket = tokio::io::BufReader::new(socket);
    let (mut line, mut headers, mut length) = (String::new(), String::new(), 0);
    socket.read_line(&mut line).await.unwrap();
    loop {
        let mut header = String::new();
        socket.read_line(&mut header).await.unwrap();
        let header = header.to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if header.trim().is_empty() {
            break;
        }
        headers.push_str(&header);
    }
    let mut sent = vec![0; length];
    socket.read_exact(&mut sent).await.unwrap();
    // Before the answer, so that whoever has the answer finds it.
    log.lock().unwrap().push(Asked {
        line,
        headers,
        body: String::from_utf8(sent).unwrap(),
    });
    let answer = format!(
        "HTTP/1.1 {status} x\r\nx-d1-bookmark: {BOOKMARK}\r\nconnection: close\r\n\
         tidemark-served-by: WEUR/replica/0000000000000001\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(answer.as_bytes()).await.unwrap();
}

fn database(name: &str) -> String {
    format!(r#"{{"result":{{"uuid":"u","name":"{name}"}},"success":true}}"#)
}

const ONE_ROW: &str = r#"{"result":[{"results":{"columns":["n"],"rows":[[1]]},"success":true,
    "meta":{}}],"success":true}"#;
const TWO_RESULTS: &str = r#"{"result":[{"results":{"columns":["n"],"rows":[[1]]},"meta":{}},
    {"results":{"columns":[],"rows":[]},"meta":{"changed_db":true,"changes":1}}],"success":true}"#;
const REFUSED: &str = r#"{"result":null,"success":false,
    "errors":[{"code":7500,"message":"no such table: t: SQLITE_ERROR"}]}"#;

async fn said(console: &mut Console, text: &str) -> anyhow::Result<String> {
    let mut out = Vec::new();
    console.submit(text, &mut out).await?;
    Ok(String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn piped_lines_become_whole_statements_and_the_last_needs_no_semicolon() {
    let shop = database("shop");
    let server = Scripted::start(&[(200, &shop), (200, ONE_ROW), (200, ONE_ROW)]).await;
    let mut console = server.console(Form::Tables);
    let pipe: &[u8] = b"\n.open shop\n-- a remark\nSELECT 1,\n ';';\n\n SELECT 2";
    let mut out = Vec::new();
    read_pipe(&mut console, Box::new(pipe), &mut out)
        .await
        .unwrap();
    assert_eq!(
        server.bodies(),
        [
            "",
            r#"{"sql":"-- a remark\nSELECT 1,\n ';';"}"#,
            r#"{"sql":"SELECT 2"}"#
        ]
    );
}

#[tokio::test]
async fn remarks_in_a_pipe_stand_before_orders_and_at_the_end() {
    let shop = database("shop");
    let server = Scripted::start(&[(200, &shop), (200, ONE_ROW)]).await;
    let mut console = server.console(Form::Tables);
    let pipe: &[u8] =
        b"-- the shop\n/* of\nAda */\n.open shop\nSELECT\n.5;\n/* that\nis all */\n-- really";
    let mut out = Vec::new();
    read_pipe(&mut console, Box::new(pipe), &mut out)
        .await
        .unwrap();
    assert_eq!(server.bodies(), ["", r#"{"sql":"SELECT\n.5;"}"#]);
}

#[tokio::test]
async fn pipe_ends_at_the_first_error() {
    let shop = database("shop");
    let server = Scripted::start(&[(200, &shop), (400, REFUSED), (200, ONE_ROW)]).await;
    let mut console = server.console(Form::Json);
    let pipe: &[u8] = b".open shop\nSELECT * FROM t;\nSELECT 1;\n";
    let mut out = Vec::new();
    let error = read_pipe(&mut console, Box::new(pipe), &mut out)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no such table: t"), "{error:#}");
    assert_eq!(server.bodies().len(), 2);
    let document: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(document["success"], false);
    assert_eq!(document["error"]["may_have_happened"], false);
}

#[tokio::test]
async fn json_has_one_document_per_result() {
    let shop = database("shop");
    let server = Scripted::start(&[(200, &shop), (200, TWO_RESULTS)]).await;
    let mut console = server.console(Form::Json);
    said(&mut console, ".open shop").await.unwrap();
    let out = said(&mut console, "SELECT 1; DELETE FROM t").await.unwrap();
    let documents: Vec<serde_json::Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(documents.len(), 2);
    assert_eq!(documents[0]["results"][0]["n"], 1);
    assert_eq!(documents[1]["meta"]["changes"], 1);
}

#[tokio::test]
async fn dialogue_tells_rows_changes_region_role_and_state() {
    let shop = database("shop");
    let server = Scripted::start(&[(200, &shop), (200, TWO_RESULTS)]).await;
    let mut console = server.console(Form::Dialogue);
    assert_eq!(console.prompt(), "tidemark> ");
    said(&mut console, ".open shop").await.unwrap();
    assert_eq!(console.prompt(), "shop> ");
    let out = said(&mut console, "SELECT 1; DELETE FROM t").await.unwrap();
    let summary = out.lines().last().unwrap();
    assert!(
        summary.starts_with("2 statements, 1 row, 1 changed · "),
        "{summary}"
    );
    assert!(
        summary.ends_with(" ms · WEUR replica · at 1.7"),
        "{summary}"
    );
    assert_eq!(console.prompt(), "shop@WEUR> ");
    assert_eq!(
        said(&mut console, ".bookmark").await.unwrap().trim(),
        BOOKMARK
    );
}

#[tokio::test]
async fn session_order_begins_a_new_session() {
    let shop = database("shop");
    let one = (200, ONE_ROW);
    let server = Scripted::start(&[(200, &shop), one, one, one, one]).await;
    let mut console = server.console(Form::Tables);
    said(&mut console, ".open shop").await.unwrap();
    said(&mut console, "SELECT 1").await.unwrap();
    said(&mut console, "SELECT 1").await.unwrap();
    said(&mut console, ".session primary").await.unwrap();
    said(&mut console, "SELECT 1").await.unwrap();
    said(&mut console, ".session none").await.unwrap();
    said(&mut console, "SELECT 1").await.unwrap();
    assert!(said(&mut console, ".bookmark").await.is_err());

    let asked = server.asked.lock().unwrap();
    let sent: Vec<Option<&str>> = asked[1..]
        .iter()
        .map(|asked| {
            asked
                .headers
                .lines()
                .find_map(|line| line.strip_prefix("x-d1-bookmark: "))
        })
        .collect();
    assert_eq!(
        sent,
        [
            Some("first-unconstrained"),
            Some(BOOKMARK),
            Some("first-primary"),
            None
        ]
    );
}

#[tokio::test]
async fn database_that_does_not_exist_is_not_opened() {
    let shop = database("shop");
    let missing = r#"{"result":null,"errors":[{"code":7404,"message":"not found"}]}"#;
    let server = Scripted::start(&[(200, &shop), (404, missing)]).await;
    let mut console = server.console(Form::Tables);
    said(&mut console, ".open shop").await.unwrap();
    assert!(said(&mut console, ".open shed").await.is_err());
    assert_eq!(console.prompt(), "shop> ");
    assert!(
        server.asked.lock().unwrap()[1]
            .line
            .starts_with("GET /client/v4/")
    );
}

#[tokio::test]
async fn file_is_one_request() {
    let shop = database("shop");
    let server = Scripted::start(&[(200, &shop), (200, TWO_RESULTS)]).await;
    let mut console = server.console(Form::Tables);
    said(&mut console, ".open shop").await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "SELECT 1;\nDELETE FROM t;\n").unwrap();
    said(&mut console, &format!(".read {}", file.path().display()))
        .await
        .unwrap();
    assert_eq!(
        server.bodies()[1],
        r#"{"sql":"SELECT 1;\nDELETE FROM t;\n"}"#
    );
    let error = said(&mut console, ".read /nowhere/at/all.sql")
        .await
        .unwrap_err();
    assert!(
        format!("{error:#}").contains("'/nowhere/at/all.sql'"),
        "{error:#}"
    );
}

#[tokio::test]
async fn without_a_database_sql_is_refused_with_the_way_out() {
    let server = Scripted::start(&[]).await;
    let error = said(&mut server.console(Form::Tables), "SELECT 1")
        .await
        .unwrap_err();
    assert!(error.to_string().contains(".open NAME"), "{error:#}");
}
