//! The ledger alone: appending a million records, their root, and a proof.
//!
//! `append` hashes leaves and nodes while it writes, and syncs once at the end; `hashed` makes and hashes the same
//! records and nothing else, so that the difference is the disk's. `MEGARING_LEDGER_BENCH` names a folder on the disk
//! to measure; without it, it is that of temporary files.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use megaring_ledger::{Disk, Entry, Kind, Ledger, LedgerView, Options};
use megaring_ring::event_ring::Event;

const RECORDS: u64 = 1_000_000;

fn folder() -> tempfile::TempDir {
    let within = std::env::var_os("MEGARING_LEDGER_BENCH").unwrap_or_else(|| std::env::temp_dir().into());
    tempfile::tempdir_in(within).expect("a folder")
}

fn events() -> Vec<Event> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut event = |number| {
        let entry = Entry { opcode: 1, items: next(), bytes: next(), measured_ns: next(), ..Entry::default() };
        entry.event(Kind::ANSWERED, next() % 16, number, 1.0).expect("a confidence of 1")
    };
    (0..RECORDS).map(&mut event).collect()
}

/// Takes everything, and keeps nothing but the files' names.
#[derive(Debug)]
struct Nowhere;

impl Disk for Nowhere {
    fn write(&self, _path: &Path, _file: &std::fs::File, _at: u64, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn sync(&self, _path: &Path, _file: &std::fs::File) -> std::io::Result<()> {
        Ok(())
    }
}

fn append(criterion: &mut Criterion) {
    let events = events();
    let mut group = criterion.benchmark_group("ledger_1000000");
    group.throughput(Throughput::Elements(RECORDS)).sample_size(10).measurement_time(Duration::from_secs(8));
    let open = || {
        let folder = folder();
        let ledger = Ledger::open(folder.path(), Options::default()).expect("a ledger");
        (folder, ledger)
    };
    group.bench_function("append", |bencher| {
        let run = |(folder, mut ledger): (tempfile::TempDir, Ledger)| {
            ledger.append(&events).expect("room on disk");
            ledger.sync().expect("a disk that works");
            (folder, ledger)
        };
        bencher.iter_batched(open, run, BatchSize::PerIteration);
    });
    group.bench_function("hashed", |bencher| {
        let open = || {
            let folder = folder();
            let ledger = Ledger::open_on(folder.path(), Options::default(), std::sync::Arc::new(Nowhere));
            (folder, ledger.expect("a ledger"))
        };
        let run = |(folder, mut ledger): (tempfile::TempDir, Ledger)| {
            ledger.append(&events).expect("nothing is written");
            black_box(ledger.root());
            (folder, ledger)
        };
        bencher.iter_batched(open, run, BatchSize::PerIteration);
    });
    group.finish();
}

fn read(criterion: &mut Criterion) {
    let folder = folder();
    let mut ledger = Ledger::open(folder.path(), Options::default()).expect("a ledger");
    ledger.append(&events()).expect("room on disk");
    ledger.sync().expect("a disk that works");
    let mut group = criterion.benchmark_group("ledger_1000000");
    group.sample_size(20);
    group.bench_function("root from scratch", |bencher| {
        // No root of a full segment is known: all are read and hashed.
        let path = folder.path().join("roots");
        let roots = std::fs::read(&path).expect("a roots file");
        std::fs::write(&path, &roots[..128]).expect("a header alone");
        bencher.iter(|| LedgerView::open(folder.path()).expect("a ledger").root());
        std::fs::write(&path, &roots).expect("as it was");
    });
    group.bench_function("open", |bencher| {
        bencher.iter(|| LedgerView::open(folder.path()).expect("a ledger").root());
    });
    let view = LedgerView::open(folder.path()).expect("a ledger");
    let mut index = 0;
    let mut prove = || {
        index = (index + 618_033) % RECORDS;
        black_box(view.inclusion(index, RECORDS)).expect("a proof")
    };
    (0..200).for_each(|_| drop(prove()));
    group.bench_function("inclusion", |bencher| bencher.iter(&mut prove));
    group.finish();
}

criterion_group!(benches, append, read);
criterion_main!(benches);
