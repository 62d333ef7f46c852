//! What a customer is told when there is no answer.
//!
//! Three outcomes, never mixed: it happened, nothing happened, nobody knows yet.

use axum::Extension;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::html;
use tidemark_client::{Error, FailureKind};
use uuid::Uuid;

use crate::page;
use crate::visit::Forget;

/// Why there is no page.
#[derive(Debug)]
pub(crate) enum Problem {
    EmptyCart,
    OutOfStock,
    NoOrder,
    /// Contact was lost after the order had been sent.
    OrderUnknown(Uuid),
    Database(Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        match self {
            Self::EmptyCart => said(
                StatusCode::CONFLICT,
                "Your cart is empty",
                "So nothing was ordered.",
            ),
            Self::OutOfStock => said(
                StatusCode::CONFLICT,
                "Somebody was faster",
                "Less is left than your cart holds. Nothing was ordered, and your cart is as it was.",
            ),
            Self::NoOrder => said(
                StatusCode::NOT_FOUND,
                "No such order",
                "You have no order of this number.",
            ),
            Self::OrderUnknown(order) => {
                let page = page::message(
                    "We do not know yet whether you have ordered",
                    &html! {
                        p { "The connection was lost after your order had been sent. It may have been placed." }
                        p { "Asking is safe: the order has a number, and a number counts once." }
                        form method="post" action="/orders" {
                            input type="hidden" name="order" value=(order);
                            button { "Ask again, and order if it was not" }
                        }
                        form method="get" action={ "/orders/" (order) } {
                            button .quiet { "Only look" }
                        }
                    },
                );
                (StatusCode::GATEWAY_TIMEOUT, page).into_response()
            }
            Self::Database(error) => from_database(&error),
        }
    }
}

fn from_database(error: &Error) -> Response {
    let kind = error.kind();
    // The cookie was tampered with, or the database was restored to a time before it: start afresh.
    if matches!(
        kind,
        Some(FailureKind::BadBookmark | FailureKind::LostBookmark)
    ) {
        let page = said(
            StatusCode::CONFLICT,
            "Your session is over",
            "Nothing happened. Load the page again to go on.",
        );
        return (Extension(Forget), page).into_response();
    }
    if error.may_have_happened() {
        return said(
            StatusCode::GATEWAY_TIMEOUT,
            "We do not know whether that worked",
            &format!("Look before you try again: {error}."),
        );
    }
    if matches!(kind, Some(FailureKind::Sql | FailureKind::BadRequest)) {
        return said(
            StatusCode::BAD_REQUEST,
            "That cannot be",
            &format!("Nothing happened: {error}."),
        );
    }
    said(
        StatusCode::SERVICE_UNAVAILABLE,
        "Not now",
        &format!("Nothing happened, so try again later: {error}."),
    )
}

fn said(status: StatusCode, title: &str, text: &str) -> Response {
    let page = page::message(title, &html! { p { (text) } });
    (status, page).into_response()
}
