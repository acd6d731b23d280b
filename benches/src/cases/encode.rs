//! The golden file, and generated memories.

use megaring_core::encode::{Encode, Encoded};
use megaring_datasets::{golden, memories, reference};
use rayon::prelude::*;

use super::{Cases, Check, Workload};
use crate::{Bench, Failure, encode_job};

/// How far a coordinate may be off: the reference uses the platform's exponential.
const COORDINATE_ERROR: f64 = 1e-12;

impl Cases for Encode {
    /// Mask, zone and coordinates.
    type Part = (u128, u8, [u64; 5]);

    fn cases(check: &mut Check<'_, Self>) -> Result<(), Failure> {
        let golden = golden()?;
        let want: Vec<_> =
            golden.iter().map(|case| (case.mask, case.zone, case.coordinates.map(f64::to_bits))).collect();
        check.case("the golden file", encode_job(golden.iter().map(|case| case.memory())), &want)?;
        let memories = memories(check.scale.of([40, 2_000, 20_000, 110_000]), 6)?;
        let profile = reference::Profile::whitemagic()?;
        let encoded = (0..memories.len()).into_par_iter().map(|index| {
            let reference::Encoded { mask, zone, coordinates } = reference::encode(&memories.get(index), &profile);
            (mask, zone, coordinates.map(f64::to_bits))
        });
        let want: Vec<_> = encoded.collect();
        check.case("generated memories", encode_job(memories.iter()), &want)
    }

    fn parts(answer: &Vec<Encoded>) -> Vec<Self::Part> {
        let part = |encoded: &Encoded| (encoded.mask, encoded.zone as u8, encoded.coordinates.map(f64::to_bits));
        answer.iter().map(part).collect()
    }

    fn is(found: &Self::Part, reference: &Self::Part) -> bool {
        let coordinates = found.2.iter().zip(reference.2);
        let near = |(one, other): (&u64, u64)| (f64::from_bits(*one) - f64::from_bits(other)).abs() <= COORDINATE_ERROR;
        (found.0, found.1) == (reference.0, reference.1) && coordinates.into_iter().all(near)
    }

    fn workloads(_: &Bench) -> Result<Vec<Workload<Self>>, Failure> {
        let workload = |count: usize| {
            let jobs = (1..17).map(|seed| Ok(encode_job(memories(count, seed)?.iter())));
            let jobs = jobs.collect::<Result<Vec<Self>, Failure>>()?;
            let job = move |turn: usize| jobs[turn % jobs.len()].clone();
            Ok(Workload { name: format!("{count} memories"), elements: count as u64, job: Box::new(job) })
        };
        [1, 100].into_iter().map(workload).collect()
    }
}
