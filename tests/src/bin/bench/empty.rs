//! The handler to compare with: parses nothing, knows nothing, returns the bytes that it was given at its start.

use std::io::Read;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::routing::post;
use tokio::net::TcpListener;

/// About as long as the answer to a point read.
pub(crate) const ANSWER: &str = concat!(
    r#"{"result":[{"results":[{"id":4242,"value":123456}],"success":true,"meta":{"served_by":"#,
    r#""tidemark","served_by_region":"ENAM","served_by_primary":true,"timings":{"sql_duration_ms":"#,
    r#"0.0123},"duration":0.0123,"changes":0,"last_row_id":0,"changed_db":false,"size_after":4096000,"#,
    r#""rows_read":1,"rows_written":0,"total_attempts":1}}],"success":true,"errors":[],"messages":[]}"#
);

/// Serves what comes on standard input on a free port of loopback, and prints the address.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let mut answer = Vec::new();
    std::io::stdin().read_to_end(&mut answer)?;
    let answer = Bytes::from(answer);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let answer = async move |_body: Bytes| ([(CONTENT_TYPE, "application/json")], answer.clone());
    axum::serve(listener, Router::new().fallback(post(answer))).await?;
    Ok(())
}
