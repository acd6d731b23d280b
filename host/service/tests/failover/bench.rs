//! `megaring bench` where a backend fails on the way: the others go on, what was measured stays, and a note tells of it.

use std::sync::Arc;
use std::time::Duration;

use megaring::bench::{Options, Suite, of_engine};
use megaring::engine::{Engine, EngineConfig};
use megaring_core::BackendKind;
use megaring_core::profile::{DEFAULT, Profile};
use megaring_corpus::{Access, Store};
use megaring_harness::record::{Axis, Record, Residence};

use crate::fake::{Handle, Mode, fake};

/// A quick run over the CPU and a fake GPU, of which `meanwhile` has the handle.
fn measured(meanwhile: impl FnOnce(Arc<Handle>)) -> Record {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), Access::Exclusive).expect("a fresh folder");
    let (handle, running) = fake(BackendKind::Cuda);
    let profile = Profile::parse(DEFAULT).expect("the default profile");
    let config = EngineConfig { cpu_workers: 2, cuda: None, wgpu: None, ..EngineConfig::new(profile) };
    let engine = Engine::start_with(config, store, vec![running]).expect("an engine");
    let time_limit = Duration::from_secs(3);
    let options = Options { suite: Suite::Crossover, quick: true, time_limit, json: None, html: None, svg: None };
    meanwhile(handle);
    of_engine(&options, engine).expect("a backend that fails is no failure of the run")
}

/// Batches over the first corpus that a backend has times of.
fn batches(record: &Record, backend: &str) -> Vec<u64> {
    let of = |point: &&megaring_harness::record::Point| {
        (&*point.backend, point.sizes.rows, point.residence) == (backend, 1_000, Residence::Resident)
    };
    record.points.iter().filter(of).map(|point| point.sizes.items).collect()
}

#[track_caller]
fn note(record: &Record, part: &str) -> usize {
    let found = record.notes.iter().position(|note| note.contains(part));
    found.unwrap_or_else(|| panic!("{part:?} is not in {:?}", record.notes))
}

#[test]
fn one_that_fails_in_several_cases_is_left_out_and_the_others_go_on() {
    let record = measured(|fake| fake.set(Mode::Small(2)));
    assert_eq!(batches(&record, "cuda"), [1, 2], "what it had stays");
    assert!(batches(&record, "cpu").starts_with(&[1, 2, 4, 8, 16, 32]), "{:?}", batches(&record, "cpu"));
    assert!(record.points.iter().all(|point| point.backend == "cpu" || point.sizes.rows == 1_000), "it was left out");
    let told =
        [4, 8, 16].map(|items| note(&record, &format!("cuda: search over 1,000 x 384, top 10, batch {items} failed")));
    assert!(told.is_sorted() && note(&record, "cuda was left out from then on: it failed in 3 cases") > told[2]);
    let failed = record.notes.iter().filter(|note| note.contains("failed: "));
    assert_eq!(failed.count(), 3, "{:?}", record.notes);
    // What both have is compared, and the device is told of.
    let crossed: Vec<_> = record.crossovers.iter().filter(|found| found.axis == Axis::Items).collect();
    assert!(crossed.len() == 1 && crossed[0].up_to == 2, "{crossed:?}");
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
    assert!(batches(&record, "cpu").starts_with(&[1, 2, 4, 8, 16, 32]), "{:?}", batches(&record, "cpu"));
    assert!(record.backends.iter().any(|device| device.backend == "cuda"), "{:?}", record.backends);
}
