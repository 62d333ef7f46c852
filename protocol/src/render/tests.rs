//! What answers look like, byte for byte: D1's clients were written against D1's bytes.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::d1::{Meta, StatementResult};
use crate::value::Value;

const STATISTICS: StatementStatistics = StatementStatistics {
    duration: Duration::from_nanos(591_949),
    changes: 2,
    last_row_id: 41,
    changed_db: true,
    size_after: 8192,
    rows_read: 24,
    rows_written: 3,
};

const META: &str = concat!(
    r#""success":true,"meta":{"served_by":"tidemark","served_by_region":"WEUR","#,
    r#""served_by_primary":true,"timings":{"sql_duration_ms":0.5919},"duration":0.5919,"#,
    r#""changes":2,"last_row_id":41,"changed_db":true,"size_after":8192,"rows_read":24,"#,
    r#""rows_written":3,"total_attempts":1}}"#,
);

fn renderer(shape: RowShape, form: ValueForm) -> Renderer {
    bounded(shape, form, AnswerBounds::default())
}

fn bounded(shape: RowShape, form: ValueForm, bounds: AnswerBounds) -> Renderer {
    let served_by = ServedBy {
        region: "WEUR".to_owned(),
        primary: true,
    };
    Renderer::new(shape, form, bounds, &served_by)
}

/// One whole statement; stops at the first bound.
fn run(sink: &mut Renderer, columns: &[&str], rows: &[&[ValueRef<'_>]]) -> Result<(), AnswerLimit> {
    sink.begin_statement();
    if !columns.is_empty() {
        sink.columns(columns)?;
    }
    for row in rows {
        sink.begin_row();
        for (index, value) in row.iter().enumerate() {
            sink.cell(index, *value);
        }
        sink.end_row()?;
    }
    sink.end_statement(&STATISTICS)
}

/// The rows of one statement as they are written.
fn results(shape: RowShape, form: ValueForm, names: &[&str], rows: &[&[ValueRef<'_>]]) -> String {
    let mut sink = renderer(shape, form);
    run(&mut sink, names, rows).unwrap();
    let out = String::from_utf8(sink.finish().results.to_vec()).unwrap();
    let out = out
        .strip_prefix(r#"[{"results":"#)
        .expect("the beginning of a result");
    out.strip_suffix(&format!(",{META}]"))
        .expect("the end of a result")
        .to_owned()
}

/// One value as it is written.
fn value(form: ValueForm, value: ValueRef<'_>) -> String {
    let out = results(RowShape::Arrays, form, &["v"], &[&[value]]);
    out.strip_prefix(r#"{"columns":["v"],"rows":[["#)
        .and_then(|out| out.strip_suffix("]]}"))
        .expect("one row of one column")
        .to_owned()
}

/// A Worker's binding takes the elements of an answer for those of its batch, in order.
#[test]
fn text_of_several_statements_is_one_element_with_the_last_rows_and_the_sums() {
    let served_by = ServedBy {
        region: "WEUR".to_owned(),
        primary: true,
    };
    let shape = AnswerShape {
        rows: RowShape::Arrays,
        elements: Elements::Texts,
    };
    let mut sink = Renderer::new(shape, ValueForm::D1, AnswerBounds::default(), &served_by);
    for texts in [&[3, 0, 1][..], &[1, 2]] {
        sink.reset();
        for statements in texts {
            sink.begin_text();
            for n in 1..=*statements {
                run(&mut sink, &["n"], &[&[ValueRef::Integer(n)]]).unwrap();
                assert!(serde_json::from_slice::<Json>(sink.recorded()).is_ok());
            }
        }
        let answer: Json = serde_json::from_slice(sink.recorded()).unwrap();
        let elements = answer.as_array().unwrap();
        let wanted: Vec<_> = texts.iter().filter(|n| **n > 0).collect();
        assert_eq!(elements.len(), wanted.len());
        for (element, n) in elements.iter().zip(wanted) {
            assert_eq!(element["results"]["rows"], json!([[n]]));
            assert_eq!(element["meta"]["changes"], json!(2 * n));
            assert_eq!(element["meta"]["rows_read"], json!(24 * n));
            assert_eq!(element["meta"]["last_row_id"], json!(41));
        }
    }
}

#[test]
fn statements_follow_each_other_in_one_array() {
    let mut sink = renderer(RowShape::Objects, ValueForm::D1);
    run(
        &mut sink,
        &["a", "b"],
        &[
            &[ValueRef::Integer(1), ValueRef::Null],
            &[ValueRef::Text(b"x"), ValueRef::Blob(&[1, 2])],
        ],
    )
    .unwrap();
    run(&mut sink, &[], &[]).unwrap();
    run(&mut sink, &["empty"], &[]).unwrap();
    let want = format!(
        r#"[{{"results":[{{"a":1,"b":null}},{{"a":"x","b":[1,2]}}],{META},{{"results":[],{META},{{"results":[],{META}]"#
    );
    assert_eq!(sink.finish().results, want);
}

#[test]
fn raw_has_columns_and_rows() {
    let rows: &[&[ValueRef<'_>]] = &[&[ValueRef::Integer(1), ValueRef::Integer(2)]];
    let raw = |names: &[&str], rows| results(RowShape::Arrays, ValueForm::D1, names, rows);
    assert_eq!(
        raw(&["a", "a\"b"], rows),
        r#"{"columns":["a","a\"b"],"rows":[[1,2]]}"#
    );
    assert_eq!(raw(&["a"], &[]), r#"{"columns":["a"],"rows":[]}"#);
    assert_eq!(raw(&[], &[]), r#"{"columns":[],"rows":[]}"#);
}

#[test]
fn later_column_of_a_name_hides_the_earlier_in_objects_alone() {
    let names = &["id", "x", "id", "y", "id"];
    let row: &[ValueRef<'_>] = &[1, 2, 3, 4, 5].map(ValueRef::Integer);
    let objects = results(RowShape::Objects, ValueForm::D1, names, &[row]);
    assert_eq!(objects, r#"[{"x":2,"y":4,"id":5}]"#);
    let arrays = results(RowShape::Arrays, ValueForm::D1, names, &[row]);
    assert_eq!(
        arrays,
        r#"{"columns":["id","x","id","y","id"],"rows":[[1,2,3,4,5]]}"#
    );
}

#[test]
fn names_are_escaped_once_per_column() {
    let row: &[ValueRef<'_>] = &[ValueRef::Integer(1), ValueRef::Integer(2)];
    let out = results(
        RowShape::Objects,
        ValueForm::D1,
        &["a\"\n", "ü"],
        &[row, row],
    );
    assert_eq!(out, r#"[{"a\"\n":1,"ü":2},{"a\"\n":1,"ü":2}]"#);
}

#[test]
fn numbers_in_d1_form_are_javascripts() {
    for (integer, want) in [
        (0, "0"),
        (-7, "-7"),
        (1 << 53, "9007199254740992"),
        ((1 << 53) + 1, "9007199254740992"),
        (-(1 << 53) - 1, "-9007199254740992"),
        (i64::MAX, "9223372036854776000"),
        (i64::MIN, "-9223372036854776000"),
    ] {
        assert_eq!(value(ValueForm::D1, ValueRef::Integer(integer)), want);
    }
    for (real, want) in [
        (1.0, "1"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (-1.5, "-1.5"),
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (1e-7, "1e-7"),
        (f64::MAX, "1.7976931348623157e+308"),
        (5e-324, "5e-324"),
        (f64::INFINITY, "null"),
        (f64::NEG_INFINITY, "null"),
        (f64::NAN, "null"),
    ] {
        assert_eq!(value(ValueForm::D1, ValueRef::Real(real)), want);
    }
}

#[test]
fn numbers_in_exact_form_lose_nothing() {
    for integer in [0, -1, (1 << 53) + 1, i64::MAX, i64::MIN] {
        let out = value(ValueForm::Exact, ValueRef::Integer(integer));
        assert_eq!(out, integer.to_string());
    }
    for (real, want) in [
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (0.0, "0.0"),
        (0.1, "0.1"),
        (1e20, "100000000000000000000.0"),
        (1e21, "1e+21"),
        (f64::INFINITY, r#"{"real":"Infinity"}"#),
        (f64::NEG_INFINITY, r#"{"real":"-Infinity"}"#),
        (f64::NAN, "null"),
    ] {
        assert_eq!(value(ValueForm::Exact, ValueRef::Real(real)), want);
    }
}

#[test]
fn text_is_escaped_and_invalid_utf8_replaced() {
    for (text, want) in [
        (&b""[..], r#""""#),
        (b"a\"b\\c\n\x00\x1f", r#""a\"b\\c\n\u0000\u001f""#),
        ("ü🌊\u{2028}".as_bytes(), "\"ü🌊\u{2028}\""),
        (b"a\xffb\xf0\x9f", "\"a\u{fffd}b\u{fffd}\""),
    ] {
        for form in [ValueForm::D1, ValueForm::Exact] {
            assert_eq!(value(form, ValueRef::Text(text)), want);
        }
    }
}

#[test]
fn blobs_are_bytes_or_base64() {
    let every: Vec<u8> = (0..=255).collect();
    let want = serde_json::to_string(&every).unwrap();
    assert_eq!(value(ValueForm::D1, ValueRef::Blob(&every)), want);
    assert_eq!(value(ValueForm::D1, ValueRef::Blob(&[])), "[]");
    for (blob, want) in [
        (&[][..], ""),
        (&[1], "AQ=="),
        (&[1, 2], "AQI="),
        (&[251, 255, 3], "+/8D"),
    ] {
        let out = value(ValueForm::Exact, ValueRef::Blob(blob));
        assert_eq!(out, format!(r#"{{"base64":"{want}"}}"#));
    }
}

#[test]
fn meta_is_read_back_by_clients() {
    let mut sink = renderer(RowShape::Objects, ValueForm::D1);
    sink.begin_statement();
    sink.end_statement(&StatementStatistics {
        duration: Duration::from_millis(2),
        last_row_id: i64::MAX,
        ..STATISTICS
    })
    .unwrap();
    let read: Vec<StatementResult<Vec<Json>>> =
        serde_json::from_slice(&sink.finish().results).unwrap();
    let Meta {
        duration,
        timings,
        last_row_id,
        changes,
        ..
    } = &read[0].meta;
    // D1's form rounded it to a double beyond any rowid.
    assert_eq!((*last_row_id, *changes), (i64::MAX, 2));
    assert_eq!((*duration, timings.sql_duration_ms), (2.0, 2.0));
}

#[test]
fn recorded_is_a_whole_array_between_statements() {
    let mut sink = renderer(RowShape::Objects, ValueForm::D1);
    assert_eq!(sink.recorded(), b"[]");
    for statements in 1..4 {
        run(&mut sink, &["a"], &[&[ValueRef::Integer(1)]]).unwrap();
        let recorded: Vec<Json> = serde_json::from_slice(sink.recorded()).unwrap();
        assert_eq!(recorded.len(), statements);
    }
    let recorded = sink.recorded().to_vec();
    assert_eq!(sink.finish().results, recorded);
}

#[test]
fn reset_forgets_everything() {
    let bounds = AnswerBounds {
        rows_max: 2,
        bytes_max: 4096,
    };
    let mut sink = bounded(RowShape::Objects, ValueForm::D1, bounds);
    let one: &[ValueRef<'_>] = &[ValueRef::Integer(1)];
    run(&mut sink, &["a"], &[one, one, one]).unwrap_err();
    sink.reset();
    assert_eq!(sink.recorded(), b"[]");
    run(&mut sink, &["b"], &[one, one]).unwrap();
    let read: Json = serde_json::from_slice(&sink.finish().results).unwrap();
    assert_eq!(read[0]["results"], json!([{"b": 1}, {"b": 1}]));
    // In the middle of a row, after too large a cell.
    let mut sink = bounded(RowShape::Arrays, ValueForm::D1, bounds);
    sink.begin_statement();
    sink.columns(&["a"]).unwrap();
    sink.begin_row();
    sink.cell(0, ValueRef::Text(&[b'x'; 5000]));
    sink.reset();
    run(&mut sink, &["a"], &[one]).unwrap();
}

#[test]
fn rows_of_all_statements_are_bounded_together() {
    let bounds = AnswerBounds {
        rows_max: 3,
        ..AnswerBounds::default()
    };
    let mut sink = bounded(RowShape::Objects, ValueForm::D1, bounds);
    let one: &[ValueRef<'_>] = &[ValueRef::Integer(1)];
    run(&mut sink, &["a"], &[one, one]).unwrap();
    let error = run(&mut sink, &["a"], &[one, one]).unwrap_err();
    assert_eq!(error, AnswerLimit::Rows { max: 3 });
}

#[test]
fn cell_over_the_bound_is_not_even_copied() {
    let bounds = AnswerBounds {
        bytes_max: 1000,
        ..AnswerBounds::default()
    };
    for large in [
        ValueRef::Text(&[b'x'; 1 << 20]),
        ValueRef::Blob(&[0; 1 << 20]),
    ] {
        let mut sink = bounded(RowShape::Arrays, ValueForm::D1, bounds);
        let row: &[ValueRef<'_>] = &[ValueRef::Integer(1), large, large];
        let error = run(&mut sink, &["a", "b", "c"], &[row]).unwrap_err();
        assert_eq!(error, AnswerLimit::Bytes { max: 1000 });
        assert!(sink.recorded().len() < 1000);
    }
    let mut sink = bounded(RowShape::Arrays, ValueForm::D1, bounds);
    let small: &[ValueRef<'_>] = &[ValueRef::Integer(123_456)];
    let error = run(&mut sink, &["a"], &[small; 200]).unwrap_err();
    assert_eq!(error, AnswerLimit::Bytes { max: 1000 });
}

#[test]
fn names_and_statements_without_rows_count_too() {
    let bounds = AnswerBounds {
        bytes_max: 4000,
        ..AnswerBounds::default()
    };
    let limit = AnswerLimit::Bytes { max: 4000 };
    let (short, long) = ("n".repeat(900), "n".repeat(1 << 20));
    for shape in [RowShape::Objects, RowShape::Arrays] {
        let mut sink = bounded(shape, ValueForm::D1, bounds);
        assert_eq!(run(&mut sink, &["a", &long], &[]), Err(limit));
        assert!(sink.recorded().len() < 4000, "not even copied");
        for name in [None, Some(short.as_str())] {
            let mut sink = bounded(shape, ValueForm::D1, bounds);
            let statements = (0..100).map(|_| run(&mut sink, name.as_slice(), &[]));
            assert_eq!(statements.collect::<Result<Vec<()>, _>>(), Err(limit));
            assert!(sink.recorded().len() < 5000);
        }
    }
    // Names are repeated in every row of objects.
    let mut sink = bounded(RowShape::Objects, ValueForm::D1, bounds);
    let names: Vec<String> = (0..4).map(|n| format!("{short}{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let row = &[ValueRef::Null; 4][..];
    assert_eq!(run(&mut sink, &names, &[row, row]), Err(limit));
    assert!(sink.recorded().len() < 4010, "not even copied");
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        any::<f64>().prop_map(Value::Real),
        any::<String>().prop_map(Value::Text),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Blob),
    ]
}

fn borrowed(value: &Value) -> ValueRef<'_> {
    match value {
        Value::Null => ValueRef::Null,
        Value::Integer(integer) => ValueRef::Integer(*integer),
        Value::Real(real) => ValueRef::Real(*real),
        Value::Text(text) => ValueRef::Text(text.as_bytes()),
        Value::Blob(blob) => ValueRef::Blob(blob),
    }
}

proptest! {
    #[test]
    fn exact_values_come_back_as_parameters(
        values in prop::collection::vec(any_value(), 1..8),
    ) {
        // What the exact form writes it also reads: a client may hand rows back as they came.
        let row: Vec<_> = values.iter().map(borrowed).collect();
        let names = vec!["c"; row.len()];
        let out = results(RowShape::Arrays, ValueForm::Exact, &names, &[&row]);
        let rows = out.split_once(r#""rows":["#).unwrap().1.strip_suffix("]}").unwrap();
        let body = format!(r#"{{"sql":"s","params":{rows}}}"#);
        let bounds = crate::d1::QueryBounds::default();
        let statements =
            crate::d1::parse_query(body.as_bytes(), ValueForm::Exact, &bounds).unwrap();
        let same = |(a, b): (&Value, &Value)| match (a, b) {
            (Value::Real(a), Value::Real(b)) => a.to_bits() == b.to_bits(),
            (a, b) => a == b,
        };
        prop_assert!(statements[0].params.iter().zip(&values).all(same), "{out}");
    }

    #[test]
    fn d1_form_is_json_and_numbers_are_doubles(
        values in prop::collection::vec(any_value(), 1..8),
    ) {
        let row: Vec<_> = values.iter().map(borrowed).collect();
        let names: Vec<_> = (0..row.len()).map(|n| format!("c{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let out = results(RowShape::Objects, ValueForm::D1, &names, &[&row]);
        let read: Json = serde_json::from_str(&out).unwrap();
        for (name, value) in names.iter().zip(&values) {
            let got = &read[0][*name];
            match value {
                Value::Null => prop_assert!(got.is_null()),
                Value::Integer(integer) => prop_assert_eq!(got.as_f64(), Some(*integer as f64)),
                Value::Real(real) if real.is_finite() => {
                    prop_assert_eq!(got.as_f64(), Some(*real + 0.0));
                }
                Value::Real(_) => prop_assert!(got.is_null()),
                Value::Text(text) => prop_assert_eq!(got.as_str(), Some(text.as_str())),
                Value::Blob(blob) => prop_assert_eq!(got, &json!(blob)),
            }
        }
    }

    #[test]
    fn any_bytes_as_text_are_valid_json(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let out = value(ValueForm::D1, ValueRef::Text(&bytes));
        let read: String = serde_json::from_str(&out).unwrap();
        prop_assert_eq!(read, String::from_utf8_lossy(&bytes).into_owned());
    }
}
