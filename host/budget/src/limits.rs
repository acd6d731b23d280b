//! What limits an account, and what is said where there is no room.

use std::fmt;
use std::time::Duration;

/// The most that may be charged, in an account's unit; `u64::MAX` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For one call.
    pub call: u64,
    /// For a session, on one day.
    pub session: u64,
    /// For a day.
    pub day: u64,
}

impl Default for Limits {
    /// None.
    fn default() -> Self {
        Self { call: u64::MAX, session: u64::MAX, day: u64::MAX }
    }
}

/// What there is no room in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// One call's limit.
    Call,
    /// The session's.
    Session,
    /// The day's.
    Day,
    /// The number of sessions of a day.
    Sessions,
    /// The number of open approvals.
    Approvals,
}

/// An amount that cannot be set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// For want of what.
    pub reason: Reason,
    /// What was wanted.
    pub wanted: u64,
    /// The limit: an amount, or a number of sessions or approvals.
    pub limit: u64,
    /// Charged already, of that limit.
    pub settled: u64,
    /// Set aside already, of that limit.
    pub reserved: u64,
    /// When there is room again; `None` where waiting does not help, or nobody knows.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, wanted, limit, settled, reserved, .. } = self;
        match reason {
            Reason::Call => write!(f, "the call comes to {wanted}, and the budget allows {limit} for one"),
            Reason::Session | Reason::Day => {
                let of = if *reason == Reason::Day { "a day" } else { "a session" };
                write!(f, "the call comes to {wanted}; of the {limit} that the budget allows for {of}, ")?;
                write!(f, "{settled} are spent and {reserved} are set aside")
            }
            Reason::Sessions => write!(f, "there were {limit} sessions today already"),
            Reason::Approvals => write!(f, "{limit} reservations are open already; settle or release some"),
        }
    }
}
