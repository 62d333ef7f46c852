//! At stake: managing databases, and reading what nodes say of themselves.

use tidemark_client::{Error, NewDatabase, Role};

use crate::scripted::{Act, Scripted};

fn page(names: &[&str], total: Option<u64>) -> Act {
    let databases: Vec<String> = names
        .iter()
        .map(|name| format!(r#"{{"uuid":"u-{name}","name":"{name}","version":"production"}}"#))
        .collect();
    let info = total.map_or("null".to_owned(), |total| {
        format!(r#"{{"page":1,"per_page":100,"count":1,"total_count":{total}}}"#)
    });
    Act::foreign(
        200,
        &format!(
            r#"{{"result":[{}],"result_info":{info},"success":true,"errors":[],"messages":[]}}"#,
            databases.join(",")
        ),
    )
}

async fn listed(script: Vec<Act>) -> (Vec<String>, usize) {
    let server = Scripted::start(script).await;
    let databases = server.client().list_databases().await.unwrap();
    (
        databases
            .into_iter()
            .map(|database| database.name)
            .collect(),
        server.asked().len(),
    )
}

#[tokio::test]
async fn list_follows_the_pages_to_their_end() {
    let script = vec![page(&["a", "b"], Some(3)), page(&["c"], Some(3))];
    assert_eq!(
        listed(script).await,
        (vec!["a".into(), "b".into(), "c".into()], 2)
    );
    let script = vec![page(&["a"], None), page(&[], None)];
    assert_eq!(listed(script).await, (vec!["a".into()], 2));
}

#[tokio::test]
async fn list_stops_at_a_server_that_repeats_its_only_page() {
    let script = vec![page(&["a"], None), page(&["a"], None)];
    assert_eq!(listed(script).await, (vec!["a".into()], 2));
}

#[tokio::test]
async fn create_and_delete_carry_a_request_id() {
    let created = r#"{"result":{"uuid":"u-1","name":"shop","jurisdiction":null},"success":true}"#;
    let deleted = r#"{"result":null,"success":true,"errors":[],"messages":[]}"#;
    let server = Scripted::start([Act::foreign(200, created), Act::foreign(200, deleted)]).await;
    let client = server.client();
    let shop = NewDatabase::named("shop")
        .location_hint("weur")
        .replicated(true);
    assert_eq!(client.create_database(shop).await.unwrap().uuid, "u-1");
    client.delete_database("shop").await.unwrap();

    let asked = server.asked();
    assert_eq!(
        asked[0].body,
        r#"{"name":"shop","primary_location_hint":"weur","read_replication":{"mode":"auto"}}"#
    );
    assert_eq!(asked[1].method, "DELETE");
    assert_eq!(
        asked[1].uri.path(),
        "/client/v4/accounts/tidemark/d1/database/shop"
    );
    assert!(
        asked
            .iter()
            .all(|asked| asked.header("tidemark-request-id").is_some())
    );
}

/// A database of the same name may have been made meanwhile: the id alone tells the retry from a wish to
/// delete that one.
#[tokio::test]
async fn delete_is_tried_again_under_its_id_and_its_repeated_success_is_one() {
    let deleted = r#"{"result":null,"success":true,"errors":[],"messages":[]}"#;
    let repeated = Act::foreign(200, deleted).with("tidemark-repeated", "true");
    let unknown = Act::failure(424, "unknown", 7904, "lost contact");
    let server = Scripted::start([Act::Hang, unknown, repeated]).await;
    server.client().delete_database("shop").await.unwrap();
    let ids: Vec<_> = server
        .asked()
        .iter()
        .map(|asked| asked.header("tidemark-request-id").unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|id| *id == ids[0]), "ids differ: {ids:?}");
}

/// Gone is what it would be after the first try, but also if another had deleted it.
#[tokio::test]
async fn delete_in_doubt_that_then_finds_no_database_stays_unknown() {
    let gone = Act::failure(404, "no_database", 7404, "no such database");
    let server = Scripted::start([Act::Hang, gone]).await;
    let error = server.client().delete_database("shop").await.unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error:?}");
}

#[tokio::test]
async fn status_and_verification_are_read() {
    let uuid = "0b6e8d2a-63f1-4e2a-9c1d-2f1f5a1b7c11";
    let position = r#"{"epoch":1,"seq":5,"checksum":18446744073709551615}"#;
    let status = format!(
        r#"{{"result":{{"node":7,"role":"replica","region":"WEUR","leading":false,"term":3,
        "primary_url":"http://p:1","databases":[{{"uuid":"{uuid}","name":"shop",
        "position":{position},"damaged":null}}],"replicas":[]}},"success":true}}"#
    );
    let verification = format!(
        r#"{{"result":{{"position":{position},"computed":18446744073709551615,"pages":2,
        "intact":true}},"success":true}}"#
    );
    let server =
        Scripted::start([Act::foreign(200, &status), Act::foreign(200, &verification)]).await;
    let client = server.client();
    let status = client.node_status().await.unwrap();
    assert_eq!(status.role, Role::Replica);
    assert_eq!(status.databases[0].name, "shop");
    let verification = client.verify_database("shop").await.unwrap();
    assert!(verification.intact);
    assert_eq!(verification.position, status.databases[0].position);
    assert_eq!(
        server.asked()[1].uri.path(),
        "/tidemark/v1/databases/shop/verify"
    );
}
