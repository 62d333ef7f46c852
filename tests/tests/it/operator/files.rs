//! Containers, Kubernetes and systemd: their files have what the program and the platform ask of them.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{settings, text, yaml};
use crate::PROGRAM;

/// Longest that systemd may look at a unit.
const VERIFY_WAIT: Duration = Duration::from_secs(60);

/// A misspelt variable is ignored without a word: the node runs with a default.
fn assert_known<'a>(what: &str, command: &str, named: impl Iterator<Item = &'a str>) {
    let known = settings::of(command);
    for name in named.filter(|name| name.starts_with(settings::PREFIX)) {
        assert!(
            known.contains(name),
            "{what}: tidemark {command} does not know {name}"
        );
    }
}

#[test]
fn nine_services_are_bounded_restarted_checked_and_not_root() {
    let compose = yaml("docker-compose.yml").remove(0);
    let services = compose["services"].as_object().expect("services");
    assert_eq!(services.len(), 9);
    let mut ports = BTreeSet::new();
    for (name, service) in services {
        for key in [
            "image",
            "mem_limit",
            "cpus",
            "pids_limit",
            "stop_grace_period",
            "restart",
            "networks",
        ] {
            assert!(!service[key].is_null(), "{name} has no {key}");
        }
        assert_eq!(service["healthcheck"]["test"][1], "/tidemark", "{name}");
        assert_eq!(service["cap_drop"][0], "ALL", "{name}");
        assert_eq!(service["read_only"], true, "{name}");
        let command = service["command"][0].as_str().expect("a command");
        let environment = service["environment"].as_object().expect("an environment");
        assert_known(name, command, environment.keys().map(String::as_str));
        // A node is reached from this machine under the port that it listens on.
        let listen = environment["TIDEMARK_LISTEN"].as_str().expect("text");
        let port = listen.rsplit_once(':').expect("a port").1;
        let published = service["ports"][0].as_str().expect("text");
        assert!(
            published.starts_with("127.0.0.1:"),
            "{name} is open to the world"
        );
        assert!(
            published.ends_with(&format!("{}:{port}", &port[3..])),
            "{name}: {published}"
        );
        assert!(
            ports.insert(port.to_owned()),
            "{name}: port {port} is another's"
        );
        if command == "replica" {
            // Its own network alone: there is no way past the relay.
            assert_eq!(service["networks"], serde_json::json!([name]));
        }
    }
    for network in compose["networks"].as_object().expect("networks").keys() {
        let wan = &services["wan"]["networks"][network];
        let aliases = wan["aliases"].as_array().map_or(0, Vec::len);
        assert_eq!(aliases, if network == "enam" { 0 } else { 4 }, "{network}");
    }
}

#[test]
fn kubernetes_objects_have_the_fields_that_they_need() {
    let mut sets = 0;
    for file in [
        "kubernetes/primary.yaml",
        "kubernetes/replica.yaml",
        "kubernetes/secret.yaml",
    ] {
        let objects = yaml(file);
        let services: BTreeSet<_> = objects
            .iter()
            .filter(|object| object["kind"] == "Service")
            .map(|object| {
                object["metadata"]["name"]
                    .as_str()
                    .expect("a name")
                    .to_owned()
            })
            .collect();
        for object in &objects {
            let version = match object["kind"].as_str().expect("a kind") {
                "StatefulSet" => "apps/v1",
                "PodDisruptionBudget" => "policy/v1",
                "Service" | "Secret" => "v1",
                kind => panic!("{file}: a {kind} is checked by nobody"),
            };
            assert_eq!(object["apiVersion"], version, "{file}");
            assert!(object["metadata"]["name"].is_string(), "{file}");
            let spec = &object["spec"];
            match object["kind"].as_str() {
                Some("StatefulSet") => {
                    sets += 1;
                    assert!(
                        services.contains(spec["serviceName"].as_str().expect("text")),
                        "{file}"
                    );
                    check_stateful_set(file, spec);
                }
                Some("PodDisruptionBudget") => {
                    let bounds = [&spec["maxUnavailable"], &spec["minAvailable"]];
                    assert_eq!(
                        bounds.iter().filter(|bound| bound.is_u64()).count(),
                        1,
                        "{file}"
                    );
                    assert!(spec["selector"]["matchLabels"].is_object(), "{file}");
                }
                Some("Service") => {
                    assert_eq!(spec["ports"][0]["targetPort"], "http", "{file}");
                    assert!(spec["selector"].is_object(), "{file}");
                }
                _ => assert!(object["stringData"]["token"].is_string(), "{file}"),
            }
        }
    }
    assert_eq!(sets, 2);
}

fn check_stateful_set(file: &str, spec: &Value) {
    let template = &spec["template"];
    assert_eq!(
        spec["selector"]["matchLabels"], template["metadata"]["labels"],
        "{file}"
    );
    let pod = &template["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{file}");
    assert!(
        pod["terminationGracePeriodSeconds"].as_u64() >= Some(20),
        "{file}"
    );
    let container = &pod["containers"][0];
    assert_eq!(container["ports"][0]["name"], "http", "{file}");
    for probe in ["startupProbe", "livenessProbe"] {
        // A node without a leader is not restarted for it.
        assert_eq!(
            container[probe]["httpGet"]["path"], "/health",
            "{file}: {probe}"
        );
    }
    assert_eq!(
        container["readinessProbe"]["httpGet"]["path"], "/ready",
        "{file}"
    );
    assert!(
        container["resources"]["limits"]["memory"].is_string(),
        "{file}"
    );
    let command = container["args"][0].as_str().expect("a command");
    let environment = container["env"].as_array().expect("an environment");
    let names = environment
        .iter()
        .map(|one| one["name"].as_str().expect("a name"));
    assert_known(file, command, names);
    // What is mounted is a volume or claimed.
    let names = |list: &Value, at: fn(&Value) -> &Value| -> BTreeSet<String> {
        let list = list.as_array().expect("a list").iter();
        list.map(|one| at(one).as_str().expect("a name").to_owned())
            .collect()
    };
    let mounted = names(&container["volumeMounts"], |mount| &mount["name"]);
    let mut there = names(&pod["volumes"], |volume| &volume["name"]);
    there.extend(names(&spec["volumeClaimTemplates"], |claim| {
        &claim["metadata"]["name"]
    }));
    assert_eq!(mounted, there, "{file}");
}

#[tokio::test]
async fn units_are_what_systemd_understands() {
    let directory = tempfile::tempdir().expect("make a temporary directory");
    for (role, name) in [
        ("primary", "systemd/tidemark-primary.service"),
        ("replica", "systemd/tidemark-replica.service"),
    ] {
        let unit = text(name);
        assert_known(
            name,
            role,
            settings::words(&unit).iter().map(String::as_str),
        );
        assert!(
            unit.contains(&format!("/usr/bin/tidemark {role} ")),
            "{name}"
        );
        // systemd looks whether the program is there.
        let unit = unit.replace("/usr/bin/tidemark", PROGRAM);
        let copy = directory.path().join(format!("tidemark-{role}.service"));
        std::fs::write(&copy, unit).expect("write a unit");
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no"]).arg(&copy);
        match crate::d1::program::run(&mut verify, VERIFY_WAIT).await {
            Ok(ran) => {
                let ours = |line: &&str| line.contains("tidemark-");
                let said: Vec<_> = ran.err.lines().filter(ours).collect();
                assert!(said.is_empty(), "{said:?}");
            }
            Err(error) => eprintln!("skipped: no systemd-analyze: {error}"),
        }
    }
}
