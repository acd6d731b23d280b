//! The ring: slot ABI, memory, submission, completion and event rings, wait strategies.
//!
//! A job goes [`JobRing::try_reserve`] → [`Reservation::payload_mut`] → [`JobRing::submit`] → (consumer)
//! [`JobRing::try_poll`] → [`JobRing::open`] → [`Work::complete`] → [`JobRing::reap`] → [`Ticket`] → [`Outcome`]. Each
//! module opens with what it promises when it is full, when it is empty and when it blocks. The event ring
//! ([`event_ring`]) is separate: it overwrites, and tells its readers what they lost.
//!
//! The consumer may also be a device that reads and writes the ring's memory by itself, at the offsets of
//! [`RingLayout`]. It wakes nobody; a thread of the host watches over it: [`JobRing::await_outstanding`] when there is
//! nothing to watch, [`JobRing::announce`] or [`JobRing::reap`] otherwise. What the device must keep to is told in
//! `device.rs`.
//!
//! A job's whole way, with producer and consumer on one thread:
//!
//! ```
//! use megaring_ring::{Descriptor, JobRing, RingConfig, Status};
//!
//! let config = RingConfig { capacity: 8, arena_bytes: 64 << 10, block_bytes: 4096, ..RingConfig::default() };
//! let ring = JobRing::new(config)?;
//! let mut reservation = ring.try_reserve(5, 5)?;
//! reservation.payload_mut().copy_from_slice(b"hello");
//! let ticket = ring.submit(reservation, Descriptor { opcode: 7, items: 1, ..Default::default() });
//!
//! ring.try_poll(1, &mut |polled| {
//!     let mut work = ring.open(&polled).expect("a sound slot");
//!     let shouted = work.payload().to_ascii_uppercase();
//!     work.result_mut().copy_from_slice(&shouted);
//!     let body = work.result_body(5).expect("it fits the result region");
//!     work.complete(Status::Ok, 0, body);
//! });
//!
//! let outcome = ticket.wait();
//! assert_eq!((outcome.status(), outcome.result()), (Status::Ok, &b"HELLO"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Under `--cfg loom` the crate runs on the model checker's types instead of the standard library's; see [`sync`] and
//! [`protocol`].

pub mod arena;
pub mod completion;
pub mod consumer;
pub mod descriptor;
mod device;
pub mod event_ring;
pub mod fault;
pub mod job_ring;
mod layout;
pub mod memory;
pub mod protocol;
pub mod queue;
pub mod signal;
pub mod slot;
pub mod sync;
mod table;
pub mod ticket;

pub use arena::{Arena, Resolved};
pub use completion::{Body, Completion, Status};
pub use consumer::{PolledJob, Work};
pub use descriptor::{ABI_VERSION, Descriptor, Region, slot_check};
pub use fault::SlotFault;
pub use job_ring::{JobRing, ReserveError, RingStats};
pub use layout::{DeviceLines, RingConfig, RingError, RingLayout};
pub use memory::{Memory, MemoryError};
pub use queue::{CompletionQueue, RingFull, SubmissionQueue};
pub use signal::{Signal, WaitStrategy};
pub use slot::{Slot, fnv1a64};
pub use ticket::{Outcome, Reservation, Ticket};
