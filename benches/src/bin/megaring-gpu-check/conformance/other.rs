//! Scores, encodings, nearest points, empty jobs, and jobs that must be refused.

use std::sync::Arc;

use megaring_bench::Failure;
use megaring_bench::any::{Answer, Job};
use megaring_core::encode::Encode;
use megaring_core::matrix::Matrix;
use megaring_core::nearest::{Nearest, Points};
use megaring_core::nop::Nop;
use megaring_core::score::Score;
use megaring_core::texts::Texts;
use megaring_core::{Metric, encode, nearest as core_nearest};
use megaring_datasets::reference;
use rayon::prelude::*;

use super::{Bench, by_reference, first};
use crate::corpora::{self, generated};

/// How far a coordinate may be off: the reference uses the platform's exponential.
const COORDINATE_ERROR: f64 = 1e-12;

pub(super) fn nop(bench: &Bench) -> Result<usize, Failure> {
    let count = bench.sized(2_000, 500, 20);
    for _ in 0..count {
        bench.agreed(Job::Nop(Nop))?;
    }
    Ok(count)
}

pub(super) fn score(bench: &Bench) -> Result<usize, Failure> {
    let mut answers = 0;
    let shapes = bench.sized(
        &[(300, 70, 384), (5_562, 9, 384), (129, 33, 7), (1_000, 1, 1)][..],
        &[(300, 70, 384), (129, 33, 7)][..],
        &[(40, 5, 7)][..],
    );
    for (count, asked, dim) in shapes.iter().copied() {
        let rows = generated(count, dim, 14);
        let queries = megaring_datasets::queries(&rows, asked, 15);
        let corpus = corpora::corpus(bench.store.table(), rows.clone(), &[count / 3]);
        for metric in Metric::ALL {
            let all = reference::score(by_reference(metric), &queries.values, &rows.values, dim);
            let last = count as u32 - 1;
            for named in [None, Some(vec![last, 0, 5, 5, last / 3, last / 3 + 1]), Some(Vec::new())] {
                let ids = named.clone().unwrap_or_else(|| (0..=last).collect());
                let queries = Matrix { rows: asked, dim, values: queries.values.clone() };
                let told = format!("{count} x {dim}, {metric}, {} rows asked", ids.len());
                let job = Job::Score(Score { corpus: corpus.clone(), queries, metric, rows: named });
                let answer = bench.agreed(job).map_err(|error| format!("{told}: {error}"))?;
                let Answer::Score(values) = answer else { return Err("it is no answer to a score".into()) };
                let want = (0..asked).flat_map(|query| ids.iter().map(move |row| query * count + *row as usize));
                let want: Vec<u32> = want.map(|at| all[at].to_bits()).collect();
                let got: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
                if let Some(difference) = first("score", &got, &want) {
                    return Err(format!("{told}: {difference} of the reference").into());
                }
                answers += got.len();
            }
        }
    }
    Ok(answers)
}

pub(super) fn golden_masks(bench: &Bench) -> Result<usize, Failure> {
    let golden = megaring_datasets::golden()?;
    let want: Vec<reference::Encoded> = golden
        .iter()
        .map(|case| reference::Encoded { mask: case.mask, coordinates: case.coordinates, zone: case.zone })
        .collect();
    encoded(bench, encode_job(golden.iter().map(|case| case.memory())), &want)
}

pub(super) fn memories(bench: &Bench) -> Result<usize, Failure> {
    let memories = megaring_datasets::memories(bench.sized(110_000, 110_000, 60), 1)?;
    let profile = reference::Profile::whitemagic()?;
    let want = (0..memories.len())
        .into_par_iter()
        .map(|index| reference::encode(&memories.get(index), &profile))
        .collect::<Vec<_>>();
    encoded(bench, encode_job(memories.iter()), &want)
}

/// Memories as one job.
pub(crate) fn encode_job<'a>(all: impl Iterator<Item = reference::Memory<'a>>) -> Encode {
    let mut job = Encode { texts: Texts::default(), features: Vec::new(), gardens: Vec::new() };
    for memory in all {
        job.texts.push(memory.content);
        job.gardens.push(memory.garden.to_owned());
        job.features.push(encode::Features {
            importance: memory.importance,
            access_count: memory.access_count,
            age_days: memory.age_days,
            galactic_distance: memory.galactic_distance,
        });
    }
    job
}

fn encoded(bench: &Bench, job: Encode, want: &[reference::Encoded]) -> Result<usize, Failure> {
    let Answer::Encode(got) = bench.agreed(Job::Encode(job))? else {
        return Err("it is no answer to memories".into());
    };
    if got.len() != want.len() {
        return Err(format!("{} points for {} memories", got.len(), want.len()).into());
    }
    for (memory, (got, want)) in got.iter().zip(want).enumerate() {
        let near = got.coordinates.iter().zip(want.coordinates).all(|(a, b)| (a - b).abs() <= COORDINATE_ERROR);
        if got.mask != want.mask || got.zone as u8 != want.zone || !near {
            return Err(format!("memory {memory}: {got:?} is not the {want:?} of the reference").into());
        }
    }
    Ok(got.len())
}

pub(super) fn nearest(bench: &Bench) -> Result<usize, Failure> {
    let cloud = megaring_datasets::points(bench.sized(110_000, 30_000, 300), 12);
    let queries = megaring_datasets::points(bench.sized(65, 20, 3), 13);
    let columns: [Vec<f64>; 5] = std::array::from_fn(|axis| cloud.iter().map(|point| point[axis]).collect());
    let stored = Points::Corpus(corpora::points(bench.store.table(), columns.clone()));
    let mut answers = 0;
    for points in [Points::Sent(Arc::new(columns)), stored] {
        for (k, weights) in
            [(1, core_nearest::DEFAULT_WEIGHTS), (25, [0.0, 1.0, 2.0, 0.5, 1e-3]), (cloud.len() - 1, [1.0; 5])]
        {
            let queries = queries[..if k > 100 { 2 } else { queries.len() }].to_vec();
            let find = |query| reference::nearest(&cloud, query, &weights, k);
            let want: Vec<Vec<(u32, u64)>> = queries
                .par_iter()
                .map(|query| find(query).iter().map(|found| (found.row, found.distance.to_bits())).collect())
                .collect();
            let job = Job::Nearest(Nearest { points: points.clone(), queries, weights, k });
            let Answer::Nearest(found) = bench.agreed(job)? else { return Err("it is no answer to points".into()) };
            let got: Vec<Vec<(u32, u64)>> =
                found.iter().map(|found| found.iter().map(|n| (n.row, n.distance.to_bits())).collect()).collect();
            if let Some(difference) = first("query", &got, &want) {
                return Err(format!("k {k}: {difference} of the reference").into());
            }
            answers += got.iter().map(Vec::len).sum::<usize>();
        }
    }
    Ok(answers)
}

/// Jobs whose time is over before they begin; the backend goes on afterwards.
pub(super) fn bad_jobs(bench: &Bench) -> Result<usize, Failure> {
    use megaring_core::Error;
    use megaring_engine::Terms;
    let count = bench.sized(200, 200, 5);
    for _ in 0..count {
        let deadline = Some(std::time::Instant::now());
        let terms = Terms { deadline, backend: Some(bench.rig.kind), ..Terms::default() };
        match bench.rig.engine.run_blocking(Nop, terms) {
            Err(Error::DeadlineExceeded { .. }) => {}
            other => {
                return Err(
                    format!("a job past its deadline ended with {:?}", other.map(|outcome| outcome.answer)).into()
                );
            }
        }
    }
    bench.rig.answer(Job::Nop(Nop))?;
    Ok(count + 1)
}
