//! What lies in device memory, who uses it, and who goes first when room is needed. Bookkeeping alone: the device is
//! told by [`super::Residency`], outside the lock that guards this.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use megaring_core::Metric;
use megaring_core::corpus::{Column, Columns, CorpusView, SegmentData, SegmentView};

use super::columns::{self, Contents};
use super::session::Session;
use super::table::{EntryTable, probes_behind};
use crate::abi::Segment;
use crate::device::{DeviceError, DevicePtr};
use crate::pool::{Pool, Span};

/// Handle and generation.
pub(crate) type Key = (u32, u32);

/// Asks whether everything up to a ticket is settled.
pub(crate) type IsSettled<'a> = &'a dyn Fn(u64) -> bool;

/// Everything that the lock guards.
pub(crate) struct State {
    pub(crate) pool: Pool,
    pub(crate) table: EntryTable,
    pub(crate) versions: HashMap<Key, Version>,
    /// Columns of segments, by the address of what they belong to ([`address_of`]). The weak pointer in each keeps the
    /// address from other use.
    segments: HashMap<usize, Held>,
    /// The version that has the tile buffers and the lines.
    pub(crate) streamed: Option<Key>,
    /// Sessions so far.
    pub(crate) sessions: u64,
    /// Lists that were replaced, with the last ticket whose job may be reading them.
    limbo: Vec<(u64, Span)>,
    clock: u64,
    /// Somebody is getting a chunk.
    pub(crate) growing: bool,
    /// Nothing works any more.
    pub(crate) broken: Option<DeviceError>,
}

/// How a version lies on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Whole segments.
    Resident,
    /// Tiles of codes and of a metric's columns, two at a time.
    Streamed(Metric),
}

/// A version of a corpus that has, had or is getting an entry in the table.
pub(crate) struct Version {
    pub(crate) view: Weak<CorpusView>,
    pub(crate) kind: Kind,
    /// What the entry has.
    pub(crate) has: Contents,
    /// What this version keeps from being evicted on its own: what the entry has, and what is coming.
    wanted: Contents,
    /// For each segment the addresses of its columns that do not hide rows, and of those that do.
    segments: Vec<[usize; 2]>,
    /// The table's place and the list.
    pub(crate) entry: Option<(usize, Span)>,
    /// Guards, and calls that work on the version.
    pub(crate) pins: usize,
    /// The last ticket that may name the version, as of the last guard's end.
    pub(crate) mark: u64,
    used: u64,
    /// Somebody waits to have it otherwise: no new guards.
    pub(crate) closing: bool,
    /// Its entry is being written.
    pub(crate) busy: bool,
    /// Its entry is being removed.
    pub(crate) retiring: bool,
    pub(crate) session: Option<Session>,
}

struct Held {
    owner: Owner,
    columns: [HeldColumn; Column::COUNT],
}

/// What columns belong to.
enum Owner {
    /// All views of a segment.
    Data(Weak<dyn SegmentData>),
    /// One view of it, which hides rows or does not.
    View(Weak<SegmentView>),
}

impl Owner {
    fn of(segment: &Arc<SegmentView>, column: Column) -> Self {
        match column.hides() {
            true => Self::View(Arc::downgrade(segment)),
            false => Self::Data(Arc::downgrade(segment.shared_data())),
        }
    }

    fn is_dead(&self) -> bool {
        match self {
            Self::Data(data) => data.strong_count() == 0,
            Self::View(view) => view.strong_count() == 0,
        }
    }
}

#[derive(Default)]
struct HeldColumn {
    stage: Stage,
    /// Versions that want it.
    wanted: usize,
    used: u64,
}

#[derive(Default)]
enum Stage {
    #[default]
    Absent,
    Loading,
    Ready(Span),
}

/// What must happen before there is room, or what there is.
pub(crate) enum Room {
    Taken(Vec<Span>),
    /// Add a chunk of so many bytes; `least` would do.
    Grow {
        bytes: usize,
        least: usize,
    },
    /// Remove this version.
    Retire(Key),
    /// Wait for a change of the state.
    Wait,
    /// Wait for the ring.
    Pause,
    /// Everything else is in use.
    None,
}

enum Victim {
    Version(Key),
    Column(usize, Column),
}

impl Version {
    /// A version nobody uses yet.
    pub(crate) fn new(view: &Arc<CorpusView>, kind: Kind) -> Self {
        let segments = match kind {
            Kind::Resident => filled(view).map(|segment| [data_address(segment), view_address(segment)]).collect(),
            Kind::Streamed(_) => Vec::new(),
        };
        Self {
            view: Arc::downgrade(view),
            kind,
            has: Contents::NONE,
            wanted: Contents::NONE,
            segments,
            entry: None,
            pins: 0,
            mark: 0,
            used: 0,
            closing: false,
            busy: false,
            retiring: false,
            session: None,
        }
    }

    /// Whether it is this very version, and not one of the same number.
    pub(crate) fn is(&self, view: &Arc<CorpusView>) -> bool {
        std::ptr::eq(self.view.as_ptr(), Arc::as_ptr(view))
    }

    /// Whether it takes new guards.
    pub(crate) fn is_open(&self) -> bool {
        !self.closing && !self.retiring
    }

    pub(crate) fn is_idle(&self, is_settled: IsSettled<'_>) -> bool {
        self.pins == 0 && !self.retiring && is_settled(self.mark)
    }

    /// What it wants, with more.
    pub(crate) fn wants(&self, more: Contents) -> Contents {
        self.wanted.union(more)
    }
}

impl State {
    pub(crate) fn new(pool: Pool, table: EntryTable) -> Self {
        Self {
            pool,
            table,
            versions: HashMap::new(),
            segments: HashMap::new(),
            streamed: None,
            sessions: 0,
            limbo: Vec::new(),
            clock: 0,
            growing: false,
            broken: None,
        }
    }

    /// Keeps a version from being removed.
    pub(crate) fn pin(&mut self, key: Key) {
        self.clock += 1;
        if let Some(version) = self.versions.get_mut(&key) {
            version.pins += 1;
            version.used = self.clock;
        }
    }

    /// The reverse of [`State::pin`]; `through` is the last ticket that may name the version.
    pub(crate) fn unpin(&mut self, key: Key, through: impl FnOnce() -> u64) {
        if let Some(version) = self.versions.get_mut(&key) {
            version.pins -= 1;
            if version.pins == 0 {
                version.mark = through();
            }
        }
    }

    /// Keeps columns of a version's segments from being evicted on their own, whether they are there or still to come.
    pub(crate) fn want(&mut self, view: &Arc<CorpusView>, key: Key, contents: Contents) {
        let Some(version) = self.versions.get_mut(&key) else { return };
        let more = contents.columns.minus(version.wanted.columns);
        version.wanted = version.wanted.union(contents);
        for segment in filled(view) {
            for column in more.iter() {
                let owner = || Held { owner: Owner::of(segment, column), columns: Default::default() };
                let held = self.segments.entry(address_of(segment, column)).or_insert_with(owner);
                held.columns[column.index()].wanted += 1;
            }
        }
    }

    /// Those of the columns that nobody loads or has loaded, and whether somebody is loading one.
    pub(crate) fn missing(&self, view: &CorpusView, columns: Columns) -> (Vec<(Arc<SegmentView>, Column)>, bool) {
        let (mut absent, mut loading) = (Vec::new(), false);
        for segment in filled(view) {
            for column in columns.iter() {
                match self.stage(segment, column) {
                    Some(Stage::Ready(_)) => {}
                    Some(Stage::Loading) => loading = true,
                    Some(Stage::Absent) | None => absent.push((segment.clone(), column)),
                }
            }
        }
        (absent, loading)
    }

    /// Those of the columns that are not there yet, whether or not somebody is loading them.
    pub(crate) fn unready<'a>(&self, view: &'a CorpusView, columns: Columns) -> Vec<(&'a SegmentView, Column)> {
        let pairs = filled(view).flat_map(|segment| columns.iter().map(move |column| (segment, column)));
        let is_ready = |segment, column| matches!(self.stage(segment, column), Some(Stage::Ready(_)));
        let unready = pairs.filter(|(segment, column)| !is_ready(segment, *column));
        unready.map(|(segment, column)| (&**segment, column)).collect()
    }

    /// The caller begins to load a column, which it has said it wants.
    pub(crate) fn load(&mut self, segment: &Arc<SegmentView>, column: Column) {
        self.set(segment, column, Stage::Loading);
    }

    /// A column is there, or (without a span) it is not after all.
    pub(crate) fn loaded(&mut self, segment: &Arc<SegmentView>, column: Column, span: Option<Span>) {
        self.set(segment, column, span.map_or(Stage::Absent, Stage::Ready));
    }

    fn set(&mut self, segment: &Arc<SegmentView>, column: Column, stage: Stage) {
        let clock = self.clock;
        if let Some(held) = self.segments.get_mut(&address_of(segment, column)) {
            let held = &mut held.columns[column.index()];
            held.stage = stage;
            held.used = clock;
        }
    }

    fn stage(&self, segment: &Arc<SegmentView>, column: Column) -> Option<&Stage> {
        self.segments.get(&address_of(segment, column)).map(|held| &held.columns[column.index()].stage)
    }

    /// The list of a version's segments with these columns, all of which are there.
    pub(crate) fn list(&self, view: &CorpusView, columns: Columns) -> Vec<Segment> {
        let list = view.segments().filter(|(_, segment)| segment.rows() > 0).map(|(start, segment)| {
            let mut listed =
                Segment { first_row: start as u32, row_count: segment.rows() as u32, ..Segment::default() };
            for column in columns.iter() {
                let at = match self.stage(segment, column) {
                    Some(Stage::Ready(span)) => span.at(),
                    _ => DevicePtr::NULL,
                };
                columns::place(column, at, &mut listed);
            }
            listed
        });
        if columns.is_empty() { Vec::new() } else { list.collect() }
    }

    /// A list was replaced that jobs up to `through` may be reading.
    pub(crate) fn retain_list(&mut self, list: Span, through: u64) {
        self.limbo.push((through, list));
    }

    /// Forgets a version whose entry is gone. Its columns stay until their room is needed.
    pub(crate) fn forget(&mut self, key: Key) {
        let Some(version) = self.versions.remove(&key) else { return };
        if let Some((place, list)) = version.entry {
            self.table.remove(place, None);
            self.pool.give(list);
        }
        if let Some(session) = version.session {
            session.spans.into_iter().for_each(|span| self.pool.give(span));
        }
        if self.streamed == Some(key) {
            self.streamed = None;
        }
        for [data, view] in version.segments {
            for column in version.wanted.columns.iter() {
                let address = if column.hides() { view } else { data };
                let Some(held) = self.segments.get_mut(&address) else { continue };
                let held = &mut held.columns[column.index()];
                held.wanted -= 1;
                held.used = held.used.max(version.used);
                self.tidy(address);
            }
        }
    }

    /// Forgets a segment of which nothing is there.
    fn tidy(&mut self, address: usize) {
        let nothing = |held: &HeldColumn| held.wanted == 0 && matches!(held.stage, Stage::Absent);
        if self.segments.get(&address).is_some_and(|held| held.columns.iter().all(nothing)) {
            self.segments.remove(&address);
        }
    }

    /// Spans of these sizes, or what has to be done first: what is dead goes, then the pool grows, then what was used
    /// least recently goes.
    pub(crate) fn room(&mut self, sizes: &[usize], is_settled: IsSettled<'_>) -> Room {
        for (through, list) in std::mem::take(&mut self.limbo) {
            if is_settled(through) { self.pool.give(list) } else { self.limbo.push((through, list)) }
        }
        loop {
            let lacking = match self.pool.take_all(sizes) {
                Ok(spans) => return Room::Taken(spans),
                Err(lacking) => lacking,
            };
            let victim = match self.victim(true, is_settled) {
                Some(victim) => victim,
                None => {
                    if let Some(bytes) = self.pool.growth(lacking) {
                        return self.grow(bytes, lacking, is_settled);
                    }
                    match self.victim(false, is_settled) {
                        Some(victim) => victim,
                        None => return self.patience(is_settled),
                    }
                }
            };
            match victim {
                Victim::Version(key) => return Room::Retire(key),
                Victim::Column(address, column) => self.evict(address, column),
            }
        }
    }

    /// Growing stops the kernel, which finishes its jobs first. A streamed job takes as long as its corpus takes over
    /// the bus, longer than a stop may take, so its end is awaited before.
    fn grow(&mut self, bytes: usize, lacking: usize, is_settled: IsSettled<'_>) -> Room {
        if self.growing {
            return Room::Wait;
        }
        match self.streamed.and_then(|key| self.versions.get_mut(&key)) {
            Some(version) if version.pins > 0 || version.retiring => {
                version.closing = true;
                Room::Wait
            }
            Some(version) if !is_settled(version.mark) => Room::Pause,
            _ => Room::Grow { bytes, least: lacking },
        }
    }

    /// Nothing can go now: whether something can soon.
    fn patience(&self, is_settled: IsSettled<'_>) -> Room {
        let waits = |version: &Version| version.pins == 0 && !version.retiring && !is_settled(version.mark);
        if self.versions.values().any(|version| version.retiring) {
            Room::Wait
        } else if self.versions.values().any(waits) || !self.limbo.is_empty() {
            Room::Pause
        } else {
            Room::None
        }
    }

    /// What goes first: the dead before the living, then by time of last use. A version goes only when nobody uses it
    /// and the jobs that named it are settled; a column only when no version wants it.
    fn victim(&self, dead: bool, is_settled: IsSettled<'_>) -> Option<Victim> {
        let versions = self
            .versions
            .iter()
            .filter(|(_, version)| !dead || version.view.strong_count() == 0)
            .filter(|(_, version)| version.is_idle(is_settled))
            .map(|(key, version)| (version.used, Victim::Version(*key)));
        let columns =
            self.segments.iter().filter(|(_, held)| !dead || held.owner.is_dead()).flat_map(|(address, held)| {
                let loose = |held: &HeldColumn| held.wanted == 0 && matches!(held.stage, Stage::Ready(_));
                let loose = Column::ALL.into_iter().zip(&held.columns).filter(move |(_, held)| loose(held));
                loose.map(|(column, held)| (held.used, Victim::Column(*address, column)))
            });
        versions.chain(columns).min_by_key(|(used, _)| *used).map(|(_, victim)| victim)
    }

    fn evict(&mut self, address: usize, column: Column) {
        let Some(held) = self.segments.get_mut(&address) else { return };
        if let Stage::Ready(span) = std::mem::take(&mut held.columns[column.index()].stage) {
            self.pool.give(span);
        }
        self.tidy(address);
    }

    /// Whether nothing is in use but this version, by one call.
    pub(crate) fn is_alone(&self, key: Key) -> bool {
        self.versions.iter().all(|(other, version)| version.pins == usize::from(*other == key) && !version.retiring)
    }

    /// Evicts all columns of a version's segments that no version wants, if the version itself is gone.
    pub(crate) fn clear(&mut self, view: &CorpusView) {
        for segment in filled(view) {
            for column in Column::ALL {
                let address = address_of(segment, column);
                let held = self.segments.get(&address).map(|held| &held.columns[column.index()]);
                if held.is_some_and(|held| held.wanted == 0) {
                    self.evict(address, column);
                }
            }
        }
    }

    /// A place of the table for a key's next entry, or what has to be done first.
    pub(crate) fn place(&mut self, key: Key, is_settled: IsSettled<'_>) -> Result<usize, Room> {
        let entry = self.versions.get(&key).and_then(|version| version.entry.as_ref());
        let replaces = entry.map(|(place, _)| *place);
        if let Some(place) = self.table.claim(key, replaces, is_settled) {
            return Ok(place);
        }
        let reach: Vec<usize> = probes_behind(key, replaces).collect();
        let in_reach = |version: &Version| version.entry.as_ref().is_some_and(|(place, _)| reach.contains(place));
        let idle = self.versions.iter().filter(|(_, version)| in_reach(version) && version.is_idle(is_settled));
        match idle.min_by_key(|(_, version)| (version.view.strong_count() > 0, version.used)) {
            Some((key, _)) => Err(Room::Retire(*key)),
            None => Err(self.patience(is_settled)),
        }
    }
}

/// The segments that have rows.
fn filled(view: &CorpusView) -> impl Iterator<Item = &Arc<SegmentView>> {
    view.segments().map(|(_, segment)| segment).filter(|segment| segment.rows() > 0)
}

/// The address of what a column belongs to: the data of a segment, or one view of it.
fn address_of(segment: &Arc<SegmentView>, column: Column) -> usize {
    if column.hides() { view_address(segment) } else { data_address(segment) }
}

fn view_address(segment: &Arc<SegmentView>) -> usize {
    Arc::as_ptr(segment).addr()
}

fn data_address(segment: &SegmentView) -> usize {
    Arc::as_ptr(segment.shared_data()).addr()
}
