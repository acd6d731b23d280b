//! Why a command ended without its answer, and the exit status that says so.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use megaring_core::Error;

use super::printable::{printable_lines, shown};

/// An end that is not success.
#[derive(Debug)]
pub enum Failure {
    /// clap's own: wrong usage, or help and version, which are no failure after all.
    CommandLine(Box<clap::Error>),
    /// The command line, the environment or the configuration file is wrong.
    Usage(String),
    /// The work failed; one sentence for a person.
    Work(String),
    /// There is no corpus of a name; one sentence for a person.
    NoCorpus(String),
    /// The work failed, and the output has said how.
    Told,
    /// Nobody reads the output any more.
    Closed,
}

/// The exit status for work that failed.
const FAILED: u8 = 1;
/// The exit status for wrong usage.
const USAGE: u8 = 2;

impl Failure {
    /// Failed work, said in words.
    pub fn work(reason: impl Display) -> Self {
        Self::Work(reason.to_string())
    }

    /// Says of a corpus that is not there where it was looked for.
    #[must_use]
    pub fn in_folder(self, data: &Path) -> Self {
        match self {
            Self::NoCorpus(reason) => {
                let data = shown(data);
                Self::Work(format!("{reason} in the data folder {data}; `megaring corpus list` says what is there"))
            }
            other => other,
        }
    }

    /// Says it on stderr and answers the exit status.
    #[must_use]
    pub fn report(self) -> ExitCode {
        match self {
            Self::CommandLine(error) => {
                // Where not even stderr can be written, the status still tells.
                let _ = error.print();
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE))
            }
            Self::Usage(reason) => {
                message(&reason);
                ExitCode::from(USAGE)
            }
            Self::Work(reason) | Self::NoCorpus(reason) => {
                message(&reason);
                ExitCode::from(FAILED)
            }
            Self::Told => ExitCode::from(FAILED),
            Self::Closed => ExitCode::SUCCESS,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            // The names of arguments of the library say nothing to who typed a path.
            Error::Invalid(violation) if matches!(violation.field.as_str(), "data" | "path") => {
                Self::Work(violation.description)
            }
            error @ Error::CorpusNotFound { .. } => Self::NoCorpus(error.to_string()),
            error => Self::Work(error.to_string()),
        }
    }
}

impl From<io::Error> for Failure {
    /// An error of writing the output.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Work(format!("the output cannot be written: {error}")),
        }
    }
}

/// A message on stderr, of one line or several. Lost where stderr is closed: there is nobody left to tell.
pub(crate) fn message(text: &str) {
    let line = format!("megaring: {}\n", printable_lines(text));
    let _ = io::Write::write_all(&mut io::stderr(), line.as_bytes());
}
