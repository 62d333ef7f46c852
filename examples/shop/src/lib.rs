//! A small shop on Tidemark.
//!
//! Every region has an instance of it beside its node. Pages are read from that node's copy, orders are
//! written at the primary wherever that is, and a customer who has ordered sees the order at whichever
//! instance is asked next, because the session's bookmark travels in a cookie.
//!
//! To be read in this order:
//!
//! 1. `visit`: the cookie. A middleware of thirty lines is all that a web framework needs.
//! 2. `store`: the SQL. An order is one transaction, counts once, and never sells what is not there.
//! 3. This file: the routes. They know neither of bookmarks nor of replicas.
//! 4. `problem`: what a customer is told when something fails, or when nobody knows whether it did.

mod page;
mod problem;
mod store;
mod visit;

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Redirect};
use axum::routing::{get, post};
use axum::{Extension, Form, Router, middleware};
use maud::Markup;
use serde::Deserialize;
use tidemark_client::{Client, Database, Error};
use uuid::Uuid;

use crate::problem::Problem;
use crate::store::OrderError;
use crate::visit::Visit;

/// An instance of the shop.
#[derive(Clone, Debug)]
pub struct Shop {
    database: Database,
}

impl Shop {
    /// Opens the shop whose database has this name. Makes it, with its goods, if it is not there.
    pub async fn open(client: &Client, database: &str) -> Result<Self, Error> {
        store::prepare(client, database).await?;
        Ok(Self {
            database: client.database(database),
        })
    }

    /// Its pages.
    pub fn router(self) -> Router {
        Router::new()
            .route("/", get(products))
            .route("/cart", get(cart).post(put_in_cart))
            .route("/cart/remove", post(remove_from_cart))
            .route("/orders", get(orders).post(place_order))
            .route("/orders/{order}", get(order))
            .layer(middleware::from_fn_with_state(self, visit::carry_bookmark))
            .route("/style.css", get(style))
    }
}

async fn products(Extension(visit): Extension<Visit>) -> Result<Markup, Problem> {
    Ok(page::products(&store::products(&visit).await?))
}

async fn cart(Extension(visit): Extension<Visit>) -> Result<Markup, Problem> {
    // The order's id is made when the form is shown, not when it is sent: sent twice, it is one order.
    let order = Uuid::new_v4();
    Ok(page::cart(&store::cart(&visit).await?, order))
}

#[derive(Deserialize)]
struct CartForm {
    product: i64,
    #[serde(default)]
    quantity: u16,
}

async fn put_in_cart(
    Extension(visit): Extension<Visit>,
    Form(form): Form<CartForm>,
) -> Result<Redirect, Problem> {
    store::put_in_cart(&visit, form.product, form.quantity).await?;
    Ok(Redirect::to("/cart"))
}

async fn remove_from_cart(
    Extension(visit): Extension<Visit>,
    Form(form): Form<CartForm>,
) -> Result<Redirect, Problem> {
    store::remove_from_cart(&visit, form.product).await?;
    Ok(Redirect::to("/cart"))
}

#[derive(Deserialize)]
struct OrderForm {
    order: Uuid,
}

async fn place_order(
    Extension(visit): Extension<Visit>,
    Form(OrderForm { order }): Form<OrderForm>,
) -> Result<Redirect, Problem> {
    match store::place_order(&visit, order).await {
        Ok(()) => {}
        // Sent again when the primary no longer remembers the first time, which emptied the cart.
        Err(OrderError::EmptyCart | OrderError::Placed)
            if store::is_placed(&visit, order).await? => {}
        // The number of somebody else's order. Nobody gets one but by making it up.
        Err(OrderError::Placed) => return Err(Problem::NoOrder),
        Err(OrderError::EmptyCart) => return Err(Problem::EmptyCart),
        Err(OrderError::OutOfStock) => return Err(Problem::OutOfStock),
        Err(OrderError::Database(Error::Unknown { .. })) => {
            return Err(Problem::OrderUnknown(order));
        }
        Err(OrderError::Database(error)) => return Err(Problem::Database(error)),
    }
    Ok(Redirect::to(&format!("/orders/{order}")))
}

async fn orders(Extension(visit): Extension<Visit>) -> Result<Markup, Problem> {
    Ok(page::orders(&store::orders(&visit).await?))
}

async fn order(
    Extension(visit): Extension<Visit>,
    Path(order): Path<Uuid>,
) -> Result<Markup, Problem> {
    let lines = store::order_lines(&visit, order).await?;
    if lines.rows.is_empty() {
        return Err(Problem::NoOrder);
    }
    Ok(page::order(order, &lines))
}

async fn style() -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "text/css; charset=utf-8")];
    (kind, include_str!("style.css"))
}
