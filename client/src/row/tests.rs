#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

fn read<T: DeserializeOwned>(row: &[(&str, Value)]) -> Result<T, String> {
    let columns: Vec<String> = row.iter().map(|(name, _)| (*name).to_owned()).collect();
    let values = row.iter().map(|(_, value)| value.clone()).collect();
    from_row(&columns, values).map_err(|error| error.to_string())
}

#[derive(Deserialize, PartialEq, Debug)]
#[serde(rename_all = "lowercase")]
enum Colour {
    Red,
    Green,
}

#[derive(Deserialize, PartialEq, Debug)]
struct Id(i64);

#[derive(Deserialize, PartialEq, Debug)]
struct Everything {
    id: Id,
    name: String,
    ratio: f64,
    photo: Vec<u8>,
    key: [u8; 2],
    done: bool,
    note: Option<String>,
    colour: Colour,
    any: Value,
}

#[test]
fn struct_takes_every_kind_of_column() {
    let row = [
        ("any", Value::Blob(vec![1])),
        ("id", Value::Integer(i64::MAX)),
        ("name", Value::from("ada")),
        ("ratio", Value::Integer(2)),
        ("photo", Value::Blob(vec![0, 255])),
        ("key", Value::Blob(vec![7, 8])),
        ("done", Value::Integer(1)),
        ("note", Value::Null),
        ("colour", Value::from("green")),
        ("unasked", Value::Real(0.5)),
    ];
    assert_eq!(
        read::<Everything>(&row).unwrap(),
        Everything {
            id: Id(i64::MAX),
            name: "ada".to_owned(),
            ratio: 2.0,
            photo: vec![0, 255],
            key: [7, 8],
            done: true,
            note: None,
            colour: Colour::Green,
            any: Value::Blob(vec![1]),
        }
    );
}

#[test]
fn value_keeps_each_storage_class() {
    for value in [
        Value::Null,
        Value::Integer(-3),
        Value::Real(1.0),
        Value::from("x"),
        Value::Blob(vec![9]),
    ] {
        assert_eq!(read::<Value>(&[("v", value.clone())]).unwrap(), value);
    }
}

#[test]
fn tuple_takes_columns_by_place_and_counts_them() {
    let row = [("a", Value::Integer(1)), ("a", Value::from("two"))];
    assert_eq!(read::<(u8, String)>(&row).unwrap(), (1, "two".to_owned()));
    assert_eq!(
        read::<(u8,)>(&row).unwrap_err(),
        "row has 2 columns, expected 1"
    );
}

#[test]
fn of_equal_names_a_struct_takes_the_last() {
    #[derive(Deserialize)]
    struct Joined {
        id: i64,
    }
    let row = [
        ("id", Value::Integer(1)),
        ("x", Value::Null),
        ("id", Value::Integer(2)),
    ];
    assert_eq!(read::<Joined>(&row).unwrap().id, 2);
    let map: BTreeMap<String, Option<i64>> = read(&row).unwrap();
    assert_eq!(
        map,
        BTreeMap::from([("id".to_owned(), Some(2)), ("x".to_owned(), None)])
    );
}

#[test]
fn scalar_takes_the_only_column() {
    assert_eq!(read::<u32>(&[("n", Value::Integer(5))]).unwrap(), 5);
    assert_eq!(read::<Option<u32>>(&[("n", Value::Null)]).unwrap(), None);
    assert!(read::<u32>(&[("n", Value::Integer(5)), ("m", Value::Null)]).is_err());
}

#[test]
fn what_does_not_fit_is_refused_with_the_column_named() {
    #[derive(Deserialize, Debug)]
    #[allow(dead_code)] // Only its failure is looked at.
    struct Narrow {
        n: u8,
    }
    let error = read::<Narrow>(&[("n", Value::Integer(256))]).unwrap_err();
    assert!(error.starts_with("column 'n': "), "{error}");
    assert!(read::<bool>(&[("b", Value::Integer(2))]).is_err());
    assert!(read::<i64>(&[("i", Value::Real(1.0))]).is_err());
    assert!(read::<String>(&[("s", Value::Null)]).is_err());
    assert!(read::<Colour>(&[("c", Value::from("blue"))]).is_err());
}

#[test]
fn integer_becomes_a_float_only_exactly() {
    let exact = 1_i64 << 53;
    assert_eq!(
        read::<f64>(&[("f", Value::Integer(exact))]).unwrap(),
        9_007_199_254_740_992.0
    );
    assert!(read::<f64>(&[("f", Value::Integer(exact + 1))]).is_err());
    assert!(read::<f64>(&[("f", Value::Integer(i64::MAX))]).is_err());
}
