//! Active jobs: taken from the ring and shared out among the workers.
//!
//! A job is cut into chunks. Workers claim chunks of the oldest job with one fetch-add each; whoever finishes a job's
//! last chunk merges and completes it. Any number of jobs may be active, but workers poll the ring only when no chunk
//! is left to claim, and threads that help until their own job is found, so they are few.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A job in work, with its chunks' counters.
pub(crate) struct ActiveJob<W> {
    /// What to do.
    pub(crate) work: W,
    chunks: u32,
    next: AtomicU32,
    unfinished: AtomicU32,
}

impl<W> ActiveJob<W> {
    /// A job of at least one chunk.
    pub(crate) fn new(work: W, chunks: u32) -> Self {
        let chunks = chunks.max(1);
        Self { work, chunks, next: AtomicU32::new(0), unfinished: AtomicU32::new(chunks) }
    }

    /// The next chunk nobody has claimed.
    pub(crate) fn claim(&self) -> Option<u32> {
        // Relaxed: the queue's lock published the job's data; the counter only deals out numbers. It cannot wrap: each
        // thread stops at its first failure.
        let chunk = self.next.fetch_add(1, Ordering::Relaxed);
        (chunk < self.chunks).then_some(chunk)
    }

    /// Notes a finished chunk; true for the last one, whose caller now sees what all the others wrote.
    pub(crate) fn finish(&self) -> bool {
        // AcqRel: releases this chunk's results to whoever comes last, and acquires everybody's if that is us.
        self.unfinished.fetch_sub(1, Ordering::AcqRel) == 1
    }

    fn exhausted(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= self.chunks
    }
}

/// Jobs with chunks left, oldest first.
pub(crate) struct ActiveJobs<W> {
    jobs: Mutex<VecDeque<Arc<ActiveJob<W>>>>,
    /// Length of `jobs`, to be read without the lock; may lag behind it for a moment.
    len: AtomicUsize,
}

impl<W> ActiveJobs<W> {
    pub(crate) fn new() -> Self {
        Self { jobs: Mutex::new(VecDeque::new()), len: AtomicUsize::new(0) }
    }

    /// Adds a job.
    pub(crate) fn push(&self, job: Arc<ActiveJob<W>>) {
        let mut jobs = self.lock();
        jobs.push_back(job);
        self.len.store(jobs.len(), Ordering::Release);
    }

    /// Whether a chunk may be waiting.
    pub(crate) fn has_work(&self) -> bool {
        self.len.load(Ordering::Acquire) > 0
    }

    /// The oldest job that still has chunks to claim.
    pub(crate) fn oldest(&self) -> Option<Arc<ActiveJob<W>>> {
        if !self.has_work() {
            return None;
        }
        let mut jobs = self.lock();
        while jobs.front().is_some_and(|job| job.exhausted()) {
            jobs.pop_front();
        }
        self.len.store(jobs.len(), Ordering::Release);
        jobs.front().cloned()
    }

    /// The job that `is_wanted` means, where it still has chunks to claim.
    pub(crate) fn find(&self, is_wanted: impl Fn(&W) -> bool) -> Option<Arc<ActiveJob<W>>> {
        if !self.has_work() {
            return None;
        }
        self.lock().iter().find(|job| is_wanted(&job.work) && !job.exhausted()).cloned()
    }

    /// Forgets a job of which every chunk was claimed. [`Self::oldest`] does so with those before its answer.
    pub(crate) fn remove(&self, job: &Arc<ActiveJob<W>>) {
        let mut jobs = self.lock();
        jobs.retain(|other| !Arc::ptr_eq(other, job));
        self.len.store(jobs.len(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<ActiveJob<W>>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_dealt_once_and_the_last_to_finish_knows() {
        let job = ActiveJob::new((), 3);
        assert_eq!([job.claim(), job.claim(), job.claim(), job.claim()], [Some(0), Some(1), Some(2), None]);
        assert_eq!([job.finish(), job.finish(), job.finish()], [false, false, true]);
    }

    #[test]
    fn exhausted_jobs_leave() {
        let jobs = ActiveJobs::new();
        jobs.push(Arc::new(ActiveJob::new('a', 1)));
        jobs.push(Arc::new(ActiveJob::new('b', 1)));
        let first = jobs.oldest().expect("two jobs were posted");
        assert_eq!(first.work, 'a');
        first.claim();
        assert_eq!(jobs.oldest().map(|job| job.work), Some('b'));
        jobs.oldest().expect("b is still there").claim();
        assert!(jobs.oldest().is_none());
        assert!(!jobs.has_work());
    }

    #[test]
    fn a_job_is_found_while_it_has_chunks() {
        let jobs = ActiveJobs::new();
        jobs.push(Arc::new(ActiveJob::new('a', 1)));
        jobs.push(Arc::new(ActiveJob::new('b', 1)));
        let second = jobs.find(|work| *work == 'b').expect("it was posted");
        assert!(jobs.find(|work| *work == 'c').is_none());
        second.claim();
        assert!(jobs.find(|work| *work == 'b').is_none());
        jobs.remove(&second);
        assert_eq!(jobs.oldest().map(|job| job.work), Some('a'), "the other is still there");
    }

    #[test]
    fn many_workers_run_every_chunk_exactly_once() {
        const CHUNKS: u32 = 10_000;
        let job = Arc::new(ActiveJob::new((), CHUNKS));
        let (counts, last): (Vec<u32>, Vec<u32>) = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let (mut ran, mut last) = (0, 0);
                        while job.claim().is_some() {
                            ran += 1;
                            last += u32::from(job.finish());
                        }
                        (ran, last)
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().expect("no worker panics")).unzip()
        });
        assert_eq!(counts.iter().sum::<u32>(), CHUNKS);
        assert_eq!(last.iter().sum::<u32>(), 1);
    }
}
