//! Rows of bits, 10,000,000 of 1,024 bits (1.28 GB), in process: one query and eight, by either metric, top 10, beside
//! a mere reading of the same bytes by as many threads. Each iteration asks with another row.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use megaring_bench::Bench;
use megaring_core::matrix::Matrix;
use megaring_core::search::{Queries, Search};
use megaring_core::{Element, Metric, RowType};
use megaring_corpus::Rows;
use megaring_engine::Terms;
use megaring_simd::KernelSet;
use megaring_simd::roofline::Piece;

const ROWS: usize = 10_000_000;
const BITS: usize = 1_024;
/// Rows appended at a time.
const RUN: usize = 500_000;
const NAME: &str = "bits";

/// A word of a row, without a pattern.
fn word(row: usize, place: usize) -> f32 {
    let mixed = ((row * BITS + place) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    f32::from_bits(((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as u32)
}

fn bits(criterion: &mut Criterion) {
    let bench = Bench::new().expect("a folder and threads");
    let store = bench.engine.store();
    let row_type = RowType::bits(BITS);
    let width = row_type.width();
    store.create(NAME, row_type).expect("room on disk");
    let mut appender = store.append(NAME).expect("it is there");
    for first in (0..ROWS).step_by(RUN) {
        let values = (first..first + RUN).flat_map(|row| (0..width).map(move |place| word(row, place))).collect();
        let embeddings = Matrix { rows: RUN, dim: width, values };
        appender.push(Rows { embeddings, element: Element::Bit, ..Rows::default() }).expect("good rows");
    }
    appender.commit().expect("room on disk");
    let corpus = store.view(NAME).expect("it is there");
    let mut group = criterion.benchmark_group("bits");
    group.measurement_time(Duration::from_secs(8)).sample_size(30);
    group.throughput(Throughput::Bytes((ROWS * BITS / 8) as u64));
    let kernels = KernelSet::from_env().expect("the best instruction set");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    group.bench_function("read alone", |b| {
        b.iter(|| {
            for (_, segment) in corpus.segments() {
                let pieces: &[Piece] = bytemuck::cast_slice(segment.data().embeddings());
                std::thread::scope(|scope| {
                    for part in pieces.chunks(pieces.len().div_ceil(threads)) {
                        scope.spawn(|| black_box(kernels.read_pieces(part)));
                    }
                });
            }
        });
    });
    let mut start = 0;
    for (queries, metric) in [(1, Metric::Hamming), (1, Metric::Jaccard), (8, Metric::Hamming), (64, Metric::Hamming)] {
        group.bench_function(BenchmarkId::new(metric.name(), format!("{queries} on {ROWS}x{BITS}")), |b| {
            b.iter(|| {
                start = (start + 37) % ROWS;
                let rows = (0..queries).map(|at| ((start + 104_729 * at) % ROWS) as u32).collect();
                let (corpus, queries) = (corpus.clone(), Queries::Rows(rows));
                let job = Search { corpus, queries, metric, k: 10, threshold: None };
                black_box(bench.engine.run_blocking(job, Terms::default()).expect("a good job"))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bits);
criterion_main!(benches);
