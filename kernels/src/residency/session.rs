//! A streamed corpus: for a *session*, one version under one metric has the two tile buffers and the lines.
//!
//! A session begins when a search finds no room for its corpus, serves every search of that version and metric that
//! comes meanwhile, and goes on, idle, with its buffers filled ahead, until somebody needs the buffers, their memory,
//! or the version as whole segments. Whoever needs them closes the session: it takes no new searches, so that it cannot
//! go on for ever. It ends when the last search's jobs are settled: nothing on the device reads the lines or the
//! buffers then, and the next session's counts can begin at zero.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use megaring_core::Metric;
use megaring_core::corpus::CorpusView;
use megaring_ring::memory::{Line, View};

use super::columns::Contents;
use super::resident::entry_of;
use super::state::{Key, Kind, Room, State, Version};
use super::table::write_entry;
use super::{Inner, Locked, Refusal, Step, key_of};
use crate::abi::{CORPUS_SCREENED, Corpus, Segment};
use crate::device::{DeviceError, DevicePtr};
use crate::pool::Span;
use crate::stream::{Cut, Feed, MOST_TILE_BYTES, buffer_of};

/// The part of the budget that one tile may take: both buffers take half of it.
const TILE_SHARE: usize = 4;

/// A version's session.
pub(crate) struct Session {
    /// The buffers.
    pub(crate) spans: Vec<Span>,
    feed: Arc<Feed>,
    thread: Option<JoinHandle<()>>,
    /// For the thread, where it has let go of the version.
    view: Option<Arc<CorpusView>>,
}

impl Session {
    /// Tells the thread to end, once. Whoever waits on the state's changes is to be woken then.
    pub(crate) fn stop(&mut self) -> Option<JoinHandle<()>> {
        self.feed.stop.store(true, Ordering::Release);
        self.thread.take()
    }
}

/// What a session begins with: memory taken, the version noted as busy.
pub(crate) struct Opening {
    metric: Metric,
    number: u64,
    place: usize,
    cut: Cut,
    buffers: Vec<Span>,
    list: Span,
}

impl Inner {
    /// Makes a version searchable under a metric, as whole segments or streamed, and pins it.
    pub(super) fn bring_screen(self: &Arc<Self>, view: &Arc<CorpusView>, metric: Metric) -> Result<(), Refusal> {
        let contents = Contents::of_screen(metric);
        if !self.is_streamed(view, metric, contents) {
            match self.bring(view, contents) {
                Err(Refusal::Unfit(_) | Refusal::Exhausted) => {}
                brought => return brought,
            }
        }
        self.work(|inner, state| inner.next_streamed(state, view, metric), view)
    }

    /// Whether there is a session to join. One that is idle is not, where the version would fit.
    fn is_streamed(&self, view: &Arc<CorpusView>, metric: Metric, contents: Contents) -> bool {
        let state = self.lock();
        match state.versions.get(&key_of(view)) {
            Some(version) if version.kind == Kind::Streamed(metric) && version.is(view) => {
                version.pins > 0 && !version.closing || !state.pool.holds(&contents.sizes_in(view))
            }
            _ => false,
        }
    }

    /// The next step towards a session for this version and metric; the last one pins it.
    fn next_streamed(&self, state: &mut State, view: &Arc<CorpusView>, metric: Metric) -> Result<Step, Refusal> {
        if state.growing {
            // The kernel is being stopped: what is submitted now would keep it from ending.
            return Ok(Step::Need(Room::Wait));
        }
        let key = key_of(view);
        match state.versions.get(&key) {
            Some(version) if version.is(view) && version.kind == Kind::Streamed(metric) && version.is_open() => {
                Ok(self.join(state, view).unwrap_or(Step::Ready))
            }
            Some(_) => Ok(self.switch(state, key)),
            None => match state.streamed {
                Some(other) => Ok(self.switch(state, other)),
                None => self.open(state, view, metric),
            },
        }
    }

    /// Pins a version that is streamed, once its session has begun: `None`. Otherwise what has to be done first.
    pub(super) fn join(&self, state: &mut State, view: &Arc<CorpusView>) -> Option<Step> {
        let key = key_of(view);
        match state.versions.get_mut(&key).and_then(|version| version.session.as_mut()) {
            Some(session) => session.view = Some(view.clone()),
            None => return Some(Step::Need(Room::Wait)),
        }
        state.pin(key);
        self.changed.notify_all();
        None
    }

    /// Takes memory for a session: as large tiles as there is room for.
    fn open(&self, state: &mut State, view: &Arc<CorpusView>, metric: Metric) -> Result<Step, Refusal> {
        let settled = |through| self.host.is_settled(through);
        let tile_bytes = (state.pool.budget() / TILE_SHARE).min(MOST_TILE_BYTES);
        let mut most = Cut::groups_in(tile_bytes, view.dim()).max(1);
        let mut unfit = true;
        loop {
            let cut = Cut::new(view, most);
            let sizes = [cut.buffer_bytes, cut.buffer_bytes, cut.tiles.len() * size_of::<Segment>()];
            if state.pool.holds(&sizes) {
                unfit = false;
                match state.room(&sizes, &settled) {
                    Room::Taken(spans) => return Ok(self.opening(state, view, metric, cut, spans)),
                    Room::None => {}
                    room => return Ok(Step::Need(room)),
                }
            }
            match cut.largest {
                0 | 1 if unfit => return Err(too_small(view, state.pool.budget())),
                0 | 1 => return Err(Refusal::Exhausted),
                largest => most = largest / 2,
            }
        }
    }

    fn opening(
        &self,
        state: &mut State,
        view: &Arc<CorpusView>,
        metric: Metric,
        cut: Cut,
        mut spans: Vec<Span>,
    ) -> Step {
        let key = key_of(view);
        let place = match state.place(key, &|through| self.host.is_settled(through)) {
            Ok(place) => place,
            Err(room) => {
                spans.into_iter().for_each(|span| state.pool.give(span));
                return Step::Need(room);
            }
        };
        let Some(list) = spans.pop() else { return Step::Need(Room::None) };
        let mut version = Version::new(view, Kind::Streamed(metric));
        version.busy = true;
        state.versions.insert(key, version);
        state.pin(key);
        state.streamed = Some(key);
        state.sessions += 1;
        Step::Begin(Opening { metric, number: state.sessions, place, cut, buffers: spans, list })
    }

    /// Begins a session. The step after this one joins it.
    pub(super) fn begin<'a>(
        self: &'a Arc<Self>,
        state: Locked<'a>,
        view: &Arc<CorpusView>,
        opening: Opening,
    ) -> Result<Locked<'a>, Refusal> {
        let key = key_of(view);
        let at = state.table.address(opening.place);
        drop(state);
        let buffers = [opening.buffers[0].at(), opening.buffers[1].at()];
        let begun = self.start(view, &opening, buffers);
        let written = match &begun {
            Ok((_, entry, _)) => write_entry(&*self.device, at, entry),
            Err(_) => Ok(()),
        };
        let mut state = self.lock();
        self.changed.notify_all();
        let Opening { place, buffers, list, .. } = opening;
        match begun {
            Ok((feed, _, thread)) => {
                if let Some(version) = state.versions.get_mut(&key) {
                    version.busy = false;
                    version.entry = Some((place, list));
                    let view = Some(view.clone());
                    version.session = Some(Session { spans: buffers, feed, thread: Some(thread), view });
                }
                state.unpin(key, || self.host.submitted_through());
                if let Err(error) = written {
                    self.break_down(&mut state, &error);
                    return Err(Refusal::Failed(error));
                }
                Ok(state)
            }
            Err(error) => {
                buffers.into_iter().chain([list]).for_each(|span| state.pool.give(span));
                state.table.remove(place, None);
                state.forget(key);
                Err(Refusal::Failed(error))
            }
        }
    }

    /// Zeroes the lines, uploads the list, and lets the thread fill the buffers.
    fn start(
        self: &Arc<Self>,
        view: &Arc<CorpusView>,
        opening: &Opening,
        buffers: [DevicePtr; 2],
    ) -> Result<(Arc<Feed>, Corpus, JoinHandle<()>), DeviceError> {
        let lines: View<Line> =
            self.lines.view(0, 2).map_err(|error| DeviceError::Other(format!("the stream's lines: {error}")))?;
        // Nothing on the device reads or writes them: the session before is settled, and this one has no entry yet.
        lines.iter().for_each(Line::clear);
        let list = list_of(&opening.cut, buffers, opening.metric);
        if !list.is_empty() {
            self.device.upload(opening.list.at(), bytemuck::cast_slice(&list))?;
        }
        let entry = Corpus {
            largest_tile: opening.cut.largest as u32,
            stream: self.device.device_address(&self.lines),
            stream_session: opening.number,
            ..entry_of(view, CORPUS_SCREENED, &list, opening.list.at())
        };
        let feed = Arc::new(Feed {
            device: self.device.clone(),
            counters: self.counters.clone(),
            lines,
            cut: opening.cut.clone(),
            buffers,
            metric: opening.metric,
            stop: AtomicBool::new(false),
        });
        let (inner, copied, own, key) = (self.clone(), feed.clone(), view.clone(), key_of(view));
        let thread = std::thread::Builder::new()
            .name("megaring-cuda-tiles".into())
            .spawn(move || inner.copy_tiles(&copied, own, key))
            .map_err(|error| DeviceError::Other(format!("the system refused a thread: {error}")))?;
        Ok((feed, entry, thread))
    }

    /// The copying thread.
    fn copy_tiles(&self, feed: &Feed, view: Arc<CorpusView>, key: Key) {
        if let Err(error) = feed.run(view, |view| self.rest(feed, key, view)) {
            // Jobs under way wait for tiles that will not come.
            let mut state = self.lock();
            self.break_down(&mut state, &error);
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Called when both buffers are full or the version is not there. Without a job under way it lets go of the version
    /// and parks; the next search brings the version again.
    fn rest(&self, feed: &Feed, key: Key, view: &mut Option<Arc<CorpusView>>) -> bool {
        let mut state = self.lock();
        loop {
            if feed.stop.load(Ordering::Acquire) {
                return true;
            }
            let version = state.versions.get_mut(&key);
            let idle = |version: &Version| !version.busy && version.is_idle(&|through| self.host.is_settled(through));
            let is_idle = version.as_deref().is_some_and(idle);
            let session = version.and_then(|version| version.session.as_mut());
            if !is_idle && view.is_some() {
                drop(state);
                return self.host.pause().is_ok();
            }
            // One of the two has the version while a job may be under way: who pins it leaves it here.
            let left = view.take().or_else(|| session.and_then(|session| session.view.take()));
            match left {
                Some(left) if is_idle => {
                    // This may be its last holder, and what it drops is foreign.
                    drop(state);
                    drop(left);
                    state = self.lock();
                }
                None if is_idle => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    *view = Some(left);
                    return true;
                }
                None => {
                    drop(state);
                    return self.host.pause().is_ok();
                }
            }
        }
    }
}

/// A segment for each tile.
fn list_of(cut: &Cut, buffers: [DevicePtr; 2], metric: Metric) -> Vec<Segment> {
    let n = cut.tiles.len() as u64;
    let list = cut.tiles.iter().enumerate().map(|(number, tile)| {
        let buffer = buffers[buffer_of(number as u64, n)];
        let mut listed = Segment {
            codes: buffer,
            first_row: tile.first_row as u32,
            row_count: tile.rows as u32,
            ..Segment::default()
        };
        listed.columns[metric as usize - 1] = buffer.offset(cut.columns_at);
        listed
    });
    list.collect()
}

fn too_small(view: &CorpusView, budget: usize) -> Refusal {
    Refusal::Unfit(format!(
        "the {budget} bytes of device memory set aside for corpora do not hold two tiles of 16 rows ({} bytes each) of \
         corpus {:?} and the list of all its tiles",
        Cut::new(view, 1).buffer_bytes,
        view.name(),
    ))
}
