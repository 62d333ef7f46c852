//! `GET` under a link: the file that an export made.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::Response;
use bytes::Bytes;
use futures_util::TryStreamExt;
use tidemark_protocol::{Failure, FailureKind, Node};
use tokio::fs::File;
use tokio::time::Instant;
use tokio_util::io::ReaderStream;

use super::shelf::Download;
use super::spool::Spooled;
use super::upload::{SecretPath, nowhere, parsed, unknown_link};
use crate::ask::Ask;
use crate::forward::{Effect, Outgoing};
use crate::gateway::Gateway;
use crate::metrics::Route;

/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 256 << 10;

pub(crate) async fn download<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    secret: SecretPath,
    request: Request,
) -> Response {
    let (head, _) = request.into_parts();
    let work = async {
        let Some(secret) = parsed(secret) else {
            return Ok(unknown_link());
        };
        let ask = Ask::read(&head.headers)?;
        let now = Instant::now();
        let download = gateway.transfers.state().shelf.download(secret, now);
        if let Some(download) = download {
            return sent(download).await;
        }
        let node = &*gateway.node;
        if ask.forwarded || node.upstream().is_none() {
            return nowhere(node);
        }
        let outgoing = Outgoing {
            head: &head,
            body: Bytes::new(),
            effect: Effect::Looks,
            name: ask.request,
        };
        let passed = gateway.forwarder.forward(node, outgoing, &ask).await?;
        passed.last_word(node)
    };
    gateway.answer_link(Route::Download, &head, work).await
}

async fn sent(download: Download<Arc<Spooled>>) -> Result<Response, Failure> {
    let Download { file, name, .. } = download;
    let opened = File::open(file.path()).await.map_err(|error| {
        let text = format!("this node cannot read the file: {error}");
        Failure::new(FailureKind::Internal, text)
    })?;
    let bytes = file.bytes();
    // It counts as long as somebody fetches it.
    let held = ReaderStream::with_capacity(opened, CHUNK_BYTES).inspect_ok(move |_| {
        let _ = &file;
    });
    let mut response = Response::new(Body::from_stream(held));
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/sql"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    let disposition = format!("attachment; filename=\"{name}\"");
    let disposition = HeaderValue::try_from(disposition).expect("hex digits, dots and dashes");
    headers.insert(CONTENT_DISPOSITION, disposition);
    Ok(response)
}
