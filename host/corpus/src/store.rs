//! A data folder: all its corpora, open at once.
//!
//! Opening maps every segment; nothing is read ahead. Any number of processes may read a folder, one may write to it. A
//! reader sees the corpora as they were when it opened the folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use megaring_core::corpus::{CorpusTable, CorpusView};
use megaring_core::matrix::MAX_DIM;
use megaring_core::{Element, Error, RowType};

use crate::append::{Appended, Appender, Mode};
use crate::change::Deleted;
use crate::compact::{Compacted, Compactor, compact_all};
use crate::copy::copy;
use crate::corpus::{Corpus, Settings};
use crate::description::Description;
use crate::durable::{self, Summing, TemporaryFile, storage, sync_folder, temporary_path};
use crate::export::export;
use crate::import::Format;
use crate::lock::Lock;
use crate::manifest::{self, Manifest, Opening, check_name};
use crate::prefix::Prefixes;
use crate::segment::SegmentFile;
use crate::segment_writer::Written;
use crate::select::{Selection, Selections, Wanted};
use crate::text_ids;
use crate::verify::{self, VerifyReport};

mod versions;

/// What a store may do with its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read; nothing on disk is changed, others may write.
    ReadOnly,
    /// Read and write; no other process has this access at the same time.
    Exclusive,
}

/// How thoroughly opening looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOptions {
    /// Largest file, in bytes, whose checksum is compared at open. Larger ones are checked by [`Store::verify`].
    pub check_bytes: u64,
    /// Appends of at most so many bytes go into the corpus's log, and files that are no longer are read and not mapped:
    /// the system counts mappings. Some times as much in the log becomes a segment.
    pub small_bytes: u64,
}

impl Default for OpenOptions {
    /// Checksums up to 64 MiB: some milliseconds for each file, and all of what interactive use has. Small up to
    /// 256 KiB.
    fn default() -> Self {
        Self { check_bytes: 64 << 20, small_bytes: 256 << 10 }
    }
}

/// What a corpus is to keep to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CreateOptions {
    /// No two rows have one id: an append that brings one that is there is refused, and an upsert replaces its row.
    pub unique_ids: bool,
    /// The name of a column that has each row's id as text, of 1 to 4096 bytes. The number that stands for a row
    /// (`memory_id`) is then the text's xxHash64.
    pub id_column: Option<String>,
}

/// What became of a file that was to be served as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adopted {
    /// It is a segment now.
    Done(Appended),
    /// Its values may be fine, but it must be rewritten (see [`crate::import`]), for this reason.
    NeedsRewrite(String),
}

/// Mean rows of a record batch below which a file is rewritten: every batch costs a search a fixed effort.
const MIN_BATCH_ROWS: usize = 8192;

/// An open data folder.
pub struct Store {
    root: PathBuf,
    settings: Settings,
    compactor: Arc<Compactor>,
    lock: Option<Arc<Lock>>,
    table: Arc<CorpusTable>,
    corpora: RwLock<BTreeMap<String, Arc<Corpus>>>,
    next_handle: AtomicU32,
    selections: Arc<Selections>,
    prefixes: Prefixes,
    /// Held while a corpus is created or dropped.
    changes: Mutex<()>,
}

impl Store {
    /// Opens a data folder and loads its corpora. With [`Access::Exclusive`] the folder itself is made if its parent
    /// exists.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field `data` where there is no folder; [`Error::Storage`] where another process
    /// writes to it (naming that process) or the system refuses. A faulty corpus is no error here.
    pub fn open(root: &Path, access: Access) -> Result<Arc<Self>, Error> {
        Self::open_with(root, access, OpenOptions::default())
    }

    /// [`Self::open`] with other checks.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(root: &Path, access: Access, options: OpenOptions) -> Result<Arc<Self>, Error> {
        let writable = access == Access::Exclusive;
        find_folder(root, writable)?;
        let lock = if writable { Some(Arc::new(Lock::take(root)?)) } else { None };
        if writable {
            durable::sweep(root, |name| name.starts_with(durable::TEMPORARY));
        }
        let store = Self {
            root: root.to_owned(),
            settings: Settings { writable, check_bytes: options.check_bytes, small_bytes: options.small_bytes },
            compactor: Arc::default(),
            lock,
            table: Arc::default(),
            corpora: RwLock::default(),
            next_handle: AtomicU32::new(1),
            selections: Arc::default(),
            prefixes: Prefixes::default(),
            changes: Mutex::default(),
        };
        store.load_all()?;
        if writable {
            let corpora: Vec<_> = store.write().values().cloned().collect();
            corpora.into_iter().for_each(Corpus::merge_soon);
        }
        Ok(Arc::new(store))
    }

    /// The data folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Finds versions by the numbers a slot carries.
    #[must_use]
    pub fn table(&self) -> &Arc<CorpusTable> {
        &self.table
    }

    /// Makes an empty corpus for rows of a type, which a plain number is as that of their float32 values.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `name`, `dim` or `id_column`, [`Error::CorpusExists`], [`Error::Storage`].
    pub fn create(&self, name: &str, row_type: impl Into<RowType>) -> Result<Description, Error> {
        self.create_with(name, row_type, CreateOptions::default())
    }

    /// [`Self::create`], with what the corpus is to keep to.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_with(
        &self,
        name: &str,
        row_type: impl Into<RowType>,
        options: CreateOptions,
    ) -> Result<Description, Error> {
        check_name(name)?;
        let row_type = row_type.into();
        let dim = row_type.dim;
        if !(1..=MAX_DIM).contains(&dim) {
            return Err(Error::field("dim", format!("{dim} is not within 1 and {MAX_DIM}")));
        }
        if row_type.element == Element::Bit && !dim.is_multiple_of(8) {
            return Err(Error::field("dim", format!("{dim} bits are no whole bytes; a multiple of 8 is legal")));
        }
        options.id_column.as_deref().map_or(Ok(()), text_ids::check_column)?;
        self.add(name, |folder| {
            let made = fs::create_dir(folder)
                .and_then(|()| Manifest::write(folder, &Opening::new(name, row_type, options, now_ns()), 1, &[]));
            made.map_err(storage("cannot create", &self.root.join(name)))
        })
    }

    /// Removes a corpus and its files. Versions in use stay readable until nobody holds them. A faulty corpus can be
    /// dropped.
    ///
    /// # Errors
    /// [`Error::CorpusNotFound`], [`Error::Storage`].
    pub fn drop_corpus(&self, name: &str) -> Result<(), Error> {
        self.require_writable(name)?;
        let _turn = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let corpus = self.find(name)?;
        let grave = temporary_path(&self.root);
        corpus.bury(&grave)?;
        self.write().remove(name);
        self.prefixes.forget(name);
        sync_folder(&self.root).map_err(storage("cannot sync", &self.root))?;
        // The corpus is gone either way; what cannot be removed now is swept at the next open.
        let _ = fs::remove_dir_all(grave);
        Ok(())
    }

    /// All corpora by name, faulty ones among them.
    #[must_use]
    pub fn list(&self) -> Vec<Description> {
        let corpora = self.corpora.read().unwrap_or_else(PoisonError::into_inner);
        corpora.values().map(|corpus| corpus.describe()).collect()
    }

    /// One corpus, faulty or not.
    ///
    /// # Errors
    /// [`Error::CorpusNotFound`].
    pub fn describe(&self, name: &str) -> Result<Description, Error> {
        Ok(self.find(name)?.describe())
    }

    /// The current version of a corpus, known to [`Self::table`].
    ///
    /// # Errors
    /// [`Error::CorpusNotFound`]; [`Error::DataLoss`] naming the file where the corpus is faulty; [`Error::Storage`]
    /// where the system had no room for reading it a moment ago.
    pub fn view(&self, name: &str) -> Result<Arc<CorpusView>, Error> {
        Ok(self.find(name)?.version()?.view.clone())
    }

    /// Begins an append; see [`Mode`].
    ///
    /// # Errors
    /// As [`Self::view`]; [`Error::Precondition`] where the store is open for reading only.
    pub fn append_as(&self, name: &str, mode: Mode) -> Result<Appender, Error> {
        self.require_writable(name)?;
        Appender::new(self.find(name)?, mode)
    }

    /// Begins an append.
    ///
    /// # Errors
    /// As [`Self::append_as`].
    pub fn append(&self, name: &str) -> Result<Appender, Error> {
        self.append_as(name, Mode::Append)
    }

    /// Begins an append whose rows take the place of those that have their ids: committing it deletes and adds in one
    /// step. Of new rows with one id the last stays.
    ///
    /// # Errors
    /// As [`Self::append_as`].
    pub fn upsert(&self, name: &str) -> Result<Appender, Error> {
        self.append_as(name, Mode::Upsert)
    }

    /// Deletes the rows that have one of these ids, lasting over a crash from the moment this returns. Versions in use
    /// go on showing them. They keep their numbers until their segments are merged.
    ///
    /// # Errors
    /// As [`Self::append`], and [`Error::Storage`] when the disk refuses: nothing is deleted.
    pub fn delete(&self, name: &str, ids: &[u64]) -> Result<Deleted, Error> {
        self.delete_all(name, ids, &[])
    }

    /// [`Self::delete`], also of the rows that have one of these text ids.
    ///
    /// # Errors
    /// As [`Self::delete`], and [`Error::Invalid`] naming `text_ids` where the corpus has no id column, or one of them
    /// is no id: those are of 1 to 4096 bytes.
    pub fn delete_all(&self, name: &str, ids: &[u64], texts: &[String]) -> Result<Deleted, Error> {
        self.require_writable(name)?;
        let corpus = self.find(name)?;
        for (at, text) in texts.iter().enumerate() {
            text_ids::judge(text).map_err(|reason| Error::row("text_ids", at as u64, reason))?;
        }
        let deleted = corpus.delete(ids, texts)?;
        corpus.merge_soon();
        Ok(deleted)
    }

    /// [`Self::delete`] of the rows that a selection wants when the deletion is committed, as long as it is wanted.
    /// They are looked for while others append.
    ///
    /// # Errors
    /// As [`Self::delete`], those of [`Self::select_while`], and [`Error::Invalid`] naming `filter` where the selection
    /// says nothing. Nothing is deleted.
    pub fn delete_selected(&self, name: &str, selection: &Selection, wanted: Wanted<'_>) -> Result<Deleted, Error> {
        self.require_writable(name)?;
        let corpus = self.find(name)?;
        if selection.is_all() {
            return Err(Error::field("filter", "it says nothing, which would delete all rows; \"true\" says that"));
        }
        let deleted = corpus.delete_selected(selection, wanted)?;
        corpus.merge_soon();
        Ok(deleted)
    }

    /// Copies an Arrow IPC file into a corpus as a segment, unchanged, where it has the form of one.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming file, column and row where the file is corrupt or a value may not be;
    /// [`Error::Storage`].
    pub fn adopt(&self, name: &str, path: &Path) -> Result<Adopted, Error> {
        self.adopt_as(name, path, Mode::Append)
    }

    pub(crate) fn adopt_as(&self, name: &str, path: &Path, mode: Mode) -> Result<Adopted, Error> {
        self.require_writable(name)?;
        let corpus = self.find(name)?;
        let row_type = corpus.version()?.view.row_type();
        let (copy, bytes, crc32) = copy_beside(path, corpus.folder())?;
        let shown = path.display().to_string();
        let mapped = match SegmentFile::map(copy.path(), row_type, self.settings.small_bytes) {
            Ok(mapped) => mapped,
            Err(fault) if fault.rewritable => return Ok(Adopted::NeedsRewrite(fault.to_string())),
            Err(fault) => return Err(fault.into_invalid(&shown)),
        };
        mapped.check_values(row_type).map_err(|fault| fault.into_invalid(&shown))?;
        match corpus.version()?.opening.id_column.as_deref().map_or(Ok(()), |column| mapped.check_ids(column)) {
            Err(fault) if fault.rewritable => return Ok(Adopted::NeedsRewrite(fault.to_string())),
            checked => checked.map_err(|fault| fault.into_invalid(&shown))?,
        }
        let (batches, rows) = (mapped.parts.len(), mapped.rows());
        if batches > 1 && rows / batches < MIN_BATCH_ROWS {
            return Ok(Adopted::NeedsRewrite(format!(
                "its {rows} rows are in {batches} batches; larger ones search faster"
            )));
        }
        drop(mapped);
        let appended = corpus.commit_file(Written { file: copy, bytes, crc32 }, mode)?;
        corpus.merge_soon();
        Ok(Adopted::Done(appended))
    }

    /// Merges all of a corpus that can be merged: neighbouring segments of the same columns become one, and so do rows
    /// that are still in the log. Searches and appends go on meanwhile. Small segments are merged in the background,
    /// too, without being asked.
    ///
    /// # Errors
    /// [`Error::CorpusNotFound`], [`Error::DataLoss`] naming the file where the corpus is faulty, [`Error::Storage`]:
    /// the corpus is as it was.
    pub fn compact(&self, name: &str) -> Result<Compacted, Error> {
        self.require_writable(name)?;
        compact_all(&*self.find(name)?)
    }

    /// Writes the current version of a corpus into a file that is not there yet, for other programs: as Arrow IPC file
    /// or Parquet with every column that all rows have, as `.npy` or `.fvecs` the vectors alone. The number of rows
    /// comes back. Appends go on meanwhile.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field `path` where there is such a file, or `format` where it is not written;
    /// otherwise as [`Self::view`], and [`Error::Storage`].
    pub fn export(&self, name: &str, path: &Path, format: Format) -> Result<usize, Error> {
        export(&*self.find(name)?, path, format)
    }

    /// Makes a corpus of another data folder's, under a name of its own, with all its rows and ids. Segment files are
    /// linked where both folders are on one file system that has links, which takes no room, and copied elsewhere. Of a
    /// folder that somebody else writes to, one version is taken.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `name`, [`Error::CorpusExists`], [`Error::CorpusNotFound`] and [`Error::DataLoss`] of
    /// `source`, [`Error::Storage`]: nothing is kept.
    pub fn take_from(&self, source: &Self, name: &str, new_name: &str) -> Result<Description, Error> {
        check_name(new_name)?;
        self.add(new_name, |folder| copy(&*source.find(name)?, folder, new_name))
    }

    /// Reads all of a corpus from disk: checksums, every value, and whether the caches are those of the segments. A
    /// fault found makes the corpus faulty from now on; a wrong cache is made anew; a corpus without fault can be used
    /// again.
    ///
    /// # Errors
    /// [`Error::CorpusNotFound`]; [`Error::Storage`] where the system has no room for reading a file. What was found is
    /// in the report.
    pub fn verify(&self, name: &str) -> Result<VerifyReport, Error> {
        let corpus = self.find(name)?;
        let report = verify::verify(&corpus, name, self.settings.small_bytes, self.settings.writable)?;
        verify::settle(&report, &corpus, self.settings.writable);
        Ok(report)
    }

    fn find(&self, name: &str) -> Result<Arc<Corpus>, Error> {
        let corpora = self.corpora.read().unwrap_or_else(PoisonError::into_inner);
        let found = corpora.get(name).cloned().ok_or_else(|| Error::CorpusNotFound { name: name.to_owned() });
        drop(corpora);
        found.inspect(|corpus| corpus.retry())
    }

    fn require_writable(&self, name: &str) -> Result<(), Error> {
        if self.settings.writable {
            return Ok(());
        }
        Err(Error::Precondition { name: name.to_owned(), reason: "is open for reading only".into() })
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<String, Arc<Corpus>>> {
        self.corpora.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn load_all(&self) -> Result<(), Error> {
        let entries = fs::read_dir(&self.root).map_err(storage("cannot read", &self.root))?;
        for entry in entries {
            let entry = entry.map_err(storage("cannot read", &self.root))?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| check_name(name).is_ok()) else { continue };
            if entry.path().is_dir() {
                let corpus = self.load(name);
                self.write().insert(name.to_owned(), Arc::new(corpus));
            }
        }
        Ok(())
    }

    fn load(&self, name: &str) -> Corpus {
        let folder = self.root.join(name);
        if self.settings.writable {
            // Where the log cannot be written now, the earlier manifest serves, and the first commit says why.
            let _ = manifest::renew(&folder, name);
            sweep_corpus(&folder, name);
        }
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        let (settings, found_by) = (self.settings.clone(), (self.table.clone(), self.selections.clone()));
        let (compactor, lock) = (self.compactor.clone(), self.lock.clone());
        Corpus::load(folder, name.to_owned(), handle, settings, found_by, compactor, lock)
    }

    /// Adds a corpus in a folder that `make` makes: it has all of it from the moment it has its name.
    fn add(&self, name: &str, make: impl FnOnce(&Path) -> Result<(), Error>) -> Result<Description, Error> {
        self.require_writable(name)?;
        let _turn = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = self.root.join(name);
        if self.find(name).is_ok() || folder.exists() {
            return Err(Error::CorpusExists { name: name.to_owned() });
        }
        let beside = temporary_path(&self.root);
        let made = make(&beside).and_then(|()| {
            let renamed = fs::rename(&beside, &folder).and_then(|()| sync_folder(&self.root));
            renamed.map_err(storage("cannot create", &folder))
        });
        if let Err(error) = made {
            let _ = fs::remove_dir_all(&beside);
            let _ = fs::remove_dir_all(&folder);
            return Err(error);
        }
        let corpus = Arc::new(self.load(name));
        let description = corpus.describe();
        self.write().insert(name.to_owned(), corpus);
        Ok(description)
    }
}

/// Removes what a crash left in a corpus's folder. Where the manifest cannot be read, no segment is known to be a
/// leftover.
fn sweep_corpus(folder: &Path, name: &str) {
    let manifest = Manifest::read(folder, name).ok();
    let named = |file: &str| {
        let segment = file.strip_suffix(".derived").map_or(file.to_owned(), |stem| format!("{stem}.arrow"));
        let known = |manifest: &Manifest| manifest.names(&segment);
        manifest::segment_number(&segment).is_none() || manifest.as_ref().is_none_or(known)
    };
    durable::sweep(folder, |file| file.starts_with(durable::TEMPORARY) || !named(file));
}

impl Drop for Store {
    fn drop(&mut self) {
        self.compactor.close();
    }
}

fn find_folder(root: &Path, make: bool) -> Result<(), Error> {
    match fs::metadata(root) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => return Err(Error::field("data", format!("{} is not a folder", root.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(storage("cannot open", root)(error)),
    }
    if !make {
        return Err(Error::field("data", format!("there is no folder {}", root.display())));
    }
    match fs::create_dir(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::field("data", format!("there is no folder to make {} in", root.display())))
        }
        made => made.map_err(storage("cannot make", root)),
    }
}

fn copy_beside(path: &Path, folder: &Path) -> Result<(TemporaryFile, u64, u32), Error> {
    let shown = path.display();
    let mut from =
        fs::File::open(path).map_err(|error| Error::field("path", format!("cannot open {shown}: {error}")))?;
    let copy = TemporaryFile::create(folder).map_err(storage("cannot write in", folder))?;
    let handle = copy.handle().map_err(storage("cannot write in", folder))?;
    let mut out = BufWriter::with_capacity(1 << 20, Summing::new(handle));
    std::io::copy(&mut from, &mut out).and_then(|_| out.flush()).map_err(storage("cannot copy", path))?;
    let (bytes, crc32) = out.get_ref().sum();
    Ok((copy, bytes, crc32))
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
