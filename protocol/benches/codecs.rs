//! What every answer and every write pays for its forms: bookmarks, rows as JSON, transaction records.
//!
//!     cargo bench -p tidemark-protocol

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidemark_protocol::render::{
    AnswerBounds, Renderer, ResultSink, RowShape, ServedBy, StatementStatistics, ValueForm,
};
use tidemark_protocol::{
    Bookmark, BookmarkKey, DatabaseId, Epoch, PAGE_SIZE, PageNo, Position, Seq, StateChecksum,
    Transaction, TransactionBuilder, TransactionHeader, ValueRef,
};

const DATABASE: DatabaseId = DatabaseId::from_bytes([7; 16]);

fn at(seq: u64) -> Position {
    Position {
        epoch: Epoch::FIRST,
        seq: Seq(seq),
        checksum: StateChecksum(seq.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
    }
}

fn bookmarks(criterion: &mut Criterion) {
    let key = BookmarkKey::new([3; 16]);
    let mut group = criterion.benchmark_group("bookmark");
    group.bench_function("issue and write", |bencher| {
        bencher.iter(|| Bookmark::issue(&key, DATABASE, black_box(at(123_456))).text());
    });
    let text = Bookmark::issue(&key, DATABASE, at(123_456)).to_string();
    group.bench_function("read and verify", |bencher| {
        bencher.iter(|| {
            let bookmark: Bookmark = black_box(&text).parse().expect("a bookmark");
            bookmark.verify(&key, DATABASE).expect("of this cluster")
        });
    });
    group.finish();
}

/// An answer of so many rows of an id, a price and a note.
fn answer(rows: i64, served_by: &ServedBy) -> usize {
    let bounds = AnswerBounds::default();
    let mut renderer = Renderer::new(RowShape::Objects, ValueForm::D1, bounds, served_by);
    renderer.begin_statement();
    let fits = renderer.columns(&["id", "price", "note"]);
    fits.expect("within the bounds");
    for row in 0..rows {
        renderer.begin_row();
        renderer.cell(0, ValueRef::Integer(black_box(row)));
        renderer.cell(1, ValueRef::Real(black_box(0.99)));
        renderer.cell(2, ValueRef::Text(black_box(b"a note of some length")));
        renderer.end_row().expect("within the bounds");
    }
    let ended = renderer.end_statement(&StatementStatistics::default());
    ended.expect("within the bounds");
    renderer.finish().results.len()
}

fn rows(criterion: &mut Criterion) {
    let served_by = ServedBy {
        region: "ENAM".to_owned(),
        primary: true,
    };
    let mut group = criterion.benchmark_group("rows as JSON");
    for count in [1, 100] {
        group.throughput(Throughput::Bytes(answer(count, &served_by) as u64));
        group.bench_function(count.to_string(), |bencher| {
            bencher.iter(|| answer(count, &served_by));
        });
    }
    group.finish();
}

/// A transaction of so many pages, every byte of which is something.
fn transaction(pages: u32) -> Transaction {
    let mut builder = TransactionBuilder::new();
    for page in 1..=pages {
        builder.push(PageNo(page), black_box(&[0x5a; PAGE_SIZE]));
    }
    let header = TransactionHeader {
        database: DATABASE,
        base: at(1),
        next: at(2),
        request: None,
        proposed_at_ms: 0,
        pages_after: pages,
    };
    builder.finish(header, &[]).expect("a valid record")
}

fn transactions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("transaction record");
    for pages in [1, 64] {
        let record = transaction(pages).encoded().clone();
        group.throughput(Throughput::Bytes(record.len() as u64));
        group.bench_function(format!("write {pages} pages"), |bencher| {
            bencher.iter(|| transaction(pages));
        });
        group.bench_function(format!("read {pages} pages"), |bencher| {
            bencher.iter(|| Transaction::decode(black_box(record.clone())).expect("a record"));
        });
    }
    group.finish();
}

criterion_group!(codecs, bookmarks, rows, transactions);
criterion_main!(codecs);
