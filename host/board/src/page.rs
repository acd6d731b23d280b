//! The page, and what can be read of it: by its writer, and by whoever maps it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use megaring_ring::memory::{Memory, MemoryError, View};
use megaring_ring::sync::{AtomicU64, Ordering};

use crate::breaker::Breaker;
use crate::health::{FIELDS, Health};
use crate::seqlock;

/// Bytes of a board.
pub(crate) const PAGE_BYTES: usize = 4096;
/// Version of the layout.
pub(crate) const VERSION: u32 = 1;
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"MEGABORD");

/// Breakers of a board.
pub const BREAKERS: usize = 64;
/// Counters of a board.
pub const COUNTERS: usize = 64;

/// Where things are, in words. The table stands in the crate's text, and in `zig-simd/src/gate.zig`.
pub(crate) mod at {
    use super::{BREAKERS, COUNTERS, PAGE_BYTES};
    use crate::health::FIELDS;

    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION_AND_BYTES: usize = 1;
    pub(crate) const PID: usize = 2;
    pub(crate) const STARTED: usize = 3;
    pub(crate) const HEARTBEAT: usize = 4;
    pub(crate) const CLOCK: usize = 5;
    pub(crate) const SEQUENCE: usize = 16;
    pub(crate) const HEALTH: usize = 17;
    pub(crate) const BREAKER: usize = 32;
    pub(crate) const BREAKER_WORDS: usize = 4;
    pub(crate) const COUNTER: usize = BREAKER + BREAKERS * BREAKER_WORDS;
    pub(crate) const WORDS: usize = PAGE_BYTES / 8;

    const _: () =
        assert!(SEQUENCE.is_multiple_of(16) && HEALTH == SEQUENCE + 1 && FIELDS.len() == 7, "one line of the cache");
    const _: () = assert!(BREAKER.is_multiple_of(16) && COUNTER == 288 && COUNTER + COUNTERS <= WORDS);
}

/// A writer that has not been heard of for so long is taken for dead. It is to be heard of ten times as often.
const SILENCE: Duration = Duration::from_secs(2);

/// A board's page, to read from.
#[derive(Debug)]
pub struct Page {
    words: View<AtomicU64>,
}

impl Page {
    /// Over memory of at least [`PAGE_BYTES`].
    pub(crate) fn over(memory: &Memory) -> Result<Self, MemoryError> {
        Ok(Self { words: memory.view(0, at::WORDS)? })
    }

    /// The words themselves, for the gate's kernel. Storing through those of a [`BoardView`](crate::BoardView) is a
    /// fault of the processor, as its mapping is for reading alone.
    #[doc(hidden)]
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        &self.words
    }

    /// How the service is. `None` where its writer has died while it wrote that down.
    #[must_use]
    pub fn health(&self) -> Option<Health> {
        let fields = &self.words[at::HEALTH..at::HEALTH + FIELDS.len()];
        let bits: [u64; FIELDS.len()] = seqlock::read(&self.words[at::SEQUENCE], fields)?;
        Some(bits.map(f64::from_bits).into())
    }

    /// The writer's process id.
    #[must_use]
    pub fn pid(&self) -> u64 {
        self.load(at::PID)
    }

    /// When the writer began, Unix time.
    #[must_use]
    pub fn started(&self) -> Duration {
        Duration::from_nanos(self.load(at::STARTED))
    }

    /// How long the writer has not been heard of; `None` where it has ended. A clock that is set meanwhile makes it
    /// wrong until the next heartbeat.
    #[must_use]
    pub fn silent_for(&self) -> Option<Duration> {
        let heartbeat = self.load(at::HEARTBEAT);
        (heartbeat != 0).then(|| unix_now().saturating_sub(Duration::from_nanos(heartbeat)))
    }

    /// Whether the writer was heard of lately.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.silent_for().is_some_and(|silence| silence < SILENCE)
    }

    /// The time on the writer's clock when it was last heard of: breakers and counters go by it.
    #[must_use]
    pub fn clock_ns(&self) -> u64 {
        self.load(at::CLOCK)
    }

    /// One of the [`BREAKERS`], to look at.
    ///
    /// # Panics
    /// Where there is no such slot.
    #[must_use]
    pub fn breaker(&self, slot: usize) -> Breaker<'_> {
        assert!(slot < BREAKERS, "a board has {BREAKERS} breakers, and no breaker {slot}");
        let begin = at::BREAKER + slot * at::BREAKER_WORDS;
        let [state, failures, opened_ns, retry_ns] = std::array::from_fn(|word| &self.words[begin + word]);
        Breaker { state, failures, opened_ns, retry_ns }
    }

    /// The theoretical arrival time of one of the [`COUNTERS`], on the writer's clock.
    ///
    /// # Panics
    /// Where there is no such counter.
    #[must_use]
    pub fn counter_ns(&self, counter: usize) -> u64 {
        assert!(counter < COUNTERS, "a board has {COUNTERS} counters, and no counter {counter}");
        self.load(at::COUNTER + counter)
    }

    pub(crate) fn word(&self, at: usize) -> &AtomicU64 {
        &self.words[at]
    }

    fn load(&self, at: usize) -> u64 {
        // Acquire: whoever sees a writer's heartbeat sees what it wrote before.
        self.words[at].load(Ordering::Acquire)
    }
}

/// Unix time.
pub(crate) fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// As a word of the page; some five hundred years fit.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
