//! What can be wrong with a slot that someone else wrote.

/// A slot, or the arena regions it names, that must not be trusted. Always counted, and answered with an error
/// completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SlotFault {
    /// The slot is not the one that belongs to its position.
    #[error("the slot has sequence {found}, its position calls for {expected}")]
    Sequence {
        /// Position + 1.
        expected: u64,
        /// What the slot says.
        found: u64,
    },
    /// The two copies of the sequence differ: the slot was torn or overwritten.
    #[error("the slot opens with sequence {first} and closes with {second}")]
    Torn {
        /// Bytes 0..8.
        first: u64,
        /// Bytes 120..128.
        second: u64,
    },
    /// The slot was written for another version of this ABI.
    #[error("the slot speaks ABI version {found}, not {expected}")]
    Abi {
        /// The version of this build.
        expected: u32,
        /// What the slot says.
        found: u32,
    },
    /// The length of the data is impossible for what the slot says it is.
    #[error("{len} bytes of data do not fit the slot's kind")]
    DataLength {
        /// What the slot says.
        len: u64,
    },
    /// A completion with a body that this build does not know.
    #[error("unknown kind of body {kind}")]
    BodyKind {
        /// What the slot says.
        kind: u8,
    },
    /// A region reaches over the end of the arena or of its run, or the two regions overlap.
    #[error("region {offset}+{len} is outside its leased run")]
    Region {
        /// First byte, from the start of the arena.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// The run was given back, or leased again, since the slot was written.
    #[error("the run has generation {found}, the descriptor says {expected}")]
    Generation {
        /// What the slot says.
        expected: u32,
        /// The run's own.
        found: u32,
    },
    /// The ticket is not one that a consumer may work on now: answered, failed, opened already, or never given out.
    #[error("ticket {ticket} is not open to work")]
    Ticket {
        /// The ticket's id.
        ticket: u64,
    },
}
