//! What goes to stdout: text for people or JSON lines for programs, never both.

use std::fmt::Display;
use std::io::{self, BufWriter, Stdout, Write};

use serde::Serialize;

use super::Failure;

/// Buffered stdout.
pub struct Output {
    json: bool,
    out: BufWriter<Stdout>,
}

impl Output {
    /// JSON lines, or text.
    #[must_use]
    pub fn new(json: bool) -> Self {
        Self { json, out: BufWriter::new(io::stdout()) }
    }

    /// Whether programs read this.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A line of text.
    ///
    /// # Errors
    /// A closed or failing stdout.
    pub fn text(&mut self, line: impl Display) -> Result<(), Failure> {
        Ok(writeln!(self.out, "{line}")?)
    }

    /// A JSON object on a line of its own.
    ///
    /// # Errors
    /// A closed or failing stdout.
    pub fn record(&mut self, record: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.out, record).map_err(io::Error::from)?;
        Ok(self.out.write_all(b"\n")?)
    }

    /// The record where programs read, the text where people do.
    ///
    /// # Errors
    /// A closed or failing stdout.
    pub fn answer<T: Display>(&mut self, record: &impl Serialize, text: impl FnOnce() -> T) -> Result<(), Failure> {
        if self.json { self.record(record) } else { self.text(text()) }
    }

    /// Hands everything on to whoever reads.
    ///
    /// # Errors
    /// A closed or failing stdout.
    pub fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }
}
