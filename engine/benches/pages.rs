//! What the engine does with pages: hashes them, commits to the overlay, flushes that into the WAL, and applies what
//! another node committed. Each write changes one row, so one page.
//!
//!     cargo bench -p tidemark-engine

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tempfile::TempDir;
use tidemark_engine::{
    CheckpointMode, Control, Database, Opened, Options, Owner, Stamp, page_hash,
};
use tidemark_protocol::render::{AnswerBounds, Renderer, RowShape, ServedBy, ValueForm};
use tidemark_protocol::{DatabaseId, PAGE_SIZE, PageNo, Seq, Statement, Transaction, Value};

const DATABASE: DatabaseId = DatabaseId::from_bytes([7; 16]);
const ROWS: i64 = 10_000;
/// Transactions between two checkpoints, so that the WAL stays as large as on a node.
const CHECKPOINT_EVERY: u64 = 1000;
/// Transactions that are applied together, as a replica does that is behind.
const MERGED: usize = 100;

/// A database with a table of [`ROWS`] rows, in a directory of its own.
struct Node {
    owner: Owner,
    served_by: ServedBy,
    writes: u64,
    _directory: TempDir,
}

impl Node {
    /// A database that is not written to yet.
    fn blank() -> Self {
        let directory = tempfile::tempdir().expect("make a temporary directory");
        let path = directory.path().join("database");
        let opened = Database::open(&path, DATABASE, &Options::default());
        let Opened { owner, .. } = opened.expect("open a new database");
        Self {
            owner,
            served_by: ServedBy {
                region: "ENAM".to_owned(),
                primary: true,
            },
            writes: 0,
            _directory: directory,
        }
    }

    /// One that has the rows, and the transactions that made it.
    fn filled() -> (Self, Vec<Transaction>) {
        let mut node = Self::blank();
        let fill = format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) \
             INSERT INTO item SELECT i, i * 7, 'a note of some length on item ' || i FROM n"
        );
        let table = "CREATE TABLE item(id INTEGER PRIMARY KEY, value INTEGER NOT NULL, note TEXT)";
        let made = [table, &fill].map(|sql| {
            let transaction = node.execute(sql, Vec::new());
            node.acknowledge();
            transaction
        });
        (node, made.into())
    }

    fn execute(&mut self, sql: &str, params: Vec<Value>) -> Transaction {
        let bounds = AnswerBounds::default();
        let mut sink = Renderer::new(RowShape::Objects, ValueForm::D1, bounds, &self.served_by);
        let statement = Statement {
            sql: sql.to_owned(),
            params,
        };
        let stamp = Stamp {
            request: None,
            proposed_at_ms: 1,
            after: Seq::ZERO,
        };
        let control = Control::until(Instant::now() + Duration::from_secs(60));
        let ran = self
            .owner
            .execute(&[statement], &stamp, &control, &mut sink);
        ran.expect("run a statement").expect("it writes")
    }

    /// Updates the next row, into the overlay alone.
    fn update(&mut self) -> Transaction {
        self.writes += 1;
        if self.writes.is_multiple_of(CHECKPOINT_EVERY) {
            self.acknowledge();
            let checkpoint = self.owner.checkpoint(CheckpointMode::Truncate);
            checkpoint.expect("checkpoint");
        }
        let row = 1 + self.writes.wrapping_mul(0x9E37_79B9_7F4A_7C15) % ROWS as u64;
        let row = Value::Integer(i64::try_from(row).expect("a small number"));
        self.execute("UPDATE item SET value = value + 1 WHERE id = ?", vec![row])
    }

    /// Flushes what the overlay has.
    fn acknowledge(&mut self) {
        let tip = self.owner.tip().expect("written to");
        self.owner.acknowledge(tip.seq).expect("flush the overlay");
    }
}

fn hashing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("page");
    group.throughput(Throughput::Bytes(PAGE_SIZE as u64));
    let image = [0x5a; PAGE_SIZE];
    group.bench_function("hash", |bencher| {
        bencher.iter(|| page_hash(PageNo(9), black_box(&image)));
    });
    group.finish();
}

fn writing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("update");
    let (mut node, _) = Node::filled();
    group.bench_function("commit to the overlay", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            for _ in 0..iterations {
                let began = Instant::now();
                black_box(node.update());
                spent += began.elapsed();
                node.acknowledge();
            }
            spent
        });
    });
    let (mut node, _) = Node::filled();
    group.bench_function("commit and flush into the WAL", |bencher| {
        bencher.iter(|| {
            let transaction = node.update();
            node.acknowledge();
            transaction
        });
    });
    group.finish();
}

fn applying(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    let (mut primary, made) = Node::filled();
    let mut follower = Node::blank();
    follower.owner.apply(&made).expect("apply the rows");
    for together in [1, MERGED] {
        group.throughput(Throughput::Elements(together as u64));
        group.bench_function(format!("{together} together"), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    let updates: Vec<_> = (0..together).map(|_| primary.update()).collect();
                    primary.acknowledge();
                    let began = Instant::now();
                    follower.owner.apply(&updates).expect("apply updates");
                    spent += began.elapsed();
                    follower.writes += 1;
                    if follower.writes.is_multiple_of(CHECKPOINT_EVERY) {
                        let checkpoint = follower.owner.checkpoint(CheckpointMode::Truncate);
                        checkpoint.expect("checkpoint");
                    }
                }
                spent
            });
        });
    }
    group.finish();
}

criterion_group!(pages, hashing, writing, applying);
criterion_main!(pages);
