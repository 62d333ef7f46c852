//! The SQL of the shop.

use serde::Deserialize;
use tidemark_client::{Client, Error, FailureKind, QueryResult, RequestId};
use uuid::Uuid;

use crate::visit::Visit;

const SCHEMA: &str = include_str!("schema.sql");

/// Something for sale.
#[derive(Deserialize, Debug)]
pub(crate) struct Product {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) cents: i64,
    pub(crate) stock: i64,
}

/// So many of a product, in a cart or an order.
#[derive(Deserialize, Debug)]
pub(crate) struct Line {
    pub(crate) product: i64,
    pub(crate) name: String,
    pub(crate) quantity: i64,
    /// Of one.
    pub(crate) cents: i64,
}

/// An order in the list.
#[derive(Deserialize, Debug)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) placed: String,
    pub(crate) cents: i64,
}

/// Why there is no order.
#[derive(thiserror::Error, Debug)]
pub(crate) enum OrderError {
    #[error("less is in stock than the cart holds")]
    OutOfStock,
    #[error("the cart is empty")]
    EmptyCart,
    #[error("there is an order of this id")]
    Placed,
    #[error(transparent)]
    Database(#[from] Error),
}

/// Makes the database, its tables and its goods, each unless it is there.
pub(crate) async fn prepare(client: &Client, database: &str) -> Result<(), Error> {
    match client.create_database(database).await {
        Ok(_) => {}
        Err(Error::Failed {
            kind: FailureKind::DatabaseExists,
            ..
        }) => {}
        Err(error) => return Err(error),
    }
    client.database(database).exec(SCHEMA).await?;
    Ok(())
}

pub(crate) async fn products(visit: &Visit) -> Result<QueryResult<Product>, Error> {
    visit
        .session
        .prepare("SELECT id, name, cents, stock FROM products ORDER BY id")
        .all()
        .await
}

pub(crate) async fn cart(visit: &Visit) -> Result<QueryResult<Line>, Error> {
    visit
        .session
        .prepare(
            "SELECT product, name, quantity, cents
             FROM cart_lines JOIN products ON products.id = product
             WHERE customer = ? ORDER BY product",
        )
        .bind(&*visit.customer)
        .all()
        .await
}

pub(crate) async fn put_in_cart(visit: &Visit, product: i64, quantity: u16) -> Result<(), Error> {
    visit
        .session
        .prepare(
            "INSERT INTO cart_lines (customer, product, quantity) VALUES (?, ?, ?)
             ON CONFLICT (customer, product) DO UPDATE SET quantity = quantity + excluded.quantity",
        )
        .bind(&*visit.customer)
        .bind(product)
        .bind(i64::from(quantity))
        .run()
        .await?;
    Ok(())
}

pub(crate) async fn remove_from_cart(visit: &Visit, product: i64) -> Result<(), Error> {
    visit
        .session
        .prepare("DELETE FROM cart_lines WHERE customer = ? AND product = ?")
        .bind(&*visit.customer)
        .bind(product)
        .run()
        .await?;
    Ok(())
}

/// Turns the cart into an order, or changes nothing.
///
/// - **All or nothing.** A batch is one transaction, and all transactions of a database run one after the other at
///   its primary. If any statement fails, none has happened.
/// - **Never below zero.** `CHECK (stock >= 0)` fails the transaction. With `… WHERE stock >= ?` instead, an update
///   that finds too little would quietly do nothing, and the rest of the order would stand.
/// - **Once.** The order's id is the id of the request too: sent again, by the client's own retry, by a customer
///   who presses twice, or by one who asks what became of it, it gets the answer of the first time.
///   The primary remembers ids for a quarter of an hour; after that the order's row refuses a second one.
/// - **Not empty.** The sum over no lines is NULL, which `orders.cents` does not take.
pub(crate) async fn place_order(visit: &Visit, order: Uuid) -> Result<(), OrderError> {
    let Visit { customer, session } = visit;
    let id = order.to_string();
    let placed = session
        .batch([
            session
                .prepare(
                    "INSERT INTO orders (id, customer, placed, cents)
                     SELECT ?, ?, datetime(), sum(quantity * cents)
                     FROM cart_lines JOIN products ON products.id = product WHERE customer = ?",
                )
                .bind_all([&*id, customer, customer]),
            session
                .prepare(
                    "INSERT INTO order_lines (order_id, product, quantity, cents)
                     SELECT ?, product, quantity, cents
                     FROM cart_lines JOIN products ON products.id = product WHERE customer = ?",
                )
                .bind_all([&*id, customer]),
            session
                .prepare(
                    "UPDATE products SET stock = stock - quantity
                     FROM cart_lines WHERE customer = ? AND product = products.id",
                )
                .bind(&**customer),
            session
                .prepare("DELETE FROM cart_lines WHERE customer = ?")
                .bind(&**customer),
        ])
        .request_id(RequestId::new(order))
        .await;
    match placed {
        Ok(_) => Ok(()),
        Err(error) => Err(refusal(error)),
    }
}

/// Which of the schema's constraints refused the order.
fn refusal(error: Error) -> OrderError {
    let Error::Failed {
        kind: FailureKind::Sql,
        message,
        ..
    } = &error
    else {
        return OrderError::Database(error);
    };
    if message.contains("CHECK constraint failed: in_stock") {
        OrderError::OutOfStock
    } else if message.contains("NOT NULL constraint failed: orders.cents") {
        OrderError::EmptyCart
    } else if message.contains("UNIQUE constraint failed: orders.id") {
        OrderError::Placed
    } else {
        OrderError::Database(error)
    }
}

/// Whether the customer has this order, by everything that is committed anywhere.
pub(crate) async fn is_placed(visit: &Visit, order: Uuid) -> Result<bool, Error> {
    let found: Option<i64> = visit
        .session
        .prepare("SELECT 1 FROM orders WHERE id = ? AND customer = ?")
        .bind(order.to_string())
        .bind(&*visit.customer)
        .linearizable()
        .first()
        .await?;
    Ok(found.is_some())
}

pub(crate) async fn orders(visit: &Visit) -> Result<QueryResult<Order>, Error> {
    visit
        .session
        .prepare("SELECT id, placed, cents FROM orders WHERE customer = ? ORDER BY placed DESC, id")
        .bind(&*visit.customer)
        .all()
        .await
}

pub(crate) async fn order_lines(visit: &Visit, order: Uuid) -> Result<QueryResult<Line>, Error> {
    visit
        .session
        .prepare(
            "SELECT product, name, quantity, order_lines.cents
             FROM orders JOIN order_lines ON order_id = orders.id JOIN products ON products.id = product
             WHERE orders.id = ? AND customer = ? ORDER BY product",
        )
        .bind(order.to_string())
        .bind(&*visit.customer)
        .all()
        .await
}
