//! One HTTP connection, and no other: what a client sees that keeps to it.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use reqwest::Method;
use tokio::net::TcpStream;

use crate::api::Reply;

/// A connection to a node. Sending over one that was lost is an error, never a new connection.
#[derive(Debug)]
pub struct Line {
    sender: SendRequest<Full<Bytes>>,
}

impl Line {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends when the sender is dropped or the peer closes; the sender then says so.
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Sends a JSON body and waits for the answer.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Reply> {
        self.sender.ready().await?;
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self
            .sender
            .send_request(request.body(Full::new(body.into()))?)
            .await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Reply::new(
            status.as_u16(),
            headers,
            String::from_utf8_lossy(&body).into_owned(),
        ))
    }
}
