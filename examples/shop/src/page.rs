//! The pages. maud escapes what is put in.

use maud::{DOCTYPE, Markup, html};
use tidemark_client::{Meta, QueryResult};
use uuid::Uuid;

use crate::store::{Line, Order, Product};

pub(crate) fn products(products: &QueryResult<Product>) -> Markup {
    page(
        "For sale",
        Some(&products.meta),
        &html! {
            ul .goods {
                @for Product { id, name, cents, stock } in &products.rows {
                    li {
                        h2 { (name) }
                        p .price { (money(*cents)) }
                        p .stock { @if *stock > 0 { (stock) " in stock" } @else { "Sold out" } }
                        form method="post" action="/cart" {
                            input type="hidden" name="product" value=(id);
                            input type="hidden" name="quantity" value="1";
                            button disabled[*stock == 0] { "Add to cart" }
                        }
                    }
                }
            }
        },
    )
}

pub(crate) fn cart(cart: &QueryResult<Line>, order: Uuid) -> Markup {
    page(
        "Your cart",
        Some(&cart.meta),
        &html! {
            @if cart.rows.is_empty() {
                p { "Nothing in it yet." }
            } @else {
                (lines(&cart.rows, |line| html! {
                    form method="post" action="/cart/remove" {
                        input type="hidden" name="product" value=(line.product);
                        button .quiet aria-label={ "Remove " (line.name) } { "Remove" }
                    }
                }))
                form method="post" action="/orders" {
                    input type="hidden" name="order" value=(order);
                    button { "Order" }
                }
            }
        },
    )
}

pub(crate) fn orders(orders: &QueryResult<Order>) -> Markup {
    page(
        "Your orders",
        Some(&orders.meta),
        &html! {
            @if orders.rows.is_empty() {
                p { "None yet." }
            } @else {
                table {
                    thead { tr { th { "Placed (UTC)" } th { "Order" } th .number { "Total" } } }
                    tbody {
                        @for Order { id, placed, cents } in &orders.rows {
                            tr {
                                td { (placed) }
                                td { a href={ "/orders/" (id) } { (short(id)) } }
                                td .number { (money(*cents)) }
                            }
                        }
                    }
                }
            }
        },
    )
}

pub(crate) fn order(order: Uuid, bought: &QueryResult<Line>) -> Markup {
    page(
        "Thank you",
        Some(&bought.meta),
        &html! {
            p { "Your order " strong { (short(&order.to_string())) } " is placed." }
            (lines(&bought.rows, |_| html! {}))
        },
    )
}

/// A page that only says something.
pub(crate) fn message(title: &str, body: &Markup) -> Markup {
    page(title, None, body)
}

fn lines(lines: &[Line], last_cell: impl Fn(&Line) -> Markup) -> Markup {
    let total: i64 = lines.iter().map(|line| line.quantity * line.cents).sum();
    html! {
        table {
            thead { tr { th { "Product" } th .number { "Each" } th .number { "Quantity" } th {} } }
            tbody {
                @for line in lines {
                    tr {
                        td { (line.name) }
                        td .number { (money(line.cents)) }
                        td .number { (line.quantity) }
                        td .number { (last_cell(line)) }
                    }
                }
            }
            tfoot { tr { th { "Total" } td .number colspan="3" { (money(total)) } } }
        }
    }
}

fn page(title: &str, meta: Option<&Meta>, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Harbour shop" }
                link rel="stylesheet" href="/style.css";
                link rel="icon" href="data:,";
            }
            body {
                header {
                    a .name href="/" { "Harbour shop" }
                    nav { a href="/cart" { "Cart" } a href="/orders" { "Orders" } }
                }
                main { h1 { (title) } (body) }
                @if let Some(meta) = meta { footer { (answered_by(meta)) } }
            }
        }
    }
}

/// For those who came to see where a page is from.
fn answered_by(meta: &Meta) -> Markup {
    let region = meta
        .served_by_region
        .as_deref()
        .unwrap_or("an unnamed region");
    let copy = if meta.served_by_primary {
        "the primary"
    } else {
        "a replica"
    };
    html! { "Read in " (region) ", from " (copy) ", in " (format!("{:.1?}", meta.duration)) }
}

fn money(cents: i64) -> String {
    format!("€ {}.{:02}", cents / 100, cents % 100)
}

/// Enough of an order's id to tell it from the customer's others.
fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}
