//! What goes to stdout: text for people or JSON lines for programs, never both.

use std::fmt::Display;
use std::io::{self, BufWriter, Stdout, Write};

use serde::Serialize;

use super::Failure;
use super::printable::printable_lines;

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

    /// A line of text, or several. Other control characters are shown, not sent.
    ///
    /// # Errors
    /// A closed or failing stdout.
    pub fn text(&mut self, line: impl Display) -> Result<(), Failure> {
        self.verbatim(&printable_lines(&line.to_string()))
    }

    /// A text of megaring's own as it is.
    ///
    /// # Errors
    /// A closed or failing stdout.
    pub fn verbatim(&mut self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(self.out, "{text}")?)
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
