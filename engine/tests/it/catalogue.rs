//! The catalogue as a database: what is read of its changes is what it is as a whole.

use tidemark_protocol::catalogue::{
    BOOKMARK_KEY, CHANGES_SCHEMA, Catalogue, CatalogueReader, CatalogueReading, PRIMARY_REGION,
    SCHEMA,
};
use tidemark_protocol::{DatabaseId, Value};

use crate::support::{Node, soon, with};

/// Changes on record at most.
const KEPT_MAX: i64 = 1024 + 255;

fn read(node: &Node, mut reader: CatalogueReader) -> CatalogueReading {
    let statements = reader.statements();
    node.database
        .read(&statements, &soon(), &mut reader)
        .unwrap();
    reader.finish().unwrap()
}

fn whole(node: &Node) -> Catalogue {
    let reading = read(node, CatalogueReader::default());
    let CatalogueReading::Whole(catalogue) = reading else {
        panic!("{reading:?}");
    };
    catalogue
}

fn take_changes(node: &Node, known: &mut Catalogue) {
    let reading = read(node, CatalogueReader::since(known.changes().unwrap()));
    let CatalogueReading::Changes(changes) = reading else {
        panic!("{reading:?}");
    };
    known.apply(&changes);
}

fn make() -> Node {
    let mut node = Node::new();
    node.commit(SCHEMA);
    let settings = vec![
        Value::Text(BOOKMARK_KEY.to_owned()),
        Value::Blob(vec![7; 16]),
        Value::Text(PRIMARY_REGION.to_owned()),
        Value::Text("WEUR".to_owned()),
    ];
    commit(
        &mut node,
        "INSERT INTO settings VALUES (?, ?), (?, ?)",
        settings,
    );
    node
}

fn commit(node: &mut Node, sql: &str, params: Vec<Value>) {
    let (transaction, _) = node.try_execute(&[with(sql, params)]).unwrap();
    if let Some(transaction) = transaction {
        let next = transaction.header().next.seq;
        node.owner.acknowledge(next).unwrap();
    }
}

fn insert(node: &mut Node, number: u64) {
    let id = DatabaseId::from_bytes(u128::from(number).to_be_bytes());
    let sql = "INSERT INTO databases(uuid, name, created_at, replicated) VALUES (?, ?, 'now', 1)";
    let params = vec![
        Value::Text(id.to_string()),
        // Names come back.
        Value::Text(format!("name {}", number % 50)),
    ];
    commit(node, sql, params);
}

#[track_caller]
fn assert_same(changed: &Catalogue, whole: &Catalogue) {
    let entries = |catalogue: &Catalogue| catalogue.entries().cloned().collect::<Vec<_>>();
    assert_eq!(entries(changed), entries(whole));
    assert_eq!(changed.len(), whole.len());
    assert_eq!(changed.changes(), whole.changes());
}

#[test]
fn reading_changes_gives_what_reading_everything_gives() {
    let mut node = make();
    node.commit(CHANGES_SCHEMA);
    let mut known = whole(&node);
    assert_eq!(known.changes(), Some(0));
    let mut random = 1_u64;
    for number in 0..1500 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let name = format!("name {}", number % 50);
        let name = || vec![Value::Text(name.clone())];
        // Whoever has the name makes way.
        commit(&mut node, "DELETE FROM databases WHERE name = ?", name());
        insert(&mut node, number);
        if random >> 62 == 0 {
            let sql = "UPDATE databases SET replicated = 0 WHERE name = ?";
            commit(&mut node, sql, name());
        }
        if random >> 61 == 1 {
            commit(&mut node, "DELETE FROM databases WHERE name = ?", name());
        }
        // Not after each: several changes are read at once, of one database too.
        if random >> 60 < 6 {
            take_changes(&node, &mut known);
            assert_same(&known, &whole(&node));
        }
    }
    let (_, rows) = node
        .try_execute(&[with("SELECT count(*) FROM changes", vec![])])
        .unwrap();
    let kept = rows.integer();
    assert!(
        (1024..=KEPT_MAX).contains(&kept),
        "{kept} changes are on record"
    );
    let lost = read(&node, CatalogueReader::since(1));
    assert!(matches!(lost, CatalogueReading::Lost), "{lost:?}");
}

#[test]
fn catalogue_without_numbered_changes_is_read_whole_until_it_has_them() {
    let mut node = make();
    insert(&mut node, 1);
    let old = whole(&node);
    assert_eq!((old.len(), old.changes()), (1, None));
    node.commit(CHANGES_SCHEMA);
    let mut known = whole(&node);
    assert_eq!((known.len(), known.changes()), (1, Some(0)));
    insert(&mut node, 2);
    take_changes(&node, &mut known);
    assert_same(&known, &whole(&node));
}
