//! The host's picture of the table in which the device finds a version of a corpus.
//!
//! Nothing that a job may be reading is ever written to. An entry goes through these states, and each arrow is one store:
//!
//! *removed* → (body, the handle still being [`REMOVED_HANDLE`]) → the handle: *live* → [`REMOVED_HANDLE`]: *removed* → ...
//!
//! - The body holds the generation, so a search that finds the handle finds the generation that belongs to it, provided it reads both with
//!   one load or the handle first. A handle is 4 aligned bytes, which no copy tears.
//! - A version that gets more columns gets a new list and a *second* entry with the same key; then the first is removed. A search meanwhile
//!   finds one or the other, and both are right for jobs of before; a job of afterwards finds the second. That is why there is no need to
//!   wait for a version's jobs before another metric of it can be searched. The second lies *behind* the first on the way of a search: one
//!   that has passed its place before it was there, and comes to the first after that was removed, would find neither.
//! - A removed entry is used again once the jobs that may have found it are settled.
//! - No entry says that a search ends there: while one is being written, an entry behind it may be live already. A search that misses
//!   therefore looks at all [`CORPORA_PROBES`], but it finds what it should not look for anyway.

use crate::abi::{CORPORA_MASK, CORPORA_PROBES, Corpus, REMOVED_HANDLE, corpus_home};
use crate::device::{Device, DeviceError, DevicePtr};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    /// Taken; its entry is there or is being written.
    Live,
    /// Of use once everything up to this ticket is settled; at once if there is none.
    Removed(Option<u64>),
}

/// The picture. A slot is live before the device is told, and removed after it was.
#[derive(Debug)]
pub(crate) struct Table {
    base: DevicePtr,
    slots: Vec<Slot>,
}

impl Table {
    /// The picture of an empty table at `base`, which is written here.
    pub(crate) fn new(base: DevicePtr, device: &dyn Device) -> Result<Self, DeviceError> {
        let slots = CORPORA_MASK as usize + 1;
        let empty = Corpus { handle: REMOVED_HANDLE, ..Corpus::default() };
        device.upload(base, bytemuck::cast_slice(&vec![empty; slots]))?;
        Ok(Self { base, slots: vec![Slot::Removed(None); slots] })
    }

    /// Where an entry lies.
    pub(crate) fn address(&self, slot: usize) -> DevicePtr {
        self.base.offset(slot * size_of::<Corpus>())
    }

    /// Takes a slot in which a search for the key will find its entry, behind the one that it replaces.
    pub(crate) fn claim(
        &mut self,
        key: (u32, u32),
        replaces: Option<usize>,
        is_settled: impl Fn(u64) -> bool,
    ) -> Option<usize> {
        let slot = probes_behind(key, replaces).find(|slot| match self.slots[*slot] {
            Slot::Removed(None) => true,
            Slot::Removed(Some(through)) => is_settled(through),
            Slot::Live => false,
        })?;
        self.slots[slot] = Slot::Live;
        Some(slot)
    }

    /// Notes that a slot's entry is removed, after the device was told. `through`: the last ticket whose job may be reading it.
    pub(crate) fn remove(&mut self, slot: usize, through: Option<u64>) {
        self.slots[slot] = Slot::Removed(through);
    }
}

/// The slots that a search for a key looks at.
fn probes((handle, generation): (u32, u32)) -> impl Iterator<Item = usize> {
    let home = corpus_home(handle, generation);
    (0..CORPORA_PROBES).map(move |probe| ((home + probe) & CORPORA_MASK) as usize)
}

/// Those of them that it comes to after another slot, or all.
pub(crate) fn probes_behind(key: (u32, u32), slot: Option<usize>) -> impl Iterator<Item = usize> {
    let passed = slot.and_then(|slot| probes(key).position(|probe| probe == slot)).map_or(0, |place| place + 1);
    probes(key).skip(passed)
}

/// Tells the device of an entry: first the body, then the handle that makes it one.
pub(crate) fn write_entry(device: &dyn Device, at: DevicePtr, entry: &Corpus) -> Result<(), DeviceError> {
    let bytes = bytemuck::bytes_of(entry);
    let (handle, body) = bytes.split_at(size_of::<u32>());
    device.upload(at.offset(handle.len()), body)?;
    device.upload(at, handle)
}

/// Tells the device that an entry is none.
pub(crate) fn write_removal(device: &dyn Device, at: DevicePtr) -> Result<(), DeviceError> {
    device.upload(at, &REMOVED_HANDLE.to_ne_bytes())
}
