//! The device's clock against this machine's: deadlines in slots are Unix time, which the device does not have.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use megaring_ring::DeviceLines;

use crate::abi::{beat, control, report};
use crate::lines::{load, store};

/// Runs that are looked at. The first one loads the code and takes far longer than the others.
const RUNS: usize = 3;
/// A kernel's heart beats every 20 µs.
const NEXT_BEAT: Duration = Duration::from_micros(200);
/// A launch from which the clock may be corrected: to within half of this.
const SHORT_LAUNCH: Duration = Duration::from_millis(1);

/// Tells the device what to add to its clock. `run` is one launch of the kernel with nothing to do. The shortest launch
/// is the most exact: to within half its time, some 10 µs.
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

/// Corrects what a running kernel adds to its clock: two clocks drift apart by seconds a day, and this machine's may be
/// set. Waits a moment for the kernel's next heartbeat; without one nothing is corrected.
pub(crate) fn correct(lines: &DeviceLines) {
    let clock = || load(&lines.device_heartbeat, beat::CLOCK);
    let (before, begun) = (clock(), Instant::now());
    while before != 0 && begun.elapsed() < NEXT_BEAT {
        let now = clock();
        if now != before && now != 0 {
            store(&lines.control, control::CLOCK_OFFSET, unix_ns().wrapping_sub(now).max(1));
            return;
        }
        std::hint::spin_loop();
    }
}

/// The same after a launch that took no longer than `took`, which says when it began. Short ones alone tell enough.
pub(crate) fn correct_by_launch(lines: &DeviceLines, took: Duration) {
    let began = load(&lines.report, report::CLOCK);
    if took <= SHORT_LAUNCH && began != 0 {
        let middle = unix_ns().wrapping_sub(took.as_nanos() as u64 / 2);
        store(&lines.control, control::CLOCK_OFFSET, middle.wrapping_sub(began).max(1));
    }
}

fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
