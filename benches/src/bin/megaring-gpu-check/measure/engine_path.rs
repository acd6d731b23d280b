//! Through the engine, as a caller of the library has it.

use std::time::Instant;

use megaring_bench::Failure;
use megaring_bench::cases::Subject;
use serde_json::{Value, json};

use super::cases::{Case, Data};
use crate::stats::Samples;

/// Jobs before the clock counts: uploads, caches, clocks.
const WARM_UP: usize = 5;

pub(super) fn measure(case: Case, repeat: usize, subject: &Subject, data: &mut Data) -> Result<Value, Failure> {
    if matches!(case, Case::NopRate | Case::QueryRate) {
        return Err("rates are measured on the ring".into());
    }
    for _ in 0..WARM_UP {
        data.job(case)?.run(&subject.engine, subject.terms())?;
    }
    let (mut exact, mut device, mut rescore) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..repeat {
        let job = data.job(case)?;
        let begun = Instant::now();
        let outcome = job.run(&subject.engine, subject.terms())?;
        exact.push(begun.elapsed());
        device.push(outcome.made.compute);
        rescore.push(outcome.made.rescore);
    }
    Ok(json!({ "exact": exact.summary(), "device": device.summary(), "rescore": rescore.summary() }))
}
