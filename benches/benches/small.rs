//! Small calls of the other operations in process, from a validated job to the answer: exact scores of all rows and of
//! named ones, nearest points, and a few memories to encode. `search` and `encode` have the rest. Each iteration asks
//! something else.

use std::hint::black_box;
use std::sync::Arc;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use megaring_bench::{Bench, encode_job, queries};
use megaring_core::nearest::{Nearest, Points};
use megaring_core::score::Score;
use megaring_core::{Answered, Metric};
use megaring_datasets::memories;
use megaring_engine::Terms;

const ROWS: usize = 5_562;
const POINTS: usize = 10_000;

fn run<O: Answered>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    bench: &Bench,
    name: &str,
    mut job: impl FnMut(usize) -> O,
) {
    let mut turn = 0;
    let mut next = || {
        turn += 1;
        job(turn)
    };
    let answer = |job: O| black_box(bench.engine.run_blocking(job, Terms::default()).expect("a good job"));
    group.bench_function(name, |bencher| bencher.iter_batched(&mut next, answer, BatchSize::SmallInput));
}

fn score(criterion: &mut Criterion) {
    let bench = Bench::new().expect("a folder and threads");
    let rows = bench.corpus("c", ROWS, 384).expect("room on disk");
    let corpus = bench.engine.store().view("c").expect("the corpus is stored");
    let mut group = criterion.benchmark_group("score");
    for (name, count, named) in
        [("100 rows", 1, 100), ("all of 5562x384", 1, 0), ("all of 5562x384, 64 queries", 64, 0)]
    {
        let scored = if named > 0 { named } else { ROWS };
        group.throughput(Throughput::Elements((count * scored) as u64));
        run(&mut group, &bench, name, |turn| {
            let queries = queries(&rows, turn * 37 % (ROWS - count), count);
            let rows = (named > 0).then(|| (0..named).map(|row| ((row * 53 + turn * 7) % ROWS) as u32).collect());
            Score { corpus: Arc::clone(&corpus), queries, metric: Metric::Cosine, rows }
        });
    }
    group.finish();
}

fn nearest(criterion: &mut Criterion) {
    let bench = Bench::new().expect("a folder and threads");
    let points = megaring_datasets::points::points(POINTS, 1);
    let columns = Arc::new(std::array::from_fn(|axis| points.iter().map(|point| point[axis]).collect()));
    let mut group = criterion.benchmark_group("nearest");
    for count in [1, 64] {
        group.throughput(Throughput::Elements((count * POINTS) as u64));
        run(&mut group, &bench, &format!("{count} among {POINTS} sent along"), |turn| {
            let first = turn * 37 % (POINTS - count);
            let queries = points[first..first + count].to_vec();
            let points = Points::Sent(Arc::clone(&columns));
            Nearest { points, queries, weights: [1.0, 1.0, 0.8, 1.5, 2.0], k: 10 }
        });
    }
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let bench = Bench::new().expect("a folder and threads");
    let mut group = criterion.benchmark_group("encode small");
    for count in [1, 100] {
        let jobs: Vec<_> = (1..17).map(|seed| encode_job(&memories(count, seed).expect("a sample"))).collect();
        group.throughput(Throughput::Elements(count as u64));
        run(&mut group, &bench, &format!("{count} memories"), |turn| jobs[turn % jobs.len()].clone());
    }
    group.finish();
}

criterion_group!(benches, score, nearest, encode);
criterion_main!(benches);
