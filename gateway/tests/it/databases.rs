//! Databases are made, found, listed and deleted as D1's clients expect.

use reqwest::Method;
use serde_json::json;
use tidemark_protocol::node::CreateDatabase;

use crate::double::{Double, KNOWN};
use crate::server::{DATABASES, Server};

#[tokio::test]
async fn create_answers_the_whole_object() {
    let server = Server::start(Double::leading()).await;
    let request = "11111111-2222-4333-8444-555555555555";
    let got = server
        .post(
            DATABASES,
            r#"{"name":"Fresh_1-x","primary_location_hint":"EEUR","unknown":1}"#,
        )
        .header("tidemark-request-id", request)
        .send()
        .await;
    assert_eq!(
        got.result(),
        json!({
            "uuid": "aaaaaaaa-0000-7000-8000-000000000001",
            "name": "Fresh_1-x",
            "version": "production",
            "created_at": "2026-11-23T10:11:12.131Z",
            "num_tables": 2,
            "file_size": 8192,
            "jurisdiction": null,
            "read_replication": {"mode": "auto"},
            "running_in_region": "WEUR",
            "created_in_region": "WEUR",
            "primary_location_hint": "eeur",
        })
    );
    let created = CreateDatabase {
        name: "Fresh_1-x".to_owned(),
        primary_location_hint: Some("eeur".to_owned()),
        jurisdiction: None,
        replicated: true,
        request: Some(request.parse().unwrap()),
    };
    assert_eq!(server.node.created(), [created]);
}

#[tokio::test]
async fn create_passes_replication_and_jurisdiction_on() {
    let server = Server::start(Double::leading()).await;
    let body = r#"{"name":"x","jurisdiction":"eu","read_replication":{"mode":"disabled"}}"#;
    let result = server.post(DATABASES, body).send().await.result();
    assert_eq!(result["read_replication"], json!({"mode": "disabled"}));
    assert_eq!(result["jurisdiction"], "eu");
}

#[tokio::test]
async fn create_refuses_what_cannot_be() {
    let server = Server::start(Double::leading()).await;
    for (body, says) in [
        (r#"{}"#.to_owned(), "name => Required"),
        (r#"{"name":""}"#.to_owned(), "name"),
        (r#"{"name":"-a"}"#.to_owned(), "name"),
        (r#"{"name":"_a"}"#.to_owned(), "name"),
        (r#"{"name":"a b"}"#.to_owned(), "name"),
        (r#"{"name":"ünder"}"#.to_owned(), "name"),
        (r#"{"name":"catalogue"}"#.to_owned(), "reserved"),
        (format!(r#"{{"name":"{KNOWN}"}}"#), "reserved"),
        (format!(r#"{{"name":"{}"}}"#, "x".repeat(129)), "128"),
        (
            r#"{"name":"a","primary_location_hint":"?"}"#.to_owned(),
            "primary_location_hint",
        ),
        (
            r#"{"name":"a","jurisdiction":"Mars!"}"#.to_owned(),
            "jurisdiction",
        ),
        (
            r#"{"name":"a","read_replication":{"mode":"some"}}"#.to_owned(),
            "mode",
        ),
        (r#"{"name":7}"#.to_owned(), "malformed"),
        (r#"{"name":"a""#.to_owned(), "malformed"),
        (String::new(), "malformed"),
    ] {
        let got = server.post(DATABASES, body.clone()).send().await;
        let message = got.failure(400, 7400, "bad_request");
        assert!(
            message.contains(says) || message.contains("malformed"),
            "{body}: {message}"
        );
    }
    assert!(server.node.created().is_empty());

    let got = server.post(DATABASES, r#"{"name":"shop"}"#).send().await;
    let message = got.failure(400, 7502, "database_exists");
    assert_eq!(message, "Database with name 'shop' already exists");
}

#[tokio::test]
async fn get_takes_a_uuid_or_a_name_and_any_fields() {
    let server = Server::start(Double::leading()).await;
    for path in [
        KNOWN.to_owned(),
        KNOWN.to_uppercase(),
        "shop".to_owned(),
        "shop?fields=uuid%2Cname".to_owned(),
        format!("{KNOWN}?fields=uuid&fields=name"),
    ] {
        let result = server
            .get(&format!("{DATABASES}/{path}"))
            .send()
            .await
            .result();
        assert_eq!(
            (&result["uuid"], &result["name"]),
            (&json!(KNOWN), &json!("shop")),
            "{path}"
        );
    }
    for path in ["nope", "00000000-0000-0000-0000-000000000000"] {
        let got = server.get(&format!("{DATABASES}/{path}")).send().await;
        let message = got.failure(404, 7404, "no_database");
        assert_eq!(message, format!("The database {path} could not be found"));
    }
}

#[tokio::test]
async fn delete_is_null_once_and_404_then() {
    let server = Server::start(Double::leading()).await;
    let path = format!("{DATABASES}/{KNOWN}");
    assert_eq!(
        server.ask(Method::DELETE, &path).send().await.result(),
        json!(null)
    );
    server
        .ask(Method::DELETE, &path)
        .send()
        .await
        .failure(404, 7404, "no_database");
    let got = server
        .ask(Method::DELETE, &format!("{DATABASES}/shop"))
        .send()
        .await;
    got.failure(404, 7404, "no_database");
}

#[tokio::test]
async fn delete_repeated_under_its_request_id_is_the_nodes_to_judge() {
    let server = Server::start(Double::leading()).await;
    let delete = async |request: &str| {
        let ask = server.ask(Method::DELETE, &format!("{DATABASES}/{KNOWN}"));
        ask.header("tidemark-request-id", request).send().await
    };
    let (first, other) = (KNOWN, "0192f3a4-5b6c-7d8e-9fa0-000000000001");
    for _ in ["first try", "retry"] {
        assert_eq!(delete(first).await.result(), json!(null));
    }
    delete(other).await.failure(404, 7404, "no_database");
}

/// Names and `result_info` of one page.
async fn page(server: &Server, query: &str) -> (Vec<String>, serde_json::Value) {
    let got = server.get(&format!("{DATABASES}{query}")).send().await;
    let result = got.result();
    let names = result.as_array().unwrap().iter().map(|database| {
        let keys: Vec<_> = database.as_object().unwrap().keys().cloned().collect();
        assert_eq!(
            keys,
            ["created_at", "jurisdiction", "name", "uuid", "version"]
        );
        database["name"].as_str().unwrap().to_owned()
    });
    (names.collect(), got.json()["result_info"].clone())
}

#[tokio::test]
async fn list_ends_with_an_empty_page() {
    let server = Server::start(Double::leading()).await;
    server.node.add_databases(24);
    let mut names = Vec::new();
    for number in 1.. {
        let query = format!("?page={number}&per_page=10");
        let (page, info) = page(&server, &query).await;
        let count = page.len();
        let want = json!({"page": number, "per_page": 10, "count": count, "total_count": 25});
        assert_eq!(info, want);
        if page.is_empty() {
            assert_eq!(number, 4);
            break;
        }
        names.extend(page);
    }
    assert_eq!(names.len(), 25);
    let (all, _) = page(&server, "").await;
    assert_eq!(all, names);
    let (none, _) = page(&server, &format!("?page={}", u64::MAX)).await;
    assert!(none.is_empty());
}

#[tokio::test]
async fn list_filters_by_name() {
    let server = Server::start(Double::leading()).await;
    server.node.add_databases(12);
    let (names, info) = page(&server, "?name=-001").await;
    assert_eq!(names, ["tenant-0010", "tenant-0011"]);
    assert_eq!(info["total_count"], 2);
}

#[tokio::test]
async fn list_refuses_bad_numbers() {
    let server = Server::start(Double::leading()).await;
    for query in [
        "?page=0",
        "?page=x",
        "?per_page=0",
        "?per_page=10001",
        "?per_page=-1",
        "?page=",
    ] {
        let got = server.get(&format!("{DATABASES}{query}")).send().await;
        got.failure(400, 7400, "bad_request");
    }
    let got = server
        .get(&format!("{DATABASES}?page=1&page=2"))
        .send()
        .await;
    got.failure(400, 7400, "bad_request");
}
