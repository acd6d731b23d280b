//! Step 3, admission: no job enters without a permit, so nothing behind this point can be flooded.
//!
//! A permit stands for a job's share of the arena's bytes and one of a bounded number of places, in all and per tenant.
//! Permits are returned by dropping them, also when the caller goes away.
//!
//! Where there is no room, a caller waits in line: first come, first served, but for callers whose tenant has its
//! share, whom the others pass. The line is bounded in callers, in the bytes of what they hold, and in time. Beyond
//! that a full service says so, with a delay after which a new try is worthwhile (how long jobs have been taking
//! lately, a second at most). The line's time is a second, too, unless it is set: whoever waits is let in no later than
//! by coming again, but in its turn.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use megaring_core::Error;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout_at;

use crate::Terms;

/// How much may be in flight, and how much may wait for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Jobs in flight in all.
    pub jobs: usize,
    /// Jobs of one tenant in flight; as many more of it may wait.
    pub tenant_jobs: usize,
    /// Bytes of payloads and results in flight in all.
    pub bytes: usize,
    /// How long a job may wait; zero refuses at once.
    pub wait: Duration,
    /// Jobs that may wait in all.
    pub waiting_jobs: usize,
    /// Bytes of payloads that may wait in all.
    pub waiting_bytes: usize,
}

/// What a job needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Bytes of the arena.
    pub bytes: usize,
    /// Bytes that its caller holds while it waits.
    pub waiting_bytes: usize,
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
    line: VecDeque<Waiting>,
    /// Bytes that those in line hold.
    waiting_bytes: usize,
    /// What the first in line lacks that does not wait for its own tenant: nobody passes it.
    lacks: Option<&'static str>,
    /// Callers that have ever stood in line.
    numbered: u64,
}

/// One in line.
struct Waiting {
    number: u64,
    tenant: String,
    demand: Demand,
    granted: oneshot::Sender<Permit>,
}

/// A permit, and who gets it.
type Grant = (oneshot::Sender<Permit>, Permit);

/// A caller's place in line, which it leaves by dropping this.
struct Place<'a> {
    gate: &'a Arc<Admission>,
    number: u64,
    granted: oneshot::Receiver<Permit>,
}

/// Why there is no room.
enum Full {
    /// For anybody.
    Everybody(&'static str),
    /// For this tenant.
    Tenant,
}

impl Full {
    fn what(&self) -> &'static str {
        match self {
            Self::Everybody(what) => what,
            Self::Tenant => "the tenant's share",
        }
    }
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

    /// Grants a place and bytes of the arena, at once or never. Where nobody else holds any bytes, any number is
    /// granted: a job that is larger than the arena is cut, and waits for its own pieces.
    ///
    /// # Errors
    /// [`Error::Draining`], [`Error::DeadlineExceeded`] where the deadline has passed already, [`Error::Exhausted`]
    /// when full.
    pub fn try_admit(self: &Arc<Self>, terms: &Terms, bytes: usize) -> Result<Permit, Error> {
        let mut held = self.lock();
        self.check(terms)?;
        match self.room(&held, &terms.tenant, bytes) {
            Ok(()) => Ok(self.grant(&mut held, &terms.tenant, bytes)),
            Err(full) => Err(self.exhausted(&full)),
        }
    }

    /// [`Self::try_admit`], but where there is no room it waits for some: as long as [`Limits::wait`] and the deadline
    /// let it, if the line is not too long already. Dropping the future leaves the line. Await it within a tokio
    /// runtime with time enabled.
    ///
    /// # Errors
    /// As [`Self::try_admit`], also when they come true while it waits.
    pub async fn admit(self: &Arc<Self>, terms: &Terms, demand: Demand) -> Result<Permit, Error> {
        let (mut place, refusal) = {
            let mut held = self.lock();
            self.check(terms)?;
            match self.room(&held, &terms.tenant, demand.bytes) {
                Ok(()) => return Ok(self.grant(&mut held, &terms.tenant, demand.bytes)),
                Err(full) => (self.line_up(&mut held, &terms.tenant, demand, &full)?, self.exhausted(&full)),
            }
        };
        let until = tokio::time::Instant::now() + self.limits.wait;
        let deadline = terms.deadline.map(tokio::time::Instant::from_std).filter(|deadline| *deadline < until);
        let granted = match timeout_at(deadline.unwrap_or(until), &mut place.granted).await {
            Ok(granted) => granted,
            Err(_) if self.leave(place.number) => {
                let late = Error::DeadlineExceeded { stage: "waiting for admission" };
                return Err(if deadline.is_some() { late } else { refusal });
            }
            // Just now it was its turn.
            Err(_) => (&mut place.granted).await,
        };
        // Nobody is let out of the line but by a permit, unless it is closed.
        granted.map_err(|_| Error::Draining)
    }

    fn check(&self, terms: &Terms) -> Result<(), Error> {
        if self.is_closed() {
            return Err(Error::Draining);
        }
        if terms.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(Error::DeadlineExceeded { stage: "waiting for admission" });
        }
        Ok(())
    }

    fn exhausted(&self, full: &Full) -> Error {
        Error::Exhausted { what: full.what(), retry_after: self.retry_after() }
    }

    /// Whether a newcomer may enter.
    fn room(&self, held: &Held, tenant: &str, bytes: usize) -> Result<(), Full> {
        // In this order: whoever waits for its tenant alone is not to hold up others.
        self.room_of_tenant(held, tenant)?;
        match held.lacks {
            Some(what) => Err(Full::Everybody(what)),
            None => self.room_of_all(held, bytes),
        }
    }

    fn room_of_tenant(&self, held: &Held, tenant: &str) -> Result<(), Full> {
        let jobs = held.tenants.get(tenant).copied().unwrap_or(0);
        if jobs >= self.limits.tenant_jobs { Err(Full::Tenant) } else { Ok(()) }
    }

    fn room_of_all(&self, held: &Held, bytes: usize) -> Result<(), Full> {
        if held.jobs >= self.limits.jobs {
            Err(Full::Everybody("the service"))
        } else if held.bytes > 0 && held.bytes + bytes > self.limits.bytes {
            Err(Full::Everybody("the arena"))
        } else {
            Ok(())
        }
    }

    fn grant(self: &Arc<Self>, held: &mut Held, tenant: &str, bytes: usize) -> Permit {
        held.jobs += 1;
        held.bytes += bytes;
        *held.tenants.entry(tenant.to_owned()).or_insert(0) += 1;
        Permit { gate: self.clone(), tenant: tenant.to_owned(), bytes, since: Instant::now() }
    }

    /// A place at the end of the line, or the refusal where it is too long.
    fn line_up(
        self: &Arc<Self>,
        held: &mut Held,
        tenant: &str,
        demand: Demand,
        full: &Full,
    ) -> Result<Place<'_>, Error> {
        let Limits { wait, waiting_jobs, waiting_bytes, tenant_jobs, .. } = self.limits;
        let of_tenant = || held.line.iter().filter(|waiting| waiting.tenant == tenant).count();
        let too_long = wait.is_zero()
            || held.line.len() >= waiting_jobs
            || held.waiting_bytes + demand.waiting_bytes > waiting_bytes
            || (tenant_jobs < waiting_jobs && of_tenant() >= tenant_jobs);
        if too_long {
            return Err(self.exhausted(full));
        }
        if let Full::Everybody(what) = full {
            held.lacks = held.lacks.or(Some(what));
        }
        held.numbered += 1;
        held.waiting_bytes += demand.waiting_bytes;
        let (number, (sender, granted)) = (held.numbered, oneshot::channel());
        held.line.push_back(Waiting { number, tenant: tenant.to_owned(), demand, granted: sender });
        Ok(Place { gate: self, number, granted })
    }

    /// Lets in from the line whom there is room for. To be handed over without the lock.
    fn let_in(self: &Arc<Self>, held: &mut Held) -> Vec<Grant> {
        let (mut grants, mut next) = (Vec::new(), 0);
        held.lacks = None;
        while let Some(waiting) = held.line.get(next) {
            if self.room_of_tenant(held, &waiting.tenant).is_err() {
                next += 1;
                continue;
            }
            if let Err(full) = self.room_of_all(held, waiting.demand.bytes) {
                held.lacks = Some(full.what());
                break;
            }
            if let Some(Waiting { tenant, demand, granted, .. }) = held.line.remove(next) {
                held.waiting_bytes -= demand.waiting_bytes;
                grants.push((granted, self.grant(held, &tenant, demand.bytes)));
            }
        }
        grants
    }

    /// Takes a caller out of the line; whether it stood there. Whom it held up may enter.
    fn leave(self: &Arc<Self>, number: u64) -> bool {
        let mut held = self.lock();
        let Some(place) = held.line.iter().position(|waiting| waiting.number == number) else { return false };
        let left = held.line.remove(place);
        held.waiting_bytes -= left.as_ref().map_or(0, |waiting| waiting.demand.waiting_bytes);
        let grants = self.let_in(&mut held);
        drop(held);
        hand_over(grants);
        true
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

    /// Jobs in line.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().line.len()
    }

    /// Jobs in line, and how many there can be.
    #[must_use]
    pub fn line(&self) -> (usize, usize) {
        (self.waiting(), self.limits.waiting_jobs)
    }

    /// Refuses every further job, and those in line.
    pub fn close(&self) {
        let mut held = self.lock();
        self.closed.store(true, Ordering::Release);
        held.waiting_bytes = 0;
        held.lacks = None;
        let line = std::mem::take(&mut held.line);
        drop((held, line));
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

/// Tells those who are let in. The permit of one that has gone just now goes on to the next.
fn hand_over(grants: Vec<Grant>) {
    for (granted, permit) in grants {
        drop(granted.send(permit));
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.gate.leave(self.number);
    }
}

impl Permit {
    /// Puts other bytes in the place of those held, for a job that goes to a backend which cuts it otherwise. Never
    /// refused, since the job is admitted: where others hold too much, it waits for room in the arena.
    pub fn exchange(&mut self, bytes: usize) {
        if bytes == self.bytes {
            return;
        }
        let mut held = self.gate.lock();
        held.bytes = held.bytes - self.bytes + bytes;
        let grants = if bytes < self.bytes { self.gate.let_in(&mut held) } else { Vec::new() };
        self.bytes = bytes;
        drop(held);
        hand_over(grants);
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
        let grants = self.gate.let_in(&mut held);
        let empty = held.jobs == 0;
        drop(held);
        hand_over(grants);
        if empty {
            self.gate.emptied.notify_waiters();
        }
    }
}
