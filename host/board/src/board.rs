//! The two ends of a board: [`Board`], which writes, and [`BoardView`], which another process reads.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use megaring_ring::memory::{Memory, MemoryError};
use megaring_ring::sync::Ordering;

use crate::health::{FIELDS, Health};
use crate::page::{MAGIC, PAGE_BYTES, Page, VERSION, at, nanos, unix_now};
use crate::seqlock;

/// Why there is no board.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BoardError {
    /// The file could not be opened, made or locked.
    #[error("board file {}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process writes it.
    #[error("board file {}: another process writes it", path.display())]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{} is no board: {reason}", path.display())]
    NotABoard {
        /// Which file.
        path: PathBuf,
        /// What it lacks.
        reason: String,
    },
    /// The file is of another version.
    #[error("board file {}: its layout has version {found}, this program reads version {VERSION}", path.display())]
    Version {
        /// Which file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
    },
    /// The memory could not be had.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A board that this process writes.
#[derive(Debug)]
pub struct Board {
    page: Page,
    clock: Instant,
    is_published: AtomicBool,
    /// Of a board in a file; held as long as this lives.
    lock: Option<File>,
}

/// Writes a board's health and heartbeat; there is one at a time.
#[derive(Debug)]
pub struct Publisher {
    board: Arc<Board>,
}

/// Another process's board, or what it left behind.
#[derive(Debug)]
pub struct BoardView {
    page: Page,
}

impl Board {
    /// A board that nobody else sees.
    ///
    /// # Errors
    /// [`BoardError::Memory`].
    pub fn in_memory() -> Result<Arc<Self>, BoardError> {
        Self::begin(&Memory::heap(PAGE_BYTES)?, None)
    }

    /// A board in a file, which is made where it is not there. What an earlier writer left in it is forgotten; whoever
    /// maps it sees the new one.
    ///
    /// # Errors
    /// [`BoardError::InUse`] while another process, or another board of this one, writes it;
    /// [`BoardError::NotABoard`] for a file that is something else, which is left as it is; [`BoardError::File`].
    pub fn create(path: &Path) -> Result<Arc<Self>, BoardError> {
        let refused = |source| BoardError::File { path: path.to_owned(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(refused)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BoardError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(refused(source)),
        }
        match file.metadata().map_err(refused)?.len() {
            // Written, and not only made longer: a full disk shows here, and not as a fault at some later store.
            0 => file.write_all(&[0; PAGE_BYTES]).map_err(refused)?,
            _ => {
                let found = Memory::open_file_read_only(path)?;
                let is_blank =
                    found.len() == PAGE_BYTES && Page::over(&found)?.word(at::MAGIC).load(Ordering::Relaxed) == 0;
                match validate(&found, path) {
                    // What an earlier version left behind is as good as nothing.
                    Ok(()) | Err(BoardError::Version { .. }) => {}
                    Err(_) if is_blank => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Self::begin(&Memory::open_file(path)?, Some(file))
    }

    fn begin(memory: &Memory, lock: Option<File>) -> Result<Arc<Self>, BoardError> {
        let page = Page::over(memory)?;
        // Whoever looks now takes it for a writer that has ended. The sequence goes on, so that nobody takes the health
        // of before for one from after.
        page.word(at::HEARTBEAT).store(0, Ordering::Release);
        for word in (0..at::WORDS).filter(|word| ![at::MAGIC, at::VERSION_AND_BYTES, at::SEQUENCE].contains(word)) {
            page.word(word).store(0, Ordering::Relaxed);
        }
        let board = Self { page, clock: Instant::now(), is_published: AtomicBool::new(false), lock };
        board.write(Health::default());
        let store = |at: usize, value| board.page.word(at).store(value, Ordering::Relaxed);
        store(at::VERSION_AND_BYTES, u64::from(VERSION) | (PAGE_BYTES as u64) << 32);
        store(at::PID, u64::from(std::process::id()));
        store(at::STARTED, nanos(unix_now()));
        board.page.word(at::MAGIC).store(MAGIC, Ordering::Release);
        board.beat();
        Ok(Arc::new(board))
    }

    /// Nanoseconds since the board began: the clock of breakers and counters.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        nanos(self.clock.elapsed())
    }

    /// What writes health and heartbeat; `None` while there is one already.
    #[must_use]
    pub fn publisher(self: &Arc<Self>) -> Option<Publisher> {
        let is_first = !self.is_published.swap(true, std::sync::atomic::Ordering::AcqRel);
        is_first.then(|| Publisher { board: self.clone() })
    }

    fn beat(&self) {
        self.page.word(at::CLOCK).store(self.now_ns(), Ordering::Relaxed);
        self.page.word(at::HEARTBEAT).store(nanos(unix_now()).max(1), Ordering::Release);
    }

    fn write(&self, health: Health) {
        let words = &self.page.words()[at::HEALTH..at::HEALTH + FIELDS.len()];
        seqlock::write::<seqlock::Sound, _>(self.page.word(at::SEQUENCE), words, health.values().map(f64::to_bits));
    }
}

impl Publisher {
    /// Shows how the service is, and that it lives.
    pub fn publish(&mut self, health: Health) {
        self.board.write(health);
        self.board.beat();
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.board.is_published.store(false, std::sync::atomic::Ordering::Release);
    }
}

impl Deref for Board {
    type Target = Page;

    fn deref(&self) -> &Page {
        &self.page
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.page.word(at::HEARTBEAT).store(0, Ordering::Release);
        if let Some(lock) = &self.lock {
            // Closing would do, were it not for a process being started meanwhile, which holds a copy of the file until
            // it runs.
            let _ = lock.unlock();
        }
    }
}

impl BoardView {
    /// Maps a board for reading.
    ///
    /// # Errors
    /// [`BoardError::File`], [`BoardError::NotABoard`] and [`BoardError::Version`].
    pub fn open(path: &Path) -> Result<Self, BoardError> {
        // For a message that says what is wrong with the path alone.
        File::open(path).map_err(|source| BoardError::File { path: path.to_owned(), source })?;
        let memory = Memory::open_file_read_only(path).map_err(|error| match error {
            MemoryError::Empty => BoardError::NotABoard { path: path.to_owned(), reason: "it is empty".into() },
            error => error.into(),
        })?;
        validate(&memory, path)?;
        Ok(Self { page: Page::over(&memory)? })
    }
}

impl Deref for BoardView {
    type Target = Page;

    fn deref(&self) -> &Page {
        &self.page
    }
}

/// Whether a file is a board of this version.
fn validate(memory: &Memory, path: &Path) -> Result<(), BoardError> {
    let no_board = |reason: String| Err(BoardError::NotABoard { path: path.to_owned(), reason });
    if memory.len() != PAGE_BYTES {
        return no_board(format!("it has {} bytes and not {PAGE_BYTES}", memory.len()));
    }
    let page = Page::over(memory)?;
    if page.word(at::MAGIC).load(Ordering::Acquire) != MAGIC {
        return no_board("it does not begin with MEGABORD".into());
    }
    let found = page.word(at::VERSION_AND_BYTES).load(Ordering::Relaxed);
    if found != u64::from(VERSION) | (PAGE_BYTES as u64) << 32 {
        return Err(BoardError::Version { path: path.to_owned(), found: found as u32 });
    }
    Ok(())
}
