//! The clock and the guards, with members that note which batch they were in.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// A member that reports its batch.
struct Noted {
    name: &'static str,
    gone: Arc<AtomicBool>,
    reports: Sender<(Vec<&'static str>, InFlight<Noted>)>,
}

impl BatchMember for Noted {
    type Kind = usize;

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    fn dispatch(members: Vec<Self>, in_flight: InFlight<Self>) {
        let names = members.iter().map(|member| member.name).collect();
        assert!(members[0].reports.send((names, in_flight)).is_ok(), "the test listens");
    }
}

struct Rig {
    batcher: Batcher<Noted>,
    kind: Cell<usize>,
    reports: Sender<(Vec<&'static str>, InFlight<Noted>)>,
    reported: Receiver<(Vec<&'static str>, InFlight<Noted>)>,
}

fn rig(limit: Duration) -> Rig {
    let (reports, reported) = channel();
    Rig { batcher: Batcher::new(limit), kind: Cell::default(), reports, reported }
}

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(3_600);

impl Rig {
    fn enter(&self, name: &'static str, gone: &Arc<AtomicBool>) -> Entered<Noted> {
        let request = Request { queries: 1, deadline: None };
        let member = || Noted { name, gone: gone.clone(), reports: self.reports.clone() };
        // A batch takes as long as one of its members.
        self.batcher.enter(self.kind.get(), request, || 0, |_| Duration::from_millis(1), member)
    }

    fn alone(&self) -> InFlight<Noted> {
        match self.enter("alone", &Arc::default()) {
            Entered::Alone(in_flight) => in_flight,
            Entered::Batched => unreachable!("it waits"),
        }
    }

    fn gathers(&self, name: &'static str) -> Arc<AtomicBool> {
        let gone = Arc::default();
        assert!(matches!(self.enter(name, &gone), Entered::Batched), "{name} goes at once");
        gone
    }

    /// The batch that has left.
    fn left(&self) -> (Vec<&'static str>, InFlight<Noted>) {
        let Ok(left) = self.reported.try_recv() else { unreachable!("it did not leave") };
        left
    }

    /// The batch that leaves by itself.
    fn leaves(&self) -> (Vec<&'static str>, InFlight<Noted>) {
        let Ok(left) = self.reported.recv_timeout(Duration::from_secs(60)) else { unreachable!("it never leaves") };
        left
    }

    fn is_idle(&self) -> bool {
        self.batcher.shared.lock().groups.is_idle()
    }
}

#[test]
fn dropping_what_is_under_way_lets_the_next_batch_leave() {
    let rig = rig(LONG);
    let (first, second) = (rig.alone(), rig.alone());
    ["x", "y"].into_iter().for_each(|name| drop(rig.gathers(name)));
    assert!(rig.reported.try_recv().is_err(), "nothing is answered yet");
    drop(second);
    let (names, batch) = rig.left();
    assert_eq!(names, ["x", "y"]);
    rig.gathers("z");
    drop(batch);
    let (names, batch) = rig.left();
    assert_eq!(names, ["z"]);
    drop((first, batch));
    assert!(rig.is_idle());
}

#[test]
fn members_that_are_gone_are_left_behind() {
    let rig = rig(LONG);
    let (first, second) = (rig.alone(), rig.alone());
    let gone = rig.gathers("gone");
    rig.gathers("x");
    gone.store(true, Ordering::Relaxed);
    drop(first);
    let (names, batch) = rig.left();
    assert_eq!(names, ["x"]);
    // A batch of which nobody is left does not leave, and holds up nobody.
    rig.gathers("all gone").store(true, Ordering::Relaxed);
    drop(batch);
    assert!(rig.reported.try_recv().is_err());
    drop(second);
    assert!(rig.is_idle());
}

/// However long the others take.
#[test]
fn the_clock_lets_a_batch_leave_that_has_waited_long_enough() {
    let limit = Duration::from_millis(3);
    let rig = rig(limit);
    // Several times: the clock sleeps in between, or looks once more.
    for round in 0..20 {
        rig.kind.set(round);
        let _under_way = (rig.alone(), rig.alone());
        let begun = Instant::now();
        ["x", "y"].into_iter().for_each(|name| drop(rig.gathers(name)));
        let (names, batch) = rig.leaves();
        assert!(begun.elapsed() >= limit, "round {round}: too soon");
        assert_eq!(names, ["x", "y"]);
        drop(batch);
        if round % 2 == 0 {
            // It has nothing to look for any more, and sleeps until it is woken.
            while rig.batcher.shared.lock().looks.is_some() {
                std::thread::yield_now();
            }
        }
    }
}

#[test]
fn the_clock_ends_with_its_owner() {
    let limit = Duration::from_micros(50);
    for _ in 0..50 {
        let rig = rig(limit);
        let in_flight = (rig.alone(), rig.alone());
        rig.gathers("x");
        let shared = Arc::downgrade(&rig.batcher.shared);
        drop((in_flight, rig));
        assert!(shared.upgrade().is_none(), "something still holds it");
    }
}
