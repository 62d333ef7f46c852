//! Where two answers differ.

use serde_json::{Map, Value};

/// Fields of `meta` that say who answered and how fast.
const NOT_COMPARED: [&str; 5] = [
    "served_by",
    "served_by_region",
    "served_by_colo",
    "timings",
    "duration",
];

/// One place where the answers differ.
#[derive(Debug)]
pub(super) struct Difference {
    /// Such as `[0].meta.rows_read`.
    pub(super) place: String,
    /// What the bundled D1 has there; none if nothing.
    pub(super) theirs: Option<Value>,
    pub(super) ours: Option<Value>,
    /// The reason, if it is one that holds for every request.
    pub(super) rule: Option<&'static str>,
}

pub(super) fn differences(theirs: &Value, ours: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    if theirs.is_array() == ours.is_array() {
        look("", Some(theirs), Some(ours), &mut found);
    } else {
        found.push(Difference {
            place: "answer".to_owned(),
            theirs: Some(gist(theirs)),
            ours: Some(gist(ours)),
            rule: None,
        });
    }
    for difference in &mut found {
        difference.rule = rule(difference, ours);
        if let Some(Value::String(error)) = &mut difference.theirs
            && let Some(at) = error.find("reference = ")
        {
            error.truncate(at); // what follows is drawn by lot
            error.push('…');
        }
    }
    found
}

/// Of an answer, the error or the rows.
fn gist(answer: &Value) -> Value {
    match answer.as_array() {
        Some(elements) => elements.iter().map(|one| one["results"].clone()).collect(),
        None => answer["error"].clone(),
    }
}

/// Sorts what differs in the same way in many answers.
fn rule(difference: &Difference, answer: &Value) -> Option<&'static str> {
    let (element, field) = difference.place.strip_prefix('[')?.split_once("].meta.")?;
    let meta = &answer[element.parse::<usize>().ok()?]["meta"];
    let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_i64);
    let (theirs, ours) = (number(&difference.theirs), number(&difference.ours));
    match field {
        "last_row_id" if ours == Some(0) && meta["changed_db"] == false => {
            Some("last-row-id-of-reads")
        }
        "size_after" if ours > theirs => Some("size-of-the-file"),
        "changed_db" if meta["changed_db"] == true && meta["changes"] == 0 => {
            Some("changes-of-the-schema")
        }
        _ => None,
    }
}

fn look(place: &str, theirs: Option<&Value>, ours: Option<&Value>, found: &mut Vec<Difference>) {
    match (theirs, ours) {
        (Some(Value::Object(theirs)), Some(Value::Object(ours))) => {
            for key in keys(theirs, ours) {
                let inside = match place {
                    "" => key.to_owned(),
                    _ => format!("{place}.{key}"),
                };
                look(&inside, theirs.get(key), ours.get(key), found);
            }
        }
        (Some(Value::Array(theirs)), Some(Value::Array(ours))) => {
            for index in 0..theirs.len().max(ours.len()) {
                let inside = format!("{place}[{index}]");
                look(&inside, theirs.get(index), ours.get(index), found);
            }
        }
        _ if theirs == ours => {}
        _ => found.push(Difference {
            place: place.to_owned(),
            theirs: theirs.cloned(),
            ours: ours.cloned(),
            rule: None,
        }),
    }
}

fn keys<'m>(one: &'m Map<String, Value>, other: &'m Map<String, Value>) -> Vec<&'m str> {
    let both = one
        .keys()
        .chain(other.keys().filter(|key| !one.contains_key(*key)));
    both.map(String::as_str)
        .filter(|key| !NOT_COMPARED.contains(key))
        .collect()
}
