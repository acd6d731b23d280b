//! Corpora that come through the device in tiles, against a consumer that reads every byte as a kernel would.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use bytemuck::cast_slice;
use megaring_core::corpus::CorpusView;
use megaring_core::metric::Metric::{self, Cosine, Dot, L2};
use megaring_cuda::abi::{CORPUS_SCREENED, Corpus};
use megaring_cuda::residency::Refusal;
use megaring_cuda::stream::{Cut, buffer_of, consumed_before};
use proptest::prelude::*;

use crate::mock::{Job, Random, World, corpus, nearest, reads, score, search, search_for, segment, view};
use crate::reader::list;

/// Bytes of a group of 16 rows: codes and columns.
const GROUP: usize = 16 * 8 + 256;

/// What the dispatcher of a kernel keeps: how far into which session its jobs are.
#[derive(Default)]
struct Kernel {
    session: u64,
    next: u64,
    random: Option<Random>,
}

impl Kernel {
    /// Runs a search from slot to answer. With `greedy` it waits, while it reads a tile, until the host has copied
    /// three more, of which one goes to the same buffer: a host that keeps to the protocol never does that.
    fn run(&mut self, world: &World, job: &Job, greedy: bool) {
        let running = world.begin(job);
        let entry = running.entry;
        assert_eq!(entry.flags, CORPUS_SCREENED);
        assert!(!entry.stream.is_null(), "the corpus is streamed");
        if entry.stream_session != self.session {
            (self.session, self.next) = (entry.stream_session, 0);
        }
        let metric = reads(job).columns.screen().expect("only searches are streamed");
        let lines = world.lines();
        for (number, placed) in list(&world.device, &entry).iter().enumerate() {
            let (codes, columns) = expected(reads(job).corpus, placed.first_row, placed.row_count, metric);
            while lines[0].word.load(Ordering::Acquire) <= self.next {
                thread::yield_now();
            }
            let reading = [(placed.codes, codes), (placed.columns[metric as usize - 1], columns)];
            let _spans = reading.each_ref().map(|(at, bytes)| world.device.reading(*at, bytes.len()));
            for (at, bytes) in &reading {
                assert!(greedy || *bytes == world.device.read(*at, bytes.len()), "tile {number} of pass {}", self.next);
            }
            let copied = lines[0].word.load(Ordering::Acquire);
            while greedy && lines[0].word.load(Ordering::Acquire) < copied + 3 {
                thread::yield_now();
            }
            let delays = self.random.as_mut().map_or(0, |random| random.below(4));
            (0..delays).for_each(|_| thread::yield_now());
            for (at, bytes) in &reading {
                assert!(greedy || *bytes == world.device.read(*at, bytes.len()), "overwritten while it was read");
            }
            self.next += 1;
            drop(_spans);
            if !greedy {
                lines[1].word.store(self.next, Ordering::Release);
            }
        }
        running.leave();
    }
}

/// Codes and columns of some rows.
fn expected(view: &CorpusView, first: u32, rows: u32, metric: Metric) -> (Vec<u8>, Vec<u8>) {
    let (start, _) = view.segment_of(first as usize);
    let (_, segment) = view.segments().find(|(at, segment)| *at == start && segment.rows() > 0).unwrap();
    let begin = (first as usize - start) / 16;
    let end = begin + rows.div_ceil(16) as usize;
    let columns: &[u8] = cast_slice(segment.columns(metric));
    let codes = segment.data().codes().packed;
    (codes[begin * 128..end * 128].to_vec(), columns[begin * 256..end * 256].to_vec())
}

fn entry(world: &World, view: &CorpusView) -> Corpus {
    world.find(view.handle(), view.generation()).unwrap().1
}

/// A budget that the corpus exceeds, in groups for a tile.
fn budget(groups: usize) -> usize {
    4 * (groups * GROUP + 255)
}

fn walk(view: &Arc<CorpusView>, groups: usize, passes: usize, seed: u64) {
    let world = World::new(budget(groups).max(4096));
    let job = search(view, Cosine);
    let mut kernel = Kernel { random: Some(Random(seed)), ..Kernel::default() };
    for _ in 0..passes {
        let guard = world.prepare(&job).unwrap();
        kernel.run(&world, &job, false);
        // The next pass goes on with the same session, whether or not it has been idle meanwhile.
        drop(guard);
    }
    assert_eq!(kernel.session, 1);
    assert!(world.counters.tiles.get() >= kernel.next && world.counters.tiles.get() <= kernel.next + 2);
    world.finish();
}

#[test]
fn every_byte_of_every_tile_is_the_corpus_pass_after_pass() {
    walk(&view(1, 1, &[segment(1, 1000), segment(2, 0), segment(3, 7), segment(4, 333)]), 4, 6, 1);
    walk(&view(2, 1, &[segment(5, 5000)]), 16, 5, 2);
}

#[test]
fn a_pass_of_an_odd_number_of_tiles_does_not_overwrite_its_own_end() {
    // Segments of one group each cannot be cut into an even number.
    let segments: Vec<_> = (0..33).map(|seed| segment(seed, 1 + seed as usize % 16)).collect();
    let odd = view(1, 1, &segments);
    assert_eq!(Cut::new(&odd, 4).tiles.len(), 33);
    walk(&odd, 1, 7, 3);
}

/// Violations where a kernel dawdles over a tile; with `ignored` the host is made to believe that everything is
/// consumed at once.
fn dawdle(ignored: bool) -> usize {
    let world = World::new(budget(4));
    let corpus = corpus(1, 2000);
    let job = search(&corpus, Dot);
    let guard = world.prepare(&job).unwrap();
    if ignored {
        world.lines()[1].word.store(u64::MAX / 2, Ordering::Release);
    }
    Kernel { random: Some(Random(7)), ..Kernel::default() }.run(&world, &job, ignored);
    drop(guard);
    world.device.violations()
}

#[test]
fn a_copier_that_ignores_what_is_consumed_is_caught() {
    assert_eq!(dawdle(false), 0);
    assert!(dawdle(true) > 0, "a seeded bug was not seen");
}

#[test]
fn small_budgets_make_small_tiles_and_tiny_ones_a_refusal() {
    let corpus = corpus(1, 640);
    for (budget, most) in [(30 * GROUP, 6), (16 * GROUP, 3), (12 * GROUP, 2)] {
        let world = World::new(budget);
        let job = search(&corpus, L2);
        let guard = world.prepare(&job).unwrap();
        let largest = entry(&world, &corpus).largest_tile;
        assert_eq!(largest, most, "{budget}");
        drop(guard);
        world.finish();
    }
    let world = World::new(1024);
    let refused = world.prepare(&search(&corpus, L2)).err().unwrap();
    assert!(matches!(&refused, Refusal::Unfit(reason) if reason.contains("two tiles")), "{refused}");
    assert!(matches!(world.prepare(&score(&corpus)), Err(Refusal::Unfit(_))));
    world.finish();
}

#[test]
fn searches_of_one_version_and_metric_share_a_session() {
    let world = World::new(budget(4));
    let corpus = corpus(1, 2000);
    let job = search(&corpus, Dot);
    let guards = [0; 3].map(|_| world.prepare(&job).unwrap());
    let mut kernel = Kernel::default();
    for guard in guards {
        kernel.run(&world, &job, false);
        drop(guard);
    }
    assert_eq!(kernel.session, 1);
    world.finish();
}

#[test]
fn a_search_for_every_row_leaves_the_session_as_it_is() {
    let world = World::new(budget(4));
    let corpus = corpus(1, 2000);
    let (job, every_row) = (search(&corpus, Dot), search_for(&corpus, L2, 1000));
    let mut kernel = Kernel::default();
    for _ in 0..2 {
        let streamed = world.prepare(&job).unwrap();
        let guard = world.prepare(&every_row).unwrap();
        world.run(&every_row);
        kernel.run(&world, &job, false);
        drop(streamed);
        // Nor does one that comes to a session at rest.
        world.run(&every_row);
        drop(guard);
        drop(world.prepare(&every_row).unwrap());
    }
    assert_eq!((kernel.session, entry(&world, &corpus).stream_session), (1, 1));
    world.finish();
}

#[test]
fn another_session_begins_when_the_jobs_of_this_one_are_settled() {
    let world = World::new(budget(4));
    let (one, other) = (corpus(1, 2000), corpus(2, 2000));
    let mut kernel = Kernel::default();
    let first = search(&one, Dot);
    for second in [search(&one, L2), search(&other, Dot)] {
        let guard = world.prepare(&first).unwrap();
        let begun = entry(&world, &one).stream_session;
        let ticket = world.host.submit();
        thread::scope(|scope| {
            let next = scope.spawn(|| world.prepare(&second).unwrap());
            world.host.await_pauses(2, &next);
            assert!(!next.is_finished() && entry(&world, &one).stream_session == begun);
            drop(guard);
            world.host.await_pauses(4, &next);
            assert!(!next.is_finished() && entry(&world, &one).stream_session == begun, "a job is not settled");
            world.host.settle(ticket);
            let _guard = next.join().unwrap();
            kernel.run(&world, &second, false);
            assert_eq!(kernel.session, begun + 1);
        });
    }
    world.finish();
}

#[test]
fn an_idle_session_keeps_no_corpus_and_gives_way() {
    let world = World::new(budget(16));
    let (large, small) = (corpus(1, 3200), corpus(2, 640));
    let mut kernel = Kernel::default();
    for _ in 0..3 {
        let job = search(&large, Dot);
        let guard = world.prepare(&job).unwrap();
        kernel.run(&world, &job, false);
        drop((job, guard));
        let let_go = (0..1_000_000).any(|_| {
            thread::yield_now();
            Arc::strong_count(&large) == 1
        });
        assert!(let_go, "an idle session keeps its corpus");
    }
    assert_eq!(kernel.session, 1);
    let job = search(&small, Dot);
    let guard = world.prepare(&job).unwrap();
    world.run(&job);
    assert!(!world.has(&large), "its buffers were needed");
    drop(guard);
    let job = search(&large, Dot);
    let _guard = world.prepare(&job).unwrap();
    kernel.run(&world, &job, false);
    assert_eq!(kernel.session, 2);
    world.finish();
}

#[test]
fn what_finds_no_room_beside_pinned_corpora_is_streamed_and_resident_later() {
    let world = World::new(100 * GROUP);
    let (pinned, other) = (corpus(1, 960), corpus(2, 1200));
    let guard = world.prepare(&search(&pinned, Dot)).unwrap();
    let job = search(&other, Dot);
    let streamed = world.prepare(&job).unwrap();
    Kernel::default().run(&world, &job, false);
    assert!(matches!(world.prepare(&nearest(&corpus(3, 800))), Err(Refusal::Exhausted)));
    drop((guard, streamed));
    let _guard = world.prepare(&job).unwrap();
    let running = world.begin(&job);
    assert!(running.entry.stream.is_null());
    running.end();
    world.finish();
}

#[test]
fn the_kernel_is_not_stopped_for_memory_while_it_needs_the_copier() {
    let world = World::growing(160 * GROUP, 20 * GROUP);
    let large = corpus(1, 3200);
    let streamed = world.prepare(&search(&large, Dot)).unwrap();
    let chunks = world.host.grown.lock().unwrap().len();
    let next = search(&corpus(2, 640), Dot);
    world.host.must_run.store(true, Ordering::SeqCst);
    thread::scope(|scope| {
        let call = scope.spawn(|| world.prepare(&next).unwrap());
        world.host.await_pauses(100, &call);
        assert!(!call.is_finished() && world.host.grown.lock().unwrap().len() == chunks);
        Kernel::default().run(&world, &search(&large, Dot), false);
        world.host.must_run.store(false, Ordering::SeqCst);
        drop(streamed);
        let _guard = call.join().unwrap();
        assert!(world.host.grown.lock().unwrap().len() > chunks);
        world.run(&next);
    });
    world.finish();
}

#[test]
fn a_tile_that_cannot_be_copied_takes_the_backend_out_of_service() {
    let world = World::new(budget(4));
    let job = search(&corpus(1, 2000), Dot);
    let _guard = world.prepare(&job).unwrap();
    // Everything but tiles is uploaded by now.
    world.device.fail_upload(1);
    let lines = world.lines();
    while world.host.failed.lock().unwrap().is_none() {
        lines[1].word.store(lines[0].word.load(Ordering::Acquire), Ordering::Release);
        thread::yield_now();
    }
    assert!(matches!(world.prepare(&job), Err(Refusal::Failed(_))));
}

proptest! {
    #[test]
    fn a_cut_covers_every_row_once_in_whole_groups(
        rows in prop::collection::vec(0_usize..400, 1..6),
        most in 1_usize..12,
    ) {
        let segments: Vec<_> = rows.iter().enumerate().map(|(seed, rows)| segment(seed as u64, *rows)).collect();
        let view = view(1, 1, &segments);
        let cut = Cut::new(&view, most);
        let mut next = 0;
        for tile in &cut.tiles {
            let (start, segment) = view.segments().nth(tile.segment).unwrap();
            prop_assert_eq!(tile.first_row, next);
            prop_assert_eq!(tile.first_row, start + tile.first_group * 16);
            prop_assert!(tile.groups >= 1 && tile.groups <= most && tile.groups <= cut.largest);
            prop_assert_eq!(tile.groups, tile.rows.div_ceil(16));
            prop_assert!(tile.rows % 16 == 0 || tile.first_row + tile.rows == start + segment.rows());
            next += tile.rows;
        }
        prop_assert_eq!(next, view.rows());
        prop_assert!(cut.tiles.len().is_multiple_of(2) || cut.largest <= 1);
        prop_assert!(cut.columns_at >= cut.largest * 128 && cut.columns_at.is_multiple_of(256));
        prop_assert!(cut.buffer_bytes >= cut.columns_at + cut.largest * 256);
        prop_assert!(cut.largest == 0 || Cut::groups_in(cut.buffer_bytes + 255, 8) >= cut.largest);
    }

    /// The rule against a model that remembers which tile each buffer has.
    #[test]
    fn a_buffer_is_written_only_when_its_tile_is_consumed(n in 1_u64..9) {
        let mut buffers = [None; 2];
        for t in 0..6 * n {
            let before = consumed_before(t, n);
            prop_assert!(before <= t);
            if let Some(old) = buffers[buffer_of(t, n)].replace(t) {
                prop_assert!(before > old, "tile {} overwrites tile {} with {} consumed", t, old, before);
            }
            // Of an even pass, one tile is copied ahead while the one before it is worked on.
            prop_assert!(t == 0 || n % 2 == 1 || before == t - 1);
        }
    }
}
