//! Tests of the corpora through their public face, in one binary: it also plays the child processes of `crash` and
//! `full_disk`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod appends;
mod bits;
mod child;
mod common;
mod copies;
mod crash;
mod filters;
mod full_disk;
mod histories;
mod import;
mod import_columns;
mod import_formats;
mod import_input;
mod import_npz;
mod limits;
mod log;
mod merging;
mod model;
mod moments;
mod prefixes;
mod selections;
mod sent;
mod store;
mod text_ids;
