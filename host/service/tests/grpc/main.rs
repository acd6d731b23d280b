//! The service over its wire: a server in this process, real clients, and the naive reference beside them.

#[path = "../support/authority.rs"]
mod authority;
mod bad_input;
mod bits;
mod budgets;
mod change;
mod checksum;
mod columns;
mod common;
mod compression;
mod corpora;
mod encode;
mod explain;
mod filter;
mod front;
mod gate;
mod join;
mod long_answers;
#[path = "../support/packed.rs"]
mod packed;
mod prefix;
mod raw;
mod resets;
mod search;
mod search_range;
mod server;
mod status;
mod stream;
mod tenants;
mod text_ids;
