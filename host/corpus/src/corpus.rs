//! One corpus of a store: its current version, and how rows become part of it.

use std::any::Any;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use megaring_core::corpus::CorpusTable;
use megaring_core::{Error, RowType};

use crate::append::{Appended, Mode};
use crate::change::{Change, Deleted, Replaced};
use crate::columns::MEMORY_ID;
use crate::compact::Compactor;
use crate::derived::DerivedPart;
use crate::description::{Description, State, describe};
use crate::durable::{storage, sync_folder};
use crate::fault::Fault;
use crate::ids::{IdSet, TextSet};
use crate::load::{cache_path, derive, has_changed, last_number, load, stored};
use crate::lock::Lock;
use crate::manifest::{self, Log, SegmentEntry, segment_file};
use crate::piece::{Kept, Piece};
use crate::rows::Rows;
use crate::segment::SegmentFile;
use crate::segment_writer::Written;
use crate::select::Selections;
use crate::text_ids::TextIds;
use crate::version::{Content, Version};

mod delete;
mod merge;

/// What opening a store means for each of its corpora.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Whether files may be written and leftovers removed.
    pub(crate) writable: bool,
    /// Largest file whose checksum is compared when it is opened.
    pub(crate) check_bytes: u64,
    /// See [`crate::OpenOptions::small_bytes`].
    pub(crate) small_bytes: u64,
}

/// A corpus of an open store.
pub(crate) struct Corpus {
    name: String,
    folder: PathBuf,
    handle: u32,
    settings: Settings,
    table: Arc<CorpusTable>,
    selections: Arc<Selections>,
    compactor: Arc<Compactor>,
    condition: RwLock<Condition>,
    /// The number of the next segment file.
    next_file: AtomicU64,
    /// Held while a version is replaced.
    commits: Mutex<Commits>,
    /// Held while segments are merged, or must not be.
    merges: Mutex<()>,
    /// Whether the compactor is to look after it.
    pub(crate) is_queued: AtomicBool,
    /// Rows that it had when merging failed, if it did: it is tried again when there are some more.
    pub(crate) unmerged_rows: AtomicUsize,
    /// Whether a sync has failed: what is in memory may not be on the disk.
    rests: AtomicBool,
    /// Whoever holds a corpus may write to the folder.
    _lock: Option<Arc<Lock>>,
}

/// What a commit needs besides the version.
#[derive(Default)]
pub(crate) struct Commits {
    /// Opened by the first commit.
    log: Option<Log>,
    /// While a merge is under way: what was committed since it began.
    since: Option<Vec<Change>>,
}

/// The right to replace the version, held by one at a time.
struct Turn<'a> {
    commits: MutexGuard<'a, Commits>,
    /// What nobody else may have any more. It is dropped once the turn is over: there may be much of it.
    gone: Vec<Box<dyn Any>>,
}

#[derive(Clone)]
enum Condition {
    Ready(Arc<Version>),
    Faulty(Arc<Loss>),
    Dropped,
}

/// Why a corpus cannot be used, and as much as is known of it.
pub(crate) struct Loss {
    pub(crate) file: String,
    pub(crate) reason: String,
    pub(crate) known: Option<Description>,
    /// Where nothing is lost, and the system has no room for reading it: when that was.
    limit_met: Option<Instant>,
}

impl Loss {
    pub(crate) fn of(file: &str, fault: &Fault, known: Option<Description>) -> Self {
        let limit_met = fault.is_limit.then(Instant::now);
        Self { file: file.to_owned(), reason: fault.to_string(), known, limit_met }
    }
}

/// How long what met a limit of the system is not tried anew.
const PATIENCE: Duration = Duration::from_millis(500);

impl Corpus {
    /// Loads the corpus in `folder`. A fault is kept, not returned: the store goes on with the others.
    pub(crate) fn load(
        folder: PathBuf,
        name: String,
        handle: u32,
        settings: Settings,
        (table, selections): (Arc<CorpusTable>, Arc<Selections>),
        compactor: Arc<Compactor>,
        lock: Option<Arc<Lock>>,
    ) -> Self {
        let condition = match load(&folder, &name, handle, &settings) {
            Ok(version) => {
                table.register(&version.view);
                Condition::Ready(Arc::new(version))
            }
            Err(loss) => Condition::Faulty(loss),
        };
        let next_file = AtomicU64::new(last_number(&folder) + 1);
        let (condition, commits) = (RwLock::new(condition), Mutex::default());
        Self {
            name,
            folder,
            handle,
            settings,
            table,
            selections,
            compactor,
            condition,
            next_file,
            commits,
            merges: Mutex::default(),
            is_queued: AtomicBool::default(),
            unmerged_rows: AtomicUsize::default(),
            rests: AtomicBool::default(),
            _lock: lock,
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn small_bytes(&self) -> usize {
        usize::try_from(self.settings.small_bytes).unwrap_or(usize::MAX)
    }

    /// The current version, or why there is none.
    pub(crate) fn version(&self) -> Result<Arc<Version>, Error> {
        match self.condition() {
            Condition::Ready(version) => Ok(version),
            Condition::Faulty(loss) if loss.limit_met.is_some() => {
                Err(Error::Storage(format!("corpus {:?}: {} {}", self.name, loss.file, loss.reason)))
            }
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
            Condition::Ready(version) => describe(&version),
            Condition::Faulty(loss) => {
                let state = State::Faulty { segment: loss.file.clone(), reason: loss.reason.clone() };
                let nothing = || Description::of_nothing(&self.name);
                Description { state, ..loss.known.clone().unwrap_or_else(nothing) }
            }
            Condition::Dropped => Description::of_nothing(&self.name),
        }
    }

    /// Makes few rows part of the corpus, by way of the log.
    pub(crate) fn commit_rows(&self, mut rows: Rows, mode: Mode) -> Result<Appended, Error> {
        let mut turn = self.turn();
        let version = self.version()?;
        let (row_type, total) = (version.view.row_type(), version.view.rows());
        let count = rows.len();
        if count == 0 {
            return Ok(version.appended(0, 0));
        }
        check_row_count(total, count)?;
        let numbered = rows.memory_ids.is_empty();
        if numbered {
            rows.memory_ids = (first_id(&version, count)?..).take(count).collect();
        }
        let internal = |error: String| Error::Internal(format!("rows that were taken: {error}"));
        let batch = rows.into_batch_of(row_type).map_err(|error| internal(error.to_string()))?;
        let kept = Kept::new(batch, row_type).map_err(|fault| internal(fault.to_string()))?;
        let replaced = if numbered {
            Replaced::default()
        } else {
            let ids = kept.new_ids(version.opening.id_column.as_deref());
            Replaced::by(&ids.map_err(|fault| internal(fault.to_string()))?, &version, mode)?
        };
        let change = Change { deleted: replaced.rows, added: Some(Piece::Kept(Arc::new(kept))) };
        let now = self.change(&mut turn, &version, change)?;
        Ok(now.appended(count - replaced.again, replaced.before))
    }

    /// Makes a whole, checked segment file part of the corpus. On an error nothing of it is kept.
    pub(crate) fn commit_file(&self, written: Written, mode: Mode) -> Result<Appended, Error> {
        let row_type = self.version()?.view.row_type();
        let (named, mut file, mut entry) = self.name_file(written, row_type)?;
        let rows = file.rows();
        let derived = self.derive(&file, &entry, row_type);
        let mut turn = self.turn();
        let version = self.version()?;
        check_row_count(version.view.rows(), rows)?;
        let replaced = if file.has_ids() {
            let ids = file.new_ids(version.opening.id_column.as_deref());
            let unreadable = |fault| Error::Internal(format!("a segment just written, {}, {fault}", entry.file));
            Replaced::by(&ids.map_err(unreadable)?, &version, mode)?
        } else if mode == Mode::Upsert {
            return Err(Error::field(MEMORY_ID, "rows that take the place of others need ids"));
        } else {
            let first_id = first_id(&version, rows)?;
            file.number(first_id);
            entry.first_id = Some(first_id);
            Replaced::default()
        };
        let change = Change { deleted: replaced.rows, added: Some(stored(file, entry, derived, row_type)) };
        match self.change(&mut turn, &version, change) {
            Ok(now) => {
                named.keep();
                Ok(now.appended(rows - replaced.again, replaced.before))
            }
            Err(error) => {
                // Where nobody knows whether the record lasts, its file must; else the next open sweeps it.
                if self.version().is_err() {
                    named.keep();
                }
                Err(error)
            }
        }
    }

    /// Deletes the rows that have one of these ids, or text ids.
    pub(crate) fn delete(&self, ids: &[u64], texts: &[String]) -> Result<Deleted, Error> {
        let wanted = IdSet::new(ids);
        let wanted_texts = TextSet::new(texts.iter().map(String::as_str));
        let mut turn = self.turn();
        let version = self.version()?;
        let mut rows = wanted.rows_of(&version.view);
        let found: Vec<u64> = rows.iter().map(|row| version.view.label(row).0).collect();
        let found = IdSet::new(&found);
        let missing = wanted.ids().iter().copied().filter(|id| !found.contains(*id)).collect();
        let mut missing_texts = Vec::new();
        if !texts.is_empty() {
            let known = TextIds::asked_for(&version.view, "text_ids")?;
            let by_text = wanted_texts.rows_of(&version.view, &known);
            let found = TextSet::new(by_text.iter().filter_map(|row| known.get(row)));
            let missing = wanted_texts.texts().into_iter().filter(|text| !found.contains(text));
            missing_texts = missing.map(str::to_owned).collect();
            rows |= by_text;
        }
        let count = rows.len() as usize;
        let now = match count {
            0 => version,
            _ => self.change(&mut turn, &version, Change { deleted: rows, added: None })?,
        };
        let (total_rows, generation) = (now.view.visible_rows(), now.view.generation());
        Ok(Deleted { rows: count, missing, missing_texts, total_rows, generation })
    }

    /// Gives a written segment its name, and reads its structure.
    pub(crate) fn name_file(
        &self,
        written: Written,
        row_type: RowType,
    ) -> Result<(NamedFile<'_>, SegmentFile, SegmentEntry), Error> {
        let Written { file: temporary, bytes, crc32 } = written;
        // Relaxed: nothing but the number is shared.
        let file = segment_file(self.next_file.fetch_add(1, Ordering::Relaxed));
        let path = self.folder.join(&file);
        let refused = |error| self.version().err().unwrap_or_else(|| storage("cannot write", &path)(error));
        temporary.sync().map_err(refused)?;
        let named = {
            // The folder of a corpus that was dropped may be another one's by now.
            let _turn = self.turn();
            self.version()?;
            temporary.put(&path).map_err(refused)?;
            NamedFile { corpus: self, path: Some(path.clone()) }
        };
        sync_folder(&self.folder).map_err(storage("cannot sync", &self.folder))?;
        let found =
            SegmentFile::map(&path, row_type, self.settings.small_bytes).map_err(|fault| match fault.is_limit {
                true => Error::Storage(format!("{} {fault}", path.display())),
                false => Error::Internal(format!("a segment just written to {} {fault}", path.display())),
            })?;
        let (rows, columns) = (found.rows() as u64, found.columns());
        Ok((named, found, SegmentEntry { file, rows, bytes, crc32, columns, first_id: None }))
    }

    pub(crate) fn derive(&self, file: &SegmentFile, entry: &SegmentEntry, row_type: RowType) -> Vec<DerivedPart> {
        derive(&self.folder, file, entry, row_type, &self.settings)
    }

    /// Writes a change into the log, and makes the version that has it. Where nobody knows whether the record lasts,
    /// the corpus rests.
    fn change(&self, turn: &mut Turn<'_>, version: &Version, change: Change) -> Result<Arc<Version>, Error> {
        if version.view.generation() == u32::MAX {
            return Err(out_of_generations(&self.name));
        }
        let path = self.folder.join(manifest::FILE);
        let logged = change.logged()?;
        let log = match &mut turn.commits.log {
            Some(log) => log,
            none => none.insert(Log::open(&self.folder, version.log_len).map_err(storage("cannot open", &path))?),
        };
        match log.append(&logged) {
            Ok(()) => {}
            Err((error, false)) => return Err(storage("cannot write", &path)(error)),
            Err((error, true)) => return Err(self.lose_track(turn, version, &error)),
        }
        if let Some(since) = &mut turn.commits.since {
            since.push(change.clone());
        }
        let (mut pieces, mut deleted) = (version.pieces.clone(), version.deleted.clone());
        change.apply(&mut pieces, &mut deleted, version.view.row_type());
        let content = Content { opening: version.opening.clone(), pieces, deleted };
        Ok(self.install(turn, content, version.view.generation() + 1, version))
    }

    /// Does something with the files of the current version, which stay meanwhile. A reader has no say in what another
    /// process merges: it begins anew with the version that is there by then.
    pub(crate) fn read_files<T>(&self, read: impl Fn(&Version) -> Result<T, Error>) -> Result<T, Error> {
        let _unmerged = self.merging();
        let mut tries = 0;
        loop {
            let version = self.version()?;
            let done = read(&version);
            let is_over = done.is_ok() || self.settings.writable || tries == 100;
            if is_over || !has_changed(&self.folder, &self.name, version.view.generation()) {
                return done;
            }
            tries += 1;
            self.reload();
        }
    }

    /// Removes a segment file and its cache. What cannot be removed now is swept at the next open.
    pub(crate) fn remove_segment(&self, path: &Path) {
        // The folder of a corpus that was dropped may be another one's by now.
        let _turn = self.turn();
        if !matches!(self.condition(), Condition::Dropped) {
            let _ = fs::remove_file(path);
            let _ = fs::remove_file(cache_path(path));
        }
    }

    /// Has small segments merged soon, where that is worth it.
    pub(crate) fn merge_soon(self: Arc<Self>) {
        let compactor = self.compactor.clone();
        compactor.ask(self);
    }

    /// Reads everything from disk again, for instance after a check found a fault.
    pub(crate) fn reload(&self) {
        let mut turn = self.turn();
        if matches!(self.condition(), Condition::Dropped) || self.rests.load(Ordering::Relaxed) {
            return;
        }
        let condition = match load(&self.folder, &self.name, self.handle, &self.settings) {
            Ok(version) => {
                self.table.register(&version.view);
                Condition::Ready(Arc::new(version))
            }
            Err(loss) => Condition::Faulty(loss),
        };
        *turn.commits = Commits::default();
        self.set(&mut turn, condition);
    }

    /// Tries anew to read what a limit of the system kept from being read.
    pub(crate) fn retry(&self) {
        let is_due = |loss: &Loss| loss.limit_met.is_some_and(|met| met.elapsed() >= PATIENCE);
        if matches!(self.condition(), Condition::Faulty(loss) if is_due(&loss)) {
            self.reload();
        }
    }

    /// Marks the corpus as unusable because of one file.
    pub(crate) fn set_faulty(&self, file: &str, reason: &str) {
        let mut turn = self.turn();
        if matches!(self.condition(), Condition::Dropped) {
            return;
        }
        let known = Some(self.describe());
        let loss = Loss::of(file, &Fault::file(reason), known);
        self.set(&mut turn, Condition::Faulty(Arc::new(loss)));
    }

    /// Ends the corpus: moves its folder to `grave` and forgets the version. Views in use stay valid.
    pub(crate) fn bury(&self, grave: &Path) -> Result<(), Error> {
        let mut turn = self.turn();
        // Some systems do not move a folder in which a file is open.
        *turn.commits = Commits::default();
        fs::rename(&self.folder, grave).map_err(storage("cannot remove", &self.folder))?;
        self.set(&mut turn, Condition::Dropped);
        Ok(())
    }

    /// `before`: see [`Version::new`].
    fn install(&self, turn: &mut Turn<'_>, content: Content, generation: u32, before: &Version) -> Arc<Version> {
        let log_len = turn.commits.log.as_ref().map_or(0, Log::len);
        let version = Arc::new(Version::new(content, self.handle, generation, log_len, Some(before)));
        self.table.register(&version.view);
        self.set(turn, Condition::Ready(version.clone()));
        version
    }

    /// After a failed sync nobody knows what the disk has: the corpus rests until the store is opened again.
    fn lose_track(&self, turn: &mut Turn<'_>, version: &Version, error: &std::io::Error) -> Error {
        self.rests.store(true, Ordering::Relaxed);
        let reason = format!("it could not be synced ({error}); open the store again");
        let loss = Loss::of(manifest::FILE, &Fault::file(&*reason), Some(describe(version)));
        self.set(turn, Condition::Faulty(Arc::new(loss)));
        Error::Storage(format!("corpus {:?}: {reason}", self.name))
    }

    fn turn(&self) -> Turn<'_> {
        Turn { commits: self.commits.lock().unwrap_or_else(PoisonError::into_inner), gone: Vec::new() }
    }

    fn condition(&self) -> Condition {
        self.condition.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, turn: &mut Turn<'_>, condition: Condition) {
        let mut now = self.condition.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *now, condition);
        drop(now);
        turn.gone.push(Box::new((before, self.selections.forget(&self.name))));
    }
}

/// A segment file that is removed again, with its cache, unless it is kept.
pub(crate) struct NamedFile<'a> {
    corpus: &'a Corpus,
    path: Option<PathBuf>,
}

impl NamedFile<'_> {
    pub(crate) fn keep(mut self) {
        self.path = None;
    }
}

impl Drop for NamedFile<'_> {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            self.corpus.remove_segment(path);
        }
    }
}

/// The id of the first of `rows` rows that come without ids.
fn first_id(version: &Version, rows: usize) -> Result<u64, Error> {
    let fits = |first: &u64| first.checked_add(rows as u64).is_some();
    let none = || Error::field(MEMORY_ID, "no larger ids are left to be given; send ids");
    version.next_id().filter(fits).ok_or_else(none)
}

/// Whether `rows` more rows fit a corpus of `have`.
pub(crate) fn check_row_count(have: usize, rows: usize) -> Result<(), Error> {
    if have as u64 + rows as u64 <= u64::from(u32::MAX) {
        return Ok(());
    }
    Err(Error::field("rows", format!("{rows} rows more than {have} are over the limit of {}", u32::MAX)))
}

fn out_of_generations(name: &str) -> Error {
    Error::Precondition {
        name: name.to_owned(),
        reason: "has had as many changes as there are generations (2^32)".into(),
    }
}
