//! The judgement by itself, at times that the test makes up.

use std::time::{Duration, Instant};

use megaring_cuda::Timings;
use megaring_cuda::abi::{EndReason, STATE_ENDED, STATE_NEVER_RAN, STATE_RUNNING};
use megaring_cuda::device::DeviceError;
use megaring_cuda::liveness::{Sight, Signs, Watch};

/// A watch, and the looks at it, each `beat` after the one before.
struct Looks {
    watch: Watch,
    now: Instant,
}

impl Looks {
    fn new() -> Self {
        let now = Instant::now();
        Self { watch: Watch::new(Timings::default(), now), now }
    }

    fn after(&mut self, pause: Duration, beat: u64, state: u64, idle: Result<bool, DeviceError>) -> Sight {
        self.now += pause;
        self.watch.look(idle, Signs { beat, state, reason: 2 }, self.now)
    }

    /// How many looks with the same signs, one host's beat apart, it takes until the kernel counts as lost.
    fn until_lost(&mut self, beat: u64, state: u64) -> u32 {
        (1..).find(|_| self.after(Timings::default().beat, beat, state, Ok(false)) != Sight::Alive).expect("at last")
    }
}

#[test]
fn silence_is_lost_after_its_time_and_a_beat_begins_it_anew() {
    let mut looks = Looks::new();
    assert_eq!(looks.until_lost(0, STATE_NEVER_RAN), 201, "20 s to the first sign of life");
    let mut looks = Looks::new();
    assert_eq!(looks.after(Duration::ZERO, 1, STATE_RUNNING, Ok(false)), Sight::Alive);
    assert_eq!(looks.until_lost(1, STATE_RUNNING), 21, "2 s of silence");
    let mut looks = Looks::new();
    for beat in 1..100 {
        let second = Duration::from_millis(1900);
        assert_eq!(looks.after(second, beat, STATE_RUNNING, Ok(false)), Sight::Alive);
    }
}

#[test]
fn a_process_that_stood_still_does_not_blame_the_kernel() {
    let mut looks = Looks::new();
    assert_eq!(looks.after(Duration::ZERO, 1, STATE_RUNNING, Ok(false)), Sight::Alive);
    let hour = Duration::from_secs(3600);
    assert_eq!(looks.after(hour, 1, STATE_RUNNING, Ok(false)), Sight::Alive, "an hour in which nobody looked");
    assert_eq!(looks.until_lost(1, STATE_RUNNING), 18, "counts as three beats");
}

#[test]
fn the_end_is_believed_once_the_driver_agrees() {
    let mut looks = Looks::new();
    assert_eq!(looks.after(Duration::ZERO, 5, STATE_ENDED, Ok(false)), Sight::Alive, "its blocks are on their way out");
    assert_eq!(looks.after(Duration::ZERO, 5, STATE_ENDED, Ok(true)), Sight::Ended(EndReason::HostLost));
    let mut looks = Looks::new();
    assert_eq!(looks.until_lost(5, STATE_ENDED), 22, "or hang");
}

#[test]
fn what_the_driver_says_comes_first() {
    let mut looks = Looks::new();
    let broken = Err(DeviceError::Sticky("an illegal address".into()));
    assert!(matches!(looks.after(Duration::ZERO, 1, STATE_ENDED, broken), Sight::Lost(why) if why.contains("address")));
    let gone = looks.after(Duration::ZERO, 1, STATE_RUNNING, Ok(true));
    assert!(matches!(gone, Sight::Lost(why) if why.contains("no report")));
}
