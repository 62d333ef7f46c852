//! Voters' appends over a WebSocket: `GET /tidemark/v1/raft/append`, with the headers of any voters' message.
//!
//! Binary messages both ways, as in the bodies of single requests; the n-th answer is to the n-th request. So a frame of
//! another kind, which neither side sends, ends the connection: it may be a message whose kind was damaged. The
//! leader opens one per follower when it has something to send, keeps it, and opens another when it ends. The
//! follower closes it after a minute without a message, which costs the leader one handshake.

use std::pin::pin;
use std::time::Duration;

use axum::extract::ws::{self, WebSocket};
use axum::http::HeaderMap;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use tidemark_net::{Address, Connector, Io};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::consensus::{AnswerError, Channel, Consensus, IN_FLIGHT_COUNT_MAX};
use crate::peer_http::chain;
use crate::transport::ANSWER_BYTES_MAX;

/// Where voters append.
pub(crate) const APPEND_PATH: &str = "/tidemark/v1/raft/append";
/// Time without a message after which a connection is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Time for an answer to leave.
const SEND_WAIT: Duration = Duration::from_secs(10);
/// Messages read ahead of consensus, which itself takes up to 64. The leader bounds their bytes.
const READ_AHEAD: usize = 4;

/// Opens a connection to the voter at this base URL. The caller bounds the time.
pub(crate) async fn open(
    connector: &dyn Connector,
    base: &str,
    headers: HeaderMap,
) -> Result<Channel, String> {
    let described = |error: &dyn std::error::Error| chain(error);
    let authority = base
        .strip_prefix("http://")
        .ok_or_else(|| format!("'{base}' is not an http URL"))?;
    let url = format!("ws://{authority}{APPEND_PATH}");
    let mut request = url.into_client_request().map_err(|e| described(&e))?;
    let address = Address::of(request.uri()).map_err(|e| described(&e))?;
    request.headers_mut().extend(headers);
    let stream = connector.connect(&address).await;
    let stream = stream.map_err(|e| described(&e))?;
    let limits = WebSocketConfig::default()
        .max_message_size(Some(ANSWER_BYTES_MAX))
        .max_frame_size(Some(ANSWER_BYTES_MAX));
    let shaken = tokio_tungstenite::client_async_with_config(request, stream, Some(limits)).await;
    let (socket, _response) = shaken.map_err(|e| described(&e))?;

    let (requests, outgoing) = mpsc::channel(IN_FLIGHT_COUNT_MAX);
    let (incoming, answers) = mpsc::channel(IN_FLIGHT_COUNT_MAX);
    tokio::spawn(carry(socket, outgoing, incoming));
    Ok(Channel { requests, answers })
}

/// Carries messages until the channel is dropped or the connection ends.
async fn carry(
    socket: WebSocketStream<Box<dyn Io>>,
    mut outgoing: mpsc::Receiver<Bytes>,
    incoming: mpsc::Sender<Bytes>,
) {
    let (mut sink, mut source) = socket.split();
    let write = async {
        while let Some(message) = outgoing.recv().await {
            sink.send(Message::Binary(message)).await?;
        }
        sink.close().await
    };
    let read = async {
        while let Some(message) = source.next().await {
            match message? {
                Message::Binary(answer) => {
                    if incoming.send(answer).await.is_err() {
                        break;
                    }
                }
                Message::Close(_) => break,
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                    tracing::warn!("a voter answered appends with a frame that is no answer");
                    break;
                }
            }
        }
        Ok::<_, tungstenite::Error>(())
    };
    let ended = tokio::select! {
        ended = write => ended,
        ended = read => ended,
        // Whoever waited has given up; what is being written need not arrive.
        () = incoming.closed() => Ok(()),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection for appends ended");
    }
}

/// Answers a leader's appends until it leaves or one cannot be appended.
pub(crate) async fn serve(consensus: Consensus, socket: WebSocket) {
    let (mut sink, mut source) = socket.split();
    let (requests, incoming) = mpsc::channel(READ_AHEAD);
    let incoming = stream::unfold(incoming, |mut incoming| async move {
        let message: Bytes = incoming.recv().await?;
        Some((message, incoming))
    });
    let mut answers = pin!(consensus.answer_appends(incoming));
    let read = async {
        loop {
            let message = match timeout(IDLE_MAX, source.next()).await {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(_)) | None) | Err(_) => break,
            };
            match message {
                ws::Message::Binary(request) => {
                    if requests.send(request).await.is_err() {
                        break;
                    }
                }
                ws::Message::Close(_) => break,
                ws::Message::Text(_) | ws::Message::Ping(_) | ws::Message::Pong(_) => {
                    tracing::warn!("a voter sent a frame among its appends that is none");
                    break;
                }
            }
        }
    };
    let write = async {
        while let Some(answer) = answers.next().await {
            let answer = match answer {
                Ok(answer) => answer,
                Err(error @ AnswerError::Message(_)) => {
                    let error = chain(&error);
                    tracing::warn!(error, "a voter sent a message that is not understood");
                    break;
                }
                Err(AnswerError::Stopped | AnswerError::Promised) => break,
            };
            let sent = timeout(SEND_WAIT, sink.send(ws::Message::Binary(answer)));
            if !matches!(sent.await, Ok(Ok(()))) {
                break;
            }
        }
        // Said, if there is still somebody to hear it.
        let _ = timeout(SEND_WAIT, sink.close()).await;
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}
