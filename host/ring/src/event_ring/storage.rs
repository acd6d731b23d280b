//! Where an event ring lies: a header page and the slots, in this process's memory or in a file.
//!
//! | bytes | holds |
//! |---|---|
//! | 0..8 | `MEGAEVTR` |
//! | 8..16 | version of this layout and of the slot (low half), bytes of a slot (high half) |
//! | 16..24 | capacity in slots, a power of two |
//! | 24..32 | the first position |
//! | 128..136 | cursor: the next position that a producer will claim |
//! | 256..264 | 1 once the ring is closed |
//! | 4096.. | the slots |
//!
//! A slot of nothing but ones holds no event: readers count its position as lost.
//!
//! A file appears under its name only when it is complete (it is written beside it and renamed), so one that can be
//! opened is valid or was damaged later, and whoever still maps an older ring of that name keeps the old one. Its
//! blocks are written once before it is mapped: a full disk is an error at creation, not a SIGBUS at some later event.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
};

use super::{EventRingError, event::EVENT_WORDS, protocol};
use crate::{
    memory::{InMemory, Line, Memory, View},
    slot::SLOT_BYTES,
    sync::{AtomicU64, Ordering},
};

/// Version of the file's header and of the slots behind it.
pub(super) const VERSION: u32 = 1;
const MAGIC: u64 = u64::from_le_bytes(*b"MEGAEVTR");
const HEADER_BYTES: usize = 4096;

type EventSlot = protocol::SharedSlot<EVENT_WORDS>;

#[derive(Debug)]
#[repr(C, align(128))]
struct Header {
    magic: AtomicU64,
    version_and_slot: AtomicU64,
    capacity: AtomicU64,
    start: AtomicU64,
    cursor: Line,
    closed: Line,
}

// SAFETY: the header is atomic words and padding, so every bit pattern is one, there is no drop, and all mutation is
// atomic.
unsafe impl InMemory for Header {
    fn zero() -> Self {
        let word = || AtomicU64::new(0);
        let [cursor, closed] = [Line::zero(), Line::zero()];
        Self { magic: word(), version_and_slot: word(), capacity: word(), start: word(), cursor, closed }
    }
}

/// A header and its slots, mapped. The capacity and the first position are those of the moment it was made, whatever a
/// file says later.
#[derive(Debug)]
pub(super) struct Storage {
    header: View<Header>,
    slots: View<EventSlot>,
    start: u64,
}

impl Storage {
    /// A fresh ring in this process's memory.
    pub(super) fn heap(capacity: usize, start: u64) -> Result<Self, EventRingError> {
        Self::fresh(&Memory::heap(bytes(capacity)?)?, capacity, start)
    }

    /// A fresh ring in a file, which replaces whatever has that name.
    pub(super) fn create(path: &Path, capacity: usize, start: u64) -> Result<Self, EventRingError> {
        let len = bytes(capacity)?;
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(format!(".{}.new", std::process::id()));
        let unfinished = Path::new(&unfinished);
        let made = (|| {
            write_zeros(unfinished, len).map_err(|source| EventRingError::file(unfinished, source))?;
            let storage = Self::fresh(&Memory::open_file(unfinished)?, capacity, start)?;
            fs::rename(unfinished, path).map_err(|source| EventRingError::file(path, source))?;
            Ok(storage)
        })();
        if made.is_err() {
            // The first error says what is wrong; a leftover that cannot be removed either adds nothing.
            let _ = fs::remove_file(unfinished);
        }
        made
    }

    /// An existing file, for reading alone.
    pub(super) fn open(path: &Path) -> Result<Self, EventRingError> {
        let found = fs::metadata(path).map_err(|source| EventRingError::file(path, source))?.len();
        if found < HEADER_BYTES as u64 {
            return Err(EventRingError::Truncated { found, needed: HEADER_BYTES as u64 });
        }
        let memory = Memory::open_file_read_only(path)?;
        let header = memory.view::<Header>(0, 1)?;
        let capacity = header[0].validate(memory.len() as u64)?;
        let start = header[0].start.load(Ordering::Relaxed);
        Ok(Self { header, slots: memory.view(HEADER_BYTES, capacity)?, start })
    }

    /// The ring's first position.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Set to 1 when no more events will come.
    pub(super) fn closed(&self) -> &AtomicU64 {
        &self.header[0].closed.word
    }

    /// The slots and their cursor.
    #[inline]
    pub(super) fn track(&self) -> protocol::Track<'_, EVENT_WORDS> {
        protocol::Track { cursor: &self.header[0].cursor.word, slots: &self.slots }
    }

    fn fresh(memory: &Memory, capacity: usize, start: u64) -> Result<Self, EventRingError> {
        let header = memory.view::<Header>(0, 1)?;
        let slots = memory.view::<EventSlot>(HEADER_BYTES, capacity)?;
        for (index, slot) in slots.iter().enumerate() {
            slot.reset(protocol::first_sequence(start, capacity, index));
        }
        let Header { magic, version_and_slot, capacity: slots_held, start: first, cursor, closed: _ } = &header[0];
        slots_held.store(capacity as u64, Ordering::Relaxed);
        first.store(start, Ordering::Relaxed);
        cursor.word.store(start, Ordering::Relaxed);
        version_and_slot.store(VERSION as u64 | (SLOT_BYTES as u64) << 32, Ordering::Relaxed);
        magic.store(MAGIC, Ordering::Relaxed);
        Ok(Self { header, slots, start })
    }
}

impl Header {
    /// The capacity, if this is the header of a ring that fills a file of `found` bytes.
    fn validate(&self, found: u64) -> Result<usize, EventRingError> {
        if self.magic.load(Ordering::Relaxed) != MAGIC {
            return Err(EventRingError::NotAnEventRing);
        }
        let version_and_slot = self.version_and_slot.load(Ordering::Relaxed);
        if version_and_slot as u32 != VERSION {
            return Err(EventRingError::Version { found: version_and_slot as u32 });
        }
        if version_and_slot >> 32 != SLOT_BYTES as u64 {
            return Err(EventRingError::SlotSize { found: (version_and_slot >> 32) as u32 });
        }
        let capacity = self.capacity.load(Ordering::Relaxed) as usize;
        let needed = bytes(capacity)? as u64;
        if found != needed {
            return Err(EventRingError::Truncated { found, needed });
        }
        Ok(capacity)
    }
}

/// Bytes of a ring of `capacity` slots with its header.
fn bytes(capacity: usize) -> Result<usize, EventRingError> {
    let fits = capacity.is_power_of_two() && capacity >= 2;
    let slots = capacity.checked_mul(SLOT_BYTES).and_then(|slots| slots.checked_add(HEADER_BYTES));
    slots.filter(|bytes| fits && *bytes <= isize::MAX as usize).ok_or(EventRingError::Capacity(capacity))
}

fn write_zeros(path: &Path, len: usize) -> io::Result<()> {
    // A leftover of a process that had this id and died half-way is nobody's.
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    let zeros = [0; HEADER_BYTES];
    for _ in 0..len / HEADER_BYTES {
        file.write_all(&zeros)?;
    }
    file.write_all(&zeros[..len % HEADER_BYTES])
}

#[cfg(not(loom))]
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<EventSlot>() == SLOT_BYTES && align_of::<EventSlot>() == SLOT_BYTES);
    assert!(offset_of!(Header, cursor) == 128 && offset_of!(Header, closed) == 256);
    assert!(offset_of!(Header, version_and_slot) == 8 && offset_of!(Header, capacity) == 16);
    assert!(offset_of!(Header, start) == 24 && size_of::<Header>() <= HEADER_BYTES);
};
