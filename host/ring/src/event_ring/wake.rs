//! How a publisher wakes consumers that await, at the cost of one fence and one load while nobody does.
//!
//! Public only so that the loom models can run this very code; nothing here is for callers.
//!
//! A consumer registers with the `Notify`, raises the flag, and only then looks at the ring once more; a publisher
//! writes its event and only then looks at the flag. With a sequentially consistent fence between the two steps on
//! either side, at least one of them sees the other (Dekker's argument), so no wake-up is missed. The publisher that
//! finds the flag up takes it down and wakes all who registered; the others meanwhile find it down and go on. A
//! consumer that is woken by another publisher's event raises the flag and looks again, by the same argument.

use std::pin::pin;

use tokio::sync::Notify;

use super::protocol::Protocol;
use crate::sync::{AtomicBool, Ordering, fence};

/// Where consumers of one ring wait. On a line of its own: publishers read it each time, and it changes only around a
/// wait.
#[derive(Debug)]
#[repr(align(128))]
pub struct Gate {
    waiting: AtomicBool,
    notify: Notify,
}

impl Gate {
    /// A gate at which nobody waits.
    pub fn new() -> Self {
        Self { waiting: AtomicBool::new(false), notify: Notify::new() }
    }

    /// Wakes whoever waits; to be called after every publishing.
    #[inline]
    pub fn announce<P: Protocol>(&self) {
        if P::FENCES_WAKE {
            fence(Ordering::SeqCst);
        }
        if self.waiting.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        // Acquire: the registrations of those who raised the flag are seen, so `notify_waiters` reaches them.
        if self.waiting.swap(false, Ordering::AcqRel) {
            self.notify.notify_waiters();
        }
    }

    /// Completes with the first `Some` of `look`, which is asked again after each wake-up. Dropping the future loses
    /// nothing.
    pub async fn wait<P: Protocol, T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        loop {
            let mut woken = pin!(self.notify.notified());
            woken.as_mut().enable();
            // A read-modify-write, so that it comes after the lowering that it undoes whatever `Notify` orders.
            // Release: whoever lowers the flag sees our registration.
            self.waiting.swap(true, Ordering::AcqRel);
            fence(Ordering::SeqCst);
            if P::LOOKS_BEFORE_SLEEP
                && let Some(found) = look()
            {
                return found;
            }
            woken.await;
            if !P::LOOKS_BEFORE_SLEEP
                && let Some(found) = look()
            {
                return found;
            }
        }
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}
