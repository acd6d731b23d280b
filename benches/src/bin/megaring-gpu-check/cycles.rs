//! Starts and stops: what one leaves behind shows after two hundred.

use std::time::Instant;

use megaring_bench::Failure;
use megaring_cuda::CudaMode;
use serde_json::json;

use crate::machine::{Machine, Wanted, Way, store};
use crate::stats::Samples;
use crate::{Done, Report, object, say, small};

/// Cycles after which everything that is made once is there.
const SETTLED: usize = 3;
/// How many more threads and open files than after the third cycle are no leak.
const SLACK: usize = 2;

/// Each cycle opens the device, starts an engine, does a few jobs and stops everything.
pub(crate) fn run(machine: Machine, count: usize, checkpoints: bool) -> Done {
    let (_folder, store) = store()?;
    let (mut starts, mut stops) = (Samples::default(), Samples::default());
    let mut settled = Held::now();
    for cycle in 1..=count {
        let mode = CudaMode::ALL[cycle % CudaMode::ALL.len()];
        let begun = Instant::now();
        let subject = machine.subject(&Wanted::usual(Way::Cuda(mode)), &store);
        let subject = subject.map_err(|error| told(cycle, mode, &error))?;
        starts.push(begun.elapsed());
        small::few(&subject, 20).map_err(|error| told(cycle, mode, &error))?;
        let begun = Instant::now();
        drop(subject);
        stops.push(begun.elapsed());
        if cycle == SETTLED.min(count) {
            settled = Held::now();
        }
        if checkpoints && (cycle == SETTLED || cycle == count) {
            say(machine, object(json!({ "checkpoint": cycle })));
            std::io::stdin().read_line(&mut String::new())?;
        }
    }
    let last = Held::now();
    let ok = last.threads <= settled.threads + SLACK && last.files <= settled.files + SLACK;
    let fields = json!({
        "cycles": count, "start": starts.summary(), "stop": stops.summary(),
        "threads": [settled.threads, last.threads], "files": [settled.files, last.files],
        "resident_bytes": [settled.resident, last.resident],
    });
    Ok(Report::new(fields, ok))
}

fn told(cycle: usize, mode: CudaMode, error: &Failure) -> Failure {
    format!("cycle {cycle}, {mode}: {error}").into()
}

/// What this process holds, as far as Linux tells; zeros elsewhere.
#[derive(Default)]
struct Held {
    threads: usize,
    files: usize,
    resident: usize,
}

impl Held {
    fn now() -> Self {
        let count = |folder| std::fs::read_dir(folder).map_or(0, Iterator::count);
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0_usize);
        Self { threads: count("/proc/self/task"), files: count("/proc/self/fd"), resident: kib << 10 }
    }
}
