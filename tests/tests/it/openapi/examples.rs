//! The examples that the description gives.

use serde_json::{Map, Value};
use tidemark_tests::Description;

/// Every example beside a schema, by the pointer of the schema.
fn examples(value: &Value, pointer: &str, found: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(map) => {
            if let Some(example) = map.get("example") {
                let schema = match map.get("schema") {
                    Some(_) => format!("{pointer}/schema"),
                    None => pointer.to_owned(),
                };
                found.push((schema, example.clone()));
            }
            let named = map.get("examples").and_then(Value::as_object);
            for example in named.into_iter().flat_map(Map::values) {
                found.push((format!("{pointer}/schema"), example["value"].clone()));
            }
            let rest = map.iter().filter(|(key, _)| !key.starts_with("example"));
            for (key, value) in rest {
                let key = key.replace('~', "~0").replace('/', "~1");
                examples(value, &format!("{pointer}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for (at, value) in items.iter().enumerate() {
                examples(value, &format!("{pointer}/{at}"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_example_is_valid() {
    let description = Description::of_this_build();
    let mut found = Vec::new();
    examples(description.document(), "", &mut found);
    assert!(found.len() > 20, "{} examples", found.len());
    for (schema, example) in found {
        let valid = description.valid(&schema, &example);
        assert_eq!(valid, Ok(()), "{schema}: {example}");
    }
}

/// Whatever a client may send or get has a name that the description knows.
#[test]
fn every_header_of_ours_is_described() {
    use tidemark_protocol::headers;
    let text = Description::of_this_build().document().to_string();
    for name in [
        headers::BOOKMARK,
        headers::SESSION,
        headers::DATABASE,
        headers::DEADLINE,
        headers::ON_MISS,
        headers::REQUEST_ID,
        headers::VALUES,
        headers::READ,
        headers::DELIVERED,
        headers::FORWARDED_BY,
        headers::GUARD,
        headers::FAILURE,
        headers::REPEATED,
        headers::SERVED_BY,
        headers::SHOULD_RETRY,
        headers::LEADER,
    ] {
        assert!(text.contains(&format!("\"{name}\"")), "{name}");
    }
}
