//! Files that appear whole or not at all.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::console::Failure;

/// A file under way: a temporary one in the folder of the file that it is to become. It is gone where it is not
/// finished.
pub(super) struct Draft {
    file: NamedTempFile,
    path: PathBuf,
}

impl Draft {
    /// Begins the file that is to be at `path`, where one may be already.
    ///
    /// # Errors
    /// [`Failure::Work`] that names the path: no such folder, no permission, not a file.
    pub(super) fn begin(path: &Path) -> Result<Self, Failure> {
        let refused = |reason: &dyn std::fmt::Display| {
            Failure::Work(format!("{} cannot be written: {reason}; nothing was measured", path.display()))
        };
        // Through a link to what it names, which would be replaced otherwise.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if fs::metadata(&target).is_ok_and(|found| !found.is_file()) {
            return Err(refused(&"it is there already, and is no file"));
        }
        let Some(name) = target.file_name() else { return Err(refused(&"it names no file")) };
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let prefix = format!(".{}.", name.to_string_lossy());
        let file = builder(&prefix).tempfile_in(folder).map_err(|error| refused(&error))?;
        Ok(Self { file, path: target })
    }

    /// Writes it all and gives it its name.
    ///
    /// # Errors
    /// [`Failure::Work`] that names the path: no room, or a folder that went away.
    pub(super) fn finish(mut self, text: &str) -> Result<(), Failure> {
        let refused = |path: &Path, error: &dyn std::fmt::Display| {
            Failure::Work(format!("{} cannot be written: {error}", path.display()))
        };
        self.file.write_all(text.as_bytes()).map_err(|error| refused(&self.path, &error))?;
        self.file.persist(&self.path).map_err(|error| refused(&self.path, &error.error))?;
        Ok(())
    }
}

/// Names begin with a point and end in `.part`; who may read is as for any new file.
fn builder(prefix: &str) -> tempfile::Builder<'_, '_> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).suffix(".part");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(refused: Result<Draft, Failure>) -> String {
        match refused.err() {
            Some(Failure::Work(reason)) => reason,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_file_appears_whole_and_replaces_what_was_there() -> Result<(), Failure> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a.json");
        for text in ["first", "2"] {
            let draft = Draft::begin(&path)?;
            assert_eq!(fs::read_to_string(&path).unwrap_or_default(), if text == "2" { "first" } else { "" });
            draft.finish(text)?;
            assert_eq!(fs::read_to_string(&path)?, text);
        }
        drop(Draft::begin(&path)?);
        assert_eq!(fs::read_dir(folder.path())?.count(), 1, "nothing is left of one that is given up");
        Ok(())
    }

    #[test]
    fn what_cannot_be_written_is_refused_by_name() -> Result<(), Failure> {
        let folder = tempfile::tempdir()?;
        let (file, inner) = (folder.path().join("file"), folder.path().join("inner"));
        fs::write(&file, "kept")?;
        fs::create_dir(&inner)?;
        for (path, why) in [
            (folder.path().join("no/such/a.json"), "a.json cannot be written"),
            (inner, "inner cannot be written: it is there already, and is no file"),
            (file.join("a.json"), "a.json cannot be written"),
            ("..".into(), ".. cannot be written"),
            ("".into(), "it names no file"),
        ] {
            let reason = reason(Draft::begin(&path));
            assert!(reason.contains(why) && reason.ends_with("nothing was measured"), "{reason}");
        }
        assert_eq!(fs::read_to_string(&file)?, "kept");
        Ok(())
    }

    #[test]
    #[cfg(unix)]
    fn a_link_stays_one_and_a_device_is_left_alone() -> Result<(), Failure> {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir()?;
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old")?;
        std::os::unix::fs::symlink("file", &link)?;
        Draft::begin(&link)?.finish("new")?;
        assert!(fs::symlink_metadata(&link)?.is_symlink());
        assert_eq!(fs::read_to_string(&file)?, "new");
        let mode = |path: &Path| fs::metadata(path).map(|found| found.permissions().mode());
        let usual = folder.path().join("usual");
        fs::write(&usual, "")?;
        assert_eq!(mode(&file)?, mode(&usual)?);
        assert!(reason(Draft::begin(Path::new("/dev/null"))).contains("no file"));
        Ok(())
    }
}
