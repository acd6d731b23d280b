//! The backend on a device of threads (`mock.rs`): its life, and what becomes of it when something dies.

mod harness;
mod life;
mod liveness;
mod mock;
#[path = "../support/slot.rs"]
mod slot;
mod twin;
mod watch;
