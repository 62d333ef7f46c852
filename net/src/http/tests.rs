//! The client on connections in memory.

use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::Connecting;

const OPTIONS: HttpOptions = HttpOptions {
    connect_wait: Duration::from_millis(50),
    idle_max: Duration::from_secs(30),
    idle_count_max: 1,
};
const WITHIN: Duration = Duration::from_secs(5);

/// A server at the other end of each connection that answers every request with these bytes, and counts connections.
struct Server {
    answer: &'static str,
    connections: AtomicUsize,
}

impl Connector for Server {
    fn connect<'a>(&'a self, to: &'a Address) -> Connecting<'a> {
        Box::pin(async move {
            match &*to.host {
                "nobody" => return Err(io::ErrorKind::ConnectionRefused.into()),
                "nowhere" => std::future::pending().await,
                _ => {}
            }
            self.connections.fetch_add(1, Ordering::Relaxed);
            let (here, there) = duplex(4096);
            tokio::spawn(serve(there, self.answer));
            Ok(Box::new(here) as Box<dyn Io>)
        })
    }
}

async fn serve(mut stream: DuplexStream, answer: &'static str) {
    let mut request = Vec::new();
    while stream
        .read_buf(&mut request)
        .await
        .is_ok_and(|read| read > 0)
    {
        if request.ends_with(b"?") {
            request.clear();
            if answer.is_empty() {
                std::future::pending::<()>().await;
            }
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    }
}

async fn ask(server: &Arc<Server>, host: &str) -> Result<Bytes, HttpError> {
    let connector = Arc::clone(server) as Arc<dyn Connector>;
    let client = HttpClient::new(connector, OPTIONS);
    let request = || {
        let request = Request::post(format!("http://{host}/path"));
        let body = Full::new(Bytes::from_static(b"really?"));
        request.body(body).expect("a request")
    };
    let first = client.exchange(request(), WITHIN, 4).await?;
    let second = client.exchange(request(), WITHIN, 4).await?;
    assert_eq!(first.body(), second.body());
    Ok(second.into_body())
}

fn server(answer: &'static str) -> Arc<Server> {
    let connections = AtomicUsize::new(0);
    Arc::new(Server {
        answer,
        connections,
    })
}

#[tokio::test(start_paused = true)]
async fn answers_come_on_one_kept_connection() {
    let server = server("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes");
    let answer = ask(&server, "here").await;
    assert_eq!(answer.expect("an answer"), "yes");
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
}

/// What is told apart decides whether a request may have been executed.
#[tokio::test(start_paused = true)]
async fn failures_say_how_far_the_request_came() {
    let long = server("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nmaybe");
    let error = ask(&long, "here").await.expect_err("too long");
    assert!(matches!(error, HttpError::TooLong { max: 4 }), "{error:?}");

    let error = ask(&long, "nobody").await.expect_err("refused");
    assert!(error.is_connect(), "{error:?}");
    assert_eq!(error.io_kind(), Some(io::ErrorKind::ConnectionRefused));

    let error = ask(&long, "nowhere").await.expect_err("no connection");
    assert!(error.is_connect(), "{error:?}");
    assert_eq!(error.io_kind(), Some(io::ErrorKind::TimedOut));

    let silent = server("");
    let error = ask(&silent, "here").await.expect_err("silence");
    assert!(matches!(error, HttpError::Late { .. }), "{error:?}");

    let strange = server("hello\r\n\r\n");
    let error = ask(&strange, "here").await.expect_err("no HTTP");
    assert!(matches!(error, HttpError::Broken(_)), "{error:?}");
}
