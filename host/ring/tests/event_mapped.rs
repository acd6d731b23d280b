//! The event ring in a file: its bytes, what another process reads of it, and what is refused at opening.

use megaring_ring::{
    event_ring::{Event, EventRing, EventRingConfig, EventRingError, EventView, Read, ReadBurst, Start},
    slot::fnv1a64,
};
use std::{
    fs::{self, OpenOptions},
    io::{BufRead, BufReader, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};
use tempfile::TempDir;

const HEADER: usize = 4096;
const SLOT: usize = 128;
const CHILD_FILE: &str = "MEGARING_TEST_EVENT_FILE";
const EVENTS: u64 = 50_000;

fn create(path: &Path, capacity: usize) -> Arc<EventRing> {
    EventRing::new(EventRingConfig { capacity, start: 0, file: Some(path.to_owned()) }).unwrap()
}

fn scratch() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events");
    (dir, path)
}

fn event(name: u64) -> Event {
    let data = name.to_le_bytes().repeat(10);
    Event::new(name, fnv1a64(b"test"), name, 0.5, &data).unwrap()
}

fn patch(path: &Path, at: usize, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn the_bytes_are_those_of_the_slot_format() {
    let (_dir, path) = scratch();
    let ring = create(&path, 4);
    let producer = ring.producer().unwrap();
    for name in 0..6 {
        producer.publish(&event(name));
    }
    producer.publish(&Event::new(9, fnv1a64(b"source"), 11, 0.75, b"abc").unwrap());
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), HEADER + 4 * SLOT);
    assert_eq!(&bytes[..8], b"MEGAEVTR");
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!([word(8), word(16), word(24), word(128), word(256)], [1 | 128 << 32, 4, 0, 7, 0]);
    let slot = HEADER + 2 * SLOT;
    let fields: [u64; 6] = std::array::from_fn(|index| word(slot + 8 * index));
    assert_eq!(fields, [7, 9, fnv1a64(b"source"), 11, 0.75_f64.to_bits(), 3]);
    assert_eq!(&bytes[slot + 48..slot + 51], b"abc");
    assert!(bytes[slot + 51..slot + 128].iter().all(|byte| *byte == 0), "an older event's data shows through");
    assert_eq!(word(HEADER + 3 * SLOT), 4);
}

#[test]
fn a_view_reads_beside_the_ring_and_sees_it_close() {
    let (_dir, path) = scratch();
    let ring = create(&path, 4);
    let mut view = EventView::open(&path, Start::Latest).unwrap();
    assert_eq!((view.try_read(), view.capacity()), (Read::Empty, 4));
    let mut producer = ring.sole_producer().unwrap();
    producer.publish_burst(&[1, 2, 3, 4, 5, 6].map(event));
    assert_eq!(view.try_read(), Read::Lost(2));
    for name in 3..=6 {
        assert_eq!(view.try_read(), Read::Event(event(name)));
    }
    assert_eq!((view.received(), view.lost(), view.position()), (4, 2, 6));
    drop((producer, ring));
    assert_eq!(view.try_read(), Read::Closed);
    let mut late = EventView::open(&path, Start::Oldest).unwrap();
    assert_eq!(late.try_read(), Read::Event(event(3)));
}

#[test]
fn a_ring_made_anew_leaves_readers_of_the_old_one_alone() {
    let (dir, path) = scratch();
    let old = create(&path, 8);
    old.producer().unwrap().publish(&event(1));
    let mut view = EventView::open(&path, Start::Oldest).unwrap();
    let new = create(&path, 2);
    new.producer().unwrap().publish(&event(2));
    assert_eq!((view.try_read(), view.try_read()), (Read::Event(event(1)), Read::Empty));
    assert_eq!(EventView::open(&path, Start::Oldest).unwrap().try_read(), Read::Event(event(2)));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a half-made file was left behind");
}

#[test]
fn what_is_no_ring_is_refused_with_its_reason() {
    let (dir, path) = scratch();
    let open = |path: &Path| EventView::open(path, Start::Oldest).unwrap_err();
    assert!(matches!(open(&path), EventRingError::File { .. }));
    fs::write(&path, b"").unwrap();
    assert!(matches!(open(&path), EventRingError::Truncated { found: 0, needed: 4096 }));
    fs::write(&path, vec![7; 10_000]).unwrap();
    assert!(matches!(open(&path), EventRingError::NotAnEventRing));
    drop(create(&path, 4));
    patch(&path, 8, &2_u32.to_le_bytes());
    assert!(matches!(open(&path), EventRingError::Version { found: 2 }));
    drop(create(&path, 4));
    patch(&path, 12, &64_u32.to_le_bytes());
    assert!(matches!(open(&path), EventRingError::SlotSize { found: 64 }));
    for capacity in [0, 1, 3, u64::MAX, 1 << 63] {
        drop(create(&path, 4));
        patch(&path, 16, &capacity.to_le_bytes());
        assert!(matches!(open(&path), EventRingError::Capacity(found) if found as u64 == capacity));
    }
    for len in [HEADER + 4 * SLOT - 1, HEADER + 4 * SLOT + 1, HEADER] {
        drop(create(&path, 4));
        OpenOptions::new().write(true).open(&path).unwrap().set_len(len as u64).unwrap();
        assert!(matches!(open(&path), EventRingError::Truncated { found, needed: 4608 } if found == len as u64));
    }
    let nowhere = EventRingConfig { file: Some(dir.path().join("none/events")), ..Default::default() };
    assert!(matches!(EventRing::new(nowhere), Err(EventRingError::File { .. })));
    let taken = EventRingConfig { capacity: 2, start: 0, file: Some(dir.path().to_owned()) };
    assert!(matches!(EventRing::new(taken), Err(EventRingError::File { .. })));
}

#[test]
fn damage_to_a_mapped_ring_counts_as_loss() {
    let (_dir, path) = scratch();
    let ring = create(&path, 8);
    let mut view = EventView::open(&path, Start::Oldest).unwrap();
    ring.producer().unwrap().publish_burst(&[1, 2, 3, 4].map(event));
    patch(&path, HEADER + 40, &81_u64.to_le_bytes());
    patch(&path, HEADER + SLOT + 32, &f64::NAN.to_bits().to_le_bytes());
    // A sequence from nowhere in the future, which no cursor explains.
    patch(&path, HEADER + 2 * SLOT, &1_000_003_u64.to_le_bytes());
    assert_eq!([0; 3].map(|_| view.try_read()), [Read::Lost(1); 3]);
    assert_eq!((view.try_read(), view.try_read()), (Read::Event(event(4)), Read::Empty));
    assert_eq!((view.received(), view.lost()), (1, 3));
}

/// A burst ends in front of a loss, which the next look tells of; nothing of what was found there is left behind.
#[test]
fn damage_in_a_burst_is_told_of_after_what_came_before_it() {
    let (_dir, path) = scratch();
    let ring = create(&path, 8);
    let mut view = EventView::open(&path, Start::Oldest).unwrap();
    ring.producer().unwrap().publish_burst(&[1, 2, 3].map(event));
    patch(&path, HEADER + SLOT + 40, &81_u64.to_le_bytes());
    let mut events = [event(7); 4];
    assert_eq!(view.read_burst(&mut events), ReadBurst::Events(1));
    assert_eq!(events, [event(1), Event::default(), event(7), event(7)]);
    assert_eq!((view.read_burst(&mut events), events[0]), (ReadBurst::Lost(1), Event::default()));
    assert_eq!((view.read_burst(&mut events), events[0]), (ReadBurst::Events(1), event(3)));
    assert_eq!((view.received(), view.lost()), (2, 1));
}

/// Reads a live ring from another process: this test's own executable, run again for the test below.
#[test]
fn another_process_reads_every_event_or_knows_it_lost() {
    let (_dir, path) = scratch();
    let ring = create(&path, 256);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_other_process", "--nocapture"])
        .env(CHILD_FILE, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.ends_with("ready")), "the other process never opened the ring");
    let producer = ring.producer().unwrap();
    (0..EVENTS).for_each(|name| producer.publish(&event(name)));
    ring.close();
    let rest: Vec<_> = lines.collect();
    assert!(child.wait().unwrap().success(), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("1 passed")), "{rest:?}");
}

/// The other process of the test above. Run by itself it has no file to read and nothing to say.
#[test]
fn the_other_process() {
    let Some(path) = std::env::var_os(CHILD_FILE) else { return };
    let mut view = EventView::open(Path::new(&path), Start::Oldest).unwrap();
    println!("ready");
    let mut newest = None;
    loop {
        match view.try_read() {
            Read::Event(seen) => {
                assert_eq!(seen, event(seen.kind()), "torn");
                assert!(newest < Some(seen.kind()), "twice or out of order");
                newest = Some(seen.kind());
            }
            Read::Closed => break,
            Read::Lost(_) => {}
            Read::Empty => std::thread::yield_now(),
        }
    }
    assert_eq!(view.received() + view.lost(), EVENTS);
    assert_eq!(newest, Some(EVENTS - 1), "the last event is there for whoever comes to the end");
}
