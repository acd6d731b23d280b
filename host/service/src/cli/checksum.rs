//! `megaring checksum`: CRC-32C and xxHash64 of files, in this process or by a server.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use megaring_core::checksum::{Checksum, Checksums};
use megaring_core::{BackendKind, Error};
use megaring_corpus::import::unreadable;
use megaring_engine::{Engine, Made, Terms};
use megaring_proto::v1 as pb;
use serde::Serialize;

use super::backend;
use super::search::tell_made;
use super::selection::reads_input_once;
use crate::config::Settings;
use crate::console::{Failure, Output, message, shown};
use crate::remote::{self, Remote};

/// Bytes that are processed together; a longer file is processed by itself.
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

/// Files that are processed together.
#[derive(Default)]
struct Batch<'a> {
    files: Vec<&'a Path>,
    job: Checksum,
}

/// Goes through all files, also where one cannot be read or is too large: that is told, and fails the command in the
/// end.
pub(crate) fn run(args: &ChecksumArgs, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    reads_input_once(args.files.iter().map(|file| ("FILES", Some(file))))?;
    let summer = match settings.remote()? {
        None => Summer::Here(settings.private_engine(args.backend.as_slice())?),
        Some(remote) => Summer::There(remote),
    };
    // A file that may not fit the arena is alone.
    let batch_bytes = BATCH_BYTES.min(settings.arena_bytes / 2);
    let mut batch = Batch::default();
    let mut failed = 0;
    for file in &args.files {
        match read(file) {
            Ok(content) => {
                if batch.job.contents.bytes.len() + content.len() > batch_bytes {
                    failed += std::mem::take(&mut batch).run(&summer, args.backend, output)?;
                }
                batch.files.push(file);
                batch.job.contents.push(content);
            }
            Err(error) => {
                message(&unreadable(file, &error));
                failed += 1;
            }
        }
    }
    failed += batch.run(&summer, args.backend, output)?;
    match failed {
        0 => Ok(()),
        _ => Err(Failure::work(format!("{failed} of {} files have no checksums", args.files.len()))),
    }
}

impl Batch<'_> {
    /// Writes the files' checksums, and answers the number of files that are too large.
    fn run(self, summer: &Summer, backend: Option<BackendKind>, output: &mut Output) -> Result<usize, Failure> {
        let Self { files, job } = self;
        if files.is_empty() {
            return Ok(0);
        }
        let lengths: Vec<usize> = (0..files.len()).map(|file| job.contents.byte_len(file)).collect();
        let contents: Vec<Vec<u8>> = match summer {
            // What a server cannot take together, it gets one by one.
            Summer::There(_) => (0..files.len()).map(|file| job.contents.get(file).to_vec()).collect(),
            Summer::Here(_) => Vec::new(),
        };
        let (sums, made) = match summer.sum(job, backend)? {
            Ok(answer) => answer,
            Err(_) if contents.len() > 1 => {
                let alone = files.iter().zip(contents).map(|(file, content)| {
                    let mut batch = Self { files: vec![*file], job: Checksum::default() };
                    batch.job.contents.push(content);
                    batch.run(summer, backend, output)
                });
                return alone.sum();
            }
            // Files that fit together here never are too large: it is one.
            Err(reason) => {
                files.iter().for_each(|file| message(&format!("{}: {reason}", shown(file))));
                return Ok(files.len());
            }
        };
        for ((file, bytes), checksums) in files.iter().zip(lengths).zip(&sums) {
            tell(file, bytes, checksums, output)?;
        }
        tell_made(files.len(), &made, output)?;
        Ok(0)
    }
}

/// Who makes checksums.
enum Summer {
    Here(Arc<Engine>),
    There(Box<Remote>),
}

impl Summer {
    /// Checksums, or why the strings are too large.
    fn sum(
        &self,
        job: Checksum,
        backend: Option<BackendKind>,
    ) -> Result<Result<(Vec<Checksums>, Made), String>, Failure> {
        match self {
            Self::Here(engine) => match engine.run_blocking(job, Terms { backend, ..Terms::default() }) {
                Ok(outcome) => Ok(Ok((outcome.answer, outcome.made))),
                Err(Error::Invalid(violation)) => Ok(Err(violation.description)),
                Err(error) => Err(error.into()),
            },
            Self::There(remote) => {
                let contents = (0..job.contents.len()).map(|at| job.contents.get(at).to_vec()).collect();
                remote.checksum(&pb::ChecksumRequest { contents, backend: remote::backend(backend) })
            }
        }
    }
}

fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    match file.to_str() {
        Some("-") => std::io::stdin().lock().read_to_end(&mut content).map(|_| content),
        _ => std::fs::read(file),
    }
}

fn tell(file: &Path, bytes: usize, checksums: &Checksums, output: &mut Output) -> Result<(), Failure> {
    let (crc32c, xxhash64) = (format!("{:08x}", checksums.crc32c), format!("{:016x}", checksums.xxhash64));
    if output.is_json() {
        output.record(&ChecksumRecord { file: file.to_string_lossy(), bytes, crc32c, xxhash64 })
    } else {
        output.text(format!("{crc32c}  {xxhash64}  {}", shown(file)))
    }
}
