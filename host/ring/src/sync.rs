//! The atomics facade: the standard library's types, or loom's under `--cfg loom`, so that the code which runs is the
//! code which is model-checked.
//!
//! Everything in this crate that one thread writes and another reads goes through here. Loom's `SeqCst` accesses are
//! modelled only as `AcqRel`, so the ring never relies on a `SeqCst` access: where a total order is needed there is a
//! `fence(SeqCst)`, which loom models.

#[cfg(loom)]
pub use loom::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    sync::{Condvar, Mutex, MutexGuard},
    thread::yield_now,
};
#[cfg(not(loom))]
pub use std::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    sync::{Condvar, Mutex, MutexGuard},
    thread::yield_now,
};

/// Locks, also where another thread has panicked while it held the lock: what our locks guard is consistent between any
/// two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A plain value that one thread at a time may touch, the hand-over being the ring's business. Loom watches it for
/// races.
#[repr(transparent)]
#[derive(Debug)]
pub struct SharedCell<T> {
    #[cfg(not(loom))]
    value: std::cell::UnsafeCell<T>,
    #[cfg(loom)]
    value: loom::cell::UnsafeCell<T>,
}

// SAFETY: the cell only hands out its value through `read` and `write`, whose callers promise that no other thread
// writes meanwhile; a value that moves between threads this way must be `Send`.
unsafe impl<T: Send> Sync for SharedCell<T> {}

impl<T: Copy> SharedCell<T> {
    /// A cell that holds `value`.
    pub fn new(value: T) -> Self {
        #[cfg(not(loom))]
        let value = std::cell::UnsafeCell::new(value);
        #[cfg(loom)]
        let value = loom::cell::UnsafeCell::new(value);
        Self { value }
    }

    /// Copies the value out.
    ///
    /// # Safety
    /// No other thread writes during the call, and the last write happened before it.
    pub unsafe fn read(&self) -> T {
        // SAFETY: the pointer comes from a live reference to the cell; the caller excludes a concurrent write.
        self.with(|value| unsafe { value.read() })
    }

    /// Puts `value` in.
    ///
    /// # Safety
    /// No other thread reads or writes during the call, and all earlier accesses happened before it.
    pub unsafe fn write(&self, value: T) {
        // SAFETY: the pointer comes from a live reference to the cell; the caller excludes every concurrent access.
        self.with_mut(|cell| unsafe { cell.write(value) });
    }

    /// Shows the value's address to `look`; loom counts the call as a read.
    pub fn with<R>(&self, look: impl FnOnce(*const T) -> R) -> R {
        #[cfg(not(loom))]
        return look(self.value.get());
        #[cfg(loom)]
        self.value.with(look)
    }

    /// Shows the value's address to `change`; loom counts the call as a write.
    pub fn with_mut<R>(&self, change: impl FnOnce(*mut T) -> R) -> R {
        #[cfg(not(loom))]
        return change(self.value.get());
        #[cfg(loom)]
        self.value.with_mut(change)
    }
}
