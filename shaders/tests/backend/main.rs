//! The wgpu backend through its ring, on this machine's adapter: what the dispatcher promises, whatever becomes of the
//! device.
//!
//! `MEGARING_WGPU_ADAPTER` names another adapter than the first. Without one, each test says that it was skipped.
//! Whether answers are exact is tested beside each operation, and for all of them together through the service.

mod faults;
mod rig;
mod slots;
