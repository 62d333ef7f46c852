//! What D1's tools ask for besides queries: who they are, what they may change, the present bookmark,
//! figures.

use serde_json::{Value, json};
use tidemark_protocol::ReadContract;
use tidemark_protocol::node::EditDatabase;

use crate::double::{Double, KNOWN, Turn, bookmark};
use crate::server::{DATABASES, Server};

#[tokio::test]
async fn replication_is_changed_by_put_and_patch() {
    let server = Server::start(Double::leading()).await;
    let path = format!("{DATABASES}/shop");
    let off = r#"{"read_replication":{"mode":"disabled"}}"#;
    for (method, body, mode) in [
        (reqwest::Method::PUT, off, "disabled"),
        (
            reqwest::Method::PATCH,
            r#"{"read_replication":{"mode":"auto"}}"#,
            "auto",
        ),
        (reqwest::Method::PATCH, r#"{"other":1}"#, "auto"),
    ] {
        let got = server
            .ask_with(method, &path, body)
            .header("tidemark-request-id", KNOWN)
            .send()
            .await;
        let database = got.result();
        assert_eq!(database["read_replication"]["mode"], json!(mode), "{body}");
        assert_eq!(database["uuid"], json!(KNOWN));
    }
    let edit = |replicated| EditDatabase {
        replicated,
        request: Some(KNOWN.parse().unwrap()),
    };
    let wanted = [edit(Some(false)), edit(Some(true)), edit(None)];
    assert_eq!(server.node.edited(), wanted);

    for (method, body, says) in [
        (reqwest::Method::PUT, "{}", "read_replication => Required"),
        (
            reqwest::Method::PATCH,
            r#"{"read_replication":{"mode":"some"}}"#,
            "some",
        ),
        (reqwest::Method::PATCH, "[", "malformed"),
    ] {
        let got = server.ask_with(method, &path, body).send().await;
        let message = got.failure(400, 7400, "bad_request");
        assert!(message.contains(says), "{message}");
    }
    let unknown = format!("{DATABASES}/nope");
    let got = server.ask_with(reqwest::Method::PUT, &unknown, off);
    got.send().await.failure(404, 7404, "no_database");
    assert_eq!(server.node.edited().len(), 3);
}

#[tokio::test]
async fn change_is_passed_on_to_the_primary() {
    let primary = Server::start(Double::leading()).await;
    let replica = Server::start(Double::following(&primary.base)).await;
    let off = r#"{"read_replication":{"mode":"disabled"}}"#;
    let path = format!("{DATABASES}/shop");
    let got = replica.ask_with(reqwest::Method::PUT, &path, off);
    let database = got.send().await.result();
    assert_eq!(database["read_replication"]["mode"], json!("disabled"));
    assert_eq!(primary.node.edited().len(), 1);
    assert!(replica.node.edited().is_empty());
}

#[tokio::test]
async fn fields_are_named_in_one_list_or_one_by_one() {
    let server = Server::start(Double::leading()).await;
    let some = json!({ "uuid": KNOWN, "name": "shop" });
    for query in [
        "?fields=uuid%2Cname",
        "?fields=uuid,name",
        "?fields=uuid&fields=name",
        "?fields=uuid&x=1&fields=name,nonsense",
    ] {
        let got = server.get(&format!("{DATABASES}/shop{query}")).send().await;
        assert_eq!(got.result(), some, "{query}");
    }
    let whole = server.get(&format!("{DATABASES}/shop?x=uuid")).send().await;
    assert_eq!(whole.result()["version"], json!("production"));
}

#[tokio::test]
async fn present_has_a_bookmark_and_the_past_is_refused() {
    let server = Server::start(Double::leading()).await;
    let path = format!("{DATABASES}/{KNOWN}/time_travel");
    for query in ["", "?"] {
        let got = server.get(&format!("{path}/bookmark{query}")).send().await;
        let present = json!({ "bookmark": bookmark().to_string() });
        assert_eq!(got.result(), present, "{query}");
        let executed = server.node.executed().pop().expect("a read");
        assert_eq!(executed.read, ReadContract::FirstPrimary);
    }
    let past = format!("{path}/bookmark?timestamp=2026-11-01T00%3A00%3A00Z");
    let got = server.get(&past).send().await;
    let message = got.failure(400, 7400, "bad_request");
    assert!(message.contains("2026-11-01T00:00:00Z"), "{message}");
    let got = server
        .post(&format!("{path}/restore?bookmark=x"), "")
        .send();
    got.await.failure(400, 7400, "bad_request");

    let replica = Server::start(Double::following(&server.base)).await;
    replica.node.script([Turn::Forward]);
    let got = replica.get(&format!("{path}/bookmark?")).send().await;
    assert_eq!(got.result()["bookmark"], json!(bookmark().to_string()));
}

#[tokio::test]
async fn account_user_and_token_are_there_for_whoever_may_come_in() {
    let server = Server::start_with(Double::leading(), |config| {
        config.tokens = vec!["secret".to_owned()];
    })
    .await;
    let ask = |path: &str| {
        let path = format!("/client/v4{path}");
        server.get(&path).header("authorization", "Bearer secret")
    };
    let account = json!({ "id": "tidemark", "name": "Tidemark" });
    assert_eq!(
        ask("/accounts?page=1").send().await.result(),
        json!([account])
    );
    assert_eq!(ask("/accounts?page=2").send().await.result(), json!([]));
    assert_eq!(ask("/accounts/tidemark").send().await.result(), account);
    let memberships = ask("/memberships?page=1").send().await.result();
    assert_eq!(memberships[0]["account"], account);
    assert_eq!(memberships[0]["status"], json!("accepted"));
    assert_eq!(ask("/memberships?page=2").send().await.result(), json!([]));
    let token = ask("/user/tokens/verify").send().await.result();
    assert_eq!(token["status"], json!("active"));
    assert!(ask("/user").send().await.result()["email"].is_string());
    for path in ["/accounts", "/memberships", "/user", "/user/tokens/verify"] {
        let got = server.get(&format!("/client/v4{path}")).send().await;
        got.failure(401, 10000, "unauthenticated");
    }
}

/// What a field of the account is answered with.
async fn figures(server: &Server, field: &str, filter: Value) -> Value {
    let query = format!(
        "query q($filter: F) {{ viewer {{ accounts(filter: {{accountTag: \"a\"}}) {{ {field} {{ count }} }} }} }}"
    );
    let body = json!({ "query": query, "variables": { "filter": filter } }).to_string();
    let got = server.post("/client/v4/graphql", body).send().await;
    assert_eq!(got.status.as_u16(), 200, "{}", got.text());
    let json = got.json();
    assert_eq!(json["errors"], json!(null));
    let groups = &json["data"]["viewer"]["accounts"][0];
    groups.as_object().unwrap().values().next().unwrap().clone()
}

#[tokio::test]
async fn graphql_has_figures_of_what_ran() {
    let server = Server::start(Double::leading()).await;
    for sql in [
        "SELECT a FROM t WHERE b = 1",
        "SELECT a FROM t WHERE b = 2",
        "SELECT 'x'",
    ] {
        let body = json!({ "sql": sql }).to_string();
        let path = format!("{DATABASES}/{KNOWN}/query");
        assert_eq!(server.post(&path, body).send().await.status.as_u16(), 200);
    }
    let day = |from: &str, to: &str| json!({ "AND": [{ "datetimeHour_geq": from, "datetimeHour_leq": to, "databaseId": KNOWN }] });
    let now = day("2025-12-31T00:00:00Z", "2026-01-01T00:40:00.000Z");
    let hours = figures(
        &server,
        "d1AnalyticsAdaptiveGroups(limit: 10, filter: $filter)",
        now.clone(),
    );
    let hours = hours.await;
    assert_eq!(hours[0]["sum"]["readQueries"], json!(3));
    assert_eq!(
        hours[0]["dimensions"]["datetimeHour"],
        json!("2026-01-01T00:00:00Z")
    );
    assert_eq!(hours.as_array().unwrap().len(), 1);

    let field = "groups: d1QueriesAdaptiveGroups(limit: 1, filter: $filter, orderBy: [count_DESC])";
    let queries = figures(&server, field, now).await;
    assert_eq!(queries.as_array().unwrap().len(), 1);
    assert_eq!(queries[0]["count"], json!(2));
    assert_eq!(
        queries[0]["dimensions"]["query"],
        json!("SELECT a FROM t WHERE b = ?")
    );

    let a_day = json!({ "date_geq": "2026-01-01", "date_leq": "2026-01-01" });
    let found = figures(&server, "d1QueriesAdaptiveGroups(filter: $filter)", a_day).await;
    assert_eq!(found.as_array().unwrap().len(), 2);
    for none in [
        json!({ "datetimeHour_lt": "2026-01-01T00:00:00Z" }),
        json!({ "date_gt": "2026-01-01" }),
        json!({ "date": "2026-01-02" }),
        json!({ "datetimeHour_geq": "2026-01-01T01:00:00Z" }),
    ] {
        let found = figures(&server, "d1QueriesAdaptiveGroups(filter: $filter)", none).await;
        assert_eq!(found, json!([]));
    }
    let before = day("2025-12-30T00:00:00Z", "2025-12-31T00:00:00Z");
    let none = figures(&server, "d1QueriesAdaptiveGroups(filter: $filter)", before).await;
    assert_eq!(none, json!([]));
    let size = json!({ "databaseId": KNOWN });
    let sizes = figures(&server, "d1StorageAdaptiveGroups(filter: $filter)", size).await;
    assert_eq!(sizes[0]["max"]["databaseSizeBytes"], json!(8192));
}

#[tokio::test]
async fn graphql_that_is_none_is_refused_in_its_own_form() {
    let server = Server::start(Double::leading()).await;
    let deep = format!("{{ a {} }}", "{ a ".repeat(3_000));
    let many = "d1StorageAdaptiveGroups ".repeat(20);
    let many = format!("{{ viewer {{ accounts {{ {many} }} }} }}");
    let unknown = r#"{ viewer { accounts { d1QueriesAdaptiveGroups(filter: {colour: "red"}) } } }"#;
    for query in ["query {", "mutation { a }", &deep, &many, unknown] {
        let body = json!({ "query": query }).to_string();
        let got = server.post("/client/v4/graphql", body).send().await;
        assert_eq!(got.status.as_u16(), 200);
        assert!(
            got.json()["errors"][0]["message"].is_string(),
            "{}",
            got.text()
        );
    }
    let got = server.post("/client/v4/graphql", "{").send().await;
    got.failure(400, 7400, "bad_request");
}
