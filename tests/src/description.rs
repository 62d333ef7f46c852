//! The description of the API, to hold answers against.
//!
//! For this it is read more strictly than it is written: an object has the properties that are described and no
//! others, so that an answer cannot say more than the description does.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, OnceLock};

use jsonschema::{Draft, Validator};
use reqwest::Method;
use reqwest::header::{ALLOW, ETAG, HeaderMap, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::{Map, Value, json};

use crate::api::Reply;

/// What the nodes of a cluster say to each other is not described, nor is the page for people.
const LEFT_OUT: [&str; 4] = [
    "/tidemark/v1/stream",
    "/tidemark/v1/raft",
    "/tidemark/v1/cell/databases/",
    "/console/",
];
/// What the HTTP library itself answers, without a body, to what is hardly HTTP.
const OF_THE_LIBRARY: [u16; 4] = [400, 413, 414, 431];

/// The description that nodes of this build serve.
#[derive(Debug)]
pub struct Description {
    document: Value,
    operations: Vec<Operation>,
    /// By the pointer of the schema. Made when they are needed.
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

/// One method of one path.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The method.
    pub method: Method,
    /// The path, with `{name}` where something is to be put in.
    pub path: String,
    /// Where it is in the document.
    pointer: String,
}

impl Operation {
    fn fits(&self, path: &str) -> bool {
        let (mine, given) = (self.path.split('/'), path.split('/'));
        mine.clone().count() == given.clone().count()
            && mine
                .zip(given)
                .all(|(mine, given)| mine == given || (mine.starts_with('{') && !given.is_empty()))
    }

    fn placeholders(&self) -> usize {
        self.path.matches('{').count()
    }
}

impl Description {
    /// The description that nodes of this build serve.
    pub fn of_this_build() -> &'static Self {
        static THIS: OnceLock<Description> = OnceLock::new();
        THIS.get_or_init(|| Self::new(tidemark_gateway::DESCRIPTION))
    }

    fn new(text: &str) -> Self {
        let mut document: Value = serde_json::from_str(text).expect("the description is JSON");
        close(&mut document);
        let mut operations = Vec::new();
        for (path, item) in object(&document["paths"]) {
            for key in object(item).keys().filter(|key| *key != "parameters") {
                let method = key.to_uppercase().parse().expect("keys are methods");
                operations.push(Operation {
                    method,
                    path: path.clone(),
                    pointer: format!("/paths/{}/{key}", escaped(path)),
                });
            }
        }
        Self {
            document,
            operations,
            validators: Mutex::default(),
        }
    }

    /// The document, closed.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// All that can be asked for.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The operation that a request is.
    pub fn operation(&self, method: &Method, path: &str) -> Option<&Operation> {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let method = if *method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        let fit = |operation: &&Operation| operation.method == *method && operation.fits(path);
        let fitting = self.operations.iter().filter(fit);
        fitting.min_by_key(|operation| operation.placeholders())
    }

    /// The statuses that an operation is said to answer, each with the kinds of failure that it stands for.
    pub fn answers(&self, operation: &Operation) -> Vec<(u16, Vec<String>)> {
        let responses = &self.at(&operation.pointer)["responses"];
        let answers = object(responses).keys().map(|status| {
            let pointer = format!("{}/responses/{status}", operation.pointer);
            let kinds = &self.at(&self.followed(&pointer))["headers"]["tidemark-failure"]["schema"];
            let kinds = kinds["enum"].as_array().into_iter().flatten();
            let kinds = kinds.filter_map(Value::as_str).map(str::to_owned).collect();
            (status.parse().expect("keys are statuses"), kinds)
        });
        answers.collect()
    }

    /// Holds an answer against the description; says how they differ.
    pub fn check(&self, method: &Method, path: &str, reply: &Reply) -> Result<(), String> {
        let said = self.judged(method, path, reply);
        said.map_err(|why| format!("{method} {path}: {} {}: {why}", reply.status, reply.text))
    }

    fn judged(&self, method: &Method, path: &str, reply: &Reply) -> Result<(), String> {
        if path == "/" || LEFT_OUT.iter().any(|left_out| path.starts_with(left_out)) {
            return Ok(());
        }
        if OF_THE_LIBRARY.contains(&reply.status)
            && reply.text.is_empty()
            && reply.header("content-type").is_none()
        {
            return Ok(());
        }
        let response = match self.operation(method, path) {
            Some(operation) => format!("{}/responses/{}", operation.pointer, reply.status),
            None if reply.status == 405 => "/components/responses/NoMethod".to_owned(),
            None => "/components/responses/NoRoute".to_owned(),
        };
        if self.document.pointer(&response).is_none() {
            return Err("the status is not described".to_owned());
        }
        let response = self.followed(&response);
        self.check_headers(&response, &reply.headers)?;
        if *method == Method::HEAD {
            return Ok(());
        }
        let media = reply.header("content-type").unwrap_or_default();
        let schema = format!("{response}/content/{}/schema", escaped(media));
        if self.document.pointer(&schema).is_none() {
            return Err(format!("the type '{media}' is not described"));
        }
        let text;
        let body = if media == "application/json" {
            &reply.json
        } else {
            text = Value::String(reply.text.clone());
            &text
        };
        self.valid(&schema, body)
    }

    fn check_headers(&self, response: &str, headers: &HeaderMap) -> Result<(), String> {
        let empty = Map::new();
        let described = self.at(response)["headers"].as_object().unwrap_or(&empty);
        for name in described.keys() {
            let header = self.followed(&format!("{response}/headers/{name}"));
            match headers.get(name).map(|value| value.to_str()) {
                Some(Ok(value)) => self
                    .valid(&format!("{header}/schema"), &json!(value))
                    .map_err(|why| format!("header {name}: {why}"))?,
                Some(Err(_)) => return Err(format!("header {name} is not text")),
                None if self.at(&header)["required"] == true => {
                    return Err(format!("header {name} is missing"));
                }
                None => {}
            }
        }
        let ours = |name: &str| {
            let known = [ALLOW, ETAG, RETRY_AFTER, WWW_AUTHENTICATE];
            name.starts_with("tidemark-")
                || name.starts_with("x-")
                || known.iter().any(|known| known == name)
        };
        let mut undescribed = headers
            .keys()
            .filter(|name| ours(name.as_str()) && !described.contains_key(name.as_str()));
        match undescribed.next() {
            Some(name) => Err(format!("header {name} is not described")),
            None => Ok(()),
        }
    }

    /// Holds a value against the schema at `pointer`.
    pub fn valid(&self, pointer: &str, value: &Value) -> Result<(), String> {
        let mut wrong = String::new();
        for error in self.validator(pointer).iter_errors(value) {
            let _ = write!(wrong, "{error} at '{}'; ", error.instance_path());
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    fn validator(&self, pointer: &str) -> Arc<Validator> {
        let mut validators = self.validators.lock().expect("no check panics in here");
        let made = validators.entry(pointer.to_owned()).or_insert_with(|| {
            let components = &self.document["components"];
            let schema = json!({ "allOf": [self.at(pointer)], "components": components });
            let options = jsonschema::options().with_draft(Draft::Draft202012);
            let made = options.should_validate_formats(true).build(&schema);
            Arc::new(made.unwrap_or_else(|error| panic!("the schema at {pointer}: {error}")))
        });
        Arc::clone(made)
    }

    fn at(&self, pointer: &str) -> &Value {
        let there = self.document.pointer(pointer);
        there.unwrap_or_else(|| panic!("the description has no {pointer}"))
    }

    /// Where a reference leads, or the place itself if there is none.
    fn followed(&self, pointer: &str) -> String {
        match self.at(pointer)["$ref"].as_str() {
            Some(reference) => reference.trim_start_matches('#').to_owned(),
            None => pointer.to_owned(),
        }
    }
}

/// Shuts every object that lists its properties, and every `allOf`, against others.
fn close(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(close),
        Value::Object(map) => {
            map.values_mut().for_each(close);
            let closed = if map.get("allOf").is_some_and(Value::is_array) {
                "unevaluatedProperties"
            } else if map.get("type").is_some_and(|kind| kind == "object")
                && map.get("properties").is_some_and(Value::is_object)
            {
                "additionalProperties"
            } else {
                return;
            };
            map.entry(closed).or_insert(Value::Bool(false));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().expect("an object")
}

/// A key as part of a pointer.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
