//! The service over its wire: a server in this process, real clients, and the naive reference beside them.

mod bad_input;
mod change;
mod checksum;
mod common;
mod compression;
mod corpora;
mod encode;
mod explain;
mod filter;
#[path = "../support/packed.rs"]
mod packed;
mod raw;
mod resets;
mod search;
mod server;
mod status;
mod stream;
