//! Memory near a device: of several memory nodes, page-locked memory is best taken from the device's own.
//!
//! Linux gives a thread memory from the node that the thread runs on. So the memory is asked for by a thread that may
//! only run there. Where anything is not as expected (no such node, other systems, a container that pins processors)
//! the caller's thread asks, and the memory may lie on any node: slower to reach, never wrong.

/// Runs `work` on the node of a PCI device, such as `0000:65:00.0`, if that can be done.
pub(crate) fn near<T: Send>(device: Option<&str>, work: impl FnOnce() -> T + Send) -> T {
    match device.and_then(processors_of) {
        Some(processors) => std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                if !stay_on(&processors) {
                    tracing::debug!("no thread may be kept near the device; its memory may lie far from it");
                }
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        }),
        None => work(),
    }
}

/// Processors of the device's node; `None` where there is but one node, or nothing is known.
fn processors_of(device: &str) -> Option<Vec<usize>> {
    let read = |path: String| std::fs::read_to_string(path).ok();
    // Minus one where the firmware does not say.
    let node: u32 = read(format!("/sys/bus/pci/devices/{}/numa_node", device.to_lowercase()))?.trim().parse().ok()?;
    read(format!("/sys/devices/system/node/node{node}/cpulist")).and_then(|list| parse(list.trim()))
}

/// Numbers in a list such as `0-3,8,10-11`.
fn parse(list: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        numbers.extend(first..=last.min(MOST));
    }
    (!numbers.is_empty()).then_some(numbers)
}

/// No machine has more processors; a list that says so is not one.
const MOST: usize = 1 << 16;

/// Keeps this thread on some processors; false if that was refused.
#[cfg(target_os = "linux")]
fn stay_on(processors: &[usize]) -> bool {
    use rustix::thread::{CpuSet, sched_setaffinity};
    let mut set = CpuSet::new();
    processors.iter().filter(|number| **number < CpuSet::MAX_CPU).for_each(|number| set.set(*number));
    sched_setaffinity(None, &set).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn stay_on(_processors: &[usize]) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(parse("0-3,8,10-11"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        assert_eq!(parse("7"), Some(vec![7]));
        for broken in ["", "a", "1-", "3-1", "-"] {
            assert_eq!(parse(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn work_is_done_wherever_it_can_be() {
        assert_eq!(near(None, || 1), 1);
        assert_eq!(near(Some("no such device"), || 2), 2);
        let panicked = std::panic::catch_unwind(|| near(Some("no such device"), || panic!("as work may")));
        assert!(panicked.is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_stays_where_it_is_told() {
        let allowed = rustix::thread::sched_getaffinity(None).expect("this thread's processors");
        let one = (0..rustix::thread::CpuSet::MAX_CPU).find(|number| allowed.is_set(*number)).expect("one at least");
        let kept = std::thread::spawn(move || {
            assert!(stay_on(&[one]));
            rustix::thread::sched_getaffinity(None).expect("this thread's processors")
        });
        assert_eq!(kept.join().expect("no assertion failed").count(), 1);
    }
}
