//! Budgets: whole amounts that are set aside, then charged or given back, within limits for each call, each session and
//! each day.
//!
//! Promises:
//! - What is charged within a day, and within a session on that day, is never beyond its limit, however calls
//!   interleave: an amount is set aside under the same lock that looks at the limits, and what is charged was set aside
//!   before.
//! - A day is one of UTC. An account's day never goes back: a clock that jumps back goes on in the later day, and one
//!   that jumps to and fro begins each day once.
//! - What is set aside when a day ends stays so, counts in the next, and is charged to the day that the account has
//!   when it is settled.
//! - An account can be told from the ledger ([`Budgets::restore`]) as it was.
//!
//! Limits: a session is one of its day. How many sessions a day has, and how many approvals are open, is bounded.

mod account;
mod budgets;
mod limits;
mod moment;

pub use account::{Account, Approval, Hold, MAX_LASTS, SettleError, Statement};
pub use budgets::Budgets;
pub use limits::{Limits, Reason, Refusal};
pub use moment::Moment;
