//! What commands print with: output for people or as JSON lines, tables, progress, and failures with their exit status.

mod failure;
mod json_lines;
mod output;
mod printable;
mod progress;
mod table;

pub use failure::Failure;
pub(crate) use failure::message;
pub(crate) use json_lines::JsonLines;
pub use output::Output;
pub use printable::printable;
pub(crate) use printable::shown;
pub(crate) use progress::{Progress, Steps};
pub use table::{Align, Table, bytes_text, counted, duration_text, grouped};
