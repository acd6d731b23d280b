//! Rows by the ids that their callers gave them.

use std::collections::HashSet;

use megaring_core::Error;
use megaring_core::checksum::xxhash64;
use megaring_core::corpus::{CorpusView, MemoryIds};
use rayon::prelude::*;
use roaring::{RoaringBitmap, RoaringTreemap};

use crate::columns::MEMORY_ID;
use crate::fault::Fault;
use crate::segment::Part;
use crate::select::IdList;
use crate::text_ids::{self, TextIds};

/// Ids that are looked for.
pub(crate) struct IdSet {
    sorted: Vec<u64>,
    /// A bit for each hash that occurs: most rows need no further look.
    hashes: Vec<u64>,
    shift: u32,
}

/// Bits for each id, at least.
const BITS_PER_ID: usize = 16;
/// Rows of one parallel task.
const RUN: usize = 1 << 16;

impl IdSet {
    pub(crate) fn new(ids: &[u64]) -> Self {
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let bits = (sorted.len() * BITS_PER_ID).next_power_of_two().max(64);
        let mut set = Self { sorted, hashes: vec![0; bits / 64], shift: 64 - bits.trailing_zeros() };
        for at in 0..set.sorted.len() {
            let hash = set.hash(set.sorted[at]);
            set.hashes[hash / 64] |= 1 << (hash % 64);
        }
        set
    }

    /// Fibonacci hashing: the upper bits of a product with 2^64 over the golden ratio.
    fn hash(&self, id: u64) -> usize {
        (id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    pub(crate) fn contains(&self, id: u64) -> bool {
        let hash = self.hash(id);
        self.hashes[hash / 64] & 1 << (hash % 64) != 0 && self.sorted.binary_search(&id).is_ok()
    }

    /// The ids, each once, in rising order.
    pub(crate) fn ids(&self) -> &[u64] {
        &self.sorted
    }

    /// The visible rows of a view that have one of the ids.
    pub(crate) fn rows_of(&self, view: &CorpusView) -> RoaringBitmap {
        find(
            view,
            |id| self.contains(id),
            |first, last| {
                let begin = self.sorted.partition_point(|id| *id < first);
                self.sorted[begin..].iter().take_while(|id| **id < last).copied().collect()
            },
        )
    }
}

/// Texts that are looked for.
pub(crate) struct TextSet<'a> {
    numbers: IdSet,
    texts: HashSet<&'a str>,
}

impl<'a> TextSet<'a> {
    pub(crate) fn new(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let texts: HashSet<&str> = texts.into_iter().collect();
        let numbers: Vec<u64> = texts.iter().map(|text| xxhash64(text.as_bytes())).collect();
        Self { numbers: IdSet::new(&numbers), texts }
    }

    pub(crate) fn contains(&self, text: &str) -> bool {
        self.texts.contains(text)
    }

    /// The texts, each once, in rising order.
    pub(crate) fn texts(&self) -> Vec<&'a str> {
        let mut texts: Vec<&str> = self.texts.iter().copied().collect();
        texts.sort_unstable();
        texts
    }

    /// The visible rows of a view that have one of the texts; `ids` are the view's.
    pub(crate) fn rows_of(&self, view: &CorpusView, ids: &TextIds) -> RoaringBitmap {
        let is_wanted = |row: &u32| ids.get(*row).is_some_and(|text| self.contains(text));
        // Another text may have the same hash.
        self.numbers.rows_of(view).into_iter().filter(is_wanted).collect()
    }
}

/// Ids up to which a set is worth being laid out for looking them up.
const MOST_SORTED: u64 = 1 << 20;

/// The visible rows of a view that have an id of a list; `field` is where its texts come from.
pub(crate) fn rows_with(view: &CorpusView, list: &IdList, field: &str) -> Result<RoaringBitmap, Error> {
    let mut rows = rows_with_number(view, &list.numbers);
    if !list.texts.is_empty() {
        let ids = TextIds::asked_for(view, field)?;
        rows |= TextSet::new(list.texts.iter().map(String::as_str)).rows_of(view, &ids);
    }
    Ok(rows)
}

/// The visible rows of a view that have an id of a set, however large.
fn rows_with_number(view: &CorpusView, ids: &RoaringTreemap) -> RoaringBitmap {
    if ids.len() <= MOST_SORTED {
        return IdSet::new(&ids.iter().collect::<Vec<u64>>()).rows_of(view);
    }
    find(view, |id| ids.contains(id), |first, last| (first..last).filter(|id| ids.contains(*id)).collect())
}

/// The visible rows whose id is among those wanted. `within` has the wanted ids from one on to below another.
fn find(
    view: &CorpusView,
    is_wanted: impl Fn(u64) -> bool + Sync,
    within: impl Fn(u64, u64) -> Vec<u64>,
) -> RoaringBitmap {
    let mut rows = RoaringBitmap::new();
    for (start, segment) in view.segments() {
        let shows = |row: &usize| segment.visible().is_none_or(|visible| visible.contains(*row));
        let found: Vec<usize> = match segment.data().memory_ids() {
            MemoryIds::From(first) => {
                let wanted = within(first, first.saturating_add(segment.rows() as u64));
                wanted.into_iter().map(|id| (id - first) as usize).filter(shows).collect()
            }
            MemoryIds::Given(ids) => {
                let of_run = |(run, ids): (usize, &[u64])| {
                    let found = ids.iter().enumerate().filter(|(_, id)| is_wanted(**id));
                    found.map(move |(at, _)| run * RUN + at).filter(shows).collect::<Vec<usize>>()
                };
                ids.par_chunks(RUN).enumerate().flat_map_iter(of_run).collect()
            }
        };
        rows.extend(found.into_iter().map(|row| (start + row) as u32));
    }
    rows
}

/// The ids of rows that are to be added: numbers, and the texts that these stand for, if they do.
pub(crate) struct NewIds {
    numbers: Vec<u64>,
    texts: TextIds,
    has_texts: bool,
}

impl NewIds {
    /// Of parts that follow each other.
    pub(crate) fn of_parts<'a>(
        parts: impl IntoIterator<Item = &'a Part> + Clone,
        id_column: Option<&str>,
    ) -> Result<Self, Fault> {
        let texts = TextIds::of_parts(parts.clone(), id_column)?;
        let given = |part: &'a Part| match part.ids() {
            MemoryIds::Given(ids) => ids,
            MemoryIds::From(_) => &[],
        };
        let numbers = parts.into_iter().flat_map(given).copied().collect();
        Ok(Self { numbers, texts, has_texts: id_column.is_some() })
    }

    /// The id of a row.
    fn id(&self, row: usize) -> (u64, &str) {
        (self.numbers[row], self.texts.get(row as u32).unwrap_or_default())
    }

    /// The visible rows of a view that have one of the ids.
    pub(crate) fn rows_of(&self, view: &CorpusView) -> Result<RoaringBitmap, Error> {
        if !self.has_texts {
            return Ok(IdSet::new(&self.numbers).rows_of(view));
        }
        let texts = (0..self.numbers.len()).map(|row| self.id(row).1);
        Ok(TextSet::new(texts).rows_of(view, &TextIds::of(view)?))
    }

    /// Rows whose id comes again later, with the next row that has it.
    pub(crate) fn repeated(&self) -> Vec<(usize, usize)> {
        let mut order: Vec<usize> = (0..self.numbers.len()).collect();
        order.par_sort_unstable_by(|a, b| (self.id(*a), a).cmp(&(self.id(*b), b)));
        let pairs = order.windows(2).filter(|pair| self.id(pair[0]) == self.id(pair[1]));
        pairs.map(|pair| (pair[0], pair[1])).collect()
    }

    /// Refuses rows of which one has the id of another row, be it of the corpus or among them.
    pub(crate) fn check_unique(&self, view: &CorpusView) -> Result<(), Error> {
        let refused = |row: usize, reason: String| {
            let (number, text) = self.id(row);
            let (field, id) = match self.has_texts {
                true => (text_ids::FIELD, format!("{text:?}")),
                false => (MEMORY_ID, number.to_string()),
            };
            Err(Error::row(field, row as u64, format!("{id} {reason}")))
        };
        if let Some((first, again)) = self.repeated().into_iter().min_by_key(|(_, again)| *again) {
            return refused(again, format!("is the id of row {first} too, and the corpus has each id once"));
        }
        let found = self.rows_of(view)?;
        let known = TextIds::of(view)?;
        let taken: HashSet<(u64, &str)> =
            found.iter().map(|row| (view.label(row).0, known.get(row).unwrap_or_default())).collect();
        match (0..self.numbers.len()).find(|row| taken.contains(&self.id(*row))) {
            Some(row) => refused(row, "is in the corpus already; an upsert replaces its row".into()),
            None => Ok(()),
        }
    }
}

/// The least id that no row, hidden ones included, has and none above it.
pub(crate) fn next_unused(view: &CorpusView) -> Option<u64> {
    let last = view.segments().filter_map(|(_, segment)| match segment.data().memory_ids() {
        MemoryIds::From(first) => Some(first.saturating_add(segment.rows() as u64 - 1)),
        MemoryIds::Given(ids) => ids.par_iter().copied().max(),
    });
    match last.max() {
        Some(last) => last.checked_add(1),
        None => Some(0),
    }
}
