//! The device's clock against this machine's: deadlines in slots are Unix time, and the device only has a clock of its own.

use std::time::{SystemTime, UNIX_EPOCH};

use megaring_ring::DeviceLines;

use crate::abi::{control, report};
use crate::lines::{load, store};

/// Runs that are looked at. The first one loads the code and takes far longer than the others.
const RUNS: usize = 3;

/// Tells the device what to add to its clock. `run` is one launch of the kernel that has nothing to do; the shortest one tells most exactly,
/// to within half of what it takes: some 10 µs.
pub(crate) fn calibrate<E>(lines: &DeviceLines, mut run: impl FnMut() -> Result<(), E>) -> Result<(), E> {
    let mut shortest = u64::MAX;
    for _ in 0..RUNS {
        let before = unix_ns();
        run()?;
        let took = unix_ns().saturating_sub(before);
        if took < shortest {
            shortest = took;
            let offset = (before + took / 2).wrapping_sub(load(&lines.report, report::CLOCK));
            // 0 would mean that it is not known.
            store(&lines.control, control::CLOCK_OFFSET, offset.max(1));
        }
    }
    Ok(())
}

fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
