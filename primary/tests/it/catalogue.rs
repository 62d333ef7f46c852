//! The catalogue over versions.

use std::time::{Duration, Instant};

use tidemark_engine::{CheckpointMode, Control, Database, Opened, Options, Stamp};
use tidemark_protocol::node::ListDatabases;
use tidemark_protocol::render::{AnswerBounds, Renderer, RowShape, ServedBy, ValueForm};
use tidemark_protocol::{DatabaseId, Node, Position, Seq, Statement};

use crate::harness::{create, start, start_again};

/// What a catalogue was made with before it numbered its changes lacks all that makes the numbers.
const WITHOUT_CHANGES: &str = "DROP TRIGGER note_made; DROP TRIGGER note_edited; \
    DROP TRIGGER note_deleted; DROP TABLE changes; DELETE FROM settings WHERE key = 'changes'";

/// Changes the catalogue's files behind the back of the node, which is down, and with them the file `chain`, by which the
/// node judges what the log has for them.
fn rewrite(directory: &std::path::Path, sql: &str) {
    let files = directory
        .join("databases")
        .join(DatabaseId::CATALOGUE.to_string());
    let opened = Database::open(&files, DatabaseId::CATALOGUE, &Options::default());
    let Opened { mut owner, .. } = opened.unwrap();
    let statement = Statement {
        sql: sql.to_owned(),
        params: vec![],
    };
    let stamp = Stamp {
        request: None,
        proposed_at_ms: 0,
        after: Seq::ZERO,
    };
    let served_by = ServedBy {
        region: "ENAM".to_owned(),
        primary: true,
    };
    let control = Control::until(Instant::now() + Duration::from_secs(10));
    let mut sink = Renderer::new(
        RowShape::Arrays,
        ValueForm::Exact,
        AnswerBounds::default(),
        &served_by,
    );
    let executed = owner.execute(&[statement], &stamp, &control, &mut sink);
    let transaction = executed.unwrap().unwrap();
    owner.acknowledge(transaction.header().next.seq).unwrap();
    owner.checkpoint(CheckpointMode::Truncate).unwrap();
    let chain = directory.join("chain");
    let bytes = chained(std::fs::read(&chain).unwrap(), &transaction.header().next);
    std::fs::write(chain, bytes).unwrap();
}

/// The file `chain` (`docs/formats.md`) with the catalogue at this position.
fn chained(mut bytes: Vec<u8>, next: &Position) -> Vec<u8> {
    const HEAD: usize = 20;
    const ENTRY: usize = 36;
    bytes.truncate(bytes.len() - 4);
    let mut entries = bytes[HEAD..].chunks_exact_mut(ENTRY);
    let catalogue = DatabaseId::CATALOGUE.to_bytes();
    let entry = entries.find(|entry| entry[..16] == catalogue).unwrap();
    entry[16..20].copy_from_slice(&next.epoch.0.to_le_bytes());
    entry[20..28].copy_from_slice(&next.seq.0.to_le_bytes());
    entry[28..].copy_from_slice(&next.checksum.0.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn catalogue_that_numbered_no_changes_numbers_them_from_the_next_leader_on() {
    let directory = tempfile::tempdir().unwrap();
    let primary = start(directory.path()).await;
    create(&primary, "old").await;
    primary.stop().await;
    drop(primary);
    rewrite(directory.path(), WITHOUT_CHANGES);

    let names = async |primary: &tidemark_primary::Primary| {
        let all = ListDatabases {
            name: None,
            offset: 0,
            limit: 100,
        };
        let listed = primary.databases(all).await.unwrap().databases;
        listed.into_iter().map(|one| one.name).collect::<Vec<_>>()
    };
    let primary = start_again(directory.path(), 1).await;
    assert_eq!(names(&primary).await, ["old"]);
    create(&primary, "new").await;
    let one = create(&primary, "newest").await;
    primary.delete(one, None).await.unwrap();
    assert_eq!(names(&primary).await, ["new", "old"]);
    primary.stop().await;
    drop(primary);

    let primary = start_again(directory.path(), 2).await;
    assert_eq!(names(&primary).await, ["new", "old"]);
    primary.stop().await;
    drop(primary);
    // It would fail if any of them were not there.
    rewrite(directory.path(), WITHOUT_CHANGES);
}
