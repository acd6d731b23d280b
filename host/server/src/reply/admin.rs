//! What `megaring.v1.Admin` answers of the router and of calibrations.

use std::time::Duration;

use megaring_core::{BackendKind, Opcode};
use megaring_engine::calibration::{Calibrated, Calibration, Costs, Failed, Kept, Progress};
use megaring_engine::cost::Upload;
use megaring_engine::router::{Basis, Forecast, Prospect, Times};
use megaring_proto::v1 as pb;

use super::{backend, nanoseconds};

/// What the router would do.
#[must_use]
pub fn explain(forecast: &Forecast) -> pb::ExplainResponse {
    pb::ExplainResponse {
        prospects: forecast.prospects.iter().map(prospect).collect(),
        chosen: forecast.chosen.map(|place| place as u32),
        reason: forecast.reason.clone(),
    }
}

fn prospect(prospect: &Prospect) -> pb::Prospect {
    use pb::prospect::Outcome;
    let outcome = match &prospect.times {
        Ok(found) => Outcome::Times(times(found)),
        Err(reason) => Outcome::NotAskedReason(reason.clone()),
    };
    pb::Prospect {
        backend: backend(prospect.kind).into(),
        device: prospect.device.clone(),
        outcome: Some(outcome),
        reserve: prospect.reserve.clone().unwrap_or_default(),
    }
}

fn times(times: &Times) -> pb::Times {
    let basis = match times.basis {
        Basis::Measured => pb::Basis::Measured,
        Basis::Assumed => pb::Basis::Assumed,
    };
    pb::Times {
        basis: basis.into(),
        model_ns: nanoseconds(times.model),
        alone_ns: nanoseconds(times.alone),
        wait_ns: nanoseconds(times.wait),
        upload_ns: nanoseconds(times.upload),
        total_ns: nanoseconds(times.total()),
    }
}

/// How far a calibration is.
#[must_use]
pub fn step(progress: &Progress) -> pb::CalibrateProgress {
    let step = pb::CalibrationStep {
        done: progress.done as u32,
        steps: progress.steps as u32,
        what: progress.what.clone(),
        left_ns: progress.left.map(nanoseconds),
    };
    pb::CalibrateProgress { message: Some(pb::calibrate_progress::Message::Step(step)) }
}

/// What a calibration has found, and what became of it.
#[must_use]
pub fn calibrated(made: Calibrated) -> pb::CalibrateProgress {
    let Calibrated { calibration, kept } = made;
    let Calibration { quick, took_s, backends, failed, doubts, .. } = calibration;
    let (kept, reason, saved_to) = match kept {
        Kept::Saved(file) => (true, String::new(), file.display().to_string()),
        Kept::Unsaved(reason) => (true, reason, String::new()),
        Kept::Refused(reason) => (false, reason, String::new()),
    };
    let result = pb::CalibrationResult {
        quick,
        took_ns: nanoseconds(Duration::try_from_secs_f64(took_s).unwrap_or_default()),
        backends: backends.iter().map(costs).collect(),
        failed: failed.into_iter().map(failure).collect(),
        doubts,
        kept,
        reason,
        saved_to,
    };
    pb::CalibrateProgress { message: Some(pb::calibrate_progress::Message::Result(result)) }
}

fn costs(costs: &Costs) -> pb::BackendCosts {
    // Operations of one class cost the same, as far as the model knows.
    let operation = |opcode: Opcode| {
        let (_, typical_error) = costs.typical_errors.iter().find(|(class, _)| class == opcode.class().name())?;
        let found = costs.model.of(opcode.class());
        Some(pb::OperationCosts {
            operation: opcode.name().into(),
            fixed_ns: found.fixed_ns,
            per_item_ns: found.per_item_ns,
            per_byte_ns: found.per_byte_ns,
            per_multiply_add_ns: found.per_multiply_add_ns,
            per_candidate_ns: found.per_candidate_ns,
            typical_error: *typical_error,
        })
    };
    // Where nothing had to be brought, the model says what is assumed.
    let upload = if costs.uploads.is_empty() { Upload::default() } else { costs.model.upload };
    pb::BackendCosts {
        backend: named(&costs.backend).into(),
        operations: Opcode::ALL.into_iter().filter_map(operation).collect(),
        upload_fixed_ns: upload.fixed_ns,
        upload_per_byte_ns: upload.per_byte_ns,
    }
}

fn failure(failed: Failed) -> pb::BackendFailure {
    pb::BackendFailure { backend: named(&failed.backend).into(), reason: failed.reason }
}

fn named(name: &str) -> pb::Backend {
    name.parse::<BackendKind>().map_or(pb::Backend::Unspecified, backend)
}
