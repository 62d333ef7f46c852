//! The limiter before the routes of an axum router.

use axum::extract::{Request, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::{Limiter, Verdict};

/// Header with a caller's key.
pub const API_KEY: &str = "x-api-key";
/// Header that says how many more requests would be served now.
pub const LEFT: &str = "x-ratelimit-remaining";

/// Serves what the limiter lets in, and tells the others when to come back.
///
/// ```no_run
/// # use axum::{Router, middleware, routing::get};
/// # fn example(limiter: rate_limiter::Limiter) -> Router {
/// Router::new()
///     .route("/", get(async || "served"))
///     .layer(middleware::from_fn_with_state(limiter, rate_limiter::limit))
/// # }
/// ```
///
/// Where there is no verdict in time it serves nothing: a limit that an outage lifts is none. Whoever would rather
/// serve too much than too little turns that arm around.
pub async fn limit(State(limiter): State<Limiter>, request: Request, next: Next) -> Response {
    let key = request.headers().get(API_KEY);
    let Some(key) = key.and_then(|key| key.to_str().ok()) else {
        return (StatusCode::UNAUTHORIZED, "who asks?").into_response();
    };
    match limiter.take(key).await {
        Ok(Verdict::Admitted { left, .. }) => {
            let mut response = next.run(request).await;
            response.headers_mut().insert(LEFT, HeaderValue::from(left));
            response
        }
        Ok(Verdict::Refused { retry_after }) => {
            // Whole seconds are all that the header knows. Rounded up: earlier would be in vain.
            let seconds = retry_after.as_millis().div_ceil(1000).max(1);
            let headers = [(RETRY_AFTER, seconds.to_string())];
            (StatusCode::TOO_MANY_REQUESTS, headers, "too many requests").into_response()
        }
        Err(error) => {
            let text = format!("no verdict: {error}");
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}
