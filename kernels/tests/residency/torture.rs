//! Many callers at once under a budget that holds a part of what they want: corpora come, grow and go, guards end
//! before their jobs, and every byte that a job reads is checked, before and after others had their turn.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use megaring_core::corpus::{CorpusView, SegmentView};
use megaring_core::metric::Metric;
use megaring_cuda::residency::{Host, Refusal};

use crate::mock::{Random, World, nearest, score, search, search_for, segment, view};
use crate::reader::Running;

const CORPORA: usize = 5;
const CALLS: usize = 250;

/// A corpus's segments, and the version they make.
type Kept = (Vec<Arc<SegmentView>>, Arc<CorpusView>);

struct Store {
    corpora: Mutex<Vec<Kept>>,
}

impl Store {
    fn new() -> Self {
        let corpora = (0..CORPORA as u32).map(|handle| {
            let segments = vec![segment(u64::from(handle), 400)];
            let view = view(handle, 1, &segments);
            (segments, view)
        });
        Self { corpora: Mutex::new(corpora.collect()) }
    }

    fn pick(&self, random: &mut Random) -> Arc<CorpusView> {
        self.corpora.lock().unwrap()[random.below(CORPORA)].1.clone()
    }

    /// Appends to a corpus, or begins it anew where it has grown.
    fn change(&self, random: &mut Random) {
        let mut corpora = self.corpora.lock().unwrap();
        let (segments, old) = &mut corpora[random.below(CORPORA)];
        if segments.len() > 3 {
            segments.clear();
        }
        segments.push(segment(random.below(1000) as u64, 1 + random.below(300)));
        *old = view(old.handle(), old.generation() + 1, segments);
    }
}

/// The kernel: ends jobs in any order until the callers have ended and no job is left.
fn kernel(under_way: &Mutex<Vec<Running>>, ended: &AtomicBool, seed: u64) {
    let mut random = Random(seed);
    loop {
        let last = ended.load(Ordering::Acquire);
        let mut jobs = under_way.lock().unwrap();
        if jobs.is_empty() && last {
            return;
        }
        let job = (last || jobs.len() > random.below(4)).then(|| jobs.pop()).flatten();
        if jobs.len() > 1 {
            let at = random.below(jobs.len());
            jobs.swap(0, at);
        }
        drop(jobs);
        match job {
            Some(job) => job.end(),
            None => thread::yield_now(),
        }
    }
}

/// Ends the calls that would wait for a caller which has panicked.
struct Witness<'a>(&'a World);

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.host.fail("a caller has panicked");
        }
    }
}

/// One caller; answers how often it was served.
fn call(world: &World, store: &Store, under_way: &Mutex<Vec<Running>>, seed: u64) -> usize {
    let _witness = Witness(world);
    let mut random = Random(seed);
    let mut served = 0;
    for _ in 0..CALLS {
        if random.below(20) == 0 {
            store.change(&mut random);
        }
        let view = store.pick(&mut random);
        let job = match random.below(9) {
            0 => score(&view),
            1 | 2 => nearest(&view),
            // An entry alone.
            3 => search_for(&view, Metric::Cosine, view.rows()),
            metric => search(&view, Metric::OF_FLOATS[metric % 3]),
        };
        match world.prepare(&job) {
            Ok(guard) => {
                served += 1;
                let running = world.begin(&job);
                drop(guard);
                // Tiles have tests of their own; here a streamed job is one that reads none.
                if running.entry.stream.is_null() { under_way.lock().unwrap().push(running) } else { running.leave() }
            }
            Err(Refusal::Exhausted) => {}
            Err(refusal) => panic!("{refusal}"),
        }
    }
    served
}

#[test]
fn nothing_is_read_that_is_not_there() {
    for (seed, budget, chunk) in [(1, 60_000, 60_000), (2, 120_000, 30_000), (3, 90_000, 8_192)] {
        let world = World::growing(budget, chunk);
        let store = Store::new();
        let (under_way, ended) = (Mutex::default(), AtomicBool::new(false));
        let served: usize = thread::scope(|scope| {
            let (world, store, under_way) = (&world, &store, &under_way);
            scope.spawn(|| kernel(under_way, &ended, seed));
            let spawn = |caller| scope.spawn(move || call(world, store, under_way, seed * 100 + caller));
            let calls: Vec<_> = (0..4).map(spawn).collect();
            let served: Vec<_> = calls.into_iter().map(|call| call.join()).collect();
            ended.store(true, Ordering::Release);
            served.into_iter().map(|served| served.expect("a caller")).sum()
        });
        assert!(served > CALLS, "{served} of {} calls were served", 4 * CALLS);
        assert!(world.counters.evictions.get() > 0 && world.counters.uploads.get() > 0);
        // With nobody using anything, one more of everything finds room.
        for corpus in 0..CORPORA {
            let (_, view) = &store.corpora.lock().unwrap()[corpus];
            drop(world.prepare(&nearest(view)).unwrap());
            drop(world.prepare(&score(view)).unwrap());
        }
        world.finish();
    }
}
