//! The visitor's session, kept between requests in a cookie.
//!
//! A session's whole state is one bookmark, so the shop keeps nothing in memory: any instance, in any region,
//! goes on where another left off.
//!
//! ```text
//! POST /orders at WEUR  ─ writes at the primary ─▶  Set-Cookie: bookmark=…41…
//! GET  /orders at APAC,   Cookie: bookmark=…41… ─▶  APAC's copy answers once it holds write 41
//! ```
//!
//! A trap: a browser that asks for two pages at once may keep the cookie of whichever answer comes last, which
//! can be the older one. What was read from it is still true, only not the newest. A shop in which a page makes
//! many requests at once keeps the bookmark in the page instead, and there the greater one, by text.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use tidemark_client::{Session, SessionStart};
use uuid::Uuid;

use crate::Shop;

/// Cookie with the newest state that the visitor has seen.
pub(crate) const BOOKMARK: &str = "bookmark";
/// Cookie that says who the visitor is. A real shop has people sign in.
const CUSTOMER: &str = "customer";

/// Who asks, and what they have seen.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    pub(crate) customer: String,
    pub(crate) session: Session,
}

/// Opens the session of the request's bookmark, and sends the bookmark it has in the end with the response.
pub(crate) async fn carry_bookmark(
    State(shop): State<Shop>,
    mut jar: CookieJar,
    mut request: Request,
    next: Next,
) -> Response {
    let text = |name| {
        jar.get(name)
            .map(|cookie: &Cookie| cookie.value().to_owned())
    };
    let (seen, known) = (text(BOOKMARK), text(CUSTOMER));
    let start = seen
        .clone()
        .map_or(SessionStart::Unconstrained, SessionStart::Bookmark);
    let visit = Visit {
        customer: known.unwrap_or_else(|| Uuid::new_v4().to_string()),
        session: shop.database.session(start),
    };
    jar = jar.add(lasting(CUSTOMER, visit.customer.clone()));
    request.extensions_mut().insert(visit.clone());

    let response = next.run(request).await;

    if response.extensions().get::<Forget>().is_some() {
        jar = jar.remove(Cookie::build(BOOKMARK).path("/"));
    } else if let Some(bookmark) = visit.session.bookmark()
        && seen.as_ref() != Some(&bookmark)
    {
        jar = jar.add(lasting(BOOKMARK, bookmark));
    }
    (jar, response).into_response()
}

/// In a response: the visitor's bookmark is of no use any more.
#[derive(Clone, Debug)]
pub(crate) struct Forget;

/// A cookie that no script reads and that comes with no form of another site. Behind HTTPS add `secure(true)`.
fn lasting(name: &'static str, value: String) -> Cookie<'static> {
    Cookie::build((name, value))
        .path("/")
        .http_only(true)
        .same_site(SameSite::Lax)
        .permanent()
        .build()
}
