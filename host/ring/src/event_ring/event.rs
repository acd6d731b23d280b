//! The value that an event ring carries: everything of a slot but its sequence.
//!
//! An [`Event`] can only exist whole: its data fits a slot and its confidence is a number from 0 to 1, so a ring never
//! checks at publishing.

use thiserror::Error;

use crate::slot::{EVENT_DATA_BYTES, SLOT_BYTES};

/// Words of a slot after its sequence: kind, source, time, confidence, data length, and ten words of data.
pub(crate) const EVENT_WORDS: usize = 15;

/// Why something is not an event.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum EventError {
    /// More data than a slot holds.
    #[error("an event carries at most {EVENT_DATA_BYTES} bytes of data, not {0}")]
    DataTooLong(usize),
    /// The confidence is below 0, above 1, or not a number.
    #[error("an event's confidence lies between 0 and 1, which {0} does not")]
    Confidence(f64),
}

/// One event, ready to be published: a kind, where it came from, when, how sure, and up to [`EVENT_DATA_BYTES`] bytes.
///
/// Laid out as the slot's words 1 to 15, so that publishing and reading are plain copies. Data bytes past the length
/// are zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Event {
    words: [u64; EVENT_WORDS],
}

impl Event {
    /// An event of `kind` from `source` (FNV-1a 64 of the source's name) at `timestamp_ns` (Unix time in nanoseconds).
    ///
    /// # Errors
    /// [`EventError::DataTooLong`] above [`EVENT_DATA_BYTES`] bytes, [`EventError::Confidence`] outside 0..=1 or for
    /// NaN.
    #[inline]
    pub fn new(kind: u64, source: u64, timestamp_ns: u64, confidence: f64, data: &[u8]) -> Result<Self, EventError> {
        if data.len() > EVENT_DATA_BYTES {
            return Err(EventError::DataTooLong(data.len()));
        }
        // NaN lies in no range, so this refuses it too. Adding 0 turns -0 into 0: one number, one bit pattern.
        if !(0.0..=1.0).contains(&confidence) {
            return Err(EventError::Confidence(confidence));
        }
        let mut words = [0; EVENT_WORDS];
        words[..5].copy_from_slice(&[kind, source, timestamp_ns, (confidence + 0.0).to_bits(), data.len() as u64]);
        bytemuck::cast_slice_mut::<u64, u8>(&mut words[5..])[..data.len()].copy_from_slice(data);
        Ok(Self { words })
    }

    /// What kind of event this is; the numbers are the publisher's own.
    pub fn kind(&self) -> u64 {
        self.words[0]
    }

    /// FNV-1a 64 of the source's name.
    pub fn source(&self) -> u64 {
        self.words[1]
    }

    /// Unix time of the event in nanoseconds.
    pub fn timestamp_ns(&self) -> u64 {
        self.words[2]
    }

    /// How sure the source is, from 0 to 1.
    pub fn confidence(&self) -> f64 {
        f64::from_bits(self.words[3])
    }

    /// The event's data, at most [`EVENT_DATA_BYTES`] bytes.
    pub fn data(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words[5..])[..self.words[4] as usize]
    }

    pub(crate) fn words(&self) -> &[u64; EVENT_WORDS] {
        &self.words
    }

    /// Where a reader copies a slot's words to. Whether they are an event's, [`Event::is_whole`] says.
    pub(crate) fn words_mut(&mut self) -> &mut [u64; EVENT_WORDS] {
        &mut self.words
    }

    /// Whether the words are an event's. Others are those of [`NO_EVENT`](super::protocol::NO_EVENT), and of a mapped
    /// file that something else wrote to.
    pub(crate) fn is_whole(&self) -> bool {
        self.words[4] <= EVENT_DATA_BYTES as u64 && (0.0..=1.0).contains(&f64::from_bits(self.words[3]))
    }
}

impl Default for Event {
    /// All zeros, and no data: what a buffer for [`EventConsumer::read_burst`](super::EventConsumer::read_burst) begins
    /// with.
    #[inline]
    fn default() -> Self {
        Self { words: [0; EVENT_WORDS] }
    }
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Event")
            .field("kind", &self.kind())
            .field("source", &format_args!("{:#018x}", self.source()))
            .field("timestamp_ns", &self.timestamp_ns())
            .field("confidence", &self.confidence())
            .field("data", &self.data())
            .finish()
    }
}

const _: () = assert!(8 * (EVENT_WORDS - 5) == EVENT_DATA_BYTES && 8 * (EVENT_WORDS + 1) == SLOT_BYTES);
