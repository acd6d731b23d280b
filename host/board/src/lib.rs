//! The state board: one page of memory that says how the service is, for itself and for other processes.
//!
//! The page is an array of 64-bit words, each of them atomic:
//!
//! | bytes | words | holds |
//! |---|---|---|
//! | 0..8 | 0 | `MEGABORD` |
//! | 8..16 | 1 | version of this layout (low half), bytes of the page (high half) |
//! | 16..24 | 2 | the writer's process id |
//! | 24..32 | 3 | when the writer began, Unix time in nanoseconds |
//! | 32..40 | 4 | heartbeat: when the writer was last alive, Unix time in nanoseconds; 0 once it has ended |
//! | 40..48 | 5 | the same moment in nanoseconds since the writer began: the clock of breakers and counters |
//! | 128..136 | 16 | sequence of the health: odd while it is being written |
//! | 136..192 | 17..24 | [`Health`], seven float64 numbers in the order of [`FIELDS`] |
//! | 256..2304 | 32..288 | 64 breakers of four words: state, failures, when it opened, when it may be tried |
//! | 2304..2816 | 288..352 | 64 counters of rate limiters: theoretical arrival times |
//! | the rest | | zero |
//!
//! `zig-simd/src/gate.zig` reads the same page as an `extern struct`.
//!
//! # Promises
//! - Readers never hold up a writer, and never see a health that was half written ([`seqlock`]).
//! - One process writes at a time: a second is refused while the first lives.
//! - A [`BoardView`] in another process cannot change anything: its mapping is for reading alone.
//! - A writer that is gone shows by its heartbeat.
//!
//! # Limits
//! Each word of a breaker is right by itself; four of them may be of different moments. A file that someone truncates
//! while it is mapped kills the process that touches the page (SIGBUS), as with every mapping.

mod board;
mod breaker;
mod health;
mod page;
#[doc(hidden)]
pub mod seqlock;

pub use board::{Board, BoardError, BoardView, Publisher};
pub use breaker::{Breaker, BreakerRule, BreakerState};
pub use health::{FIELDS, Field, Health};
pub use page::{BREAKERS, COUNTERS, Page};
