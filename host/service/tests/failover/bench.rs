//! `megaring bench` where a backend fails on the way: the others go on, what was measured stays, and a note tells of
//! it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use megaring::Setup;
use megaring::bench::{Options, Suite, of_engine};
use megaring_core::BackendKind;
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_corpus::{Access, Store};
use megaring_harness::record::{Axis, Point, Record};

use crate::fake::{Handle, fake};

/// A quick run over the CPU and a fake GPU that fails, of which `meanwhile` has the handle. A bench keeps to its time
/// limit whatever there is to measure; so where a busy machine left no time for the cases in which the one fails and
/// the other goes on, another run has more of it.
fn measured(meanwhile: fn(Arc<Handle>)) -> Record {
    let has = |record: &Record, note: &str| record.notes.iter().any(|told| told.starts_with(note));
    let mut time_limit = Duration::from_secs(1);
    loop {
        let record = measured_within(time_limit, meanwhile);
        let failed = !has(&record, "cuda: search: left out") && has(&record, "cuda was left out from then on");
        let went_on = sizes(&record, "cpu").iter().any(|size| *size > (1_000, 8));
        if failed && went_on || time_limit > Duration::from_secs(60) {
            return record;
        }
        time_limit *= 4;
    }
}

fn measured_within(time_limit: Duration, meanwhile: fn(Arc<Handle>)) -> Record {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), Access::Exclusive).expect("a fresh folder");
    let (handle, running) = fake(BackendKind::Cuda);
    let profile = Profile::parse(DEFAULT).expect("the default profile");
    let config = Setup { cpu_workers: 2, cuda: None, wgpu: None, ..Setup::new(profile) };
    let engine = config.start_with(store, vec![running]).expect("an engine");
    let options = Options { suite: Suite::Crossover, quick: true, time_limit, json: None, html: None, svg: None };
    meanwhile(handle);
    of_engine(&options, engine).expect("a backend that fails is no failure of the run")
}

/// Rows and batches that a backend has times of.
fn sizes(record: &Record, backend: &str) -> Vec<(u64, u64)> {
    let of = |point: &&Point| point.backend == backend;
    record.points.iter().filter(of).map(|point| (point.sizes.rows, point.sizes.items)).collect()
}

#[track_caller]
fn note(record: &Record, part: &str) -> usize {
    let found = record.notes.iter().position(|note| note.contains(part));
    found.unwrap_or_else(|| panic!("{part:?} is not in {:?}", record.notes))
}

#[test]
fn one_that_fails_in_several_cases_is_left_out_and_the_others_go_on() {
    let record = measured(|fake| fake.most_items.store(1, Ordering::Relaxed));
    assert_eq!(sizes(&record, "cuda"), [(1_000, 1)], "what it had stays, and it was left out");
    let cpu = sizes(&record, "cpu");
    assert!(cpu.contains(&(1_000, 1)) && cpu.iter().any(|size| *size > (1_000, 8)), "it goes on: {cpu:?}");
    let told =
        [2, 4, 8].map(|items| note(&record, &format!("cuda: search over 1,000 x 384, top 10, batch {items} failed")));
    assert!(told.is_sorted() && note(&record, "cuda was left out from then on: it failed in 3 cases") > told[2]);
    let failed = record.notes.iter().filter(|note| note.contains("failed: "));
    assert_eq!(failed.count(), 3, "{:?}", record.notes);
    // What both have is compared, and the device is told of.
    let crossed: Vec<_> = record.crossovers.iter().filter(|found| found.axis == Axis::Items).collect();
    assert!(crossed.len() == 1 && crossed[0].up_to == 1, "{crossed:?}");
    let devices: Vec<&str> = record.backends.iter().map(|device| &*device.backend).collect();
    assert_eq!(devices, ["cpu", "cuda"]);
}

#[test]
fn one_whose_device_is_gone_is_left_out_at_once_and_still_told_of() {
    let record = measured(|fake| {
        std::thread::spawn(move || {
            while fake.ring.stats().completed == 0 {
                std::thread::yield_now();
            }
            fake.die("its heart stopped");
        });
    });
    let out = &record.notes[note(&record, "cuda was left out from then on: ")];
    assert!(out.contains("its heart stopped"), "{out}");
    let failed = record.notes.iter().filter(|note| note.starts_with("cuda: ") && note.contains("failed: "));
    assert_eq!(failed.count(), 1, "{:?}", record.notes);
    assert!(sizes(&record, "cpu").iter().any(|size| *size > (1_000, 1)), "{:?}", sizes(&record, "cpu"));
    assert!(record.backends.iter().any(|device| device.backend == "cuda"), "{:?}", record.backends);
}
