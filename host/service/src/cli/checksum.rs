//! `megaring checksum`: CRC-32C and xxHash64 of files, in this process, without a server.

use std::io::Read;
use std::path::{Path, PathBuf};

use megaring_core::BackendKind;
use megaring_core::checksum::{Checksum, Checksums};
use megaring_engine::Terms;
use serde::Serialize;

use super::backend;
use super::search::tell_made;
use crate::config::Settings;
use crate::console::{Failure, Output};

/// Bytes that are processed together; a file is never divided.
const BATCH_BYTES: usize = 8 << 20;

/// `megaring checksum`.
#[derive(Debug, clap::Args)]
pub(crate) struct ChecksumArgs {
    /// Files; `-` is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The backend that must do it [default: cpu]
    #[arg(long, env = "MEGARING_CHECKSUM_BACKEND", value_parser = backend())]
    backend: Option<BackendKind>,
}

/// A file's checksums, for programs: in hexadecimal, since not every reader of JSON has integers of 64 bits.
#[derive(Serialize)]
struct ChecksumRecord<'a> {
    file: std::borrow::Cow<'a, str>,
    bytes: usize,
    crc32c: String,
    xxhash64: String,
}

pub(crate) fn run(args: &ChecksumArgs, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    let engine = settings.private_engine(args.backend.as_slice())?;
    let mut files = args.files.iter().peekable();
    while files.peek().is_some() {
        let (mut job, mut names) = (Checksum::default(), Vec::new());
        while job.contents.bytes.len() < BATCH_BYTES
            && let Some(file) = files.next()
        {
            job.contents.push(read(file)?);
            names.push(file);
        }
        let lengths: Vec<usize> = (0..names.len()).map(|file| job.contents.byte_len(file)).collect();
        let terms = Terms { backend: args.backend, ..Terms::default() };
        let outcome = engine.run_blocking(job, terms)?;
        for ((file, bytes), checksums) in names.iter().zip(lengths).zip(&outcome.answer) {
            tell(file, bytes, checksums, output)?;
        }
        tell_made(names.len(), &outcome.made, output)?;
    }
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut content = Vec::new();
    let read = match file.to_str() {
        Some("-") => std::io::stdin().lock().read_to_end(&mut content).map(|_| content),
        _ => std::fs::read(file),
    };
    read.map_err(|error| Failure::work(format!("{}: {error}", file.display())))
}

fn tell(file: &Path, bytes: usize, checksums: &Checksums, output: &mut Output) -> Result<(), Failure> {
    let (crc32c, xxhash64) = (format!("{:08x}", checksums.crc32c), format!("{:016x}", checksums.xxhash64));
    if output.is_json() {
        output.record(&ChecksumRecord { file: file.to_string_lossy(), bytes, crc32c, xxhash64 })
    } else {
        output.text(format!("{crc32c}  {xxhash64}  {}", file.display()))
    }
}
