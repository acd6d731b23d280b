//! Small calls of every operation in process, from a validated job to the answer, with the workloads that stand beside
//! its cases. `search` and `encode` have larger ones. Each iteration asks something else.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use megaring_bench::Bench;
use megaring_bench::cases::{Cases, Workload};
use megaring_engine::Terms;

fn operation<O: Cases>(criterion: &mut Criterion) {
    let bench = Bench::new().expect("a folder and threads");
    let mut group = criterion.benchmark_group(O::OPCODE.name());
    for Workload { name, elements, job } in O::workloads(&bench).expect("room on disk") {
        let mut turn = 0;
        let mut next = || {
            turn += 1;
            job(turn)
        };
        let answer = |job: O| black_box(bench.engine.run_blocking(job, Terms::default()).expect("a good job"));
        group.throughput(Throughput::Elements(elements));
        group.bench_function(name, |bencher| bencher.iter_batched(&mut next, answer, BatchSize::SmallInput));
    }
    group.finish();
}

macro_rules! every_operation {
    ($($number:literal $module:ident::$operation:ident,)*) => {
        fn small(criterion: &mut Criterion) {
            $(operation::<megaring_core::$module::$operation>(criterion);)*
        }
    };
}

megaring_core::operations!(every_operation);

criterion_group!(benches, small);
criterion_main!(benches);
