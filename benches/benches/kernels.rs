//! The Zig kernels alone, one thread, every instruction set of this machine.
//!
//! `cargo bench -p megaring-bench --bench kernels -- screen` picks a group. The screens find the candidates of the ten
//! best rows, with thresholds that begin as low as a search's.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use megaring_core::Metric;
use megaring_core::encode::keyword::Automaton;
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_core::nibbles::Nibbles;
use megaring_core::screen::{self, QueryScreen};
use megaring_datasets::embeddings::Embeddings;
use megaring_datasets::memories::memories;
use megaring_simd::{
    KernelSet, KeywordAutomaton, Mask, NibbleRows, PointColumns, QueryParams, ScreenQueries, ScreenRows, TopRows,
};

const ROWS: usize = 5_562;
const DIM: usize = 384;
const SEED: u64 = 1;

fn nop(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("nop");
    for set in KernelSet::available() {
        group.bench_function(set.isa().name(), |bencher| bencher.iter(|| black_box(set).nop()));
    }
    group.finish();
}

fn exact_gather(criterion: &mut Criterion) {
    let values = embeddings();
    let ids: Vec<u32> = (0..64u32).map(|i| i * 7919 % ROWS as u32).collect();
    let mut out = vec![0.0; ids.len()];
    let mut group = criterion.benchmark_group(format!("exact_dot_{}_of_{ROWS}x{DIM}", ids.len()));
    for set in KernelSet::available() {
        group.bench_function(set.isa().name(), |bencher| {
            bencher.iter(|| set.exact_dot(black_box(&values[..DIM]), &values, &ids, &mut out).expect("shapes fit"));
        });
    }
    group.finish();
}

fn screen(criterion: &mut Criterion) {
    let values = embeddings();
    let norms2 = screen::norms2(&values, DIM);
    let rows = screen::pack(&values, DIM, &norms2);
    let columns = screen::columns(Metric::Dot, rows.view(), &norms2);
    for count in [1, 8, 64] {
        let mut queries = ScreenQueries::new(DIM).expect("few dimensions");
        let mut params = Vec::new();
        let mut codes = vec![0; DIM];
        for query in values.chunks_exact(DIM).take(count) {
            let query = QueryScreen::new(Metric::Dot, query, rows.max_norm, &mut codes).expect("unit vectors are tame");
            queries.push(&codes).expect("codes in range");
            params.push(QueryParams::new(&query, f32::MIN));
        }
        let mut top = TopRows::new(10, 296).expect("a small limit");
        let mut group = criterion.benchmark_group(format!("screen_i8_{count}_of_{ROWS}x{DIM}"));
        group.throughput(Throughput::Elements((count * ROWS * DIM) as u64));
        for set in KernelSet::available() {
            let mut run = || {
                let rows = ScreenRows::new(&rows.packed, &columns, DIM).expect("lengths fit");
                top.reset(10, 296).expect("a small limit");
                params.iter().for_each(|params| top.push(*params));
                let reached = set.screen_i8(rows, 0..rows.groups(), 0, queries.all(), &mut top);
                assert_eq!(reached, Ok(rows.groups()), "room for every candidate");
            };
            group.bench_function(set.isa().name(), |bencher| bencher.iter(&mut run));
        }
        group.finish();
    }
}

/// One query over more codes than caches hold: by the codes, and by their halves.
fn screen_halves(criterion: &mut Criterion) {
    const ROWS: usize = 250_000;
    let values = Embeddings { rows: ROWS, dim: DIM, seed: SEED, ..Embeddings::default() }.generate().values;
    let norms2 = screen::norms2(&values, DIM);
    let codes = screen::pack(&values, DIM, &norms2);
    let nibbles = Nibbles::new(codes.view(), ROWS, DIM);
    let columns = screen::columns(Metric::Dot, codes.view(), &norms2);
    let high_columns = nibbles.view().columns(Metric::Dot, codes.view(), &norms2);
    let rows = ScreenRows::new(&codes.packed, &columns, DIM).expect("lengths fit");
    let halves = NibbleRows::new(nibbles.view(), &high_columns, &columns, DIM).expect("lengths fit");
    let mut queries = ScreenQueries::new(DIM).expect("few dimensions");
    let mut query = vec![0; DIM];
    let screen = QueryScreen::new(Metric::Dot, &values[..DIM], codes.max_norm, &mut query).expect("a unit vector");
    queries.push(&query).expect("codes in range");
    let params = QueryParams::new(&screen, f32::MIN);
    let mut top = TopRows::new(10, 296).expect("a small limit");
    let mut group = criterion.benchmark_group(format!("screen_1_of_{ROWS}x{DIM}"));
    group.throughput(Throughput::Elements((ROWS * DIM) as u64));
    for set in KernelSet::available() {
        for name in ["codes", "halves"] {
            let mut run = || {
                top.reset(10, 296).expect("a small limit");
                top.push(params);
                let groups = 0..rows.groups();
                match name {
                    "codes" => set.screen_i8(rows, groups, 0, queries.all(), &mut top),
                    _ => set.screen_nibbles(halves, groups, 0, queries.all(), &mut top).map(|(reached, _)| reached),
                }
            };
            assert_eq!(run(), Ok(rows.groups()), "room for every candidate");
            group.bench_function(format!("{}/{name}", set.isa()), |bencher| bencher.iter(&mut run));
        }
    }
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let texts = memories(20_000, SEED).expect("a legal number");
    let profile = Profile::parse(DEFAULT).expect("the default profile");
    let built = Automaton::new(&profile);
    let automaton = KeywordAutomaton::new(
        *built.class_of(),
        built.shift(),
        built.next().to_vec(),
        built.first_accepting(),
        built.accept(),
    )
    .expect("a whole automaton");
    let offsets: Vec<u64> = texts.offsets().iter().map(|offset| *offset as u64).collect();
    let mut masks = vec![Mask::default(); texts.len()];
    let mut group = criterion.benchmark_group("encode_20000");
    group.throughput(Throughput::Bytes(texts.text().len() as u64));
    for set in KernelSet::available() {
        group.bench_function(set.isa().name(), |bencher| {
            bencher.iter(|| {
                set.encode(&automaton, texts.text().as_bytes(), &offsets, &mut masks).expect("offsets fit");
            });
        });
    }
    group.finish();
}

fn distances(criterion: &mut Criterion) {
    const POINTS: usize = 110_000;
    let points = megaring_datasets::points::points(POINTS, SEED);
    let columns: [Vec<f64>; 5] = std::array::from_fn(|axis| points.iter().map(|point| point[axis]).collect());
    let columns = PointColumns::new(columns.each_ref().map(Vec::as_slice)).expect("equal lengths");
    let mut out = vec![0.0; POINTS];
    let mut group = criterion.benchmark_group("distances5_110000");
    group.throughput(Throughput::Elements(POINTS as u64));
    for set in KernelSet::available() {
        group.bench_function(set.isa().name(), |bencher| {
            bencher.iter(|| {
                set.distances5(columns, &points[0], &[1.0, 1.0, 0.8, 1.5, 2.0], &mut out).expect("shapes fit");
            });
        });
    }
    group.finish();
}

fn embeddings() -> Vec<f32> {
    Embeddings { rows: ROWS, dim: DIM, seed: SEED, ..Embeddings::default() }.generate().values
}

criterion_group!(benches, nop, exact_gather, screen, screen_halves, encode, distances);
criterion_main!(benches);
