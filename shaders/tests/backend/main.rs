//! The wgpu backend through its ring, on the adapter of this machine: what the dispatcher promises of slots, whatever becomes of the device.
//!
//! `MEGARING_WGPU_ADAPTER` names another adapter than the first. Where there is none, each test says that it was skipped. That every operation's
//! answers are exact is tested beside the operations, and for all of them together through the service.

mod faults;
mod rig;
mod slots;
