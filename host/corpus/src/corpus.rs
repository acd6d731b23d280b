//! One corpus of a store: its current version, how it is loaded, and how a finished segment file becomes part of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use megaring_core::Error;
use megaring_core::corpus::{CorpusTable, CorpusView, SegmentView};

use crate::append::Appended;
use crate::derived::{self, Cache, Stamp};
use crate::durable::{TemporaryFile, storage, sync_folder};
use crate::manifest::{self, Manifest, SegmentEntry};
use crate::segment::{MappedSegment, SegmentFile};

/// What is known of a corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Elements of an embedding; 0 where the manifest cannot be read.
    pub dim: usize,
    /// Rows in all segments.
    pub rows: usize,
    /// Version, rising with every append.
    pub generation: u32,
    /// Segments in row order.
    pub segments: Vec<SegmentDescription>,
    /// Names of the columns that every segment has.
    pub columns: Vec<String>,
    /// Bytes of all segment files, without caches.
    pub bytes: u64,
    /// When it was created, in nanoseconds since 1970.
    pub created_unix_ns: u64,
    /// Whether it can be used.
    pub state: State,
}

/// One segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentDescription {
    /// Name of the file in the corpus's folder.
    pub file: String,
    /// Rows in it.
    pub rows: usize,
    /// Its length.
    pub bytes: u64,
    /// CRC-32 (IEEE) of all its bytes.
    pub checksum: u32,
}

/// Whether a corpus can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It can.
    Healthy,
    /// Stored bytes are not what was written; every use is [`Error::DataLoss`].
    Faulty {
        /// The file.
        segment: String,
        /// What does not match.
        reason: String,
    },
}

/// What opening a store means for each of its corpora.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Whether files may be written and leftovers removed.
    pub(crate) writable: bool,
    /// Largest file whose checksum is compared when it is opened.
    pub(crate) check_bytes: u64,
}

/// A corpus of an open store.
pub(crate) struct Corpus {
    name: String,
    folder: PathBuf,
    handle: u32,
    settings: Settings,
    table: Arc<CorpusTable>,
    condition: RwLock<Condition>,
    /// Held while a version is replaced.
    commits: Mutex<()>,
}

#[derive(Clone)]
enum Condition {
    Ready(Arc<Version>),
    Faulty(Arc<Loss>),
    Dropped,
}

/// A version in memory.
pub(crate) struct Version {
    pub(crate) manifest: Manifest,
    pub(crate) view: Arc<CorpusView>,
}

/// Why a corpus cannot be used, and as much as is known of it.
pub(crate) struct Loss {
    file: String,
    reason: String,
    manifest: Option<Manifest>,
}

impl Corpus {
    /// Loads the corpus in `folder`. A fault is kept, not returned: the store goes on with the others.
    pub(crate) fn load(
        folder: PathBuf,
        name: String,
        handle: u32,
        settings: Settings,
        table: Arc<CorpusTable>,
    ) -> Self {
        let condition = match load(&folder, &name, handle, settings) {
            Ok(version) => {
                table.register(&version.view);
                Condition::Ready(Arc::new(version))
            }
            Err(loss) => Condition::Faulty(loss),
        };
        Self { name, folder, handle, settings, table, condition: RwLock::new(condition), commits: Mutex::new(()) }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The current version, or why there is none.
    pub(crate) fn version(&self) -> Result<Arc<Version>, Error> {
        match self.condition() {
            Condition::Ready(version) => Ok(version),
            Condition::Faulty(loss) => Err(Error::DataLoss {
                corpus: self.name.clone(),
                segment: loss.file.clone(),
                reason: loss.reason.clone(),
            }),
            Condition::Dropped => Err(Error::CorpusNotFound { name: self.name.clone() }),
        }
    }

    pub(crate) fn describe(&self) -> Description {
        match self.condition() {
            Condition::Ready(version) => describe(&self.name, Some(&version.manifest), State::Healthy),
            Condition::Faulty(loss) => {
                let state = State::Faulty { segment: loss.file.clone(), reason: loss.reason.clone() };
                describe(&self.name, loss.manifest.as_ref(), state)
            }
            Condition::Dropped => describe(&self.name, None, State::Healthy),
        }
    }

    /// Makes a whole, checked segment file part of the corpus. On an error nothing of it is kept.
    pub(crate) fn publish(
        &self,
        segment: TemporaryFile,
        bytes: u64,
        crc32: u32,
        numbered_from: Option<usize>,
    ) -> Result<Appended, Error> {
        let _turn = self.turn();
        let version = self.version()?;
        if numbered_from.is_some_and(|first| first != version.view.rows()) {
            let reason = "grew while rows without ids were appended to it; send them again, or give them ids";
            return Err(Error::Precondition { name: self.name.clone(), reason: reason.into() });
        }
        let file = version.manifest.next_file();
        let path = self.folder.join(&file);
        segment.rename(&path).map_err(storage("cannot write", &path))?;
        let mut undo = Undo { path: Some(&path) };
        sync_folder(&self.folder).map_err(storage("cannot sync", &self.folder))?;
        let dim = version.view.dim();
        let mapped = SegmentFile::map(&path, dim)
            .map_err(|fault| Error::Internal(format!("a segment just written to {} {fault}", path.display())))?;
        let rows = mapped.rows();
        check_row_count(version.view.rows(), rows)?;
        let entry = SegmentEntry { file, rows: rows as u64, bytes, crc32, columns: mapped.columns.clone() };
        let (parts, _) = self.derive(mapped, &entry, dim);
        let next = version.manifest.with_segment(entry).ok_or_else(|| out_of_generations(&self.name))?;
        let beside = next.write_beside(&self.folder)?;
        let manifest_path = self.folder.join(manifest::FILE);
        beside.rename(&manifest_path).map_err(storage("cannot write", &manifest_path))?;
        // From here on the new manifest may be what a restart finds: its segment must stay.
        undo.path = None;
        if let Err(error) = sync_folder(&self.folder) {
            return Err(self.lose_track(next, &error));
        }
        let segments = version.view.segments().map(|(_, segment)| segment.clone()).chain(parts).collect();
        Ok(self.install(next, segments, rows))
    }

    /// Reads everything from disk again, for instance after a check found a fault.
    pub(crate) fn reload(&self) {
        let _turn = self.turn();
        if matches!(self.condition(), Condition::Dropped) {
            return;
        }
        let condition = match load(&self.folder, &self.name, self.handle, self.settings) {
            Ok(version) => {
                self.table.register(&version.view);
                Condition::Ready(Arc::new(version))
            }
            Err(loss) => Condition::Faulty(loss),
        };
        self.set(condition);
    }

    /// Marks the corpus as unusable because of one file.
    pub(crate) fn set_faulty(&self, file: &str, reason: &str, manifest: Option<Manifest>) {
        self.set(Condition::Faulty(Arc::new(Loss { file: file.to_owned(), reason: reason.to_owned(), manifest })));
    }

    /// Ends the corpus: moves its folder to `grave` and forgets the version. Views in use stay valid.
    pub(crate) fn bury(&self, grave: &Path) -> Result<(), Error> {
        let _turn = self.turn();
        fs::rename(&self.folder, grave).map_err(storage("cannot remove", &self.folder))?;
        self.set(Condition::Dropped);
        Ok(())
    }

    fn derive(&self, mapped: SegmentFile, entry: &SegmentEntry, dim: usize) -> (Vec<Arc<SegmentView>>, Cache) {
        derive(&self.folder, mapped, entry, dim, self.settings)
    }

    fn install(&self, manifest: Manifest, segments: Vec<Arc<SegmentView>>, rows: usize) -> Appended {
        let generation = manifest.generation;
        let dim = manifest.dim as usize;
        let view = Arc::new(CorpusView::new(self.name.clone(), self.handle, generation, dim, segments));
        self.table.register(&view);
        let appended = Appended { rows, total_rows: view.rows(), generation, segments: manifest.segments.len() };
        self.set(Condition::Ready(Arc::new(Version { manifest, view })));
        appended
    }

    /// After a failed sync nobody knows which manifest the disk has: the corpus rests until the store is opened again.
    fn lose_track(&self, manifest: Manifest, error: &std::io::Error) -> Error {
        let reason = format!("its folder could not be synced ({error}); open the store again");
        self.set_faulty(manifest::FILE, &reason, Some(manifest));
        Error::Storage(format!("corpus {:?}: {reason}", self.name))
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn condition(&self) -> Condition {
        self.condition.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, condition: Condition) {
        *self.condition.write().unwrap_or_else(PoisonError::into_inner) = condition;
    }
}

/// Removes a segment file and its cache again unless told that they stay.
struct Undo<'a> {
    path: Option<&'a Path>,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.path {
            // What cannot be removed now is swept at the next open.
            let _ = fs::remove_file(path);
            let _ = fs::remove_file(cache_path(path));
        }
    }
}

/// Path of the cache beside a segment.
pub(crate) fn cache_path(segment: &Path) -> PathBuf {
    segment.with_extension("derived")
}

/// Whether `rows` more rows fit a corpus of `have`.
pub(crate) fn check_row_count(have: usize, rows: usize) -> Result<(), Error> {
    if have as u64 + rows as u64 <= u64::from(u32::MAX) {
        return Ok(());
    }
    Err(Error::field("rows", format!("{rows} rows more than {have} are over the limit of {}", u32::MAX)))
}

/// Maps one segment of a manifest, with the cheap checks and, for small files, the checksum.
pub(crate) fn map_segment(folder: &Path, entry: &SegmentEntry, dim: usize, check: u64) -> Result<SegmentFile, String> {
    let path = folder.join(&entry.file);
    // The length comes first, and before the mapping: the footer of a truncated file would only say that it is no Arrow
    // file.
    let bytes = match fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) => return Err(format!("cannot be read: {error}")),
    };
    if bytes != entry.bytes {
        return Err(format!("it has {bytes} bytes, the manifest says {}", entry.bytes));
    }
    let mapped = SegmentFile::bytes(&path).map_err(|fault| fault.to_string())?;
    if bytes <= check && crc32fast::hash(&mapped) != entry.crc32 {
        return Err("its checksum does not match".into());
    }
    let mapped = SegmentFile::read(mapped, dim).map_err(|fault| fault.to_string())?;
    match mapped.rows() as u64 == entry.rows {
        true => Ok(mapped),
        false => Err(format!("it has {} rows, the manifest says {}", mapped.rows(), entry.rows)),
    }
}

fn load(folder: &Path, name: &str, handle: u32, settings: Settings) -> Result<Version, Arc<Loss>> {
    let unreadable = |reason| Arc::new(Loss { file: manifest::FILE.into(), reason, manifest: None });
    let manifest = Manifest::read(folder, name).map_err(unreadable)?;
    let dim = manifest.dim as usize;
    let mut segments = Vec::new();
    for entry in &manifest.segments {
        match map_segment(folder, entry, dim, settings.check_bytes) {
            Ok(mapped) => segments.extend(derive(folder, mapped, entry, dim, settings).0),
            Err(reason) => {
                let file = entry.file.clone();
                return Err(Arc::new(Loss { file, reason, manifest: Some(manifest) }));
            }
        }
    }
    let view = Arc::new(CorpusView::new(name.to_owned(), handle, manifest.generation, dim, segments));
    Ok(Version { manifest, view })
}

fn derive(
    folder: &Path,
    mapped: SegmentFile,
    entry: &SegmentEntry,
    dim: usize,
    settings: Settings,
) -> (Vec<Arc<SegmentView>>, Cache) {
    let embeddings: Vec<&[f32]> = mapped.parts.iter().map(|part| &part.embeddings[..]).collect();
    let stamp = Stamp { segment_crc: entry.crc32, dim };
    let path = cache_path(&folder.join(&entry.file));
    let check = fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= settings.check_bytes);
    let (derived, cache) = derived::open(&path, stamp, &embeddings, settings.writable, check);
    let views = mapped.parts.into_iter().zip(derived).map(|(part, derived)| {
        let rows = part.rows;
        Arc::new(SegmentView::new(MappedSegment::new(part, derived), rows))
    });
    (views.collect(), cache)
}

fn describe(name: &str, manifest: Option<&Manifest>, state: State) -> Description {
    let segment = |entry: &SegmentEntry| SegmentDescription {
        file: entry.file.clone(),
        rows: entry.rows as usize,
        bytes: entry.bytes,
        checksum: entry.crc32,
    };
    let segments: Vec<_> = manifest.iter().flat_map(|manifest| &manifest.segments).map(segment).collect();
    Description {
        name: name.to_owned(),
        dim: manifest.map_or(0, |manifest| manifest.dim as usize),
        rows: manifest.map_or(0, |manifest| manifest.rows() as usize),
        generation: manifest.map_or(0, |manifest| manifest.generation),
        bytes: segments.iter().map(|segment| segment.bytes).sum(),
        segments,
        columns: manifest.map(Manifest::columns).unwrap_or_default(),
        created_unix_ns: manifest.map_or(0, |manifest| manifest.created_unix_ns),
        state,
    }
}

fn out_of_generations(name: &str) -> Error {
    Error::Precondition {
        name: name.to_owned(),
        reason: "has had as many appends as there are generations (2^32)".into(),
    }
}
