//! The program as people and scripts use it: each test runs the built binary in a folder of its own.

#[cfg(unix)]
#[path = "../support/authority.rs"]
mod authority;
mod bench;
mod bits;
#[cfg(unix)]
mod board;
mod calibrate;
mod change;
mod checksum;
mod common;
mod compute;
mod corpus;
mod cuda;
mod explain;
#[cfg(unix)]
mod front;
mod import;
mod join;
#[cfg(unix)]
mod ledger;
#[cfg(target_os = "linux")]
#[path = "../support/packed.rs"]
mod packed;
#[cfg(unix)]
mod remote;
#[cfg(unix)]
mod remote_refusals;
#[cfg(unix)]
mod serve;
mod settings;
mod tenant;
mod terminal;
#[cfg(unix)]
mod text_ids;
mod tools;
mod wgpu;
