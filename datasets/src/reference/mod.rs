//! The definition of every operation, written out in float64 in the plainest way: what all other code is compared with.
//!
//! Nothing is blocked, fused, screened or cached beyond a row's norm. Searches run in parallel over queries, which
//! changes no result. Non-finite input is an error elsewhere and has no defined result here, but it does not panic.

mod checksum;
mod encode;
mod nearest;
mod profile;
mod score;
mod search;

pub use checksum::{crc32c, xxhash64};
pub use encode::{Encoded, Memory, encode, keyword_mask};
pub use nearest::{DEFAULT_WEIGHTS, Neighbour, nearest};
pub use profile::{Element, LEXICON_TOML, Profile};
pub use score::{Metric, cosine, dot, l2, score};
pub use search::{Hit, search};
