//! The description of the API against the code that answers.

use std::collections::BTreeSet;

use serde_json::Value;
use tidemark_gateway::{DESCRIPTION, routes};
use tidemark_protocol::cell::{CELL_PATH, JOIN_PATH, REMOVE_PATH, TRANSFER_PATH};

use crate::double::Double;
use crate::server::Server;

fn description() -> Value {
    serde_json::from_str(DESCRIPTION).unwrap()
}

/// Method and path of everything that `description` has.
fn described(description: &Value) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for key in item.as_object().unwrap().keys() {
            if key != "parameters" {
                found.insert((key.to_uppercase(), path.clone()));
            }
        }
    }
    found
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let mut routed: BTreeSet<_> = routes::<Double>()
        .into_iter()
        .map(|(method, path)| (method.to_string(), path.to_owned()))
        .collect();
    // A voter's own: the tests of whole clusters ask for them.
    let voters = [
        ("GET", CELL_PATH),
        ("POST", JOIN_PATH),
        ("POST", REMOVE_PATH),
        ("POST", TRANSFER_PATH),
    ];
    routed.extend(voters.map(|(method, path)| (method.to_owned(), path.to_owned())));
    assert_eq!(described(&description()), routed);
}

#[test]
fn description_is_of_this_version() {
    let version = &description()["info"]["version"];
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn description_is_open_to_everybody() {
    let with_tokens = |config: &mut tidemark_gateway::GatewayConfig| {
        config.tokens = vec!["secret".to_owned()];
    };
    let server = Server::start_with(Double::leading(), with_tokens).await;
    let got = server.get("/tidemark/v1/openapi.json").send().await;
    assert_eq!(got.status, 200);
    assert_eq!(got.header("content-type"), Some("application/json"));
    assert_eq!(got.json(), description());
}
