//! The recorder: events of a ring end up in the ledger, all of them or their number, whatever the disk does.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use megaring_budget::{Budgets, Moment};
use megaring_engine::recorder::{Recorder, RecorderState};
use megaring_ledger::{Disk, Entry, Kind, Ledger, LedgerView, Options, Query, verify};
use megaring_ring::event_ring::{Event, EventRing, EventRingConfig};

fn ring(capacity: usize) -> Arc<EventRing> {
    EventRing::new(EventRingConfig { capacity, ..EventRingConfig::default() }).unwrap()
}

fn event(number: u64) -> Event {
    Entry { items: number, ..Entry::default() }.event(Kind::ANSWERED, 7, 1_700_000_000 + number, 1.0).unwrap()
}

/// Waits, as long as it takes on a busy machine.
fn eventually(what: &str, recorder: &Recorder, is_so: impl Fn(&RecorderState) -> bool) -> RecorderState {
    for _ in 0..60_000 {
        let state = recorder.state();
        if is_so(&state) {
            return state;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("{what}: {:?}", recorder.state())
}

/// The events that were kept, by their number, and how many were noted as lost.
fn kept(folder: &Path) -> (Vec<u64>, u64) {
    let ledger = LedgerView::open(folder).unwrap();
    let records: Vec<_> = ledger.query(Query::default()).map(Result::unwrap).collect();
    let lost = records.iter().filter(|record| record.kind() == Kind::LOST).map(|record| record.entry().count).sum();
    let answered = records.iter().filter(|record| record.kind() == Kind::ANSWERED);
    (answered.map(|record| record.entry().items).collect(), lost)
}

fn record(ring: &Arc<EventRing>, ledger: Ledger, segments: u64) -> Recorder {
    Recorder::start(ring, ledger, segments, &Arc::new(Budgets::new(Moment::now()))).unwrap()
}

#[test]
fn what_is_published_is_kept_in_order_also_what_came_last() {
    let (folder, ring) = (tempfile::tempdir().unwrap(), ring(65_536));
    let producer = ring.producer().unwrap();
    producer.publish(&event(1_000_000));
    let recorder = record(&ring, Ledger::open(folder.path(), Options::default()).unwrap(), 0);
    (0..5_000).for_each(|number| producer.publish(&event(number)));
    let state = eventually("all are durable", &recorder, |state| state.durable == 5_000);
    assert_eq!((state.size, state.lost, state.fault), (5_000, 0, None));
    // Nobody waits for these.
    (5_000..5_010).for_each(|number| producer.publish(&event(number)));
    drop(recorder);
    assert_eq!(kept(folder.path()), ((0..5_010).collect(), 0));
    assert!(verify(folder.path()).unwrap().is_sound());
}

#[test]
fn those_that_are_lost_are_counted_in_the_ledger_itself() {
    let (folder, ring) = (tempfile::tempdir().unwrap(), ring(8));
    let producer = ring.producer().unwrap();
    let recorder = record(&ring, Ledger::open(folder.path(), Options::default()).unwrap(), 0);
    let events: Vec<Event> = (0..10_000).map(event).collect();
    // More than the ring holds, before anybody could have looked.
    producer.publish_burst(&events);
    drop(recorder);
    let (numbers, lost) = kept(folder.path());
    assert_eq!(numbers.len() as u64 + lost, 10_000);
    assert!(lost > 0 && numbers.is_sorted() && numbers.last() == Some(&9_999), "{lost} {numbers:?}");
}

#[test]
fn only_the_newest_segments_stay_where_that_is_wanted() {
    let (folder, ring) = (tempfile::tempdir().unwrap(), ring(65_536));
    let producer = ring.producer().unwrap();
    let ledger = Ledger::open(folder.path(), Options { segment_levels: 4 }).unwrap();
    let recorder = record(&ring, ledger, 2);
    (0..100).for_each(|number| producer.publish(&event(number)));
    drop(recorder);
    let ledger = LedgerView::open(folder.path()).unwrap();
    assert_eq!((ledger.first(), ledger.size()), (80, 100));
    assert!(verify(folder.path()).unwrap().is_sound());
}

#[test]
fn segments_of_today_stay_where_there_are_budgets() {
    let (folder, ring) = (tempfile::tempdir().unwrap(), ring(65_536));
    let producer = ring.producer().unwrap();
    let ledger = Ledger::open(folder.path(), Options { segment_levels: 4 }).unwrap();
    let budgets = Arc::new(Budgets::new(Moment::now()));
    let account = budgets.account(0);
    let recorder = Recorder::start(&ring, ledger, 2, &budgets).unwrap();
    (0..50).for_each(|number| producer.publish(&event(number)));
    let now_ns = Moment::now().unix_ns;
    (0..50).for_each(|_| producer.publish(&charge(1, now_ns)));
    drop(recorder);
    // The events before are of long ago; the segment in which those of today begin has some of both.
    assert_eq!(LedgerView::open(folder.path()).unwrap().first(), 48);
    drop(account);
    let ledger = Ledger::open(folder.path(), Options::default()).unwrap();
    let budgets = Arc::new(Budgets::new(Moment::now()));
    drop(Recorder::start(&ring, ledger, 2, &budgets).unwrap());
    assert_eq!(budgets.account(0).describe(0, Moment::now()).day_settled, 50);
}

fn charge(settled: u64, unix_ns: u64) -> Event {
    Entry { settled, ..Entry::default() }.event(Kind::ANSWERED, 0, unix_ns, 1.0).unwrap()
}

#[test]
fn who_asks_for_it_waits_until_what_was_published_is_kept() {
    let (folder, ring, disk) = (tempfile::tempdir().unwrap(), ring(64), Arc::new(Full::default()));
    let producer = ring.producer().unwrap();
    let ledger = Ledger::open_on(folder.path(), Options::default(), disk.clone()).unwrap();
    let recorder = record(&ring, ledger, 0);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for number in 0..200 {
        producer.publish(&event(number));
        runtime.block_on(recorder.keep()).unwrap();
        assert_eq!(kept(folder.path()).0.last(), Some(&number), "another process sees it");
    }
    assert_eq!(recorder.look(LedgerView::size).unwrap(), 200);
    disk.0.store(true, Ordering::Relaxed);
    producer.publish(&event(200));
    assert!(runtime.block_on(recorder.keep()).unwrap_err().contains("append"));
    recorder.end();
    assert!(runtime.block_on(recorder.keep()).is_err(), "nobody waits for what never comes");
}

/// A disk that is full while it is said to be.
#[derive(Debug, Default)]
struct Full(AtomicBool);

impl Disk for Full {
    fn write(&self, path: &Path, file: &File, at: u64, bytes: &[u8]) -> io::Result<usize> {
        if self.0.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        megaring_ledger::System.write(path, file, at, bytes)
    }
}

#[test]
fn a_full_disk_is_told_of_and_tried_again_and_what_it_cost_is_counted() {
    let (folder, ring, disk) = (tempfile::tempdir().unwrap(), ring(64), Arc::new(Full::default()));
    let producer = ring.producer().unwrap();
    let ledger = Ledger::open_on(folder.path(), Options::default(), disk.clone()).unwrap();
    let recorder = record(&ring, ledger, 0);
    (0..10).for_each(|number| producer.publish(&event(number)));
    eventually("ten are kept", &recorder, |state| state.durable == 10);
    disk.0.store(true, Ordering::Relaxed);
    let mut published = 10;
    while recorder.state().lost == 0 {
        producer.publish(&event(published));
        published += 1;
    }
    let state = eventually("it tells", &recorder, |state| state.fault.is_some());
    assert!(state.size == 10, "{state:?}");
    disk.0.store(false, Ordering::Relaxed);
    eventually("it goes on", &recorder, |state| state.fault.is_none() && state.size > 10);
    producer.publish(&event(published));
    let counted = recorder.state().lost;
    drop(recorder);
    let (numbers, lost) = kept(folder.path());
    assert_eq!(numbers.len() as u64 + lost, published + 1);
    assert!(lost >= counted && numbers.is_sorted() && numbers.last() == Some(&published));
    assert!(verify(folder.path()).unwrap().is_sound());
}
