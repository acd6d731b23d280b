//! The host's picture of the table in which the device finds a version of a corpus.
//!
//! Nothing that a job may be reading is ever written to. An entry goes through these states; each arrow is one store:
//!
//! *removed* → (body, under [`REMOVED_HANDLE`]) → the handle: *live* → [`REMOVED_HANDLE`]: *removed* → ...
//!
//! - The body holds the generation, so a search that finds the handle finds the generation that belongs to it, provided
//!   it reads both with one load or the handle first. A handle is 4 aligned bytes, which no copy tears.
//! - A version that gets more columns gets a new list and a *second* entry with the same key; then the first is
//!   removed. A search meanwhile finds one or the other, and both are right for jobs of before; a job of afterwards
//!   finds the second. That is why there is no need to wait for a version's jobs before another metric of it can be
//!   searched. The second lies *behind* the first on the way of a search: one that has passed its place before it was
//!   there, and comes to the first after that was removed, would find neither.
//! - A removed entry is used again once the jobs that may have found it are settled.
//! - No entry says that a search ends there: while one is being written, an entry behind it may be live already. A
//!   search that misses therefore looks at all [`CORPORA_PROBES`]; only a search for what is not there misses.

use crate::abi::{CORPORA_MASK, CORPORA_PROBES, Corpus, REMOVED_HANDLE, corpus_home};
use crate::device::{Device, DeviceError, DevicePtr};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Its entry is there or is being written.
    Taken,
    /// Once everything up to this ticket is settled; at once if there is none.
    Free(Option<u64>),
}

/// The picture. A place is taken before the device is told, and free after it was.
#[derive(Debug)]
pub(crate) struct EntryTable {
    base: DevicePtr,
    places: Vec<Place>,
}

impl EntryTable {
    /// The picture of an empty table at `base`, which is written here.
    pub(crate) fn new(base: DevicePtr, device: &dyn Device) -> Result<Self, DeviceError> {
        let places = CORPORA_MASK as usize + 1;
        let empty = Corpus { handle: REMOVED_HANDLE, ..Corpus::default() };
        device.upload(base, bytemuck::cast_slice(&vec![empty; places]))?;
        Ok(Self { base, places: vec![Place::Free(None); places] })
    }

    /// Where an entry lies.
    pub(crate) fn address(&self, place: usize) -> DevicePtr {
        self.base.offset(place * size_of::<Corpus>())
    }

    /// Takes a place in which a search for the key will find its entry, behind the one that it replaces.
    pub(crate) fn claim(
        &mut self,
        key: (u32, u32),
        replaces: Option<usize>,
        is_settled: impl Fn(u64) -> bool,
    ) -> Option<usize> {
        let place = probes_behind(key, replaces).find(|place| match self.places[*place] {
            Place::Free(None) => true,
            Place::Free(Some(through)) => is_settled(through),
            Place::Taken => false,
        })?;
        self.places[place] = Place::Taken;
        Some(place)
    }

    /// Notes that a place's entry is removed, after the device was told. `through`: the last ticket whose job may be
    /// reading it.
    pub(crate) fn remove(&mut self, place: usize, through: Option<u64>) {
        self.places[place] = Place::Free(through);
    }
}

/// The places that a search for a key looks at.
fn probes((handle, generation): (u32, u32)) -> impl Iterator<Item = usize> {
    let home = corpus_home(handle, generation);
    (0..CORPORA_PROBES).map(move |probe| ((home + probe) & CORPORA_MASK) as usize)
}

/// Those of them that it comes to after another place, or all.
pub(crate) fn probes_behind(key: (u32, u32), place: Option<usize>) -> impl Iterator<Item = usize> {
    let passed = place.and_then(|place| probes(key).position(|probe| probe == place)).map_or(0, |probe| probe + 1);
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
