//! The gate's words: what is asked of a call before it costs anything, and what the answer is.
//!
//! The table of calls is made when this crate is built, of `tools.toml`; a call's id is its place there. The check
//! itself is `gate.zig`, which reads [`Tool`] as it lies in memory.

use std::time::Duration;

mod tools {
    use super::{Cost, Handler, Maturity, Role, Tool};
    include!(concat!(env!("OUT_DIR"), "/tools.rs"));
}

/// Most bytes of a message that counts as a single query: one of 4,096 float32 elements and what goes with it. More is
/// a batch.
pub const QUERY_BYTES: u64 = 17 << 10;

/// One of a few words, with the names that configuration, board and messages have for them.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $variant:ident = $number:literal $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$word_doc])* $variant = $number,)* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word for it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            /// The one with this number.
            #[must_use]
            pub fn from_number(number: u8) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| *one as u8 == number)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                let known = || [$($word),*].join(", ");
                Self::ALL.iter().copied().find(|one| one.name() == word).ok_or_else(|| format!("{word:?} is none of {}", known()))
            }
        }
    };
}

words! {
    /// Who may call: each may do what those before it may.
    Role {
        /// Asks.
        Reader = 1 "reader",
        /// Changes corpora too.
        Writer = 2 "writer",
        /// Runs the service.
        Admin = 3 "admin",
    }
}

words! {
    /// How settled a call is.
    Maturity {
        /// It stays as it is.
        Stable = 0 "stable",
        /// It may change or go; only where that is asked for.
        Experimental = 1 "experimental",
    }
}

words! {
    /// How a call's messages come.
    Handler {
        /// One, which is announced before it is read.
        Unary = 0 "unary",
        /// As the call goes on.
        Streaming = 1 "streaming",
    }
}

words! {
    /// What kind of work a call is: the governor's rules name it.
    Cost {
        /// Looking something up.
        Read = 0 "read",
        /// One query, or a few.
        Query = 1 "query",
        /// Many.
        Batch = 2 "batch",
        /// A corpus is changed.
        Change = 3 "change",
        /// The service itself is looked after.
        Admin = 4 "admin",
    }
}

words! {
    /// Why a call is refused: the gate's six in the order in which it asks them, and what is asked around it.
    Reason {
        /// Its message is too large.
        Size = 1 "size",
        /// What it needs has been failing.
        Breaker = 2 "breaker",
        /// It comes too often.
        Rate = 3 "rate",
        /// Its caller may not.
        Role = 4 "role",
        /// It is experimental.
        Maturity = 5 "maturity",
        /// A rule of the governor holds.
        Governor = 6 "governor",
        /// Its tenant has spent what it may.
        Budget = 7 "budget",
        /// It comes without a token that is known.
        Token = 8 "token",
        /// Its tenant may not pay whom it names.
        Recipient = 9 "recipient",
        /// What becomes of it could not be kept.
        Ledger = 10 "ledger",
    }
}

/// A row of the table, as `gate.zig` reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Tool {
    /// Most bytes of a message.
    pub max_bytes: u64,
    /// The operation whose breakers it heeds; 0 is none.
    pub opcode: u16,
    /// A [`Handler`].
    pub handler: u8,
    /// The place of its rate limiter among the board's counters.
    pub counter: u8,
    /// The least [`Role`].
    pub role: u8,
    /// A [`Maturity`].
    pub maturity: u8,
    /// A [`Cost`].
    pub cost: u8,
    /// Zero.
    pub reserved: u8,
}

const _: () = assert!(size_of::<Tool>() == 16 && align_of::<Tool>() == 8);

/// All calls, by id.
pub static TOOLS: &[Tool] = &tools::TABLE;

/// The names of the rate limiters, by their place among the board's counters.
pub const COUNTERS: &[&str] = &tools::COUNTERS;

/// The id of a call by its name, such as `megaring.v1.Compute/Search`.
#[must_use]
pub fn tool_id(name: &str) -> Option<u16> {
    let found = tools::BY_NAME.binary_search_by_key(&name, |(name, _)| name).ok()?;
    Some(tools::BY_NAME[found].1)
}

/// The name of a call.
#[must_use]
pub fn tool_name(id: u16) -> Option<&'static str> {
    tools::NAMES.get(usize::from(id)).copied()
}

/// Breakers of one operation lie this far apart: one for each kind of backend.
pub const BREAKERS_PER_KIND: usize = 21;

/// The place on the board of the breaker of an operation on a kind of backend.
#[must_use]
pub const fn breaker_slot(kind: crate::BackendKind, opcode: crate::Opcode) -> usize {
    (kind as usize - 1) * BREAKERS_PER_KIND + opcode as usize - 1
}

/// Every kind of backend and operation, with the place of its breaker.
pub fn breakers() -> impl Iterator<Item = (usize, crate::BackendKind, crate::Opcode)> {
    let kinds = crate::BackendKind::ALL.into_iter();
    kinds.flat_map(|kind| crate::Opcode::ALL.map(|opcode| (breaker_slot(kind, opcode), kind, opcode)))
}

const _: () = {
    let mut at = 0;
    while at < crate::Opcode::COUNT {
        assert!(crate::Opcode::ALL[at] as usize <= BREAKERS_PER_KIND, "a board has no breaker for this operation");
        at += 1;
    }
};

/// A call that the gate refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Denial {
    /// Why.
    pub reason: Reason,
    /// What would have to change, in words.
    pub description: String,
    /// When a new try is worthwhile, where waiting helps.
    pub retry_after: Option<Duration>,
}

impl std::fmt::Display for Denial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "refused ({}): {}", self.reason, self.description)
    }
}
