//! JSON lines from a file or standard input, one value at a time; errors name the file and the line.
//!
//! Blank lines are passed over. A line is held in memory as a whole; its length has no limit but memory's.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::marker::PhantomData;
use std::path::Path;

use megaring_core::Error;
use serde::de::DeserializeOwned;

/// An open file of JSON lines, each a `T`.
pub(crate) struct JsonLines<T> {
    name: String,
    reader: Box<dyn BufRead>,
    line: Vec<u8>,
    number: u64,
    bytes_read: u64,
    bytes_total: u64,
    marker: PhantomData<T>,
}

impl<T: DeserializeOwned> JsonLines<T> {
    /// Opens a file; `-` is standard input.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let (name, reader, bytes_total): (String, Box<dyn BufRead>, u64) = if path.as_os_str() == "-" {
            ("standard input".into(), Box::new(BufReader::new(io::stdin())), 0)
        } else {
            let name = path.display().to_string();
            let refused = |error: io::Error| Error::Storage(format!("{name} cannot be read: {error}"));
            let file = File::open(path).map_err(refused)?;
            let length = file.metadata().map_err(refused)?.len();
            (name, Box::new(BufReader::with_capacity(1 << 20, file)), length)
        };
        Ok(Self { name, reader, line: Vec::new(), number: 0, bytes_read: 0, bytes_total, marker: PhantomData })
    }

    /// Bytes read so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Bytes of the file; 0 where they are not known.
    pub(crate) fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    /// An error about the line read last.
    pub(crate) fn fault(&self, reason: impl std::fmt::Display) -> Error {
        Error::field(format!("{}, line {}", self.name, self.number), reason.to_string())
    }

    fn read(&mut self) -> Result<Option<T>, Error> {
        loop {
            self.line.clear();
            self.number += 1;
            let read = self.reader.read_until(b'\n', &mut self.line);
            let read = read.map_err(|error| Error::Storage(format!("{} cannot be read: {error}", self.name)))?;
            self.bytes_read += read as u64;
            if read == 0 {
                return Ok(None);
            }
            if !self.line.trim_ascii().is_empty() {
                return serde_json::from_slice(&self.line).map(Some).map_err(|error| self.fault(at_column(&error)));
            }
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
