//! `megaring calibrate`: measures the backends that the settings allow, tells what was found, and keeps it for the
//! commands and servers of this machine.

use std::ops::ControlFlow;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use megaring_core::{BackendKind, Opcode};
use megaring_engine::calibration::{Calibrated, Calibration, Costs, Effort, Keeper, Kept};
use megaring_engine::cost::Coefficients;
use serde_json::{Value, json};

use crate::config::Settings;
use crate::console::{Align, Failure, Output, Steps, Table, duration_text, message, shown};

/// `megaring calibrate`.
#[derive(Debug, clap::Args)]
pub(crate) struct CalibrateArgs {
    /// Fewer sizes, and each less often: some ten seconds in place of minutes
    #[arg(long, env = "MEGARING_CALIBRATE_QUICK", value_parser = BoolishValueParser::new())]
    quick: bool,
    /// Keep it even where the machine was too noisy
    #[arg(long, env = "MEGARING_CALIBRATE_ANYWAY", value_parser = BoolishValueParser::new())]
    anyway: bool,
}

pub(crate) fn run(args: &CalibrateArgs, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    let engine = settings.private_engine(&BackendKind::ALL)?;
    let keeper = Keeper::new(engine, Some(settings.calibration_file()));
    keeper.check_writable()?;
    let effort = if args.quick { Effort::Quick } else { Effort::Full };
    let mut steps = Steps::start("calibrating");
    let made = keeper.begin()?.measure(effort, args.anyway, &mut |progress| {
        steps.at(progress.done, progress.steps, &progress.what, progress.left);
        ControlFlow::Continue(())
    })?;
    drop(steps);
    tell(&made, output)?;
    output.flush()?;
    match made.kept {
        Kept::Saved(_) => Ok(()),
        Kept::Unsaved(reason) => Err(Failure::Work(format!("it cannot be saved: {reason}"))),
        Kept::Refused(reason) if made.calibration.backends.is_empty() => Err(Failure::Work(reason)),
        Kept::Refused(reason) => Err(Failure::Work(format!(
            "{reason}; it is not saved, and nothing is changed: try again when the machine is quiet, or keep it with --anyway"
        ))),
    }
}

fn tell(made: &Calibrated, output: &mut Output) -> Result<(), Failure> {
    let Calibrated { calibration, kept } = made;
    if output.is_json() {
        return output.record(&record(calibration, kept));
    }
    if !calibration.backends.is_empty() {
        output.text(table(calibration))?;
    }
    let failed = calibration.failed.iter().map(|failed| format!("{} failed: {}", failed.backend, failed.reason));
    let doubts = calibration.doubts.iter().map(|doubt| format!("to be doubted: {doubt}"));
    failed.chain(doubts).try_for_each(|line| output.text(line))?;
    if let Kept::Saved(file) = kept {
        let took = duration_text(Duration::try_from_secs_f64(calibration.took_s).unwrap_or_default());
        output.text(format!("measured in {took}, saved in {}", shown(file)))?;
        message("`megaring explain --rows N --dim N --queries N` tells what a job would be done by");
    }
    Ok(())
}

/// What was found, for programs.
fn record(calibration: &Calibration, kept: &Kept) -> Value {
    let Calibration { quick, took_s, made_unix_s, failed, noise, doubts, .. } = calibration;
    let (saved_to, reason) = match kept {
        Kept::Saved(file) => (Some(file.display().to_string()), None),
        Kept::Unsaved(reason) | Kept::Refused(reason) => (None, Some(reason)),
    };
    let backend = |costs: &Costs| {
        let operation = |(opcode, error): (Opcode, f64)| {
            let cost = json!({ "cost": costs.model.of(opcode.class()), "typical_error": error });
            (opcode.name().to_owned(), cost)
        };
        let operations: serde_json::Map<String, Value> = measured(costs).map(operation).collect();
        let upload = (!costs.uploads.is_empty()).then_some(costs.model.upload);
        json!({ "backend": costs.backend, "operations": operations, "upload": upload, "sizes": costs.samples.len() })
    };
    let backends: Vec<Value> = calibration.backends.iter().map(backend).collect();
    json!({
        "saved_to": saved_to, "reason": reason, "quick": quick, "took_s": took_s, "made_unix_s": made_unix_s,
        "backends": backends, "failed": failed, "noise": noise, "doubts": doubts,
    })
}

/// The operations that were measured, with the model's typical error; those of one class cost the same as far as the
/// model knows.
fn measured(costs: &Costs) -> impl Iterator<Item = (Opcode, f64)> {
    Opcode::ALL.into_iter().filter_map(|opcode| {
        let of_its_class = costs.typical_errors.iter().find(|(class, _)| class == opcode.class().name());
        of_its_class.map(|(_, error)| (opcode, *error))
    })
}

fn table(calibration: &Calibration) -> Table {
    let mut table = Table::new([
        ("BACKEND", Align::Left),
        ("OPERATION", Align::Left),
        ("FIXED", Align::Right),
        ("PER ITEM", Align::Right),
        ("PER BYTE", Align::Right),
        ("PER MULTIPLY-ADD", Align::Right),
        ("PER CANDIDATE", Align::Right),
        ("TYPICAL ERROR", Align::Right),
    ]);
    for costs in &calibration.backends {
        for (opcode, error) in measured(costs) {
            let Coefficients { fixed_ns, per_item_ns, per_byte_ns, per_multiply_add_ns, per_candidate_ns } =
                *costs.model.of(opcode.class());
            let [fixed, item, byte, multiply_add, candidate] =
                [fixed_ns, per_item_ns, per_byte_ns, per_multiply_add_ns, per_candidate_ns].map(cost_text);
            let (backend, name) = (costs.backend.clone(), opcode.name().to_owned());
            table.row([backend, name, fixed, item, byte, multiply_add, candidate, format!("{:.0} %", error * 100.0)]);
        }
        if !costs.uploads.is_empty() {
            let [fixed, byte] = [costs.model.upload.fixed_ns, costs.model.upload.per_byte_ns].map(cost_text);
            let none = String::new;
            table.row([costs.backend.clone(), "upload".into(), fixed, none(), byte, none(), none(), none()]);
        }
    }
    table
}

/// Nanoseconds in the unit that suits them, down to picoseconds; a line where it costs nothing.
fn cost_text(ns: f64) -> String {
    match ns {
        0.0 => "-".into(),
        ns if ns < 1.0 => format!("{:.*} ps", usize::from(ns < 0.01) * 2, ns * 1e3),
        ns if ns < 1e3 => format!("{:.*} ns", usize::from(ns < 100.0), ns),
        ns => duration_text(Duration::try_from_secs_f64(ns * 1e-9).unwrap_or(Duration::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::cost_text;

    #[test]
    fn costs_have_readable_units() {
        let cases = [
            (0.0, "-"),
            (0.000_2, "0.20 ps"),
            (0.008, "8.00 ps"),
            (0.5, "500 ps"),
            (12.34, "12.3 ns"),
            (999.0, "999 ns"),
            (150_000.0, "150 µs"),
        ];
        for (ns, text) in cases {
            assert_eq!(cost_text(ns), text);
        }
    }
}
