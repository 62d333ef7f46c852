//! At stake: what is bound comes back, to the bit and to the storage class.

use std::sync::LazyLock;

use axum::Router;
use axum::body::Bytes;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidemark_client::{Client, Database, Value};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// A server that answers every statement with one row of the values that were bound, as they came.
async fn echo(body: Bytes) -> String {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow, default)]
        params: Vec<&'a RawValue>,
    }

    let body: Body<'_> = serde_json::from_slice(&body).unwrap();
    let columns: Vec<String> = (0..body.params.len()).map(|n| format!("c{n}")).collect();
    let values: Vec<&str> = body.params.iter().map(|raw| raw.get()).collect();
    format!(
        r#"{{"result":[{{"results":{{"columns":{},"rows":[[{}]]}},"success":true,"meta":{{}}}}]}}"#,
        serde_json::to_string(&columns).unwrap(),
        values.join(",")
    )
}

static ECHO: LazyLock<(Runtime, Database)> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    runtime.spawn(async move { axum::serve(listener, Router::new().fallback(echo)).await });
    let database = Client::builder(url).build().unwrap().database("echo");
    (runtime, database)
});

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        // SQLite has no NaN.
        any::<f64>()
            .prop_filter("NaN", |v| !v.is_nan())
            .prop_map(Value::Real),
        any::<String>().prop_map(Value::Text),
        any::<Vec<u8>>().prop_map(Value::Blob),
    ]
}

fn identical(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Real(a), Value::Real(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bound_values_come_back_identical(values in proptest::collection::vec(any_value(), 1..8)) {
        let (runtime, database) = &*ECHO;
        let query = database.prepare("SELECT").bind_all(values.clone());
        let raw = runtime.block_on(query.clone().raw()).unwrap();
        prop_assert!(raw.rows[0].iter().zip(&values).all(|(a, b)| identical(a, b)));
        let typed = runtime.block_on(query.all::<Vec<Value>>()).unwrap();
        prop_assert!(typed.rows[0].iter().zip(&values).all(|(a, b)| identical(a, b)));
    }
}
