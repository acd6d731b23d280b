//! Search in process: from a validated job to the exact answer, through admission, ring, CPU workers and rescoring,
//! over a stored and mapped corpus. Top 10, cosine. Each iteration asks with other rows, so that no answer is in a
//! cache.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use megaring_bench::{Bench, queries};
use megaring_core::Metric;
use megaring_core::matrix::Matrix;
use megaring_core::nop::Nop;
use megaring_core::search::Search;
use megaring_engine::Terms;

fn search(criterion: &mut Criterion) {
    let bench = Bench::new().expect("a folder and threads");
    let mut group = criterion.benchmark_group("search");
    group.bench_function("empty job", |b| {
        b.iter(|| bench.engine.run_blocking(Nop, Terms::default()).expect("a nop"));
    });
    for (name, rows, batches) in [
        ("100x384", 100, &[1][..]),
        ("5562x384", 5_562, &[1, 8, 64, 5_562]),
        ("110000x384", 110_000, &[1, 64]),
        ("1000000x384", 1_000_000, &[1, 4, 64]),
    ] {
        let corpus = bench.corpus(name, rows, 384).expect("room on disk");
        for batch in batches {
            group.throughput(Throughput::Elements(*batch as u64));
            if *batch > 1_000 {
                group.sample_size(10).measurement_time(Duration::from_secs(5));
            }
            let mut start = 0;
            group.bench_function(BenchmarkId::new(name, format!("{batch} queries")), |b| {
                b.iter(|| {
                    start = (start + 37) % (rows - batch + 1);
                    one(&bench, name, queries(&corpus, start, *batch))
                });
            });
        }
    }
    group.finish();
}

fn one(bench: &Bench, corpus: &str, queries: Matrix) {
    let corpus = bench.engine.store().view(corpus).expect("the corpus is stored");
    let job = Search { corpus, queries: queries.into(), metric: Metric::Cosine, k: 10, threshold: None };
    black_box(bench.engine.run_blocking(job, Terms::default()).expect("a good job"));
}

criterion_group!(benches, search);
criterion_main!(benches);
