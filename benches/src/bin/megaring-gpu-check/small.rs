//! A little of every operation, each answer compared with the CPU backend's: small enough for compute-sanitizer, under
//! which a kernel takes a hundred times as long, and quick enough to see whether a backend works at all.

use std::sync::Arc;
use std::time::Instant;

use megaring_bench::Failure;
use megaring_bench::any::Job;
use megaring_core::nearest::{Nearest, Points};
use megaring_core::nop::Nop;
use megaring_core::score::Score;
use megaring_core::{Metric, nearest};
use megaring_corpus::Store;
use megaring_ring::RingConfig;
use serde_json::json;

use crate::conformance::{agreed, encode_job};
use crate::corpora::{self, generated};
use crate::machine::{Machine, Rig, Wanted, Way, store};
use crate::{Done, Report};

/// One job of each kind, and some of their edges.
pub(crate) fn run(machine: Machine, way: Way) -> Done {
    let begun = Instant::now();
    let (_folder, store) = store()?;
    let usual = Wanted::usual(way);
    let wanted = Wanted { ring: RingConfig { arena_bytes: 64 << 20, ..usual.ring }, ..usual };
    let rig = machine.engine(&wanted, &store)?;
    let jobs = jobs(machine, &store)?;
    for (name, job) in &jobs {
        agreed(&rig, job.clone()).map_err(|error| format!("{name}: {error}"))?;
        eprintln!("{name}: equal");
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Report::new(json!({ "mode": way.name(), "jobs": jobs.len(), "seconds": seconds }), true))
}

/// What a backend is asked after each start: nothing, and one search.
pub(crate) fn few(rig: &Rig, store: &Arc<Store>, nops: usize) -> Result<(), Failure> {
    for _ in 0..nops {
        rig.answer(Job::Nop(Nop))?;
    }
    let corpus = corpora::corpus(store.table(), generated(203, 37, 51), &[90]);
    agreed(rig, corpora::search(&corpus, corpora::own_queries(&corpus, 100, 3), Metric::Cosine, 10)).map(drop)
}

fn jobs(machine: Machine, store: &Store) -> Result<Vec<(String, Job)>, Failure> {
    let table = store.table();
    let mut jobs = vec![("nop".to_owned(), Job::Nop(Nop))];
    let shapes = machine.sized(
        &[(5_562, 384, 64, 10), (700, 33, 5, 700), (65, 7, 17, 10), (1, 1, 1, 1)][..],
        &[(70, 33, 3, 10), (1, 1, 1, 1)][..],
    );
    for (rows, dim, batch, k) in shapes.iter().copied() {
        let all = generated(rows, dim, 50);
        let corpus = corpora::corpus(table, all.clone(), &[rows / 3]);
        let queries = megaring_datasets::queries(&all, batch, 51);
        let queries = megaring_core::matrix::Matrix { rows: batch, dim, values: queries.values };
        for metric in Metric::ALL {
            jobs.push((
                format!("search {rows} x {dim}, {metric}"),
                corpora::search(&corpus, queries.clone(), metric, k),
            ));
            let score = Score { corpus: corpus.clone(), queries: queries.clone(), metric, rows: None };
            jobs.push((format!("score {rows} x {dim}, {metric}"), Job::Score(score)));
        }
    }
    let memories = megaring_datasets::memories(machine.sized(2_000, 40), 52)?;
    jobs.push(("encode".into(), Job::Encode(encode_job(memories.iter()))));
    let cloud = megaring_datasets::points(machine.sized(5_000, 100), 53);
    let columns: [Vec<f64>; 5] = std::array::from_fn(|axis| cloud.iter().map(|point| point[axis]).collect());
    let stored = Points::Corpus(corpora::points(table, columns.clone()));
    for (name, points) in [("sent", Points::Sent(Arc::new(columns))), ("stored", stored)] {
        let queries = megaring_datasets::points(5, 54);
        let job = Nearest { points, queries, weights: nearest::DEFAULT_WEIGHTS, k: 10 };
        jobs.push((format!("nearest, {name}"), Job::Nearest(job)));
    }
    Ok(jobs)
}
