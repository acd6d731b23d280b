//! A version as whole segments: its columns uploaded, its list and its entry written, one step at a time.

use std::sync::Arc;

use megaring_core::corpus::{Column, CorpusView, SegmentView};
use megaring_core::screen::groups;

use super::columns::{self, Contents, is_wild};
use super::state::{Key, Kind, Room, State, Version};
use super::table::{write_entry, write_removal};
use super::{Inner, Locked, Refusal, Step, key_of};
use crate::abi::{CORPUS_WILD, Corpus, Segment};
use crate::device::DevicePtr;
use crate::pool::Span;

/// A new entry for a version, and the list it points to.
pub(super) struct Publication {
    place: usize,
    list: Span,
    segments: Vec<Segment>,
    entry: Corpus,
    has: Contents,
}

/// How far one call has come.
#[derive(Default)]
struct Call {
    /// The version is pinned for it.
    held: bool,
    /// The version's columns are to go before it is pinned again.
    clearing: bool,
    /// That was done, and is not done twice.
    cleared: bool,
}

impl Inner {
    /// Brings a version's contents and pins it.
    pub(super) fn bring(self: &Arc<Self>, view: &Arc<CorpusView>, contents: Contents) -> Result<(), Refusal> {
        let mut call = Call::default();
        let brought = self.work(|inner, state| inner.next_column(state, view, contents, &mut call), view);
        if brought.is_err() && call.held {
            self.unpin(key_of(view));
        }
        brought
    }

    /// The next step towards a version whose entry has these contents.
    fn next_column(
        &self,
        state: &mut State,
        view: &Arc<CorpusView>,
        contents: Contents,
        call: &mut Call,
    ) -> Result<Step, Refusal> {
        let key = key_of(view);
        let settled = |through| self.host.is_settled(through);
        if !call.held {
            if std::mem::take(&mut call.clearing) {
                state.clear(view);
            }
            if let Some(step) = self.hold(state, view, contents)? {
                return Ok(step);
            }
            call.held = true;
        }
        let Some(version) = state.versions.get(&key) else { return Ok(Step::Need(Room::Wait)) };
        if version.entry.is_some() && version.has.contains(contents) {
            return Ok(Step::Ready);
        }
        let (busy, has) = (version.busy, version.has.union(contents));
        let (missing, loading) = state.missing(view, contents.columns);
        if !missing.is_empty() {
            // With the list, which is taken later: it shall not be what the pool has to grow for.
            let list = view.segments().count() * size_of::<Segment>();
            let columns = missing.iter().map(|(segment, column)| column.bytes(segment.rows(), view.dim()));
            let sizes: Vec<usize> = columns.chain([list]).collect();
            return match state.room(&sizes, &settled) {
                Room::Taken(mut spans) => {
                    spans.pop().into_iter().for_each(|list| state.pool.give(list));
                    missing.iter().for_each(|(segment, column)| state.load(segment, *column));
                    Ok(Step::Load(missing, spans))
                }
                Room::None if !call.cleared && state.is_alone(key) => {
                    // What it has lies in the way of what it needs. It starts again, with nothing.
                    *call = Call { held: false, clearing: true, cleared: true };
                    state.unpin(key, || self.host.submitted_through());
                    Ok(self.switch(state, key))
                }
                room => Ok(Step::Need(room)),
            };
        }
        if loading || busy {
            return Ok(Step::Need(Room::Wait));
        }
        let segments = state.list(view, has.columns);
        let (place, list) = match self.entry_room(state, key, segments.len()) {
            Ok(room) => room,
            Err(room) => return Ok(Step::Need(room)),
        };
        if let Some(version) = state.versions.get_mut(&key) {
            version.busy = true;
        }
        let wild = if is_wild(view) { CORPUS_WILD } else { 0 };
        let entry = entry_of(view, has.flags() | wild, &segments, list.at());
        Ok(Step::Publish(Publication { place, list, segments, entry, has }))
    }

    /// Pins a version that has these contents or can get them now: `None`. Otherwise what has to be done first.
    fn hold(&self, state: &mut State, view: &Arc<CorpusView>, contents: Contents) -> Result<Option<Step>, Refusal> {
        let key = key_of(view);
        let fits = |state: &State, contents: Contents| state.pool.holds(&contents.sizes_in(view));
        let ready = match state.versions.get(&key) {
            Some(version) if !version.is(view) || !version.is_open() => return Ok(Some(self.switch(state, key))),
            Some(version) if version.kind != Kind::Resident => {
                // The entry of a streamed version is as good as another for who reads nothing but that.
                return Ok(match contents == Contents::NONE {
                    true => self.join(state, view),
                    false => Some(self.switch(state, key)),
                });
            }
            Some(version) if version.wants(contents) == version.wants(Contents::NONE) => true,
            Some(version) => fits(state, version.wants(contents)),
            None => false,
        };
        if !ready {
            if !fits(state, contents) {
                return Err(Refusal::Unfit(format!(
                    "corpus {:?} does not fit the {} MiB of device memory set aside for corpora",
                    view.name(),
                    state.pool.budget() >> 20,
                )));
            }
            if state.versions.contains_key(&key) {
                // What this version has and what it needs do not fit together: it starts again with what it needs now.
                return Ok(Some(self.switch(state, key)));
            }
            state.versions.insert(key, Version::new(view, Kind::Resident));
        }
        state.pin(key);
        state.want(view, key, contents);
        Ok(None)
    }

    /// A place of the table and room for a list.
    fn entry_room(&self, state: &mut State, key: Key, segments: usize) -> Result<(usize, Span), Room> {
        let settled = |through| self.host.is_settled(through);
        let place = state.place(key, &settled)?;
        match state.room(&[segments * size_of::<Segment>()], &settled) {
            Room::Taken(mut spans) if !spans.is_empty() => Ok((place, spans.swap_remove(0))),
            room => {
                state.table.remove(place, None);
                Err(room)
            }
        }
    }

    /// Uploads columns into their spans: all become ready, or none.
    pub(super) fn load<'a>(
        &'a self,
        state: Locked<'a>,
        view: &CorpusView,
        missing: Vec<(Arc<SegmentView>, Column)>,
        spans: Vec<Span>,
    ) -> Result<Locked<'a>, Refusal> {
        self.gauge(&state);
        drop(state);
        let upload = |((segment, column), span): (&(Arc<SegmentView>, Column), &Span)| {
            columns::upload(*column, &*self.device, span.at(), segment, view.dim())?;
            self.counters.uploads.add(1);
            self.counters.uploaded_bytes.add(column.bytes(segment.rows(), view.dim()) as u64);
            Ok(())
        };
        let uploaded = missing.iter().zip(&spans).try_for_each(upload);
        let mut state = self.lock();
        for ((segment, column), span) in missing.iter().zip(spans) {
            if uploaded.is_ok() {
                state.loaded(segment, *column, Some(span));
            } else {
                state.loaded(segment, *column, None);
                state.pool.give(span);
            }
        }
        self.gauge(&state);
        self.changed.notify_all();
        uploaded.map(|()| state).map_err(Refusal::Failed)
    }

    /// Makes the new entry known and removes the one before it, if there was one.
    pub(super) fn publish<'a>(
        &'a self,
        state: Locked<'a>,
        view: &Arc<CorpusView>,
        publication: Publication,
    ) -> Result<Locked<'a>, Refusal> {
        let Publication { place, list, segments, entry, has } = publication;
        let key = key_of(view);
        let at = state.table.address(place);
        let old = state.versions.get(&key).and_then(|version| version.entry.as_ref()).map(|(place, _)| *place);
        let old_at = old.map(|place| state.table.address(place));
        drop(state);
        let listed = match segments.is_empty() {
            true => Ok(()),
            false => self.device.upload(list.at(), bytemuck::cast_slice(&segments)),
        };
        let written = listed.clone().and_then(|()| {
            write_entry(&*self.device, at, &entry)?;
            old_at.map_or(Ok(()), |at| write_removal(&*self.device, at))
        });
        // From here on no job finds the old entry; those that may have found it are up to this ticket.
        let through = self.host.submitted_through();
        let mut state = self.lock();
        if let Some(version) = state.versions.get_mut(&key) {
            version.busy = false;
        }
        self.changed.notify_all();
        if let Err(error) = written {
            if listed.is_ok() {
                // Whether the table has the entry is unknown.
                self.break_down(&mut state, &error);
            } else {
                state.table.remove(place, None);
                state.pool.give(list);
            }
            return Err(Refusal::Failed(error));
        }
        let replaced = state.versions.get_mut(&key).and_then(|version| {
            version.has = has;
            version.entry.replace((place, list))
        });
        if let Some((place, list)) = replaced {
            state.table.remove(place, Some(through));
            state.retain_list(list, through);
        }
        Ok(state)
    }
}

/// A table entry but for what streaming adds. Row counts were checked to fit.
pub(super) fn entry_of(view: &CorpusView, flags: u32, segments: &[Segment], list: DevicePtr) -> Corpus {
    let data = || view.segments().map(|(_, segment)| segment);
    Corpus {
        handle: view.handle(),
        generation: view.generation(),
        dim: view.dim() as u32,
        rows: view.rows() as u32,
        segment_count: segments.len() as u32,
        flags,
        groups: data().map(|segment| groups(segment.rows())).sum::<usize>() as u32,
        max_norm: data().map(|segment| segment.data().codes().max_norm).fold(0.0, f64::max),
        segments: list,
        ..Corpus::default()
    }
}
