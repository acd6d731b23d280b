//! Step 3, admission: no job enters without a permit, so nothing behind this point can be flooded.
//!
//! A permit stands for a job's share of the arena's bytes and one of a bounded number of places, in all and per tenant.
//! There is no waiting line: a full service says so at once, with a delay after which a new try is worthwhile (how long
//! jobs have been taking lately). Permits are returned by dropping them, also when the caller goes away.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use megaring_core::Error;
use tokio::sync::Notify;

use crate::Terms;

/// How much may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Jobs in all.
    pub jobs: usize,
    /// Jobs of one tenant.
    pub tenant_jobs: usize,
    /// Bytes of payloads and results in all.
    pub bytes: usize,
}

/// The gate.
pub struct Admission {
    limits: Limits,
    closed: AtomicBool,
    held: Mutex<Held>,
    emptied: Notify,
    /// Moving average of how long a permit is held, in nanoseconds.
    typical_ns: AtomicU64,
}

#[derive(Default)]
struct Held {
    jobs: usize,
    bytes: usize,
    tenants: HashMap<String, usize>,
}

/// A job's right to be in flight.
pub struct Permit {
    gate: Arc<Admission>,
    tenant: String,
    bytes: usize,
    since: Instant,
}

impl Admission {
    /// A gate with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            closed: AtomicBool::new(false),
            held: Mutex::default(),
            emptied: Notify::new(),
            typical_ns: AtomicU64::new(1_000_000),
        })
    }

    /// Grants a place, and so many bytes of the arena. Where nobody else holds any, any number is granted: a job that
    /// is larger than the arena is cut, and waits for its own pieces.
    ///
    /// # Errors
    /// [`Error::Draining`], [`Error::DeadlineExceeded`] where the deadline has passed already, [`Error::Exhausted`]
    /// when full.
    pub fn admit(self: &Arc<Self>, terms: &Terms, bytes: usize) -> Result<Permit, Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Draining);
        }
        if terms.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(Error::DeadlineExceeded { stage: "waiting for admission" });
        }
        let mut held = self.lock();
        let tenant = held.tenants.get(&terms.tenant).copied().unwrap_or(0);
        let full = if held.jobs >= self.limits.jobs {
            Some("the service")
        } else if tenant >= self.limits.tenant_jobs {
            Some("the tenant's share")
        } else if held.bytes > 0 && held.bytes + bytes > self.limits.bytes {
            Some("the arena")
        } else {
            None
        };
        if let Some(what) = full {
            return Err(Error::Exhausted { what, retry_after: self.retry_after() });
        }
        held.jobs += 1;
        held.bytes += bytes;
        *held.tenants.entry(terms.tenant.clone()).or_insert(0) += 1;
        Ok(Permit { gate: self.clone(), tenant: terms.tenant.clone(), bytes, since: Instant::now() })
    }

    /// How long a refused caller should wait: what a job typically takes, between 1 ms and 1 s.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        Duration::from_nanos(self.typical_ns.load(Ordering::Relaxed))
            .clamp(Duration::from_millis(1), Duration::from_secs(1))
    }

    /// Jobs in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.lock().jobs
    }

    /// Bytes of payloads and results that permits stand for.
    #[must_use]
    pub fn bytes_in_flight(&self) -> usize {
        self.lock().bytes
    }

    /// Refuses every further job.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether [`Self::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Waits until no permit is held.
    pub async fn emptied(&self) {
        loop {
            let notified = self.emptied.notified();
            if self.in_flight() == 0 {
                return;
            }
            notified.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Puts other bytes in the place of those held, for a job that goes to a backend which cuts it otherwise. Never
    /// refused, since the job is admitted: where others hold too much, it waits for room in the arena.
    pub fn exchange(&mut self, bytes: usize) {
        if bytes != self.bytes {
            let mut held = self.gate.lock();
            held.bytes = held.bytes - self.bytes + bytes;
            self.bytes = bytes;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let took = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        // An eighth of the new value at a time; a lost update between two threads does not matter to an estimate.
        let typical = self.gate.typical_ns.load(Ordering::Relaxed);
        self.gate.typical_ns.store(typical - typical / 8 + took / 8, Ordering::Relaxed);
        let mut held = self.gate.lock();
        held.jobs -= 1;
        held.bytes -= self.bytes;
        if let Some(count) = held.tenants.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                held.tenants.remove(&self.tenant);
            }
        }
        let empty = held.jobs == 0;
        drop(held);
        if empty {
            self.gate.emptied.notify_waiters();
        }
    }
}
