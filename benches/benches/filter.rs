//! Filters and changes of a corpus of 1,000,000 x 384 rows, in process: one query beside one that a filter limits, top
//! 10, cosine; a row deleted, and the search after it; 100,000 rows replaced. Each iteration asks with other rows.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use megaring_bench::{Bench, cases, queries};
use megaring_core::Metric;
use megaring_core::corpus::CorpusView;
use megaring_core::matrix::Matrix;
use megaring_core::search::Search;
use megaring_corpus::{Rows, Selection};
use megaring_datasets::Embeddings;
use megaring_engine::Terms;

const ROWS: usize = 1_000_000;
const DIM: usize = 384;
const REPLACED: usize = 100_000;
const NAME: &str = "filtered";

/// A zone from 0 to 99, without a pattern.
fn zone(row: usize) -> u8 {
    ((row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8 % 100
}

fn filters(criterion: &mut Criterion) {
    let bench = Bench::new().expect("a folder and threads");
    let generated = Embeddings { rows: ROWS, dim: DIM, ..Embeddings::default() }.generate();
    let rows = Matrix { rows: ROWS, dim: DIM, values: generated.values };
    let store = bench.engine.store();
    store.create(NAME, DIM).expect("room on disk");
    let mut appender = store.append(NAME).expect("it is there");
    let zone = Some((0..ROWS).map(zone).collect());
    let embeddings = rows.clone();
    appender.push(Rows { embeddings, zone, ..Rows::default() }).expect("good rows");
    appender.commit().expect("room on disk");
    let whole = store.view(NAME).expect("it is there");
    let mut group = criterion.benchmark_group("filter");
    group.measurement_time(Duration::from_secs(10));
    for (name, filter) in [
        ("none", None),
        ("99 %", Some("zone <> 7")),
        ("50 %", Some("zone < 50")),
        ("10 %", Some("zone < 10")),
        ("1 %", Some("zone = 7")),
    ] {
        let filter = filter.map(|filter| filter.parse().expect("a good filter"));
        let selection = Selection { filter, ..Selection::default() };
        // Asked for twice, what passes is gathered where it is little.
        let selected = [(); 2].map(|()| store.select(&whole, &selection).expect("a good filter"));
        let [_, selected] = selected;
        let corpus = selected.gathered.unwrap_or(selected.view);
        let mut start = 0;
        group.bench_function(BenchmarkId::new("1 query on 1000000x384", name), |b| {
            b.iter(|| {
                start = (start + 37) % ROWS;
                one(&bench, &corpus, &rows, start)
            });
        });
    }
    let mut id = 0;
    group.bench_function("a row deleted, and a query", |b| {
        b.iter(|| {
            id += 997;
            store.delete(NAME, &[id % ROWS as u64]).expect("room on disk");
            one(&bench, &store.view(NAME).expect("it is there"), &rows, id as usize % ROWS)
        });
    });
    group.sample_size(10);
    group.bench_function("100000 rows replaced, and a query", |b| {
        b.iter_custom(|times| (0..times).map(|_| replaced(&bench, &rows)).sum());
    });
    group.finish();
}

fn one(bench: &Bench, corpus: &Arc<CorpusView>, rows: &Matrix, start: usize) {
    let (corpus, queries) = (corpus.clone(), queries(rows, start, 1).into());
    let job = Search { corpus, queries, metric: Metric::Cosine, k: 10, threshold: None };
    black_box(bench.engine.run_blocking(job, Terms::default()).expect("a good job"));
}

fn replaced(bench: &Bench, rows: &Matrix) -> Duration {
    let store = bench.engine.store();
    let first = 200_000;
    let new = Rows {
        embeddings: cases::matrix(DIM, &rows.values[first * DIM..(first + REPLACED) * DIM]),
        memory_ids: (first as u64..).take(REPLACED).collect(),
        zone: Some((first..first + REPLACED).map(zone).collect()),
        ..Rows::default()
    };
    let begun = Instant::now();
    let mut appender = store.upsert(NAME).expect("it is there");
    appender.push(new).expect("good rows");
    appender.commit().expect("room on disk");
    one(bench, &store.view(NAME).expect("it is there"), rows, 7);
    begun.elapsed()
}

criterion_group!(benches, filters);
criterion_main!(benches);
