//! Rescoring alone: from the candidates that the CPU backend's screen really left to the exact top 10, by the exact
//! kernels of every instruction set of this machine and by the definition in plain Rust. From 16 queries on the work is
//! shared out over all processors.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use megaring_bench::{Bench, queries};
use megaring_core::exact::{ExactKernel, ScalarKernel};
use megaring_core::matrix::Matrix;
use megaring_core::operation::{Exact, Piece};
use megaring_core::search::Search;
use megaring_core::{Answered, Metric, Operation};
use megaring_engine::Terms;
use megaring_engine::submit::{Announce, limits, submit};
use megaring_ring::Outcome;
use megaring_simd::KernelSet;

const ROWS: usize = 5_562;
/// Jobs with queries of their own, taken in turn, so that it is not always the same rows that are in a cache.
const JOBS: usize = 16;

/// A job that the backend has screened, in one piece.
struct Screened {
    job: Search,
    piece: Piece,
    outcome: Outcome,
}

impl Screened {
    fn new(bench: &Bench, queries: Matrix) -> Self {
        let corpus = bench.engine.store().view("c").expect("the corpus is stored");
        let job = Search { corpus, queries: queries.into(), metric: Metric::Cosine, k: 10, threshold: None };
        let lane = bench.engine.router().lanes().first().expect("there is a CPU");
        let piece = job.pieces(&limits(lane.capabilities())).into_iter().next().expect("a job has a piece");
        assert_eq!(piece.items.len(), job.queries.len(), "the batch fits one piece");
        let outcome = submit(lane.ring(), &job, &piece, &Terms::default(), false, Announce::Now)
            .expect("the ring is empty")
            .wait();
        assert!(outcome.status().is_ok());
        Self { job, piece, outcome }
    }
}

fn rescore(criterion: &mut Criterion) {
    let bench = Bench::new().expect("a folder and threads");
    let rows = bench.corpus("c", ROWS, 384).expect("room on disk");
    let mut group = criterion.benchmark_group(format!("rescore_{ROWS}x384"));
    for count in [1, 64] {
        let screened: Vec<Screened> =
            (0..JOBS).map(|job| Screened::new(&bench, queries(&rows, job * 337, count))).collect();
        group.throughput(Throughput::Elements(count as u64));
        let mut run = |name: &str, kernel: &dyn ExactKernel| {
            let by = Exact { kernel, profile: bench.engine.profile() };
            let mut turns = screened.iter().cycle();
            group.bench_function(BenchmarkId::new(name, format!("{count} queries")), |bencher| {
                bencher.iter(|| {
                    let Screened { job, piece, outcome } = turns.next().expect("it goes round");
                    let mut answer = Vec::new();
                    job.finish(piece, outcome.result(), &by, &mut answer).expect("good candidates");
                    black_box(answer);
                });
            });
        };
        run("plain Rust", &ScalarKernel);
        for set in KernelSet::available() {
            run(set.isa().name(), set);
        }
    }
    group.finish();
}

criterion_group!(benches, rescore);
criterion_main!(benches);
