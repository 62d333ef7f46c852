//! The same requests to the D1 that workerd has bundled and to a Tidemark node: whatever differs is listed.
//!
//! Both speak the protocol of a Worker's binding, so that answers are compared as they are on the wire:
//! rows, column names, value forms, every counter of `meta`, and error texts to the letter. The requests
//! are in `corpus/`, in files by subject; each heading there is a new database on either side. What differs
//! on purpose is marked there and explained in `docs/d1-differences.md`, which has both answers: one that
//! is not listed fails the test, and so does a listed one that is gone or looks otherwise. With
//! `TIDEMARK_BLESS=1` the lists in the document are written anew; the reasons are for people to write.
//! What differs again and again by one rule ([`compare::Difference::rule`]) needs no mark: of such a reason
//! the document has the first answers and the number of the others.

mod bundled;
mod compare;
mod corpus;
mod document;

use reqwest::Method;
use serde_json::Value;
use tidemark_tests::{Api, Cluster, wait};

use self::bundled::Bundled;
use self::corpus::{Corpus, Request};
use self::document::{Document, Found};
use super::npm;
use super::worker::WORKERD;
use crate::PROGRAM;

/// What either side answers.
async fn ask(api: &Api, database: &str, request: &Request) -> Value {
    let path = format!("/d1/{database}{}", request.endpoint.path());
    let sent = api.send(Method::POST, &path, &[], request.body.clone());
    let reply = sent.await.expect("an answer");
    assert!(!reply.json.is_null(), "{}: {}", request.text, reply.text);
    reply.json
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_the_bundled_d1_but_for_what_is_listed() {
    let Some(workerd) = npm::workerd(WORKERD).await else {
        return;
    };
    let corpus = Corpus::read();
    let bundled = Bundled::start(&workerd, &corpus).await;
    let cluster = Cluster::told(PROGRAM, &[], &["--sql-limits", "d1"]).await;
    let tidemark = cluster.primary.api();

    let mut found = Found::default();
    for group in &corpus.groups {
        tidemark.create(&group.database).await;
        for request in &group.requests {
            let theirs = ask(bundled.api(), &group.database, request).await;
            let ours = ask(&tidemark, &group.database, request).await;
            let differences = compare::differences(&theirs, &ours);
            found.note(group, request, differences);
        }
    }
    found.assert_listed();
    Document::read().hold_against(&found);
    cluster.verified(wait::SOON).await;
    eprintln!("{} requests", corpus.len());
}
