//! The console: a page for people, served by every node at `/`, with all that it needs.
//!
//! Its files are what `gateway/console` builds, compiled into the program: a node needs no directory beside it.
//! There are few and their names are known, so `include_bytes!` does what a crate for embedding folders would.
//!
//! Invariants:
//! - The files are the same for everybody and hold no secret, so they need no token. Whatever the page shows it
//!   asks the API for, with the token of whoever sits before it.
//! - The policy of the page lets it load and ask nothing but what this node serves, and nobody frame it.

use axum::body::Body;
use axum::extract::{Path, rejection::PathRejection};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

const CROSS_ORIGIN_OPENER_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-opener-policy");
/// The page and all it loads come from this node; there are no inline scripts or styles.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; \
                      img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";
/// The page itself.
const PAGE: &str = "index.html";

/// A file of the console.
struct Asset {
    name: &'static str,
    media_type: &'static str,
    content: &'static [u8],
}

macro_rules! assets {
    ($($name:literal: $media_type:literal),* $(,)?) => {
        &[$(Asset {
            name: $name,
            media_type: $media_type,
            content: include_bytes!(concat!("../console/dist/", $name)),
        }),*]
    };
}

const ASSETS: &[Asset] = assets! {
    "index.html": "text/html; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "console.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "sans-400.woff2": "font/woff2",
    "sans-600.woff2": "font/woff2",
    "mono-400.woff2": "font/woff2",
    "licences.txt": "text/plain; charset=utf-8",
};

/// The page.
pub(crate) async fn page(headers: HeaderMap) -> Response {
    answer(PAGE, &headers)
}

/// What the page loads.
pub(crate) async fn asset(
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    match path {
        Ok(Path(name)) => answer(&name, &headers),
        Err(rejection) => rejection.into_response(),
    }
}

fn answer(name: &str, headers: &HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return (StatusCode::NOT_FOUND, "the console has no such file").into_response();
    };
    let tag = tag(asset.content);
    let known = headers.get_all(IF_NONE_MATCH).iter();
    let known = known.filter_map(|value| value.to_str().ok());
    let mut known = known.flat_map(|value| value.split(','));
    let is_known = known.any(|known| known.trim().trim_start_matches("W/") == tag);
    let common = [
        // Asked for each time, sent only when it changed: a node that was upgraded shows its own page at once.
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (CROSS_ORIGIN_OPENER_POLICY, "same-origin"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CONTENT_TYPE, asset.media_type),
    ];
    let (status, body) = if is_known {
        (StatusCode::NOT_MODIFIED, Body::empty())
    } else {
        let content = Bytes::from_static(asset.content);
        (StatusCode::OK, Body::from(content))
    };
    (status, common, [(ETAG, tag)], body).into_response()
}

/// Tells one content from another: FNV-1a, 64 bits. Nobody but this build chooses what is hashed.
fn tag(content: &[u8]) -> String {
    let hash = content
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("\"{hash:016x}\"")
}
