//! The files that an operator starts from: what they name exists, in the program and in what nodes show.

mod exposition;
mod files;
mod lines;
mod observed;
pub(crate) mod queries;
mod settings;

use std::path::PathBuf;

/// A file of `deploy/`.
pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(name)
}

/// Its text.
pub(crate) fn text(name: &str) -> String {
    let path = path(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The documents of a YAML file.
pub(crate) fn yaml(name: &str) -> Vec<serde_json::Value> {
    let documents = serde_saphyr::from_multiple(&text(name));
    documents.unwrap_or_else(|error| panic!("{name}: {error}"))
}
