//! The sample database of `tidemark dev`: a small shop, the same on every machine.
//!
//! Loaded through the API like anybody's data, in batches. Its view is created last, so a shop with
//! the view is complete and one without is what an interrupted load left.

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use tidemark_client::{Client, Error, FailureKind, Statement, Value};

/// What it is called.
pub(crate) const SAMPLE: &str = "sample";

const SCHEMA: &str = "
CREATE TABLE customers (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL, joined TEXT NOT NULL);
CREATE TABLE products (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, cents INTEGER NOT NULL, stock INTEGER NOT NULL);
CREATE TABLE orders (
  id INTEGER PRIMARY KEY, customer INTEGER NOT NULL REFERENCES customers, placed TEXT NOT NULL);
CREATE TABLE order_lines (
  order_id INTEGER NOT NULL REFERENCES orders, product INTEGER NOT NULL REFERENCES products,
  quantity INTEGER NOT NULL, PRIMARY KEY (order_id, product)) WITHOUT ROWID;
CREATE INDEX orders_by_customer ON orders (customer);";
const VIEW: &str = "
CREATE VIEW best_sellers AS
SELECT products.name, sum(quantity) AS sold, sum(quantity * cents) AS cents
FROM order_lines JOIN products ON products.id = product
GROUP BY product ORDER BY sold DESC, products.id";
const COMPLETE: &str =
    "SELECT count(*) AS views FROM sqlite_schema WHERE type = 'view' AND name = 'best_sellers'";

const SEED: u64 = 8787;
const CUSTOMERS: i64 = 1_000;
const ORDERS: i64 = 4_000;
const LINES_PER_ORDER_MAX: usize = 5;
/// Rows of one batch, which is one transaction.
const ROWS_PER_BATCH: usize = 500;

const FIRST_NAMES: [&str; 16] = [
    "Ada",
    "Alan",
    "Barbara",
    "Dennis",
    "Edsger",
    "Frances",
    "Grace",
    "Hedy",
    "Jim",
    "Katherine",
    "Ken",
    "Leslie",
    "Margaret",
    "Niklaus",
    "Radia",
    "Tony",
];
const LAST_NAMES: [&str; 16] = [
    "Almeida", "Bauer", "Castillo", "Dubois", "Eriksen", "Fischer", "Garcia", "Haddad", "Ivanova",
    "Jensen", "Kimura", "Laurent", "Moreau", "Novak", "Okafor", "Petrov",
];
const CITIES: [&str; 12] = [
    "Amsterdam",
    "Bogotá",
    "Cairo",
    "Dublin",
    "Hanoi",
    "Lagos",
    "Lima",
    "Montréal",
    "Oslo",
    "São Paulo",
    "Singapore",
    "Zürich",
];
const MATERIALS: [&str; 10] = [
    "Bamboo", "Brass", "Ceramic", "Copper", "Cotton", "Glass", "Linen", "Oak", "Steel", "Wool",
];
const THINGS: [&str; 12] = [
    "basket", "bottle", "bowl", "chair", "clock", "kettle", "lamp", "mirror", "rug", "shelf",
    "tray", "vase",
];

/// Makes the sample database on the primary unless it is there and complete. Shows progress.
pub(crate) async fn ensure(client: &Client) -> anyhow::Result<()> {
    let database = client.database(SAMPLE);
    match client.create_database(SAMPLE).await {
        Ok(_) => {}
        Err(Error::Failed {
            kind: FailureKind::DatabaseExists,
            ..
        }) => {
            let views: Option<i64> = database.prepare(COMPLETE).first_column("views").await?;
            if views == Some(1) {
                return Ok(());
            }
            client
                .delete_database(SAMPLE)
                .await
                .context("delete a half-loaded sample")?;
            client
                .create_database(SAMPLE)
                .await
                .context("create the sample database")?;
        }
        Err(error) => return Err(error).context("create the sample database"),
    }
    let rows = rows();
    let progress = ProgressBar::new(rows.len() as u64);
    let style =
        ProgressStyle::with_template("loading the sample database {bar:40} {pos}/{len} rows");
    progress.set_style(style.expect("a fixed template"));
    database
        .exec(SCHEMA)
        .await
        .context("create the sample's tables")?;
    for batch in rows.chunks(ROWS_PER_BATCH) {
        database
            .batch(batch.iter().cloned())
            .await
            .context("load the sample")?;
        progress.inc(batch.len() as u64);
    }
    database
        .exec(VIEW)
        .await
        .context("create the sample's view")?;
    progress.finish_and_clear();
    Ok(())
}

/// An INSERT per row, parents before children.
fn rows() -> Vec<Statement> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut rows = Vec::new();
    for id in 1..=CUSTOMERS {
        let first = random.choice(FIRST_NAMES).expect("not empty");
        let last = random.choice(LAST_NAMES).expect("not empty");
        let city = random.choice(CITIES).expect("not empty");
        let joined = day(&mut random, 2024);
        rows.push(insert(
            "INSERT INTO customers VALUES (?, ?, ?, ?)",
            vec![
                id.into(),
                format!("{first} {last}").into(),
                city.into(),
                joined.into(),
            ],
        ));
    }
    let mut products = 0_i64;
    for material in MATERIALS {
        for thing in THINGS {
            products += 1;
            let cents = i64::from(random.u16(5..200)) * 100 - 1;
            let stock = i64::from(random.u8(..));
            rows.push(insert(
                "INSERT INTO products VALUES (?, ?, ?, ?)",
                vec![
                    products.into(),
                    format!("{material} {thing}").into(),
                    cents.into(),
                    stock.into(),
                ],
            ));
        }
    }
    for order in 1..=ORDERS {
        let customer = random.i64(1..=CUSTOMERS);
        let placed = day(&mut random, 2025);
        rows.push(insert(
            "INSERT INTO orders VALUES (?, ?, ?)",
            vec![order.into(), customer.into(), placed.into()],
        ));
        let lines = random.usize(1..=LINES_PER_ORDER_MAX);
        for product in random.choose_multiple(1..=products, lines) {
            let quantity = i64::from(random.u8(1..=4));
            rows.push(insert(
                "INSERT INTO order_lines VALUES (?, ?, ?)",
                vec![order.into(), product.into(), quantity.into()],
            ));
        }
    }
    rows
}

fn insert(sql: &str, params: Vec<Value>) -> Statement {
    Statement {
        sql: sql.to_owned(),
        params,
    }
}

/// A day of the year, as text. Every month ends at the 28th here.
fn day(random: &mut fastrand::Rng, year: u16) -> String {
    format!("{year}-{:02}-{:02}", random.u8(1..=12), random.u8(1..=28))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_is_the_same_every_time() {
        let rows = rows();
        assert_eq!(rows, super::rows());
        assert!(
            (15_000..25_000).contains(&rows.len()),
            "{} rows",
            rows.len()
        );
    }
}
