//! Corpora that lie on the device whole. In these tests a row takes 8 bytes of codes, 16 of columns for each metric, 32
//! as float32, 8 of norm and 40 of coordinates; spans are rounded up to 256 bytes.

use std::sync::Arc;
use std::thread;

use megaring_core::metric::Metric::{Cosine, Dot, L2};
use megaring_core::visible::Visible;
use megaring_core::{BackendKind, Error, Lacking};
use megaring_cuda::CudaScreen;
use megaring_cuda::abi::{CORPORA_MASK, CORPUS_WILD, corpus_home};
use megaring_cuda::residency::Refusal;

use crate::mock::{DIM, Job, World, corpus, nearest, reads, score, search, search_for, segment, segment_scaled, view};

/// Bytes of a corpus of `rows` rows (a multiple of 64) that is searched under one metric, its list included.
fn searched(rows: usize) -> usize {
    rows * 24 + 256
}

#[test]
fn each_operation_finds_its_columns_and_no_others_are_uploaded() {
    let world = World::new(1 << 20);
    let corpus = view(7, 3, &[segment(1, 100), segment(2, 0), segment(3, 16)]);
    let jobs = [(search(&corpus, Cosine), 4), (search(&corpus, L2), 2), (score(&corpus), 4), (nearest(&corpus), 2)];
    for (job, uploads) in jobs {
        let before = world.counters.uploads.get();
        let guard = world.prepare(&job).unwrap();
        assert_eq!(world.counters.uploads.get() - before, uploads);
        world.run(&job);
        let again = world.prepare(&job).unwrap();
        assert_eq!(world.counters.uploads.get() - before, uploads, "what is there is not uploaded again");
        drop((guard, again));
    }
    assert_eq!(world.counters.evictions.get(), 0);
    assert!(world.counters.resident_bytes.get() > 0 && world.counters.pool_bytes.get() == 1 << 20);
    world.finish();
}

#[test]
fn an_append_uploads_the_new_segment_alone() {
    let world = World::new(1 << 20);
    let old = segment(1, 128);
    let first = view(7, 1, std::slice::from_ref(&old));
    drop(world.prepare(&search(&first, Dot)).unwrap());
    assert_eq!((world.counters.uploads.get(), world.counters.uploaded_bytes.get()), (2, 128 * 24));
    let second = view(7, 2, &[old, segment(2, 64)]);
    // The store lets go of the old version before the new one is searched.
    drop(first);
    let job = search(&second, Dot);
    let _guard = world.prepare(&job).unwrap();
    assert_eq!((world.counters.uploads.get(), world.counters.uploaded_bytes.get()), (4, 192 * 24));
    world.run(&job);
    world.finish();
}

#[test]
fn a_version_that_hides_rows_brings_its_screens_columns_alone() {
    let world = World::new(1 << 20);
    let whole = segment(1, 128);
    let first = view(7, 1, std::slice::from_ref(&whole));
    drop(world.prepare(&search(&first, Dot)).unwrap());
    drop(first);
    let hiding = |row: usize| Arc::new(whole.showing(Visible::all(128).without(std::iter::once(row))));
    let other = segment(2, 64);
    let second = search(&view(7, 2, &[hiding(3), other.clone()]), Dot);
    let _guard = world.prepare(&second).unwrap();
    assert_eq!((world.counters.uploads.get(), world.counters.uploaded_bytes.get()), (5, 192 * 24 + 128 * 16));
    world.run(&second);
    // Gone with the view it was for, while the codes stay for the next.
    let third = search(&view(7, 3, &[hiding(4), other]), Dot);
    let _guard = world.prepare(&third).unwrap();
    assert_eq!((world.counters.uploads.get(), world.counters.uploaded_bytes.get()), (6, 192 * 24 + 2 * 128 * 16));
    world.run(&third);
    world.finish();
}

#[test]
fn what_would_have_to_be_brought_is_told() {
    let world = World::new(1 << 20);
    let old = segment(1, 128);
    let first = view(7, 1, std::slice::from_ref(&old));
    let lacking = |job: &Job| world.residency.lacking(reads(job));
    assert_eq!(lacking(&search(&first, Dot)), Lacking { bytes: 128 * 24, stays: true });
    let guard = world.prepare(&search(&first, Dot)).unwrap();
    assert_eq!(lacking(&search(&first, Dot)).bytes, 0);
    assert!(lacking(&search(&first, Cosine)).bytes > 0, "another metric's columns");
    drop(guard);
    let second = view(7, 2, &[old, segment(2, 64)]);
    assert_eq!(lacking(&search(&second, Dot)), Lacking { bytes: 64 * 24, stays: true }, "the new segment alone");
    let large = corpus(8, 1 << 20);
    assert!(!lacking(&search(&large, Dot)).stays, "it is streamed each time");
    world.finish();
}

#[test]
fn what_a_corpus_would_bring_is_what_it_lacks_before_anything_is_there() {
    // Of the larger one the codes find room and the rows do not; of the largest neither does.
    for (rows, fits) in [(128, [true, true]), (8192, [true, false]), (1 << 20, [false, false])] {
        let corpus = corpus(7, rows);
        for screen in CudaScreen::ALL {
            let world = World::new(1 << 18);
            let world = World { residency: world.residency.screening(screen), ..world };
            let by_rows = screen == CudaScreen::Float32 && fits[1];
            let each = |job: &Job| if reads(job).columns.screen().is_some() && by_rows { 32 + 8 } else { 24 };
            let search_bytes = rows * each(&search(&corpus, L2));
            for (job, bytes) in
                [(search(&corpus, L2), search_bytes), (score(&corpus), rows * 40), (nearest(&corpus), rows * 40)]
            {
                let lacking = world.residency.lacking(reads(&job));
                let told = world.residency.upload_bytes(reads(&job).columns, rows, DIM);
                assert_eq!((lacking.bytes, told), (bytes as u64, bytes as u64), "{rows} rows by {screen}");
                assert_eq!(
                    lacking.stays,
                    if bytes == rows * 24 { fits[0] } else { fits[1] },
                    "{rows} rows by {screen}"
                );
            }
            world.finish();
        }
    }
}

#[test]
fn a_job_that_wants_every_row_finds_the_entry_and_brings_nothing() {
    let world = World::new(1 << 20);
    let corpus = corpus(7, 64);
    let job = search_for(&corpus, Dot, 32);
    assert_eq!(world.residency.lacking(reads(&job)), Lacking { bytes: 0, stays: true });
    let guard = world.prepare(&job).unwrap();
    world.run(&job);
    let entry = world.find(7, 1).unwrap().1;
    assert_eq!((entry.flags, entry.segment_count, world.counters.uploads.get()), (0, 0, 0));
    // One row fewer, and there is something to screen.
    let fewer = search_for(&corpus, Dot, 31);
    let _fewer = world.prepare(&fewer).unwrap();
    assert_eq!(world.counters.uploads.get(), 2);
    world.run(&fewer);
    world.run(&job);
    drop(guard);
    world.finish();
}

#[test]
fn another_metric_gets_a_new_list_while_jobs_read_the_old_one() {
    let world = World::new(1 << 20);
    let corpus = corpus(7, 64);
    let jobs = [search(&corpus, Cosine), search(&corpus, Dot), score(&corpus), nearest(&corpus), search(&corpus, L2)];
    let running: Vec<_> = jobs
        .iter()
        .map(|job| {
            let guard = world.prepare(job).unwrap();
            (world.begin(job), guard)
        })
        .collect();
    running.iter().for_each(|(running, _)| running.check());
    let lists: std::collections::BTreeSet<u64> = running.iter().map(|(running, _)| running.entry.segments.0).collect();
    assert_eq!(lists.len(), 5);
    // The last entry serves them all.
    jobs.iter().for_each(|job| world.run(job));
    running.into_iter().for_each(|(running, _)| running.end());
    world.finish();
}

/// A search that is on its way through the table must not find the old entry gone and the new one behind its back.
#[test]
fn a_new_entry_lies_behind_the_one_that_it_replaces() {
    let world = World::new(1 << 20);
    let home = corpus_home(7, 1);
    let other = (8..).find(|handle| corpus_home(*handle, 1) == home).unwrap();
    let first = view(other, 1, &[segment(1, 0)]);
    drop(world.prepare(&score(&first)).unwrap());
    let corpus = corpus(7, 64);
    let mut places = Vec::new();
    for job in [search(&corpus, Cosine), search(&corpus, Dot), score(&corpus), nearest(&corpus)] {
        let _guard = world.prepare(&job).unwrap();
        places.push(world.find(7, 1).unwrap().0);
        world.run(&job);
    }
    assert!(places.is_sorted() && places.iter().all(|place| *place > world.find(other, 1).unwrap().0), "{places:?}");
    world.finish();
}

#[test]
fn what_was_used_least_recently_goes_first() {
    let world = World::new(3 * searched(1024));
    let corpora: Vec<_> = (0..4).map(|handle| corpus(handle, 1024)).collect();
    let present = |world: &World| corpora.iter().map(|corpus| world.has(corpus)).collect::<Vec<_>>();
    let touch = |at: usize| {
        let job = search(&corpora[at], Cosine);
        let _guard = world.prepare(&job).unwrap();
        world.run(&job);
    };
    [0, 1, 2, 0, 3].into_iter().for_each(touch);
    assert_eq!(present(&world), [true, false, true, true]);
    touch(1);
    assert_eq!(present(&world), [true, true, false, true]);
    assert_eq!(world.counters.evictions.get(), 2);
    world.finish();
}

#[test]
fn versions_that_nobody_holds_go_before_all_others() {
    let world = World::new(3 * searched(1024));
    let old = corpus(0, 1024);
    let dropped = corpus(1, 1024);
    drop(world.prepare(&search(&old, Cosine)).unwrap());
    drop(world.prepare(&search(&dropped, Cosine)).unwrap());
    let key = (dropped.handle(), dropped.generation());
    drop(dropped);
    assert!(world.find(key.0, key.1).is_some());
    let large = corpus(2, 2048 - 32);
    let guard = world.prepare(&search(&large, Cosine)).unwrap();
    assert!(world.find(key.0, key.1).is_none(), "the entry of a corpus that was dropped is gone");
    assert!(world.has(&old) && world.has(&large));
    drop(guard);
    world.finish();
}

#[test]
fn what_is_pinned_stays() {
    let world = World::new(searched(1024) + 512);
    let (pinned, other) = (corpus(1, 1024), corpus(2, 512));
    let job = search(&pinned, Cosine);
    let first = world.prepare(&job).unwrap();
    let second = world.prepare(&job).unwrap();
    drop(first);
    let refused = world.prepare(&nearest(&other)).err();
    assert_eq!(refused, Some(Refusal::Exhausted));
    assert!(world.has(&pinned) && !world.has(&other));
    world.run(&job);
    drop(second);
    drop(world.prepare(&nearest(&other)).unwrap());
    assert!(!world.has(&pinned) && world.has(&other));
    world.finish();
}

/// Whether an eviction waits for a job whose guard is gone; `lies` seeds the bug that it does not.
fn evict_under_a_job(lies: bool) -> usize {
    let world = World::new(searched(1024));
    let job = search(&corpus(1, 1024), Cosine);
    let other = search(&corpus(2, 1024), Cosine);
    let guard = world.prepare(&job).unwrap();
    let running = world.begin(&job);
    drop(guard);
    world.host.lies.store(lies, std::sync::atomic::Ordering::SeqCst);
    thread::scope(|scope| {
        let preparing = scope.spawn(|| world.prepare(&other).unwrap());
        if lies {
            drop(preparing.join().unwrap());
            running.leave();
        } else {
            world.host.await_pauses(3, &preparing);
            assert!(!preparing.is_finished() && world.find(1, 1).is_some());
            running.end();
            drop(preparing.join().unwrap());
        }
    });
    assert!(world.find(1, 1).is_none());
    world.device.violations()
}

#[test]
fn a_job_that_outlives_its_guard_is_awaited() {
    assert_eq!(evict_under_a_job(false), 0);
    assert!(evict_under_a_job(true) > 0, "a seeded bug was not seen");
}

#[test]
fn columns_wanted_twice_at_once_are_uploaded_once() {
    let world = World::new(1 << 20);
    let corpus = corpus(1, 1024);
    world.device.hold_uploads(1024);
    thread::scope(|scope| {
        let calls: Vec<_> = (0..4).map(|_| scope.spawn(|| world.prepare(&search(&corpus, Dot)).unwrap())).collect();
        world.device.await_held(1);
        world.device.release_uploads();
        calls.into_iter().for_each(|call| drop(call.join().unwrap()));
    });
    assert_eq!(world.counters.uploads.get(), 2);
    world.run(&search(&corpus, Dot));
    world.finish();
}

#[test]
fn an_upload_holds_up_nobody_whose_columns_are_there() {
    let world = World::new(1 << 20);
    let (there, coming) = (corpus(1, 1024), corpus(2, 1024));
    drop(world.prepare(&search(&there, Dot)).unwrap());
    world.device.hold_uploads(1024);
    thread::scope(|scope| {
        let call = scope.spawn(|| world.prepare(&search(&coming, Dot)).unwrap());
        world.device.await_held(1);
        let job = search(&there, Dot);
        let _guard = world.prepare(&job).unwrap();
        world.run(&job);
        assert!(!call.is_finished());
        world.device.release_uploads();
        drop(call.join().unwrap());
    });
    world.finish();
}

#[test]
fn a_failed_upload_leaves_nothing_behind() {
    let world = World::new(1 << 20);
    let corpus = corpus(1, 1024);
    // Codes, columns, the list: an entry is not written before all of them are there.
    for number in 1..=3 {
        world.device.fail_upload(number);
        let refused = world.prepare(&search(&corpus, Dot)).err();
        assert_eq!(
            refused,
            Some(Refusal::Failed(megaring_cuda::device::DeviceError::Other("the bus is on fire".into())))
        );
        assert!(!world.has(&corpus));
        // Codes and columns that are there may stay; what did not come takes no room.
        let kept = if number < 3 { 0 } else { 1024 * 24 };
        assert_eq!(world.counters.resident_bytes.get(), kept);
    }
    let job = search(&corpus, Dot);
    let guard = world.prepare(&job).unwrap();
    world.run(&job);
    drop(guard);
    world.finish();
}

#[test]
fn a_table_that_cannot_be_written_takes_the_backend_out_of_service() {
    let world = World::new(1 << 20);
    let corpus = corpus(1, 64);
    world.device.fail_upload(5);
    assert!(matches!(world.prepare(&search(&corpus, Dot)), Err(Refusal::Failed(_))));
    assert!(world.host.failed.lock().unwrap().is_some());
    assert!(matches!(world.prepare(&search(&corpus, Dot)), Err(Refusal::Failed(_))));
}

#[test]
fn the_pool_grows_before_anything_living_goes() {
    let world = World::growing(8 * searched(1024), searched(1024));
    let corpora: Vec<_> = (0..8).map(|handle| corpus(handle, 1024)).collect();
    for corpus in &corpora[..7] {
        drop(world.prepare(&search(corpus, Dot)).unwrap());
    }
    assert_eq!(*world.host.grown.lock().unwrap(), [1, 2, 4].map(|chunks| chunks * searched(1024)));
    assert_eq!((world.counters.growths.get(), world.counters.evictions.get()), (3, 0));
    assert!(corpora[..7].iter().all(|corpus| world.has(corpus)));
    world.finish();
}

#[test]
fn a_device_with_less_memory_than_was_promised_is_made_do_with() {
    let world = World::growing(8 * searched(1024), searched(1024));
    let [first, second, third] = [0, 1, 2].map(|handle| corpus(handle, 1024));
    drop(world.prepare(&search(&first, Dot)).unwrap());
    // The chunk would be as large as the first, but what is needed is less.
    world.device.limit(searched(512));
    drop(world.prepare(&search(&corpus(5, 512), Dot)).unwrap());
    drop(world.prepare(&search(&second, Dot)).unwrap());
    assert!(!world.has(&first) && world.has(&second));
    assert_eq!((world.counters.growths.get(), world.counters.evictions.get()), (1, 2));
    // Pinned memory is streamed past, not waited for.
    let guard = world.prepare(&search(&second, Dot)).unwrap();
    assert_eq!(world.prepare(&nearest(&third)).err().map(|refusal| refusal == Refusal::Exhausted), Some(false));
    drop(guard);
    world.finish();
}

#[test]
fn a_wild_corpus_has_an_entry_and_its_searches_no_data() {
    let world = World::new(1 << 20);
    let wild = view(5, 1, &[segment(1, 64), segment_scaled(2, 64, 1e30)]);
    let job = search(&wild, Cosine);
    let guard = world.prepare(&job).unwrap();
    let entry = world.find(5, 1).unwrap().1;
    assert_eq!((entry.flags, entry.segment_count, world.counters.uploads.get()), (CORPUS_WILD, 0, 0));
    let scored = world.prepare(&score(&wild)).unwrap();
    world.run(&score(&wild));
    world.run(&job);
    drop((guard, scored));
    world.finish();
}

#[test]
fn an_empty_corpus_has_an_entry() {
    let world = World::new(1 << 20);
    let empty = view(5, 1, &[segment(1, 0)]);
    for job in [search(&empty, Cosine), score(&empty)] {
        let _guard = world.prepare(&job).unwrap();
        world.run(&job);
    }
    world.finish();
}

#[test]
fn a_new_corpus_under_an_old_number_is_not_taken_for_the_old_one() {
    let world = World::new(1 << 20);
    let job = search(&view(5, 1, &[segment(1, 64)]), Dot);
    drop(world.prepare(&job).unwrap());
    drop(job);
    let job = search(&view(5, 1, &[segment(2, 64)]), Dot);
    let guard = world.prepare(&job).unwrap();
    world.run(&job);
    drop(guard);
    world.finish();
}

#[test]
fn entries_that_crowd_one_place_of_the_table_make_room_for_another() {
    let world = World::new(1 << 20);
    let home = corpus_home(1, 1);
    let crowd: Vec<u32> = (1..).filter(|handle| corpus_home(*handle, 1) == home).take(70).collect();
    assert!(home <= CORPORA_MASK);
    let empty = segment(1, 0);
    let views: Vec<_> = crowd.iter().map(|handle| view(*handle, 1, std::slice::from_ref(&empty))).collect();
    let mut guards = Vec::new();
    for view in &views[..64] {
        guards.push(world.prepare(&search(view, Dot)).unwrap());
    }
    assert_eq!(world.prepare(&score(&views[64])).err(), Some(Refusal::Exhausted));
    drop(guards.swap_remove(3));
    for view in &views[64..] {
        let job = search(view, Dot);
        let _guard = world.prepare(&job).unwrap();
        world.run(&job);
        assert!(!world.has(&views[3]));
    }
    world.finish();
}

#[test]
fn what_never_fits_is_refused_in_plain_words() {
    let world = World::new(8192);
    let large = corpus(1, 1024);
    let refused = world.prepare(&score(&large)).err().unwrap();
    assert!(matches!(&refused, Refusal::Unfit(reason) if reason.contains("corpus 1")), "{refused}");
    let error = refused.into_error(std::time::Duration::from_millis(5));
    assert!(matches!(error, Error::BackendUnavailable { kind: BackendKind::Cuda, .. }));
    let error = Refusal::Exhausted.into_error(std::time::Duration::from_millis(5));
    assert!(matches!(error, Error::Exhausted { .. }));
    world.finish();
}

#[test]
fn a_version_lets_go_of_what_it_has_where_that_and_what_it_needs_do_not_fit_together() {
    let world = World::new(44_000);
    let corpus = corpus(1, 1024);
    drop(world.prepare(&nearest(&corpus)).unwrap());
    for job in [score(&corpus), search(&corpus, L2), nearest(&corpus)] {
        let _guard = world.prepare(&job).unwrap();
        let running = world.begin(&job);
        assert!(running.entry.stream.is_null());
        running.end();
    }
    world.finish();
}

#[test]
fn a_column_of_a_version_that_lies_in_the_way_of_another_gives_way() {
    let world = World::new(82_688);
    drop(world.prepare(&nearest(&corpus(1, 256))).unwrap());
    // Between that and the end there is no room for the rows; all columns together would fit.
    let corpus = corpus(2, 1024);
    drop(world.prepare(&nearest(&corpus)).unwrap());
    let job = score(&corpus);
    let guard = world.prepare(&job).unwrap();
    world.run(&job);
    drop(guard);
    let job = nearest(&corpus);
    let _guard = world.prepare(&job).unwrap();
    world.run(&job);
    world.finish();
}

#[test]
fn guards_may_outlive_the_residency() {
    let World { residency, .. } = World::new(1 << 20);
    let job = search(&corpus(1, 64), Dot);
    let guard = residency.prepare(reads(&job)).unwrap();
    residency.close();
    assert!(matches!(residency.prepare(reads(&job)), Err(Refusal::Failed(_))));
    drop(residency);
    drop(guard);
}
