//! A failed write is final for the owner, and for nobody else.

use tidemark_protocol::DatabaseId;
use tidemark_protocol::render::{AnswerBounds, Renderer, RowShape, ServedBy, ValueForm};

use super::*;
use crate::database::{Database, Opened};
use crate::options::Options;

fn sink() -> Renderer {
    let served_by = ServedBy {
        region: "ENAM".to_owned(),
        primary: true,
    };
    Renderer::new(
        RowShape::Arrays,
        ValueForm::D1,
        AnswerBounds::default(),
        &served_by,
    )
}

fn control() -> Control {
    Control::until(Instant::now() + std::time::Duration::from_secs(20))
}

fn execute(owner: &mut Owner, sql: &str) -> Result<Option<Transaction>, ExecuteError> {
    let statement = Statement {
        sql: sql.to_owned(),
        params: Vec::new(),
    };
    let stamp = Stamp {
        request: None,
        proposed_at_ms: 0,
        after: Seq::ZERO,
    };
    owner.execute(&[statement], &stamp, &control(), &mut sink())
}

#[test]
fn a_failed_write_closes_the_owner_while_readers_go_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let open = || {
        Database::open(directory.path(), DatabaseId::CATALOGUE, &Options::default())
            .expect("opened")
    };
    let Opened {
        database,
        mut owner,
    } = open();
    let made = execute(&mut owner, "CREATE TABLE t(a)")
        .expect("valid")
        .expect("writes");
    let last = made.header().next;
    owner.acknowledge(last.seq).expect("flushed");
    let lost = execute(&mut owner, "INSERT INTO t VALUES(1)")
        .expect("valid")
        .expect("writes");
    owner.journal.sabotage();
    let failed = owner.acknowledge(lost.header().next.seq);
    assert!(matches!(failed, Err(EngineError::Io { .. })), "{failed:?}");

    let refused = owner.acknowledge(lost.header().next.seq);
    assert!(
        matches!(refused, Err(EngineError::Poisoned { .. })),
        "{refused:?}"
    );
    let refused = execute(&mut owner, "SELECT 1");
    assert!(
        matches!(
            refused,
            Err(ExecuteError::Storage(EngineError::Poisoned { .. }))
        ),
        "{refused:?}"
    );
    assert!(owner.apply(&[]).is_err() && owner.discard().is_err());
    assert!(owner.checkpoint(CheckpointMode::Passive).is_err());
    let select = Statement {
        sql: "SELECT * FROM t".to_owned(),
        params: Vec::new(),
    };
    assert_eq!(
        database
            .read(&[select], &control(), &mut sink())
            .expect("served"),
        last
    );

    drop((database, owner));
    assert_eq!(open().owner.position(), Some(last));
}

/// A panic inside of a callback from C must come out as an error.
#[test]
fn a_panic_in_a_callback_is_an_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let Opened {
        database,
        mut owner,
    } = Database::open(directory.path(), DatabaseId::CATALOGUE, &Options::default())
        .expect("opened");
    let wal = owner.wal.clone();
    let poisoned = std::thread::spawn(move || {
        let _guard = wal.lock().expect("not poisoned yet");
        panic!("on purpose");
    });
    assert!(poisoned.join().is_err());
    assert!(execute(&mut owner, "CREATE TABLE t(a)").is_err());
    drop((database, owner));
}
