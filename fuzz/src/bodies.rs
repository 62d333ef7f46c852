//! Bodies of requests in JSON: queries in D1's form and in the exact one, those of a Worker's binding, and what
//! makes, edits, imports and exports databases; and SQL as statistics show it.

use serde_json::{Value as Json, json};
use tidemark_gateway::fuzzing;
use tidemark_protocol::d1::{CreateBody, EditBody, QueryBounds, parse_binding, parse_query};
use tidemark_protocol::render::ValueForm;
use tidemark_protocol::{Statement, Value};

use crate::memory::bounded;

/// What a literal holds that nobody should see.
const SECRET: &str = "a secret";

/// The bytes are any of these bodies.
pub fn check(bytes: &[u8]) {
    bounded(bytes.len(), 256, || {
        let bounds = QueryBounds::default();
        for form in [ValueForm::D1, ValueForm::Exact] {
            if let Ok(statements) = parse_query(bytes, form, &bounds) {
                assert!(!statements.is_empty());
                if form == ValueForm::Exact {
                    read_again(&statements);
                }
                for Statement { sql, .. } in &statements {
                    shown(sql);
                }
            }
            if let Ok(statements) = parse_binding(bytes, form, &bounds) {
                assert!(!statements.is_empty());
            }
        }
        if let Ok(body) = CreateBody::parse(bytes) {
            let written = serde_json::to_vec(&body).expect("plain fields");
            assert_eq!(CreateBody::parse(&written).as_ref(), Ok(&body));
            let _ = body.validate();
        }
        if let Ok(body) = EditBody::parse(bytes) {
            for whole in [false, true] {
                let _ = body.clone().validate(whole);
            }
        }
        fuzzing::transfers(bytes);
        if let Ok(text) = str::from_utf8(bytes) {
            shown(text);
        }
    });
}

/// Nothing of a text in single quotes is shown, and it is bounded.
fn shown(sql: &str) {
    let text = fuzzing::query_text(sql);
    assert!(text.len() <= 2048, "{} bytes", text.len());
    if sql.contains(SECRET) {
        return;
    }
    let marked = fuzzing::query_text(&format!("SELECT '{SECRET}' -- {sql}"));
    assert!(!marked.contains(SECRET), "{marked}");
}

/// What was read in the exact form is read as the same from a body that says it in the same form.
fn read_again(statements: &[Statement]) {
    let statement = |statement: &Statement| {
        let params: Vec<Json> = statement.params.iter().map(exact).collect();
        json!({ "sql": statement.sql, "params": params })
    };
    let batch: Vec<Json> = statements.iter().map(statement).collect();
    let body = json!({ "batch": batch }).to_string();
    let again = parse_query(body.as_bytes(), ValueForm::Exact, &QueryBounds::default());
    assert_eq!(again.as_deref(), Ok(statements));
}

fn exact(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(integer) => json!(integer),
        Value::Real(real) if real.is_finite() => json!(real),
        Value::Real(real) if *real > 0.0 => json!({ "real": "Infinity" }),
        Value::Real(_) => json!({ "real": "-Infinity" }),
        Value::Text(text) => json!(text),
        Value::Blob(bytes) => json!(bytes),
    }
}
