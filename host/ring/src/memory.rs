//! Where a ring's bytes live: anonymous memory of this process, a file that other processes map too, or whatever a
//! [`Backing`] brings.
//!
//! Promises: a [`Memory`] is aligned to 128 bytes at least, never moves, and lives until its last [`View`] is gone.
//! Fresh memory reads as zero and is touched lazily, so a large arena costs address space until it is used. Limits: a
//! file that someone truncates while it is mapped kills the process that touches the missing pages (SIGBUS), as with
//! every mapping; keep ring files where others cannot.

use std::{fmt, fs::OpenOptions, io, ops::Deref, path::Path, ptr::NonNull, sync::Arc};

use memmap2::{MmapOptions, MmapRaw};

use crate::{
    slot::{SLOT_BYTES, Slot},
    sync::{AtomicU64, Ordering, SharedCell},
};

/// A span of bytes that holds rings and arenas. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Memory {
    backing: Arc<dyn Backing>,
    writable: bool,
}

/// An owner of bytes that a [`Memory`] can be made of: page-locked memory of a CUDA context, for instance.
///
/// # Safety
/// `base` must stay the same for the owner's whole life, be aligned to [`SLOT_BYTES`], and be valid for `len` bytes of
/// reads (and, unless handed to [`Memory::read_only`], writes) from any thread until the owner is dropped. No Rust
/// reference to the bytes may exist.
pub unsafe trait Backing: fmt::Debug + Send + Sync {
    /// The first byte.
    fn base(&self) -> NonNull<u8>;
    /// How many bytes.
    fn len(&self) -> usize;
    /// True if there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why a [`Memory`] could not be had or divided.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// A memory of no bytes was asked for.
    #[error("a memory needs at least one byte")]
    Empty,
    /// The operating system refused.
    #[error("cannot map {what}: {source}")]
    Map {
        /// What was to be mapped.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The backing's address is not a multiple of 128.
    #[error("the memory is aligned to {align} bytes, a ring needs {SLOT_BYTES}")]
    Misaligned {
        /// The largest power of two that divides the address.
        align: usize,
    },
    /// The memory ends before the view would.
    #[error("the memory has {len} bytes, the layout needs {needed}")]
    TooSmall {
        /// Bytes there are.
        len: usize,
        /// Bytes asked for.
        needed: usize,
    },
    /// The view's offset does not suit its type.
    #[error("offset {offset} is not a multiple of {align}")]
    Offset {
        /// The offset asked for.
        offset: usize,
        /// The type's alignment.
        align: usize,
    },
}

impl Memory {
    /// Zeroed memory of this process alone, touched lazily.
    pub fn heap(len: usize) -> Result<Self, MemoryError> {
        let what = || format!("{len} anonymous bytes");
        Self::nonempty(len)?;
        let map = MmapOptions::new().len(len).map_anon().map_err(|source| MemoryError::Map { what: what(), source })?;
        Self::new(MmapRaw::from(map))
    }

    /// A file of `len` bytes, made or reset to zeros, mapped for reading and writing and shared with every process that
    /// maps it.
    pub fn create_file(path: &Path, len: usize) -> Result<Self, MemoryError> {
        Self::nonempty(len)?;
        let map = || {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
            file.set_len(len as u64)?;
            MmapOptions::new().len(len).map_raw(&file)
        };
        Self::new(map().map_err(|source| Self::refused(path, source))?)
    }

    /// A whole existing file, mapped for reading and writing.
    pub fn open_file(path: &Path) -> Result<Self, MemoryError> {
        let map = || MmapOptions::new().map_raw(&OpenOptions::new().read(true).write(true).open(path)?);
        Self::new(map().map_err(|source| Self::refused(path, source))?)
    }

    /// A whole existing file, mapped for reading: a store through a view of it would be a fault of the processor, so
    /// only types and code that never store may be laid over it ([`Memory::is_writable`]).
    pub fn open_file_read_only(path: &Path) -> Result<Self, MemoryError> {
        let map = || MmapOptions::new().map_raw_read_only(&OpenOptions::new().read(true).open(path)?);
        Self::read_only(map().map_err(|source| Self::refused(path, source))?)
    }

    /// Memory of another kind.
    pub fn new(backing: impl Backing + 'static) -> Result<Self, MemoryError> {
        Self::with(backing, true)
    }

    /// Memory of another kind that must not be stored to.
    pub fn read_only(backing: impl Backing + 'static) -> Result<Self, MemoryError> {
        Self::with(backing, false)
    }

    /// The first byte.
    pub fn base(&self) -> NonNull<u8> {
        self.backing.base()
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.backing.len()
    }

    /// Always false: an empty memory cannot be made.
    pub fn is_empty(&self) -> bool {
        self.backing.is_empty()
    }

    /// Whether stores are allowed.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Lays `count` values of `T` over the bytes from `offset` on. Views may overlap; what that means is up to who lays
    /// them.
    ///
    /// Under loom, whose types are not plain bytes, the view owns fresh zero values instead and two views share
    /// nothing.
    pub fn view<T: InMemory>(&self, offset: usize, count: usize) -> Result<View<T>, MemoryError> {
        if !offset.is_multiple_of(align_of::<T>()) || align_of::<T>() > SLOT_BYTES {
            return Err(MemoryError::Offset { offset, align: align_of::<T>() });
        }
        let needed = count.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(offset));
        match needed {
            Some(needed) if needed <= self.len() || cfg!(loom) => Ok(View::new(self, offset, count)),
            needed => Err(MemoryError::TooSmall { len: self.len(), needed: needed.unwrap_or(usize::MAX) }),
        }
    }

    fn with(backing: impl Backing + 'static, writable: bool) -> Result<Self, MemoryError> {
        Self::nonempty(backing.len())?;
        let align = 1 << backing.base().addr().trailing_zeros();
        if align < SLOT_BYTES {
            return Err(MemoryError::Misaligned { align });
        }
        Ok(Self { backing: Arc::new(backing), writable })
    }

    fn nonempty(len: usize) -> Result<(), MemoryError> {
        if len == 0 { Err(MemoryError::Empty) } else { Ok(()) }
    }

    fn refused(path: &Path, source: io::Error) -> MemoryError {
        MemoryError::Map { what: path.display().to_string(), source }
    }
}

// SAFETY: a mapping has one address from `map` to `munmap` in its drop, is aligned to a page (4,096 or more), and holds
// `len` bytes with the protection it was made with; a `MmapRaw` gives no reference to them.
unsafe impl Backing for MmapRaw {
    fn base(&self) -> NonNull<u8> {
        NonNull::new(self.as_mut_ptr()).expect("a mapping never lies at address zero")
    }

    fn len(&self) -> usize {
        MmapRaw::len(self)
    }
}

/// A type that can be laid over shared bytes.
///
/// # Safety
/// Every bit pattern must be a valid value, zero included; the type must need no drop; and all its mutation must go
/// through atomics or cells, since other threads, processes or devices write the same bytes.
pub unsafe trait InMemory: Sync {
    /// The value of all zero bytes.
    fn zero() -> Self;
}

/// Two cache lines that belong to one writer: a head, a tail, a heartbeat, the control words or a device's report.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Line {
    /// The word that the line is named after; the only one of a head or a tail.
    pub word: AtomicU64,
    /// The rest of the line, for lines that say more than one thing. Each word is single; two of them may be seen in
    /// any order.
    pub more: [AtomicU64; LINE_WORDS - 1],
}

/// Words of a [`Line`].
pub const LINE_WORDS: usize = SLOT_BYTES / 8;

#[cfg(not(loom))]
const _: () = assert!(size_of::<Line>() == SLOT_BYTES && align_of::<Line>() == SLOT_BYTES);

impl Line {
    /// Stores zero to every word.
    pub fn clear(&self) {
        self.word.store(0, Ordering::Relaxed);
        self.more.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
}

// SAFETY: an atomic integer has no invalid pattern and no drop, and is made for concurrent mutation; a line is sixteen
// of them.
unsafe impl InMemory for Line {
    fn zero() -> Self {
        Self { word: AtomicU64::new(0), more: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

// SAFETY: as for `Line`.
unsafe impl InMemory for AtomicU64 {
    fn zero() -> Self {
        Self::new(0)
    }
}

// SAFETY: `Slot` is `Pod`, so every pattern is valid and there is no drop; the cell is transparent and its accesses are
// guarded by the unsafe contract of `SharedCell`.
unsafe impl InMemory for SharedCell<Slot> {
    fn zero() -> Self {
        Self::new(bytemuck::Zeroable::zeroed())
    }
}

/// Values of one type laid over a [`Memory`], which they keep alive.
#[derive(Debug)]
pub struct View<T: InMemory> {
    #[cfg(not(loom))]
    values: NonNull<[T]>,
    #[cfg(not(loom))]
    _memory: Memory,
    #[cfg(loom)]
    values: Box<[T]>,
}

// SAFETY: a view only gives `&T`; `InMemory` requires `Sync`, so sharing the values between threads, and therefore
// moving or sharing the view, is sound. The memory behind them is `Send` and `Sync`.
unsafe impl<T: InMemory> Send for View<T> {}
// SAFETY: as for `Send`.
unsafe impl<T: InMemory> Sync for View<T> {}

#[cfg(not(loom))]
impl<T: InMemory> View<T> {
    /// The caller has checked alignment and bounds.
    fn new(memory: &Memory, offset: usize, count: usize) -> Self {
        // SAFETY: `offset` lies within the memory (checked in `Memory::view`), which is one allocation.
        let first = unsafe { memory.base().byte_add(offset) }.cast::<T>();
        Self { values: NonNull::slice_from_raw_parts(first, count), _memory: memory.clone() }
    }
}

#[cfg(not(loom))]
impl<T: InMemory> Deref for View<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the span was checked against the memory's bounds and alignment, the memory is kept alive by
        // `_memory`, every pattern is a valid `T`, and `T` mutates only through atomics and cells, so shared references
        // are right whoever else writes.
        unsafe { self.values.as_ref() }
    }
}

#[cfg(loom)]
impl<T: InMemory> View<T> {
    fn new(_memory: &Memory, _offset: usize, count: usize) -> Self {
        Self { values: (0..count).map(|_| T::zero()).collect() }
    }
}

#[cfg(loom)]
impl<T: InMemory> Deref for View<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values
    }
}
