//! JSON lines from a file, a pipe or standard input, one value at a time; errors name the file and the line.
//!
//! Blank lines are passed over. A line is held in memory as a whole; its length has no limit but memory's.

use std::io::BufRead;
use std::marker::PhantomData;
use std::path::Path;

use megaring_core::Error;
use megaring_corpus::import::{Input, json_array};
use serde::de::DeserializeOwned;

/// An open file of JSON lines, each a `T`.
pub(crate) struct JsonLines<T> {
    input: Input,
    line: Vec<u8>,
    number: u64,
    /// Whether a line has been seen that is not blank.
    begun: bool,
    marker: PhantomData<T>,
}

impl<T: DeserializeOwned> JsonLines<T> {
    /// Opens a file; `-` is standard input.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self { input: Input::open(path)?, line: Vec::new(), number: 0, begun: false, marker: PhantomData })
    }

    /// Bytes read so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.input.bytes_read()
    }

    /// Bytes of the file; 0 where they are not known.
    pub(crate) fn bytes_total(&self) -> u64 {
        self.input.bytes_total()
    }

    /// An error about the line read last.
    pub(crate) fn fault(&self, reason: impl std::fmt::Display) -> Error {
        Error::field(format!("{}, line {}", self.input.name(), self.number), reason.to_string())
    }

    fn read(&mut self) -> Result<Option<T>, Error> {
        loop {
            self.line.clear();
            self.number += 1;
            let read = self.input.read_until(b'\n', &mut self.line);
            if read.map_err(|error| self.input.unreadable(&error))? == 0 {
                return Ok(None);
            }
            if self.line.trim_ascii().is_empty() {
                continue;
            }
            if !std::mem::replace(&mut self.begun, true)
                && let Some(reason) = json_array(&self.line)
            {
                return Err(Error::field(self.input.name(), reason));
            }
            return serde_json::from_slice(&self.line).map(Some).map_err(|error| self.fault(at_column(&error)));
        }
    }
}

impl<T: DeserializeOwned> Iterator for JsonLines<T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// serde_json counts lines within the value, of which there is one.
fn at_column(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
    format!("{reason} (column {})", error.column())
}
