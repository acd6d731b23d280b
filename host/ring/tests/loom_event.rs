//! Every interleaving, and every value that the memory model lets a load return, of the event ring's slot protocol and
//! of its wake-up, on rings of two slots with two words each. The code is the rings' own; each twin changes one
//! constant of it, and loom must find the model broken.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test --release -p megaring-ring --test loom_event`.
#![cfg(loom)]

use std::{
    future::Future,
    panic,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering as StdOrdering},
    },
    task::{Context, Wake, Waker},
};

use loom::{
    sync::atomic::{AtomicU64, Ordering},
    thread::JoinHandle,
};
use megaring_ring::event_ring::{
    protocol::{Glance, NO_EVENT, Protocol, SharedSlot, Sound, Track, first_sequence, write_burst},
    wake::Gate,
};

const CAPACITY: usize = 2;
const WORDS: usize = 2;

/// The models' first position: one lap before the wrap of the u64, so that each model crosses it.
const START: u64 = u64::MAX - 1;

struct Ring {
    cursor: AtomicU64,
    slots: [SharedSlot<WORDS>; CAPACITY],
    gate: Gate,
}

impl Ring {
    fn new() -> Arc<Self> {
        let slot = |index| SharedSlot::new(first_sequence(START, CAPACITY, index));
        Arc::new(Self { cursor: AtomicU64::new(START), slots: std::array::from_fn(slot), gate: Gate::new() })
    }

    fn track(&self) -> Track<'_, WORDS> {
        Track { cursor: &self.cursor, slots: &self.slots }
    }

    /// Publishes the event `name` as one of many producers; false if it was dropped.
    fn publish<P: Protocol>(&self, name: u64) -> bool {
        let track = self.track();
        track.write::<P>(track.take(1), &[name; WORDS], false)
    }
}

/// A reader that insists on what readers are promised.
struct Reader {
    position: u64,
    received: Vec<u64>,
    lost: u64,
}

impl Reader {
    fn new() -> Self {
        Self { position: START, received: Vec::new(), lost: 0 }
    }

    /// True if there was something to take or to skip.
    fn step<P: Protocol>(&mut self, track: Track<'_, WORDS>) -> bool {
        let mut words = [0; WORDS];
        match track.read::<P>(self.position, &mut words) {
            Glance::Pending => return false,
            Glance::Whole if words == [NO_EVENT; WORDS] => {
                self.position = self.position.wrapping_add(1);
                self.lost += 1;
            }
            Glance::Whole => {
                assert_eq!(words[0], words[1], "torn");
                assert!(!self.received.contains(&words[0]), "twice");
                self.received.push(words[0]);
                self.position = self.position.wrapping_add(1);
            }
            Glance::Lapped => {
                let next = track.resume(self.position);
                self.lost += next.wrapping_sub(self.position);
                self.position = next;
            }
        }
        true
    }

    /// Reads what is left when all producers are done: nothing may be missing from the count.
    fn finish<P: Protocol>(&mut self, ring: &Ring, published: u64) {
        while self.step::<P>(ring.track()) {}
        assert_eq!(self.position, START.wrapping_add(published), "a position that never came to an end");
        assert_eq!(self.received.len() as u64 + self.lost, published);
    }
}

/// A sole producer laps a reader.
fn lap<P: Protocol>() {
    let ring = Ring::new();
    let writer = {
        let ring = Arc::clone(&ring);
        loom::thread::spawn(move || {
            for name in 0..3 {
                ring.track().take_alone(START.wrapping_add(name + 1));
                ring.track().write_alone::<P>(START.wrapping_add(name), &[name + 1; WORDS]);
            }
        })
    };
    let mut reader = Reader::new();
    reader.step::<P>(ring.track());
    reader.step::<P>(ring.track());
    writer.join().unwrap();
    reader.finish::<P>(&ring, 3);
    assert!(reader.received.is_sorted(), "out of order");
}

/// A sole producer publishes a burst: who sees its first event sees the other.
fn burst<P: Protocol>() {
    let ring = Ring::new();
    let writer = {
        let ring = Arc::clone(&ring);
        loom::thread::spawn(move || {
            ring.track().take_alone(START.wrapping_add(2));
            write_burst::<P>(2, |index| {
                let name = index as u64;
                ring.track().write_alone::<P>(START.wrapping_add(name), &[name + 1; WORDS]);
            });
        })
    };
    let mut reader = Reader::new();
    if reader.step::<P>(ring.track()) {
        assert!(reader.step::<P>(ring.track()), "half a burst");
    }
    writer.join().unwrap();
    reader.finish::<P>(&ring, 2);
    assert_eq!((reader.received, reader.lost), (vec![1, 2], 0));
}

/// A burst and a sole event, by two of many producers, that lap each other before a reader's eyes.
fn burst_beside_another<P: Protocol>() {
    let ring = Ring::new();
    let bursts = {
        let ring = Arc::clone(&ring);
        loom::thread::spawn(move || {
            let (track, mut dropped) = (ring.track(), 0);
            let first = track.take(2);
            write_burst::<P>(2, |index| {
                let name = index as u64;
                dropped += usize::from(!track.write::<P>(first.wrapping_add(name), &[name + 1; WORDS], name == 0));
            });
            dropped
        })
    };
    let other = {
        let ring = Arc::clone(&ring);
        loom::thread::spawn(move || usize::from(!ring.publish::<P>(3)))
    };
    let mut reader = Reader::new();
    reader.step::<P>(ring.track());
    let overrun = bursts.join().unwrap() + other.join().unwrap();
    reader.finish::<P>(&ring, 3);
    let at = |name| reader.received.iter().position(|received| *received == name);
    assert!(at(1).is_none() || at(2).is_none() || at(1) < at(2), "a burst's events out of order");
    // Who moved the mark, and whose event would have come too late.
    assert!(overrun <= 2);
}

/// Two producers lap each other on one slot, before a reader's eyes.
fn two_producers<P: Protocol>() {
    let ring = Ring::new();
    let publish = |names: &'static [u64]| {
        let ring = Arc::clone(&ring);
        loom::thread::spawn(move || names.iter().filter(|name| !ring.publish::<P>(**name)).count())
    };
    let (slow, fast) = (publish(&[1]), publish(&[2, 3]));
    let mut reader = Reader::new();
    reader.step::<P>(ring.track());
    let overrun = slow.join().unwrap() + fast.join().unwrap();
    let began_late = reader.position != START;
    reader.finish::<P>(&ring, 3);
    let at = |name| reader.received.iter().position(|received| *received == name);
    assert!(at(3).is_none() || at(2) < at(3), "one producer's events out of order");
    if !began_late {
        // Nobody was reading meanwhile: what the ring holds at the end is its last lap, whole.
        assert_eq!(reader.lost, 1);
    }
    assert!(overrun <= 1);
}

/// Two producers with two laps between them, no reader until the end: every position comes to an end.
fn producers_alone<P: Protocol>() {
    let ring = Ring::new();
    let publish = |names: &'static [u64]| {
        let ring = Arc::clone(&ring);
        loom::thread::spawn(move || names.iter().filter(|name| !ring.publish::<P>(**name)).count())
    };
    let (slow, fast) = (publish(&[1]), publish(&[2, 3, 4, 5]));
    let overrun = slow.join().unwrap() + fast.join().unwrap();
    let mut reader = Reader::new();
    reader.finish::<P>(&ring, 5);
    assert_eq!((reader.received.len(), reader.lost), (2, 3));
    assert!(overrun <= 2);
}

/// Remembers that it was woken.
#[derive(Default)]
struct Alarm {
    rung: AtomicBool,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, StdOrdering::SeqCst);
    }
}

/// A consumer that sleeps when it finds nothing, and gives up when it would sleep for ever.
struct Sleeper<'a> {
    ring: &'a Ring,
    reader: Reader,
    alarm: Arc<Alarm>,
}

impl<'a> Sleeper<'a> {
    fn new(ring: &'a Ring) -> Self {
        Self { ring, reader: Reader::new(), alarm: Arc::default() }
    }

    /// Awaits one event. While the future is pending and its waker was not called, time passes only by producers'
    /// coming to their end; when none is left, the wake-up was missed.
    fn take<P: Protocol>(&mut self, producers: &mut impl Iterator<Item = JoinHandle<()>>) {
        let Self { ring, reader, alarm } = self;
        let waker = Waker::from(Arc::clone(alarm));
        let mut context = Context::from_waker(&waker);
        let mut event = pin!(ring.gate.wait::<P, _>(|| reader.step::<P>(ring.track()).then_some(())));
        while event.as_mut().poll(&mut context).is_pending() {
            while !alarm.rung.swap(false, StdOrdering::SeqCst) {
                producers.next().expect("missed wake-up").join().unwrap();
            }
        }
    }
}

fn announcers<P: Protocol>(ring: &Arc<Ring>, names: &[u64]) -> Vec<JoinHandle<()>> {
    let announce = |name: &u64| {
        let (ring, name) = (Arc::clone(ring), *name);
        loom::thread::spawn(move || {
            assert!(ring.publish::<P>(name));
            ring.gate.announce::<P>();
        })
    };
    names.iter().map(announce).collect()
}

/// A consumer awaits one event of each of two producers.
fn wake<P: Protocol>() {
    let ring = Ring::new();
    let mut producers = announcers::<P>(&ring, &[1, 2]).into_iter();
    let mut sleeper = Sleeper::new(&ring);
    sleeper.take::<P>(&mut producers);
    sleeper.take::<P>(&mut producers);
    for producer in producers {
        producer.join().unwrap();
    }
    sleeper.reader.finish::<P>(&ring, 2);
    assert_eq!(sleeper.reader.lost, 0);
}

/// Two consumers await the same event, each in a thread; the flag that one raises is taken down for both.
fn wake_both<P: Protocol>() {
    let ring = Ring::new();
    let doze = |ring: &Ring, alarm: &Arc<Alarm>, then: &mut dyn FnMut()| {
        let mut reader = Reader::new();
        let waker = Waker::from(Arc::clone(alarm));
        let mut event = pin!(ring.gate.wait::<P, _>(|| reader.step::<P>(ring.track()).then_some(())));
        let asleep = event.as_mut().poll(&mut Context::from_waker(&waker)).is_pending();
        then();
        assert!(!asleep || alarm.rung.load(StdOrdering::SeqCst), "missed wake-up");
    };
    let producer = announcers::<P>(&ring, &[1]).pop().unwrap();
    let announced = Arc::new(loom::sync::Mutex::new(Some(producer)));
    // Whoever comes first joins the producer for both.
    let join = |announced: &loom::sync::Mutex<Option<JoinHandle<()>>>| {
        let mut producer = announced.lock().unwrap();
        producer.take().into_iter().for_each(|producer| producer.join().unwrap());
    };
    let other = {
        let (ring, announced) = (Arc::clone(&ring), Arc::clone(&announced));
        loom::thread::spawn(move || doze(&ring, &Arc::default(), &mut || join(&announced)))
    };
    doze(&ring, &Arc::default(), &mut || join(&announced));
    other.join().unwrap();
}

fn check(preemptions: Option<usize>, model: fn()) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(model);
}

#[track_caller]
fn must_fail(preemptions: Option<usize>, model: fn()) {
    let outcome = panic::catch_unwind(|| check(preemptions, model));
    assert!(outcome.is_err(), "loom accepted a protocol with a seeded bug");
}

/// A protocol that differs from the sound one in one constant.
macro_rules! twin {
    ($name:ident: $($constant:ident: $kind:ty = $value:expr;)+) => {
        struct $name;
        impl Protocol for $name {
            $(const $constant: $kind = $value;)+
        }
    };
}

twin!(NoBusyMark: MARKS_BUSY: bool = false;);
twin!(NoClaimFence: FENCES_CLAIM: bool = false;);
twin!(RelaxedPublish: PUBLISH: Ordering = Ordering::Relaxed;);
twin!(NeverYields: YIELDS_TO_NEWER: bool = false;);
twin!(IgnoresHolder: RESPECTS_HOLDER: bool = false;);
twin!(PublishesBlindly: PUBLISHES_WHERE_MARKED: bool = false;);
twin!(NoFirstFence: FENCES_FIRST_LOOK: bool = false;);
twin!(NoSecondFence: FENCES_SECOND_LOOK: bool = false;);
twin!(LooksOnce: LOOKS_TWICE: bool = false;);
twin!(BurstInOrder: HOLDS_BURST_BACK: bool = false;);
twin!(BurstOutOfOrder: KEEPS_BURST_IN_ORDER: bool = false;);
twin!(OldBurst: HOLDS_BURST_BACK: bool = false; KEEPS_BURST_IN_ORDER: bool = false;);
twin!(NoWakeFence: FENCES_WAKE: bool = false;);
twin!(SleepsBlindly: LOOKS_BEFORE_SLEEP: bool = false;);

#[test]
fn a_lapped_reader_sees_no_torn_event_and_counts_every_loss() {
    check(None, lap::<Sound>);
}

#[test]
fn producers_that_lap_each_other_tear_nothing_and_strand_no_position() {
    check(None, two_producers::<Sound>);
}

#[test]
fn every_position_of_contending_producers_comes_to_an_end() {
    check(None, producers_alone::<Sound>);
}

#[test]
fn a_burst_is_seen_as_a_whole() {
    check(None, burst::<Sound>);
    check(Some(3), burst_beside_another::<Sound>);
}

#[test]
fn no_wake_up_is_missed() {
    check(Some(4), wake::<Sound>);
    check(Some(4), wake_both::<Sound>);
}

#[test]
fn seeded_bugs_of_the_writer_are_found() {
    must_fail(None, lap::<NoBusyMark>);
    must_fail(None, lap::<NoClaimFence>);
    must_fail(None, lap::<RelaxedPublish>);
    must_fail(None, burst::<RelaxedPublish>);
    must_fail(None, burst::<BurstInOrder>);
}

#[test]
fn seeded_bugs_of_the_reader_are_found() {
    must_fail(None, lap::<NoFirstFence>);
    must_fail(None, lap::<NoSecondFence>);
    must_fail(None, lap::<LooksOnce>);
}

#[test]
fn seeded_bugs_between_producers_are_found() {
    must_fail(Some(3), two_producers::<NoBusyMark>);
    must_fail(Some(3), two_producers::<IgnoresHolder>);
    must_fail(Some(4), producers_alone::<NeverYields>);
    must_fail(Some(4), producers_alone::<PublishesBlindly>);
    must_fail(Some(3), burst_beside_another::<BurstOutOfOrder>);
    must_fail(Some(3), burst_beside_another::<OldBurst>);
}

#[test]
fn seeded_bugs_of_the_wake_up_are_found() {
    must_fail(Some(3), wake::<NoWakeFence>);
    must_fail(Some(3), wake::<SleepsBlindly>);
}
