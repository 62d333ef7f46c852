//! Every PromQL query of the alerts and the dashboard.

use std::collections::BTreeSet;
use std::convert::Infallible;

use promql_parser::parser::{self, Expr};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::Value;

/// A query, and where it stands.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) of: String,
    pub(crate) text: String,
}

/// The alerts, as `(name, rule)`.
pub(crate) fn alerts() -> Vec<(String, Value)> {
    let rules = super::yaml("prometheus/alerts.yml").remove(0);
    let groups = rules["groups"].as_array().expect("groups").clone();
    let rules = groups
        .into_iter()
        .flat_map(|group| group["rules"].as_array().expect("rules").clone());
    let alerts = rules.map(|rule| {
        let name = rule["alert"].as_str().expect("an alert has a name");
        (name.to_owned(), rule)
    });
    alerts.collect()
}

/// The dashboard's model.
pub(crate) fn dashboard() -> Value {
    serde_json::from_str(&super::text("grafana/dashboard.json")).expect("the dashboard is JSON")
}

/// All queries. Grafana's variables have the values that it would put there.
pub(crate) fn all() -> Vec<Query> {
    let mut queries: Vec<_> = alerts()
        .into_iter()
        .map(|(of, rule)| Query {
            of,
            text: rule["expr"]
                .as_str()
                .expect("an alert has a query")
                .to_owned(),
        })
        .collect();
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| {
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets
            .into_iter()
            .map(|target| (panel["title"].clone(), target))
    });
    let annotations = dashboard["annotations"]["list"].as_array().cloned();
    let annotations = annotations.unwrap_or_default();
    let annotations = annotations
        .into_iter()
        .map(|one| (one["name"].clone(), one));
    queries.extend(targets.chain(annotations).map(|(of, one)| {
        let text = one["expr"].as_str().expect("a panel has a query");
        let text = text
            .replace("$__rate_interval", "1m")
            .replace("$cluster", "tidemark");
        Query {
            of: of.to_string(),
            text,
        }
    }));
    queries
}

impl Query {
    /// The metrics that it asks for. Panics if it is not PromQL.
    pub(crate) fn metrics(&self) -> BTreeSet<String> {
        let Self { of, text } = self;
        let expression =
            parser::parse(text).unwrap_or_else(|error| panic!("{of}: {text}: {error}"));
        let mut names = Names(BTreeSet::new());
        let Ok(_) = walk_expr(&mut names, &expression);
        names.0
    }
}

struct Names(BTreeSet<String>);

impl ExprVisitor for Names {
    type Error = Infallible;

    fn pre_visit(&mut self, part: &Expr) -> Result<bool, Infallible> {
        let selector = if let Expr::VectorSelector(selector) = part {
            Some(selector)
        } else if let Expr::MatrixSelector(selector) = part {
            Some(&selector.vs)
        } else {
            None
        };
        self.0
            .extend(selector.and_then(|selector| selector.name.clone()));
        Ok(true)
    }
}
