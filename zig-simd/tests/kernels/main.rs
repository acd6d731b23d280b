//! The kernels of every instruction set that this machine has, against the formulas written out in plain Rust.
//!
//! What cannot run here: instruction sets that the CPU lacks. `MEGARING_ISA` matters only to the tests about it.

mod common;
mod encode;
mod exact;
mod exactness;
mod gate;
mod isa;
mod layout;
mod nibbles;
mod roofline;
mod screen;
mod symbols;
