//! What a wrapper refuses, and why an instruction set cannot be had.

use crate::isa::Isa;

/// Arguments that do not fit together. Nothing was computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SimdError {
    /// A slice has the wrong length, in elements.
    #[error("{what} has {found} elements where {expected} are needed")]
    Length {
        /// The argument.
        what: &'static str,
        /// Elements needed.
        expected: usize,
        /// Elements given.
        found: usize,
    },
    /// An index points beyond what it indexes.
    #[error("{what} {index} is out of range: there are {count}")]
    Index {
        /// What is indexed.
        what: &'static str,
        /// The offending index.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// A number is larger than the kernel can count to.
    #[error("{what} is {found}, at most {limit} is possible")]
    TooLarge {
        /// The quantity.
        what: &'static str,
        /// Its value.
        found: usize,
        /// The largest legal value.
        limit: usize,
    },
    /// A number is smaller than the kernel needs.
    #[error("{what} is {found}, at least {limit} is needed")]
    TooSmall {
        /// The quantity.
        what: &'static str,
        /// Its value.
        found: usize,
        /// The smallest legal value.
        limit: usize,
    },
    /// Arguments of kinds that do not go together.
    #[error("{what}")]
    Mismatch {
        /// What does not.
        what: &'static str,
    },
    /// A query's int8 code is -128, which the screen does not take (its range is symmetric).
    #[error("code {position} of the query is -128, outside -127..=127")]
    QueryCode {
        /// Dimension of the code.
        position: usize,
    },
    /// Text offsets fall.
    #[error("text offsets must never fall, but offset {position} is smaller than the one before")]
    Offsets {
        /// Index of the first offset that is smaller than its predecessor.
        position: usize,
    },
}

/// Why there is no kernel set of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IsaError {
    /// No instruction set has this name.
    #[error("unknown instruction set {name:?}; available here: {}", names(.available))]
    Unknown {
        /// The name asked for.
        name: String,
        /// What this machine has.
        available: Vec<Isa>,
    },
    /// The instruction set exists, but this CPU or this build does not have it.
    #[error("instruction set {isa} is not available here ({reason}); available here: {}", names(.available))]
    Unavailable {
        /// The instruction set asked for.
        isa: Isa,
        /// What is missing.
        reason: String,
        /// What this machine has.
        available: Vec<Isa>,
    },
}

fn names(isas: &[Isa]) -> String {
    isas.iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ")
}

/// `Ok` where a slice of `found` elements is what the kernel needs.
pub(crate) fn check_length(what: &'static str, expected: usize, found: usize) -> Result<(), SimdError> {
    if expected == found { Ok(()) } else { Err(SimdError::Length { what, expected, found }) }
}
