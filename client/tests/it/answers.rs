//! At stake: what is asked arrives as meant, and answers are read as they are.

use std::time::Duration;

use serde::Deserialize;
use tidemark_client::{Error, Meta, OnMiss, RequestId, Value};

use crate::scripted::{Act, Scripted};

const BOOKMARK: &str = "00000001-00000000-00000001-000000000000000000000000deadbeef";

#[tokio::test]
async fn request_carries_token_path_values_and_options() {
    let server = Scripted::start([Act::rows(BOOKMARK, &[], &[])]).await;
    let request: RequestId = "6ba7b810-9dad-41d1-80b4-00c04fd430c8".parse().unwrap();
    server
        .client()
        .database("shop")
        .prepare("INSERT INTO t VALUES (?,?,?,?,?,?)")
        .bind(i64::MAX)
        .bind(2.0)
        .bind("three")
        .bind(vec![4_u8, 4])
        .bind(None::<i64>)
        .bind(true)
        .deadline(Duration::from_secs(2))
        .on_miss(OnMiss::Error)
        .request_id(request)
        .run()
        .await
        .unwrap();

    let asked = &server.asked()[0];
    assert_eq!(asked.method, "POST");
    assert_eq!(
        asked.uri.path(),
        "/client/v4/accounts/tidemark/d1/database/shop/raw"
    );
    assert_eq!(asked.header("authorization"), Some("Bearer secret"));
    assert_eq!(asked.header("content-type"), Some("application/json"));
    assert_eq!(asked.header("tidemark-values"), Some("exact"));
    assert_eq!(asked.header("tidemark-on-miss"), Some("error"));
    assert_eq!(
        asked.header("tidemark-request-id"),
        Some(request.to_string().as_str())
    );
    // The server hears of a little less than 2 s, so that its verdict is back in time.
    let told = asked
        .header("tidemark-deadline")
        .unwrap()
        .strip_suffix("ms")
        .unwrap();
    let told: u64 = told.parse().unwrap();
    assert!((1000..2000).contains(&told), "told {told} ms");
    assert_eq!(
        asked.body,
        r#"{"sql":"INSERT INTO t VALUES (?,?,?,?,?,?)","params":[9223372036854775807,2.0,"three",{"base64":"BAQ="},null,1]}"#
    );
}

#[tokio::test]
async fn rows_come_typed_with_the_servers_account() {
    #[derive(Deserialize, PartialEq, Debug)]
    struct Song {
        title: String,
        plays: i64,
        cover: Option<Vec<u8>>,
    }

    let rows = [
        r#"["Feeling Good",9007199254740993,{"base64":"AP8="}]"#,
        r#"["Sinnerman",1,null]"#,
    ];
    let server = Scripted::start([Act::rows(BOOKMARK, &["title", "plays", "cover"], &rows)]).await;
    let result = server
        .client()
        .database("s")
        .prepare("SELECT")
        .all::<Song>()
        .await
        .unwrap();

    assert_eq!(
        result.rows,
        [
            Song {
                title: "Feeling Good".to_owned(),
                plays: 9_007_199_254_740_993,
                cover: Some(vec![0, 255])
            },
            Song {
                title: "Sinnerman".to_owned(),
                plays: 1,
                cover: None
            },
        ]
    );
    assert_eq!(result.bookmark.as_deref(), Some(BOOKMARK));
    assert_eq!(result.meta.duration, Duration::from_micros(1500));
    assert_eq!(result.meta.served_by_region.as_deref(), Some("WEUR"));
    assert!(result.meta.served_by_primary && result.meta.changed_db);
    assert_eq!((result.meta.rows_read, result.meta.rows_written), (2, 1));
    assert_eq!((result.meta.changes, result.meta.last_row_id), (1, 7));
}

#[tokio::test]
async fn first_takes_the_first_row_or_none() {
    let script = [
        Act::rows(BOOKMARK, &["a", "b"], &[r#"[1,"x"]"#, r#"[2,"y"]"#]),
        Act::rows(BOOKMARK, &["a"], &[]),
        Act::rows(BOOKMARK, &["a", "b"], &[r#"[1,"x"]"#]),
        Act::rows(BOOKMARK, &["a"], &["[1]"]),
    ];
    let server = Scripted::start(script).await;
    let database = server.client().database("s");
    let query = database.prepare("SELECT");
    assert_eq!(
        query.clone().first::<(i64, String)>().await.unwrap(),
        Some((1, "x".to_owned()))
    );
    assert_eq!(query.clone().first::<i64>().await.unwrap(), None);
    assert_eq!(
        query.clone().first_column::<String>("b").await.unwrap(),
        Some("x".to_owned())
    );
    let error = query.first_column::<String>("b").await.unwrap_err();
    assert!(matches!(error, Error::Decode { .. }), "{error:?}");
}

#[tokio::test]
async fn raw_keeps_columns_of_equal_name() {
    let server = Scripted::start([Act::rows(BOOKMARK, &["id", "id"], &["[1,2.0]"])]).await;
    let raw = server
        .client()
        .database("s")
        .prepare("SELECT")
        .raw()
        .await
        .unwrap();
    assert_eq!(raw.columns, ["id", "id"]);
    assert_eq!(raw.rows, [[Value::Integer(1), Value::Real(2.0)]]);
}

#[tokio::test]
async fn batch_goes_as_one_request_and_answers_in_order() {
    let element = |n: i64| {
        format!(r#"{{"results":{{"columns":["n"],"rows":[[{n}]]}},"success":true,"meta":{{}}}}"#)
    };
    let body = format!(
        r#"{{"result":[{},{}],"success":true,"errors":[],"messages":[]}}"#,
        element(1),
        element(2)
    );
    let act = Act::foreign(200, &body)
        .with("x-d1-bookmark", BOOKMARK)
        .with("tidemark-repeated", "true")
        .with("tidemark-served-by", "EEUR/replica/00000000000000ff");
    let server = Scripted::start([act]).await;
    let database = server.client().database("s");
    let statements = [
        database.prepare("SELECT ?").bind(1),
        database.prepare("SELECT 2"),
    ];
    let answers = database.batch(statements).await.unwrap();

    assert_eq!(
        server.asked()[0].body,
        r#"{"batch":[{"sql":"SELECT ?","params":[1]},{"sql":"SELECT 2"}]}"#
    );
    let numbers: Vec<Vec<i64>> = answers
        .results
        .into_iter()
        .map(|raw| raw.typed().unwrap().rows)
        .collect();
    assert_eq!(numbers, [[1], [2]]);
    assert!(answers.repeated);
    let served_by = answers.served_by.unwrap();
    assert_eq!(
        (served_by.region.as_str(), served_by.role.as_str()),
        ("EEUR", "replica")
    );
}

/// What a node still knows of a request whose answer was too long to keep.
fn forgotten() -> Act {
    Act::foreign(
        200,
        r#"{"result":[],"success":true,"errors":[],"messages":[]}"#,
    )
    .with("x-d1-bookmark", BOOKMARK)
    .with("tidemark-repeated", "true")
}

#[tokio::test]
async fn repeated_success_without_its_answer_is_a_success_where_no_rows_were_wanted() {
    let server = Scripted::start([forgotten(), forgotten(), forgotten()]).await;
    let database = server.client().database("s");
    let outcome = database.prepare("INSERT").run().await.unwrap();
    assert_eq!(outcome.meta, Meta::default());
    assert_eq!(outcome.bookmark.as_deref(), Some(BOOKMARK));
    let batch = database.batch([database.prepare("INSERT"), database.prepare("INSERT")]);
    for answers in [database.exec("INSERT").await, batch.await] {
        let answers = answers.unwrap();
        assert!(answers.repeated && answers.results.is_empty());
        assert_eq!(answers.bookmark.as_deref(), Some(BOOKMARK));
    }
}

#[tokio::test]
async fn repeated_success_without_its_answer_says_so_where_rows_were_wanted() {
    let server = Scripted::start([forgotten(), forgotten(), forgotten(), forgotten()]).await;
    let request: RequestId = "6ba7b810-9dad-41d1-80b4-00c04fd430c8".parse().unwrap();
    let query = server
        .client()
        .database("s")
        .prepare("INSERT")
        .request_id(request);
    let errors = [
        query.clone().all::<i64>().await.unwrap_err(),
        query.clone().first::<i64>().await.unwrap_err(),
        query.clone().first_column::<i64>("n").await.unwrap_err(),
        query.raw().await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, Error::Decode { .. }), "{error:?}");
        assert!(error.may_have_happened());
        let text = error.to_string();
        for part in [&request.to_string(), "took effect", BOOKMARK, "not kept"] {
            assert!(text.contains(part), "'{part}' is not in: {text}");
        }
    }
    assert_eq!(
        server.asked().len(),
        4,
        "nothing is to be gained by a retry"
    );
}

#[tokio::test]
async fn exec_sends_the_text_as_it_is() {
    let server = Scripted::start([Act::rows(BOOKMARK, &[], &[])]).await;
    server
        .client()
        .database("s")
        .exec("CREATE TABLE a (b); SELECT 1")
        .await
        .unwrap();
    assert_eq!(
        server.asked()[0].body,
        r#"{"sql":"CREATE TABLE a (b); SELECT 1"}"#
    );
}

#[tokio::test]
async fn answer_that_does_not_fit_is_a_decode_error_and_not_tried_again() {
    let script = [
        Act::rows(BOOKMARK, &["n"], &[r#"["text"]"#]),
        Act::rows(BOOKMARK, &["n"], &["[1,2]"]),
        Act::foreign(200, "<html>"),
        Act::rows(BOOKMARK, &["n"], &["[9223372036854775808]"]),
    ];
    let server = Scripted::start(script).await;
    let query = server.client().database("s").prepare("SELECT");
    for _ in 0..4 {
        let error = query.clone().all::<i64>().await.unwrap_err();
        assert!(matches!(error, Error::Decode { .. }), "{error:?}");
    }
    assert_eq!(server.asked().len(), 4);
}

#[tokio::test]
async fn answer_over_the_limit_is_refused() {
    let long = format!("[\"{}\"]", "x".repeat(5000));
    let server = Scripted::start([Act::rows(BOOKMARK, &["t"], &[&long])]).await;
    let client = crate::scripted::quick(tidemark_client::Client::builder(server.url()))
        .answer_bytes_max(4000)
        .build()
        .unwrap();
    let error = client
        .database("s")
        .prepare("SELECT")
        .run()
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Decode { .. }), "{error:?}");
}

#[tokio::test]
async fn read_contract_is_asked_for_and_what_was_delivered_is_told() {
    let forwarded = "waited-ms=8, staleness-ms=0, forwarded=behind";
    let script = [
        Act::rows(BOOKMARK, &[], &[]).with("tidemark-delivered", "waited-ms=3, staleness-ms=120"),
        Act::rows(BOOKMARK, &[], &[]).with("tidemark-delivered", forwarded),
        Act::rows(BOOKMARK, &[], &[]),
        Act::rows(BOOKMARK, &[], &[]),
        Act::rows(BOOKMARK, &[], &[]),
    ];
    let server = Scripted::start(script).await;
    let database = server.client().database("shop");

    let select = || [database.prepare("SELECT 1")];
    let bounded = database.batch(select());
    let bounded = bounded.max_staleness(Duration::from_millis(500));
    let delivered = bounded.await.unwrap().delivered;
    assert_eq!(delivered.waited, Duration::from_millis(3));
    assert_eq!(delivered.staleness, Some(Duration::from_millis(120)));
    assert_eq!(delivered.forwarded, None);

    let newest = database.batch(select()).linearizable();
    let delivered = newest.await.unwrap().delivered;
    assert_eq!(delivered.waited, Duration::from_millis(8));
    assert_eq!(delivered.staleness, Some(Duration::ZERO));
    assert_eq!(delivered.forwarded.map(|why| why.name()), Some("behind"));

    let plain = database.batch(select()).await.unwrap();
    assert_eq!(plain.delivered.staleness, None);
    let query = || database.prepare("SELECT 1");
    let bounded = query().max_staleness(Duration::from_micros(1500));
    bounded.run().await.unwrap();
    query().linearizable().run().await.unwrap();

    let asked = server.asked();
    let sent: Vec<_> = asked.iter().map(|a| a.header("tidemark-read")).collect();
    assert_eq!(
        sent,
        [
            Some("max-staleness=500000us"),
            Some("linearizable"),
            None,
            Some("max-staleness=1500us"),
            Some("linearizable"),
        ]
    );
}
