//! Which way a request goes: past the router, or through it.
//!
//! A router looks for a path among all of them, takes the names out of it piece by piece, and boxes the answer on its way
//! back: a tenth of a point read. Nearly every request is a query, so its two paths are looked for first. What happens
//! behind them is the same; what is written in another way, with encoded names for instance, takes the router's.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::Body as HttpBody;
use tidemark_protocol::Node;
use tower::Service as _;

use crate::gateway::Gateway;
use crate::query::{self, Asked};

type Query = dyn Fn(Asked, Request) -> BoxFuture<'static, Response> + Send + Sync;

/// The routes of a node, as [`crate::serve()`] takes them.
#[derive(Clone)]
pub struct Dispatch {
    query: Arc<Query>,
    router: Router,
}

impl Dispatch {
    pub(crate) fn new<N: Node>(gateway: Arc<Gateway<N>>, router: Router) -> Self {
        let query = move |asked, request| -> BoxFuture<'static, Response> {
            let gateway = Arc::clone(&gateway);
            Box::pin(async move { query::run(&gateway, asked, request).await })
        };
        Self {
            query: Arc::new(query),
            router,
        }
    }

    /// With the routes of a router that has no fallback of its own.
    #[must_use]
    pub fn merge(self, other: Router) -> Self {
        let router = self.router.merge(other);
        Self { router, ..self }
    }

    /// Answers a request.
    pub(crate) async fn answer<B>(&mut self, request: Request<B>) -> Result<Response, Infallible>
    where
        B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Send + 'static,
    {
        match query::asked(request.method(), request.uri().path()) {
            Some(asked) => Ok((self.query)(asked, request.map(Body::new)).await),
            None => self.router.call(request).await,
        }
    }
}

impl fmt::Debug for Dispatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Dispatch").finish_non_exhaustive()
    }
}
