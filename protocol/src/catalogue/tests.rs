//! A catalogue that takes changes is the one that is read whole.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::render::ResultSink;
use crate::value::{Value, ValueRef};

const KEY: [u8; 16] = [7; 16];

fn id(n: u8) -> DatabaseId {
    DatabaseId::from_bytes([n; 16])
}

/// A row of `databases`, for the one that `n` names.
fn row(n: u8, name: &str) -> Vec<Value> {
    let texts = [&id(n).to_string(), name, "2026-01-01T00:00:00.000Z"];
    let texts = texts.map(|text| Value::Text(text.to_owned()));
    let rest = [Value::Null, Value::Null, Value::Integer(1)];
    texts.into_iter().chain(rest).collect()
}

/// A row of those that changed: listed under that name, or no more.
fn changed(n: u8, name: Option<&str>) -> Vec<Value> {
    let rest = name.map_or_else(|| vec![Value::Null; 6], |name| row(n, name));
    let id = Value::Text(id(n).to_string());
    std::iter::once(id).chain(rest).collect()
}

fn shown(value: &Value) -> ValueRef<'_> {
    match value {
        Value::Null => ValueRef::Null,
        Value::Integer(integer) => ValueRef::Integer(*integer),
        Value::Real(real) => ValueRef::Real(*real),
        Value::Text(text) => ValueRef::Text(text.as_bytes()),
        Value::Blob(bytes) => ValueRef::Blob(bytes),
    }
}

fn read(mut reader: CatalogueReader, changes: u64, databases: Vec<Vec<Value>>) -> CatalogueReading {
    let text = |text: &str| Value::Text(text.to_owned());
    let settings = vec![
        vec![text(BOOKMARK_KEY), Value::Blob(KEY.to_vec())],
        vec![text(PRIMARY_REGION), text("WEUR")],
        vec![text(CHANGES), Value::Integer(changes.try_into().unwrap())],
    ];
    for rows in [settings, vec![], databases] {
        reader.begin_statement();
        for row in rows {
            reader.begin_row();
            for (index, value) in row.iter().enumerate() {
                reader.cell(index, shown(value));
            }
            reader.end_row().unwrap();
        }
    }
    reader.finish().unwrap()
}

fn whole(changes: u64, databases: Vec<Vec<Value>>) -> Catalogue {
    let reading = read(CatalogueReader::default(), changes, databases);
    let CatalogueReading::Whole(catalogue) = reading else {
        panic!("{reading:?}");
    };
    catalogue
}

#[track_caller]
fn check(before: Vec<Vec<Value>>, changes: Vec<Vec<Value>>, after: Vec<Vec<Value>>) {
    let number = changes.len() as u64;
    let mut catalogue = whole(0, before);
    let reading = read(CatalogueReader::since(0), number, changes);
    let CatalogueReading::Changes(changes) = reading else {
        panic!("{reading:?}");
    };
    catalogue.apply(&changes);
    let after = whole(number, after);
    let entries = |catalogue: &Catalogue| catalogue.entries().cloned().collect::<Vec<_>>();
    assert_eq!(entries(&catalogue), entries(&after));
    assert_eq!(catalogue.len(), after.len());
    assert_eq!(catalogue.changes(), Some(number));
    for entry in after.entries() {
        assert_eq!(catalogue.get(entry.uuid), Some(entry));
        assert_eq!(catalogue.resolve(&entry.name), Some(entry.uuid));
    }
}

#[test]
fn made_edited_and_deleted_databases_change_as_read_whole() {
    let edited = || {
        let mut row = row(2, "two");
        row[5] = Value::Integer(0);
        row
    };
    let mut change = changed(2, Some("two"));
    change[6] = Value::Integer(0);
    check(
        vec![row(1, "one"), row(2, "two")],
        vec![changed(3, Some("three")), change, changed(1, None)],
        vec![edited(), row(3, "three")],
    );
}

#[test]
fn name_of_a_deleted_database_goes_to_the_next_that_has_it() {
    check(
        vec![row(1, "name")],
        vec![changed(1, None), changed(2, Some("name"))],
        vec![row(2, "name")],
    );
    // Each row says what holds in the end, whichever change it stands for.
    check(
        vec![],
        vec![
            changed(1, None),
            changed(2, Some("name")),
            changed(1, None),
            changed(2, Some("name")),
        ],
        vec![row(2, "name")],
    );
    check(
        vec![row(1, "name")],
        vec![changed(2, Some("name")), changed(1, None)],
        vec![row(2, "name")],
    );
}

#[test]
fn changes_that_are_not_all_on_record_are_lost() {
    let one = || vec![changed(1, Some("one"))];
    for (since, number) in [(0, 2), (1, 0), (5, 5)] {
        let reading = read(CatalogueReader::since(since), number, one());
        assert!(matches!(reading, CatalogueReading::Lost), "{reading:?}");
    }
}
