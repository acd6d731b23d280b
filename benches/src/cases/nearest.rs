//! Points that travel along, and those of a corpus.

use std::sync::Arc;

use megaring_core::nearest::{DEFAULT_WEIGHTS, Nearest, Neighbour, Points};
use megaring_datasets::{points, reference};
use rayon::prelude::*;

use super::{Cases, Check, Workload, hidden};
use crate::{Bench, Failure};

/// Points that it is measured on.
const POINTS: usize = 10_000;

impl Cases for Nearest {
    /// A query's rows with the bits of their distances.
    type Part = Vec<(u32, u64)>;

    fn cases(check: &mut Check<'_, Self>) -> Result<(), Failure> {
        let (cloud, queries) = check.scale.of([(300, 3), (3_000, 9), (30_000, 40), (110_000, 65)]);
        near(check, &points(cloud, 12), &points(queries, 13))?;
        near(check, &points(1, 14), &points(2, 15))?;
        hidden::nearest(check)
    }

    fn parts(answer: &Vec<Vec<Neighbour>>) -> Vec<Self::Part> {
        let part = |found: &Vec<Neighbour>| found.iter().map(|n| (n.row, n.distance.to_bits())).collect();
        answer.iter().map(part).collect()
    }

    fn workloads(_: &Bench) -> Result<Vec<Workload<Self>>, Failure> {
        let cloud = points(POINTS, 1);
        let columns = Arc::new(columns(&cloud));
        let workload = |count: usize| {
            let (cloud, columns) = (cloud.clone(), columns.clone());
            let job = move |turn: usize| {
                let first = turn * 37 % (POINTS - count);
                let (points, queries) = (Points::Sent(columns.clone()), cloud[first..first + count].to_vec());
                Self { points, queries, weights: DEFAULT_WEIGHTS, k: 10 }
            };
            let name = format!("{count} among {POINTS} sent along");
            Workload { name, elements: (count * POINTS) as u64, job: Box::new(job) }
        };
        Ok([1, 64].map(workload).into())
    }
}

/// The nearest of a cloud, sent and stored; by one, by more, and by so many that no list holds them.
fn near(check: &mut Check<'_, Nearest>, cloud: &[[f64; 5]], queries: &[[f64; 5]]) -> Result<(), Failure> {
    let stored = Points::Corpus(check.subject.store_points(columns(cloud))?);
    for (place, points) in [("sent", Points::Sent(Arc::new(columns(cloud)))), ("stored", stored)] {
        let many = (cloud.len() * 2 / 3).max(1);
        for (k, weights) in [(1, DEFAULT_WEIGHTS), (25, [0.0, 1.0, 2.0, 0.5, 1e-3]), (many, [1.0; 5])] {
            let queries = queries[..if k > 100 { 2 } else { queries.len() }].to_vec();
            let found = |query| reference::nearest(cloud, query, &weights, k);
            let part = |query| found(query).iter().map(|n| (n.row, n.distance.to_bits())).collect();
            let want: Vec<Vec<(u32, u64)>> = queries.par_iter().map(part).collect();
            let job = Nearest { points: points.clone(), queries, weights, k };
            check.case(format!("{} points, {place}, k {k}", cloud.len()), job, &want)?;
        }
    }
    Ok(())
}

fn columns(points: &[[f64; 5]]) -> [Vec<f64>; 5] {
    std::array::from_fn(|axis| points.iter().map(|point| point[axis]).collect())
}
