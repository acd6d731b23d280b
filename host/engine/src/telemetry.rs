//! Telemetry: every answered job leaves an event in an event ring, which other threads (and, where the ring is a file,
//! other processes) read at their own pace. Publishing never waits; slow readers lose events and are told how many.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use megaring_core::operation::Size;
use megaring_core::{Error, Opcode};
use megaring_ring::event_ring::{Event, EventProducer, EventRing, EventRingConfig};
use megaring_ring::slot::fnv1a64;

/// Kind of the event that reports an answered job. Its data: opcode u16, 6 zero bytes, items u64, bytes u64 (of the
/// rows, codes, coordinates or texts that are read at least once), nanoseconds u64,
/// little-endian; its source is the tenant, its confidence 1.
pub const JOB_ANSWERED: u64 = 1;

/// Where events go.
pub struct Telemetry {
    ring: Arc<EventRing>,
    producer: EventProducer,
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

    pub(crate) fn answered(&self, opcode: Opcode, size: &Size, tenant: &str, took: Duration) {
        let mut data = [0; 32];
        data[..2].copy_from_slice(&(opcode as u16).to_le_bytes());
        data[8..16].copy_from_slice(&size.items.to_le_bytes());
        data[16..24].copy_from_slice(&size.bytes.to_le_bytes());
        data[24..].copy_from_slice(&u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).to_le_bytes());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        // 32 bytes and a confidence of 1 always make an event.
        if let Ok(event) = Event::new(JOB_ANSWERED, fnv1a64(tenant.as_bytes()), now_ns, 1.0, &data) {
            self.producer.publish(&event);
        }
    }
}
