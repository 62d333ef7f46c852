//! D1's JSON in and out.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::error::FailureKind;
use crate::render::ValueForm;
use crate::value::{Statement, Value};

fn parse(form: ValueForm, body: &str) -> Result<Vec<Statement>, BadQuery> {
    parse_query(body.as_bytes(), form, &QueryBounds::default())
}

/// What `json` becomes as the only parameter.
fn parameter(form: ValueForm, json: &str) -> Result<Value, String> {
    let body = format!(r#"{{"sql":"s","params":[{json}]}}"#);
    let mut statements = parse(form, &body).map_err(|bad| bad.to_string())?;
    Ok(statements.remove(0).params.remove(0))
}

#[test]
fn single_statement_and_batch_are_told_apart() {
    let statement = |sql: &str, params| Statement {
        sql: sql.to_owned(),
        params,
    };
    for (body, want) in [
        (r#"{"sql":"a"}"#, vec![statement("a", vec![])]),
        (
            r#" { "x" : [{}] , "sql" : "a" , "params" : null } "#,
            vec![statement("a", vec![])],
        ),
        (
            r#"{"params":[null],"sql":"a","batch":null}"#,
            vec![statement("a", vec![Value::Null])],
        ),
        (
            r#"{"batch":[{"sql":"a","params":["x"],"y":1},{"params":[],"sql":"b"}],"sql":null}"#,
            vec![
                statement("a", vec![Value::Text("x".to_owned())]),
                statement("b", vec![]),
            ],
        ),
        (r#"{"sql":""}"#, vec![statement("", vec![])]),
        // As JSON.parse has it: the last of several wins.
        (r#"{"sql":"a","sql":"b"}"#, vec![statement("b", vec![])]),
    ] {
        assert_eq!(parse(ValueForm::D1, body), Ok(want), "{body}");
    }
}

#[test]
fn every_kind_of_bad_body_has_its_own_error() {
    let bad = |body: &str| parse(ValueForm::D1, body).expect_err(body);
    let place = |statement, parameter| Place {
        statement,
        parameter,
    };
    for body in [
        "",
        "{",
        "null",
        "7",
        "[]",
        r#"{"sql":[]}"#,
        r#"{"sql":"a"}{}"#,
        r#"{"batch":{}}"#,
    ] {
        assert!(matches!(bad(body), BadQuery::Malformed { .. }), "{body}");
    }
    assert!(matches!(
        bad(r#"{"sql":"a","params":{}}"#),
        BadQuery::Malformed { .. }
    ));
    assert!(matches!(
        bad(r#"{"batch":["select 1"]}"#),
        BadQuery::Malformed { .. }
    ));
    assert!(matches!(
        bad(r#"{"sql":"a","params":[1e999]}"#),
        BadQuery::Malformed { .. }
    ));
    assert_eq!(bad("{}"), BadQuery::Neither);
    assert_eq!(bad(r#"{"sql":null,"batch":null}"#), BadQuery::Neither);
    assert_eq!(bad(r#"{"sql":"","batch":[]}"#), BadQuery::Both);
    assert_eq!(bad(r#"{"batch":[]}"#), BadQuery::NoStatements);
    assert_eq!(
        bad(r#"{"batch":[{"sql":"a"},{}]}"#),
        BadQuery::NoSql { statement: 1 }
    );
    let refused = bad(r#"{"batch":[{"sql":"a"},{"sql":"b","params":[1,{}]}]}"#);
    assert!(
        matches!(&refused, BadQuery::Parameter { place: p, .. } if *p == place(Some(1), 1)),
        "{refused}"
    );
    assert!(
        refused
            .to_string()
            .starts_with("Invalid property: batch[1].params[1] => ")
    );

    let bounds = QueryBounds {
        statements_max: 1,
        params_max: 1,
    };
    let over = |body: &str| parse_query(body.as_bytes(), ValueForm::D1, &bounds).expect_err(body);
    assert_eq!(
        over(r#"{"batch":[{"sql":"a"},{"sql":"b"}]}"#),
        BadQuery::TooManyStatements { max: 1 }
    );
    assert_eq!(
        over(r#"{"sql":"a","params":[1,2]}"#),
        BadQuery::TooManyParameters {
            place: place(None, 1),
            max: 1
        }
    );
}

#[test]
fn deep_nesting_is_refused_not_followed() {
    for body in [
        "[".repeat(100_000),
        format!(r#"{{"x":{}"#, "[".repeat(100_000)),
        format!(r#"{{"sql":"a","params":[{}"#, "[".repeat(100_000)),
        format!(
            r#"{{"sql":"a","params":[{}"#,
            r#"{"base64":"#.repeat(100_000)
        ),
    ] {
        for form in [ValueForm::D1, ValueForm::Exact] {
            parse(form, &body).unwrap_err();
        }
    }
}

#[test]
fn parameters_in_d1_form_are_doubles_text_blobs_and_null() {
    for (json, want) in [
        ("null", Value::Null),
        ("1", Value::Real(1.0)),
        ("-1", Value::Real(-1.0)),
        ("1.5", Value::Real(1.5)),
        ("9007199254740993", Value::Real(9_007_199_254_740_992.0)),
        (
            "18446744073709551615",
            Value::Real(18_446_744_073_709_551_616.0),
        ),
        ("true", Value::Real(1.0)),
        ("false", Value::Real(0.0)),
        (r#""""#, Value::Text(String::new())),
        (r#""ü\u0000""#, Value::Text("ü\0".to_owned())),
        ("[]", Value::Blob(vec![])),
        ("[0,255]", Value::Blob(vec![0, 255])),
        (
            "[256,257,-1,1.9,-1.9,300.5,null]",
            Value::Blob(vec![0, 1, 255, 1, 255, 44, 0]),
        ),
        ("[1e300,18446744073709551615]", Value::Blob(vec![0, 255])),
    ] {
        assert_eq!(parameter(ValueForm::D1, json), Ok(want), "{json}");
    }
    for json in [
        "{}",
        r#"{"base64":"AQ=="}"#,
        r#"["1"]"#,
        "[[1]]",
        "[{}]",
        "[true]",
    ] {
        let text = parameter(ValueForm::D1, json).expect_err(json);
        assert!(
            text.starts_with("Invalid property: params[0] => "),
            "{text}"
        );
    }
}

#[test]
fn parameters_in_exact_form_lose_nothing() {
    for (json, want) in [
        ("null", Value::Null),
        ("1", Value::Integer(1)),
        ("1.0", Value::Real(1.0)),
        ("1e0", Value::Real(1.0)),
        ("-0.0", Value::Real(-0.0)),
        ("-0", Value::Real(-0.0)),
        ("9007199254740993", Value::Integer(9_007_199_254_740_993)),
        ("9223372036854775807", Value::Integer(i64::MAX)),
        ("-9223372036854775808", Value::Integer(i64::MIN)),
        ("true", Value::Integer(1)),
        ("false", Value::Integer(0)),
        (r#""x""#, Value::Text("x".to_owned())),
        ("[0,255]", Value::Blob(vec![0, 255])),
        (r#"{"base64":"AQI="}"#, Value::Blob(vec![1, 2])),
        (r#"{"base64":""}"#, Value::Blob(vec![])),
        (r#"{"real":"Infinity"}"#, Value::Real(f64::INFINITY)),
        (r#"{"real":"-Infinity"}"#, Value::Real(f64::NEG_INFINITY)),
    ] {
        assert_eq!(parameter(ValueForm::Exact, json), Ok(want), "{json}");
    }
    for json in [
        "9223372036854775808",
        "{}",
        r#"{"base64":"A"}"#,
        r#"{"base64":"AQ"}"#,
        r#"{"base64":7}"#,
        r#"{"base64":"AQ==","real":"Infinity"}"#,
        r#"{"real":"NaN"}"#,
        r#"{"real":1.5}"#,
        r#"{"blob":"AQ=="}"#,
        "[256]",
        "[-1]",
        "[1.0]",
        "[null]",
        r#"["1"]"#,
    ] {
        let text = parameter(ValueForm::Exact, json).expect_err(json);
        assert!(
            text.starts_with("Invalid property: params[0] => "),
            "{json}: {text}"
        );
    }
}

#[test]
fn bad_query_tells_the_caller_what_to_do() {
    let kind = |bad: BadQuery| crate::Failure::from(bad).kind;
    assert_eq!(kind(BadQuery::Neither), FailureKind::BadRequest);
    assert_eq!(kind(BadQuery::NoStatements), FailureKind::Sql);
    assert_eq!(
        kind(BadQuery::TooManyStatements { max: 1 }),
        FailureKind::TooLarge
    );
}

#[test]
fn envelope_of_a_success_is_read_back() {
    let info = ResultInfo {
        page: 2,
        per_page: 10,
        count: 3,
        total_count: 13,
    };
    let text = write_success(b"[1,2]", Some(&info));
    assert_eq!(
        serde_json::from_slice::<Json>(&text).unwrap(),
        json!({
            "result": [1, 2],
            "success": true,
            "errors": [],
            "messages": [],
            "result_info": {"page": 2, "per_page": 10, "count": 3, "total_count": 13},
        })
    );
    let read: Envelope<Vec<u8>> = serde_json::from_slice(&text).unwrap();
    assert_eq!(
        (read.result, read.result_info),
        (Some(vec![1, 2]), Some(info))
    );
    assert_eq!(
        write_success(b"null", None),
        br#"{"result":null,"success":true,"errors":[],"messages":[]}"#
    );
}

#[test]
fn envelope_of_a_failure_is_read_back() {
    let error = ErrorItem {
        code: 7500,
        message: "no \"such\" table: ü".to_owned(),
    };
    let text = write_failure(&error);
    assert_eq!(
        String::from_utf8(text.clone()).unwrap(),
        r#"{"result":null,"success":false,"errors":[{"code":7500,"message":"no \"such\" table: ü"}],"messages":[]}"#
    );
    let read: Envelope<Json> = serde_json::from_slice(&text).unwrap();
    assert_eq!((read.success, read.errors), (false, vec![error]));
}

#[test]
fn names_of_databases_are_d1s_without_uuids() {
    for good in ["a", "0", "shop-1_x", "A", &"x".repeat(NAME_BYTES_MAX)] {
        assert_eq!(check_name(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "-a",
        "_a",
        "a b",
        "a.b",
        "a/b",
        "ü",
        "a\n",
        "catalogue",
        "0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f506",
        "0192f3a45b6c7d8e9fa0b1c2d3e4f506",
        &"x".repeat(NAME_BYTES_MAX + 1),
    ] {
        let failure = check_name(bad).expect_err(bad);
        assert_eq!(failure.kind, FailureKind::BadRequest);
        assert!(
            failure.message.starts_with("Invalid property: name => "),
            "{failure}"
        );
    }
}

#[test]
fn failure_kinds_have_names_of_their_own() {
    for kind in FailureKind::ALL {
        assert_eq!(FailureKind::from_name(kind.name()), Some(kind));
        assert_eq!(
            json!(kind),
            json!(kind.name()),
            "serde and the header agree"
        );
    }
    assert_eq!(FailureKind::from_name("of a later version"), None);
}

proptest! {
    #[test]
    fn any_bytes_are_a_query_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_query(&bytes, ValueForm::Exact, &QueryBounds::default());
    }

    #[test]
    fn any_piece_of_a_query_is_a_query_or_an_error(
        end in 0..90_usize,
        flip in 0..90_usize,
        exact in any::<bool>(),
    ) {
        let body = r#"{"batch":[{"sql":"select ?","params":[1,"x",[1,2],{"base64":"AQ=="},true,null]}]}"#;
        let form = if exact { ValueForm::Exact } else { ValueForm::D1 };
        let mut bytes = body.as_bytes()[..end.min(body.len())].to_vec();
        if let Some(byte) = bytes.get_mut(flip) {
            *byte ^= 1 << (flip % 8);
        }
        let _ = parse_query(&bytes, form, &QueryBounds::default());
    }
}

#[test]
fn body_of_a_binding_is_a_statement_or_an_array_of_them() {
    let parse = |body: &str| parse_binding(body.as_bytes(), ValueForm::D1, &QueryBounds::default());
    let a = |params| Statement {
        sql: "a".to_owned(),
        params,
    };
    for (body, want) in [
        (r#"{"sql":"a"}"#, vec![a(vec![])]),
        (
            r#"{"sql":"a","params":[1],"batch":[{}]}"#,
            vec![a(vec![Value::Real(1.0)])],
        ),
        (
            r#"[{"sql":"a"},{"params":[],"sql":"a"}]"#,
            vec![a(vec![]), a(vec![])],
        ),
    ] {
        assert_eq!(parse(body), Ok(want), "{body}");
    }
    let refused = |body| parse(body).expect_err(body).to_string();
    assert_eq!(refused("[]"), "No SQL statements detected.");
    assert_eq!(
        refused(r#"[{"sql":"a"},{}]"#),
        "Invalid property: batch[1].sql => Required"
    );
    assert!(refused("{}").contains("sql => Required"));
    for body in ["", "5", "[5]", r#"{"sql":"a"} x"#, r#"[[{"sql":"a"}]]"#] {
        assert!(refused(body).starts_with("The request is malformed"));
    }
}

#[test]
fn only_what_is_safe_to_repeat_has_the_words_that_programs_repeat_for() {
    let words = [
        "Network connection lost",
        "storage caused object to be reset",
    ];
    for kind in FailureKind::ALL {
        let body = write_binding_failure(&crate::Failure::new(kind, "why"));
        let json: Json = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["success"], json!(false));
        let error = json["error"].as_str().unwrap();
        assert!(error.ends_with("why"), "{error}");
        let invites = words.iter().any(|words| error.contains(words));
        let safe = matches!(kind, FailureKind::Unavailable | FailureKind::Damaged);
        assert_eq!(invites, safe, "{kind:?}");
    }
}

#[test]
fn exec_learns_which_text_failed_from_the_elements_before() {
    let answer = |text| {
        let failure = crate::Failure {
            text,
            ..crate::Failure::new(FailureKind::Sql, "why")
        };
        serde_json::from_slice::<Json>(&write_exec_failure(&failure)).unwrap()
    };
    let failed = json!({ "success": false, "error": "why" });
    assert_eq!(answer(None), failed);
    assert_eq!(answer(Some(0)), failed);
    let before = json!({ "success": true, "results": [], "meta": { "duration": 0 } });
    assert_eq!(answer(Some(2)), json!([before, before, failed]));
}
