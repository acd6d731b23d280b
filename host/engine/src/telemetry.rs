//! Telemetry: what becomes of jobs and calls leaves events in an event ring, which other threads (and, where the ring
//! is a file, other processes) read at their own pace. Publishing never waits; slow readers lose events and are told
//! how many.
//!
//! An event's kind and data are those of a ledger's record ([`Kind`], [`Entry`]), its source is the tenant, its
//! confidence 1.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use megaring_core::gate::{Denial, Role};
use megaring_core::operation::Size;
use megaring_core::{BackendKind, Error, Opcode};
use megaring_ledger::{Entry, Kind, Reservation};
use megaring_ring::event_ring::{EventProducer, EventRing, EventRingConfig};
use megaring_ring::slot::fnv1a64;

use crate::charge::Settled;
use crate::terms::Terms;

/// Where events go.
pub struct Telemetry {
    ring: Arc<EventRing>,
    producer: EventProducer,
}

/// What a job was expected to be, and what it came to.
pub(crate) struct Answered<'a> {
    pub(crate) opcode: Opcode,
    pub(crate) size: &'a Size,
    pub(crate) backend: BackendKind,
    /// Until the answer, once it was its turn; zero where nothing was predicted for it alone.
    pub(crate) predicted: Duration,
    pub(crate) took: Duration,
    /// Nothing where it is charged to nobody.
    pub(crate) settled: Settled,
}

impl Telemetry {
    /// A ring in memory, or mapped from `file`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new(file: Option<&Path>) -> Result<Self, Error> {
        let config = EventRingConfig { file: file.map(Path::to_owned), ..EventRingConfig::default() };
        let ring = EventRing::new(config).map_err(|error| Error::Storage(error.to_string()))?;
        let producer = ring.producer().map_err(|error| Error::Internal(error.to_string()))?;
        Ok(Self { ring, producer })
    }

    /// The ring, to read from.
    #[must_use]
    pub fn ring(&self) -> &Arc<EventRing> {
        &self.ring
    }

    pub(crate) fn answered(&self, terms: &Terms, answered: &Answered<'_>) {
        let Answered { opcode, size, backend, predicted, took, settled } = answered;
        let entry = Entry {
            opcode: *opcode as u16,
            backend: *backend as u8,
            items: size.items,
            bytes: size.bytes,
            measured_ns: nanos(*took),
            predicted_ns: nanos(*predicted),
            ..charged(*settled, of(terms.passed))
        };
        self.publish(Kind::ANSWERED, &terms.tenant, &entry);
    }

    /// A call that is no job, and was charged.
    pub fn charged(&self, tenant: &str, passed: (u16, Role), settled: Settled) {
        self.publish(Kind::ANSWERED, tenant, &charged(settled, of(Some(passed))));
    }

    /// What becomes of an amount that is set aside for a transaction of a tenant's own.
    pub fn reserved(&self, kind: Kind, tenant: &str, passed: (u16, Role), reservation: &Reservation) {
        self.publish(
            kind,
            tenant,
            &Entry { tool: passed.0, role: passed.1 as u8, ..Entry::of_reservation(reservation) },
        );
    }

    /// A job of which admission has refused a place.
    pub(crate) fn turned_away(&self, terms: &Terms, opcode: Opcode, size: &Size) {
        let entry = Entry { opcode: opcode as u16, items: size.items, bytes: size.bytes, ..of(terms.passed) };
        self.publish(Kind::REFUSED, &terms.tenant, &entry);
    }

    /// A job for which its tenant's budget has no room.
    pub(crate) fn over_budget(&self, terms: &Terms, opcode: Opcode, size: &Size, refusal: &Error) {
        let Error::Denied(denial) = refusal else { return };
        let entry = Entry { opcode: opcode as u16, items: size.items, bytes: size.bytes, ..of(terms.passed) };
        self.publish(Kind::REFUSED, &terms.tenant, &Entry { reason: denial.reason as u8, ..entry });
    }

    /// A call that the gate has refused; `bytes` are those of its message.
    pub fn denied(&self, tenant: &str, tool: u16, role: Option<Role>, bytes: u64, denial: &Denial) {
        let role = role.map_or(0, |role| role as u8);
        let entry = Entry { bytes, reason: denial.reason as u8, tool, role, ..Entry::default() };
        self.publish(Kind::REFUSED, tenant, &entry);
    }

    /// Rows that were added to corpora ([`Kind::APPENDED`]), or rows or a corpus that are gone ([`Kind::DROPPED`]).
    pub fn changed(&self, kind: Kind, tenant: &str, passed: (u16, Role), rows: u64) {
        self.publish(kind, tenant, &Entry { count: rows, ..of(Some(passed)) });
    }

    fn publish(&self, kind: Kind, tenant: &str, entry: &Entry) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // A confidence of 1 always makes an event.
        if let Ok(event) = entry.event(kind, fnv1a64(tenant.as_bytes()), nanos(now), 1.0) {
            self.producer.publish(&event);
        }
    }
}

/// An entry that says who asked for what.
fn of(passed: Option<(u16, Role)>) -> Entry {
    let (tool, role) = passed.map_or((Entry::NO_TOOL, 0), |(tool, role)| (tool, role as u8));
    Entry { tool, role, ..Entry::default() }
}

/// An entry that says what was charged.
fn charged(settled: Settled, entry: Entry) -> Entry {
    let Settled { reserved, amount, session } = settled;
    Entry { reserved, settled: amount, count: session, ..entry }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
