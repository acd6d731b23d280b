//! Encoding in process: 110,000 memories (39 MB of text) to masks, coordinates and zones.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use megaring_bench::{Bench, encode_job};
use megaring_datasets::memories;
use megaring_engine::Terms;

fn encode(criterion: &mut Criterion) {
    let bench = Bench::new().expect("a folder and threads");
    let job = encode_job(memories(110_000, 1).expect("the sample is embedded").iter());
    let mut group = criterion.benchmark_group("encode");
    group.sample_size(20).measurement_time(Duration::from_secs(5));
    group.throughput(Throughput::Bytes(job.texts.bytes.len() as u64));
    group.bench_function("110000 memories", |b| {
        b.iter_batched(
            || job.clone(),
            |job| black_box(bench.engine.run_blocking(job, Terms::default()).expect("a good job")),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
