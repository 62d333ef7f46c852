//! What packing a page costs that has changed a little, and unpacking it: one of as many as are sent in turn. Within
//! the window it was sent before; of 4000 it is forgotten by the time that it comes again.
//!
//!     cargo bench -p tidemark-net

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidemark_net::{Packer, Unpacker};

const PAGE_BYTES: usize = 4096;
/// Pages that change in turn.
const PAGES: [usize; 3] = [16, 400, 4000];

/// Pages like those of a table of text and numbers.
fn pages(count: usize) -> Vec<Vec<u8>> {
    let page = |number: usize| {
        let rows = (0..).map(|row| {
            let id = number * 100 + row;
            format!("{id:08x}\u{4}{}a note of some length on item {id}", id * 7)
        });
        let mut page = Vec::new();
        for row in rows {
            page.extend_from_slice(row.as_bytes());
            if page.len() >= PAGE_BYTES {
                page.truncate(PAGE_BYTES);
                return page;
            }
        }
        unreachable!("rows without end")
    };
    (0..count).map(page).collect()
}

fn packing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("packing");
    group.throughput(Throughput::Bytes(PAGE_BYTES as u64));
    for count in PAGES {
        let mut pages = pages(count);
        let mut turn = 0;
        let mut next = move || {
            turn += 1;
            let page = turn * 7 % count;
            pages[page][turn % PAGE_BYTES] ^= 1;
            pages[page].clone()
        };
        let mut packer = Packer::new().expect("memory");
        for _ in 0..count {
            black_box(packer.pack(&next()).expect("memory"));
        }
        group.bench_function(format!("pack/{count}-pages"), |bencher| {
            bencher.iter(|| packer.pack(&next()).expect("memory"));
        });
        let (mut packer, mut unpacker) = (
            Packer::new().expect("memory"),
            Unpacker::new().expect("memory"),
        );
        group.bench_function(format!("pack-and-unpack/{count}-pages"), |bencher| {
            bencher.iter(|| {
                let packed = packer.pack(&next()).expect("memory");
                unpacker.unpack(&packed, PAGE_BYTES).expect("the next one")
            });
        });
        let sizes = (0..100).map(|_| packer.pack(&next()).expect("memory").len());
        eprintln!("{count} pages: {} bytes packed", sizes.sum::<usize>() / 100);
    }
    group.finish();
}

criterion_group!(benches, packing);
criterion_main!(benches);
