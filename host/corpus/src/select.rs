//! Versions of which some rows alone are visible: those that a filter lets pass, and that lists of ids allow.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use arrow_buffer::BooleanBuffer;
use megaring_core::Error;
use megaring_core::corpus::{CorpusTable, CorpusView, SegmentView};
use megaring_core::visible::Visible;
use rayon::prelude::*;
use roaring::{RoaringBitmap, RoaringTreemap};

use crate::columns::EMBEDDING;
use crate::fetch::damaged;
use crate::filter::{FIELD, Filter, rows_that_pass};
use crate::ids::rows_with;
use crate::segment::part_of;

/// Whether anybody still wants what is being worked out. Asked before each comparison of each record batch.
pub type Wanted<'a> = &'a (dyn Fn() -> bool + Sync);

/// Which rows are wanted. Empty, it is all of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Selection {
    /// Rows of which this is true.
    pub filter: Option<Filter>,
    /// Rows that have one of these ids.
    pub allow: Option<IdList>,
    /// But for rows that have one of these.
    pub deny: IdList,
}

/// Ids, in either or both forms.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct IdList {
    /// Numbers.
    pub numbers: RoaringTreemap,
    /// Texts, of a corpus that has an id column.
    pub texts: BTreeSet<String>,
}

impl IdList {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty() && self.texts.is_empty()
    }

    /// Bytes that it takes to keep it, about.
    fn bytes(&self) -> usize {
        let texts = self.texts.iter().map(|text| size_of::<String>() + text.len());
        self.numbers.serialized_size() + texts.sum::<usize>()
    }
}

impl FromIterator<u64> for IdList {
    fn from_iter<T: IntoIterator<Item = u64>>(numbers: T) -> Self {
        Self { numbers: numbers.into_iter().collect(), texts: BTreeSet::new() }
    }
}

impl FromIterator<String> for IdList {
    fn from_iter<T: IntoIterator<Item = String>>(texts: T) -> Self {
        Self { numbers: RoaringTreemap::new(), texts: texts.into_iter().collect() }
    }
}

impl Selection {
    /// Whether it is all rows.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.filter.is_none() && self.allow.is_none() && self.deny.is_empty()
    }

    /// Bytes that it takes to keep it, about.
    fn bytes(&self) -> usize {
        self.allow.as_ref().map_or(0, IdList::bytes) + self.deny.bytes()
    }
}

/// Bytes of all selections that are kept.
const KEPT_BYTES: usize = 256 << 20;
/// Those of a row: with the columns of a screen.
const ROW_BYTES: usize = 17;
/// Those of an element of a row that is gathered: value, code and halves of it.
const GATHERED_BYTES: usize = 6;
/// Selections that are kept.
const KEPT: usize = 64;
/// How often who waits for a selection looks whether it is there, and whether it is wanted still.
const LOOK: Duration = Duration::from_millis(1);

/// Selections that were asked for lately: the next search by one finds what the first has made ready.
#[derive(Default)]
pub(crate) struct Selections {
    kept: Mutex<Vec<Kept>>,
    /// Those that are being made: who wants the same waits for it.
    making: Mutex<Vec<Arc<Making>>>,
}

struct Making {
    of: Arc<CorpusView>,
    selection: Selection,
    turn: Mutex<()>,
}

/// The rows that a selection wants.
#[derive(Clone)]
pub struct Selected {
    /// The version of which they alone are visible.
    pub view: Arc<CorpusView>,
    /// The same rows gathered, where they are few and were asked for before: see [`CorpusTable::gather`].
    pub gathered: Option<Arc<CorpusView>>,
}

/// A selection that was made.
pub(crate) struct Kept {
    of: Arc<CorpusView>,
    selection: Selection,
    selected: Selected,
}

/// Rows are gathered where they are at most one in so many.
const GATHERED_SHARE: usize = 32;

/// The right to make something, once nobody else does.
pub(crate) fn turn<'a>(making: &'a Mutex<()>, wanted: Wanted<'_>) -> Result<MutexGuard<'a, ()>, Error> {
    loop {
        match making.try_lock() {
            Ok(turn) => return Ok(turn),
            Err(TryLockError::Poisoned(turn)) => return Ok(turn.into_inner()),
            Err(TryLockError::WouldBlock) => ensure(wanted)?,
        }
        std::thread::sleep(LOOK);
    }
}

pub(crate) fn ensure(wanted: Wanted<'_>) -> Result<(), Error> {
    if wanted() { Ok(()) } else { Err(Error::Cancelled) }
}

impl Selected {
    /// Whether nothing is to be gathered.
    fn is_ready(&self) -> bool {
        let few = self.view.visible_rows() > 0 && self.view.visible_rows() <= self.view.rows() / GATHERED_SHARE;
        self.gathered.is_some() || !few
    }
}

impl Kept {
    fn is_of(&self, view: &Arc<CorpusView>, selection: &Selection) -> bool {
        Arc::ptr_eq(&self.of, view) && self.selection == *selection
    }

    fn bytes(&self) -> usize {
        let gathered = self.selected.gathered.as_ref().map_or(0, |view| view.rows() * view.dim() * GATHERED_BYTES);
        self.of.rows() * ROW_BYTES + self.selection.bytes() + gathered
    }
}

impl Selections {
    /// The rows of a version that a selection wants, where nothing is left to be done for them.
    pub(crate) fn known(&self, view: &Arc<CorpusView>, selection: &Selection) -> Option<Selected> {
        if selection.is_all() {
            return Some(Selected { view: view.clone(), gathered: None });
        }
        self.find(view, selection).filter(Selected::is_ready)
    }

    /// The rows of a version that a selection wants. Who is cancelled fails nobody who waits for the same.
    pub(crate) fn select(
        &self,
        view: &Arc<CorpusView>,
        selection: &Selection,
        table: &CorpusTable,
        wanted: Wanted<'_>,
    ) -> Result<Selected, Error> {
        if let Some(known) = self.known(view, selection) {
            return Ok(known);
        }
        let making = self.making(view, selection);
        let _turn = turn(&making.turn, wanted)?;
        let made = match self.find(view, selection) {
            Some(known) if known.is_ready() => Ok(known),
            // Who asks again is likely to ask once more.
            Some(known) => Ok(Selected { gathered: Some(table.gather(&known.view)), ..known }),
            None => {
                visible(view, selection, wanted).map(|rows| Selected { view: table.select(view, rows), gathered: None })
            }
        };
        if let Ok(selected) = &made {
            self.keep(Kept { of: view.clone(), selection: selection.clone(), selected: selected.clone() });
        }
        self.making.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| !Arc::ptr_eq(other, &making));
        made
    }

    fn making(&self, view: &Arc<CorpusView>, selection: &Selection) -> Arc<Making> {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |other: &&Arc<Making>| Arc::ptr_eq(&other.of, view) && other.selection == *selection;
        if let Some(same) = making.iter().find(is_same) {
            return same.clone();
        }
        let new = Arc::new(Making { of: view.clone(), selection: selection.clone(), turn: Mutex::default() });
        making.push(new.clone());
        new
    }

    fn find(&self, view: &Arc<CorpusView>, selection: &Selection) -> Option<Selected> {
        let mut kept = self.lock();
        let at = kept.iter().position(|kept| kept.is_of(view, selection))?;
        let found = kept.remove(at);
        let selected = found.selected.clone();
        // The last is what was asked for last.
        kept.push(found);
        Some(selected)
    }

    fn keep(&self, new: Kept) {
        let mut kept = self.lock();
        kept.retain(|kept| !kept.is_of(&new.of, &new.selection));
        kept.push(new);
        let mut bytes: usize = kept.iter().map(Kept::bytes).sum();
        let mut gone = 0;
        while gone + 1 < kept.len() && (bytes > KEPT_BYTES || kept.len() - gone > KEPT) {
            bytes -= kept[gone].bytes();
            gone += 1;
        }
        kept.drain(..gone);
    }

    /// Lets go of what was made of a corpus, which has another version now, or none. It comes back, to be dropped where
    /// nobody waits: a version may hold much.
    pub(crate) fn forget(&self, corpus: &str) -> Vec<Kept> {
        self.lock().extract_if(.., |kept| kept.of.name() == corpus).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rows of each segment that a selection wants.
fn visible(view: &CorpusView, selection: &Selection, wanted: Wanted<'_>) -> Result<Vec<Visible>, Error> {
    check_columns(view, selection)?;
    passing_rows(view, selection, wanted)
}

/// The same of a selection that passed [`check_columns`], be it with other segments.
pub(crate) fn passing_rows(
    view: &CorpusView,
    selection: &Selection,
    wanted: Wanted<'_>,
) -> Result<Vec<Visible>, Error> {
    let segments: Vec<(usize, &Arc<SegmentView>)> = view.segments().collect();
    let mut visible = segments
        .par_iter()
        .map(|(start, segment)| match &selection.filter {
            Some(filter) => passing(view, (*start, segment), filter, wanted),
            None => Ok(Visible::all(segment.rows())),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let local = |rows: &RoaringBitmap, start: usize, len: usize| -> Vec<usize> {
        rows.range(start as u32..(start + len) as u32).map(|row| row as usize - start).collect()
    };
    if let Some(allow) = &selection.allow {
        ensure(wanted)?;
        let rows = rows_with(view, allow, "filter.allow.texts")?;
        for (visible, (start, segment)) in visible.iter_mut().zip(&segments) {
            let allowed = Visible::none(segment.rows()).with(local(&rows, *start, segment.rows()).into_iter());
            *visible = allowed.and(visible);
        }
    }
    if !selection.deny.is_empty() {
        ensure(wanted)?;
        let rows = rows_with(view, &selection.deny, "filter.deny.texts")?;
        for (visible, (start, segment)) in visible.iter_mut().zip(&segments) {
            let denied = local(&rows, *start, segment.rows());
            *visible = std::mem::replace(visible, Visible::none(0)).without(denied.into_iter());
        }
    }
    Ok(visible)
}

/// Refuses a filter by columns that no row has.
pub(crate) fn check_columns(view: &CorpusView, selection: &Selection) -> Result<(), Error> {
    let Some(filter) = &selection.filter else { return Ok(()) };
    filter.check_size()?;
    let mut known: Vec<String> = Vec::new();
    for part in view.segments().filter_map(|(_, segment)| part_of(segment)) {
        for field in part.fields() {
            if !known.contains(field.name()) {
                known.push(field.name().clone());
            }
        }
    }
    if view.rows() == 0 {
        return Ok(());
    }
    match filter.columns().into_iter().find(|column| !known.iter().any(|name| name == column)) {
        Some(column) => {
            known.retain(|name| name != EMBEDDING);
            Err(Error::field(FIELD, format!("no row has a column {column:?}; there are {}", known.join(", "))))
        }
        None => Ok(()),
    }
}

fn passing(
    view: &CorpusView,
    (start, segment): (usize, &SegmentView),
    filter: &Filter,
    wanted: Wanted<'_>,
) -> Result<Visible, Error> {
    let rows = segment.rows();
    let Some(part) = part_of(segment) else {
        return Err(Error::Internal(format!("corpus {:?} has rows that no store holds", view.name())));
    };
    let column = |name: &str| {
        ensure(wanted)?;
        part.column(name).map_err(|fault| damaged(view, start, &fault))
    };
    let passing: BooleanBuffer = rows_that_pass(filter, rows, &column)?;
    // From its first bit on.
    Ok(Visible::of_bits(passing.sliced().as_slice(), rows))
}
