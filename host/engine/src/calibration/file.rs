//! The file that a calibration is kept in: one JSON object, replaced as a whole. Whatever is wrong with it costs a new
//! calibration, nothing more.

use std::io::{self, Write};
use std::path::Path;

use megaring_core::Error;

use super::{Calibration, Fingerprint, SCHEMA};

/// What a file had.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// It holds for this machine and build.
    Good(Box<Calibration>),
    /// There is none.
    Nothing,
    /// It was made for something else, which is told.
    Other(String),
    /// It cannot be read or makes no sense, which is told.
    Broken(String),
}

impl Found {
    /// Why there is nothing to go by; none where there is.
    #[must_use]
    pub fn want(&self) -> Option<String> {
        match self {
            Self::Good(_) => None,
            Self::Nothing => Some("nothing was measured yet".into()),
            Self::Other(difference) => Some(format!("what was measured is not for this: {difference}")),
            Self::Broken(reason) => Some(format!("the measurements cannot be read: {reason}")),
        }
    }
}

/// Reads a file, and judges whether it holds for `fingerprint`.
#[must_use]
pub fn load(path: &Path, fingerprint: &Fingerprint) -> Found {
    let broken = |reason: &dyn std::fmt::Display| Found::Broken(format!("{}: {reason}", path.display()));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Nothing,
        Err(error) => return broken(&error),
    };
    // Looked at first: another schema's fields are another's.
    #[derive(serde::Deserialize)]
    struct Form {
        schema: u32,
    }
    match serde_json::from_str::<Form>(&text) {
        Ok(Form { schema: SCHEMA }) => {}
        Ok(Form { schema }) => return Found::Other(format!("its form is number {schema}, and this build's {SCHEMA}")),
        Err(error) => return broken(&error),
    }
    match serde_json::from_str::<Calibration>(&text) {
        Ok(calibration) if !calibration.is_sane() => broken(&"a number in it is no time"),
        Ok(calibration) => match fingerprint.difference(&calibration.fingerprint) {
            Some(difference) => Found::Other(difference),
            None => Found::Good(Box::new(calibration)),
        },
        Err(error) => broken(&error),
    }
}

/// Whether [`save`] would find room at a path: to be asked before the time is spent on measuring. Makes the folder
/// where it is missing.
///
/// # Errors
/// [`Error::Storage`] that names the file: it is read-only, it is no file, or its folder cannot be written to.
pub fn check_writable(path: &Path) -> Result<(), Error> {
    room(path).map(drop)
}

/// A new file beside the old one.
fn room(path: &Path) -> Result<tempfile::NamedTempFile, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Storage(format!("{}: {error}", path.display()));
    match std::fs::metadata(path) {
        Ok(old) if !old.is_file() => return Err(failed(&"it is no file")),
        // It could be replaced all the same, but whoever made it so does not want that.
        Ok(old) if old.permissions().readonly() => return Err(failed(&"it is read-only")),
        _ => {}
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    let mut builder = tempfile::Builder::new();
    // Like any other file of the folder: as the process's mask says, not its owner's alone.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder).map_err(|error| failed(&error))
}

/// Writes a file beside the old one and puts it in its place, so that whoever reads sees one or the other. Makes the
/// folder where it is missing.
///
/// # Errors
/// [`Error::Storage`] that names the file; the old one is as it was.
pub fn save(path: &Path, calibration: &Calibration) -> Result<(), Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Storage(format!("{}: {error}", path.display()));
    let mut file = room(path)?;
    serde_json::to_writer_pretty(&mut file, calibration).map_err(|error| failed(&error))?;
    file.write_all(b"\n").and_then(|()| file.as_file().sync_all()).map_err(|error| failed(&error))?;
    file.persist(path).map_err(|error| failed(&error.error))?;
    Ok(())
}
