//! A search whose answer may be of any size, as a series of searches that are not: every hit that passes a threshold,
//! or the neighbours of every row of a corpus. What `join` on the command line and the streams of the server share.
//!
//! It asks nobody itself. [`LongSearch::search`] says what is to be searched next, [`LongSearch::answer`] takes what
//! came out, and [`LongSearch::found`] gives the hits, query by query in the order of the queries and best first. Each
//! of the searches is a job like any other, so others get their turn between them, and nothing is searched before
//! somebody asks for it.
//!
//! How many hits of a query pass a threshold shows only as they are found. The best few are asked for first: where few
//! rows pass, the screen drops all others unscored. Where the list comes back full, the query is asked again, in its
//! turn, for more, and what is known already is left out. Beyond [`HITS`] a query is searched anew for each further
//! [`HITS`]: a list of all its hits would be kept for as long as its reader takes.
//!
//! What is kept of hits not yet taken is therefore bounded, however many there are: [`HITS`] for each number of hits
//! that lists are asked again for, some 20 MiB in all.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use megaring_core::backend::BackendKind;
use megaring_core::corpus::{CorpusView, SelfJoin};
use megaring_core::exact::reported;
use megaring_core::lists::wants_every_row;
use megaring_core::matrix::Matrix;
use megaring_core::operation::Limits;
use megaring_core::rescore::{Hit, Ranked};
use megaring_core::search::{Queries, Search};
use megaring_core::{Element, Error, Metric, Operation as _, RowType};
use megaring_corpus::{Pairs, TextIds};

use crate::batching::FEW;
use crate::engine::Engine;

/// Hits that one search may answer, and that a query gets at a time: 4 MiB of them.
pub const HITS: usize = 1 << 18;
/// Queries of one search.
const QUERIES: usize = 4096;
/// Multiplications of one search, as its screen goes about it: some 60 ms on two cores.
const MULTIPLY_ADDS: usize = 1 << 34;
/// Bytes of queries that are copied for one search.
const SENT_BYTES: usize = 4 << 20;
/// Hits that are asked for first where all that pass are wanted, and how many times as many if there may be more.
const FIRST: usize = 64;
const MORE: usize = 8;

/// Bytes that all joins of a corpus with itself may keep; one that finds no room searches for each row by itself.
const JOIN_BYTES: usize = 3 << 30;
/// Parts that such a join has at least, and the multiple of its queries: whole tiles for two workers.
const JOIN_PARTS: usize = 16;
const JOIN_QUERIES: usize = 192;

/// Whose hits are looked for.
#[derive(Clone)]
pub enum Of {
    /// Of these queries, numbered from 0.
    Queries(Queries),
    /// Of rows of a corpus, by their numbers. No row is found by itself where that is the corpus searched.
    Rows {
        /// The corpus.
        corpus: Arc<CorpusView>,
        /// The rows.
        rows: Range<u32>,
    },
}

/// What is looked for.
#[derive(Clone)]
pub struct Asked {
    /// The version searched.
    pub searched: Arc<CorpusView>,
    /// For whom.
    pub of: Of,
    /// How rows compare.
    pub metric: Metric,
    /// Hits wanted of each query, at least 1. `None` is all of them, and of the pairs of one corpus with itself each
    /// once, by its earlier row.
    pub k: Option<usize>,
    /// What a hit's reported score must be at least, or at most where the metric is a distance.
    pub threshold: Option<f64>,
}

/// The next hits of a query, best first, equal scores by smaller row.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Number of the query, or of the row.
    pub query: u32,
    /// The hits. There may be none.
    pub hits: Vec<Hit>,
    /// Whether these are its last.
    pub is_last: bool,
}

/// A long search under way.
pub struct LongSearch {
    asked: Asked,
    /// The version searched, where it is searched for its own rows.
    join: Option<(Arc<CorpusView>, Room)>,
    limits: Limits,
    /// Queries that are not begun.
    rest: Range<u32>,
    /// What is known of those that are, in their order.
    begun: VecDeque<Begun>,
    /// What is being searched for.
    round: Option<Round>,
    /// Hits that the query in front may still get.
    left: usize,
}

enum Begun {
    /// Hits that nobody has taken yet.
    Found(Found),
    /// A query of which so many hits are found, and may have more.
    Open { query: u32, found: usize },
}

/// A search for queries of which equally many hits are found.
#[derive(Clone, Copy)]
struct Round {
    found: usize,
    /// Hits that each is to have then.
    wanted: usize,
    /// Hits that are asked for.
    k: usize,
    /// Queries at most.
    queries: usize,
}

impl Of {
    /// Their numbers.
    #[must_use]
    pub fn numbers(&self) -> Range<u32> {
        match self {
            Self::Queries(queries) => 0..queries.len() as u32,
            Self::Rows { rows, .. } => rows.clone(),
        }
    }
}

impl Asked {
    /// Whether rows of a corpus are looked for in that corpus.
    fn is_self(&self) -> bool {
        matches!(&self.of, Of::Rows { corpus, .. } if Arc::ptr_eq(corpus, &self.searched))
    }

    /// Whether a number is one of a query: a hidden row is none.
    fn asks(&self, number: u32) -> bool {
        match &self.of {
            Of::Queries(_) => true,
            Of::Rows { corpus, .. } => corpus.shows(number),
        }
    }

    /// Whether a row is a hit of a query.
    fn tells(&self, query: u32, row: u32) -> bool {
        !self.is_self() || if self.k.is_none() { row > query } else { row != query }
    }

    /// Hits that a search must find of a query for [`Self::k`] of them to be told.
    fn most(&self) -> usize {
        self.k.map_or(usize::MAX, |k| k.saturating_add(usize::from(self.is_self())))
    }

    fn search(&self, queries: Queries, k: usize) -> Search {
        Search { corpus: self.searched.clone(), queries, metric: self.metric, k, threshold: self.threshold }
    }

    /// Some of the queries, to be searched for.
    fn queries(&self, numbers: &[u32]) -> Queries {
        match &self.of {
            Of::Queries(Queries::Rows(rows)) => {
                Queries::Rows(numbers.iter().map(|number| rows[*number as usize]).collect())
            }
            Of::Queries(Queries::Sent(sent)) => self.sent(numbers, |number| sent.row(number as usize)),
            Of::Rows { .. } if self.is_self() => Queries::Rows(numbers.to_vec()),
            Of::Rows { corpus, .. } => self.sent(numbers, |row| corpus.embedding(row)),
        }
    }

    fn sent<'a>(&self, numbers: &[u32], values: impl Fn(u32) -> &'a [f32]) -> Queries {
        let values = numbers.iter().flat_map(|number| values(*number).iter().copied()).collect();
        Queries::Sent(Matrix { rows: numbers.len(), dim: self.searched.dim(), values })
    }
}

impl LongSearch {
    /// Begins one that `engine` is to do.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `other` where the rows of two corpora have different dimensions, or `metric` where it
    /// does not compare such rows.
    pub fn new(asked: Asked, engine: &Engine) -> Result<Self, Error> {
        let mut search = Self::within(asked, engine.limits)?;
        search.join = search.join_by(engine);
        Ok(search)
    }

    /// The version searched as one whose searches for its own rows are a join, where the processor does them.
    fn join_by(&self, engine: &Engine) -> Option<(Arc<CorpusView>, Room)> {
        let Asked { searched, metric, k, threshold, .. } = &self.asked;
        let rows = searched.rows();
        let kinds = engine.router().lanes().iter().all(|lane| lane.kind() == BackendKind::Cpu);
        if !self.asked.is_self() || !kinds || searched.row_type().element != Element::Float32 {
            return None;
        }
        // What is kept of rows that are never asked for is kept for nothing, and so it is where all are scored.
        let most = self.asked.most();
        let is_wild = searched.segments().any(|(_, segment)| segment.data().codes().wild);
        if self.rest.start > 0 || (self.rest.end as usize) < rows - rows / 4 || is_wild {
            return None;
        }
        if k.is_none() || threshold.is_some() || wants_every_row(most as u64, rows as u64) {
            return None;
        }
        let room = Room::take(&engine.joins, SelfJoin::bytes(most, rows))?;
        let join = SelfJoin::new(*metric, most, searched);
        Some((engine.store().table().join(searched, join), room))
    }

    /// [`Self::new`] for searches of which no piece is beyond these limits.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn within(asked: Asked, limits: Limits) -> Result<Self, Error> {
        if let Of::Rows { corpus, .. } = &asked.of
            && corpus.row_type() != asked.searched.row_type()
        {
            let elements = |view: &Arc<CorpusView>| match view.row_type() {
                RowType { element: Element::Float32, dim } => format!("{dim} elements"),
                RowType { element: Element::Bit, dim } => format!("{dim} bits"),
            };
            let [one, other] = [corpus, &asked.searched].map(elements);
            let names = (corpus.name(), asked.searched.name());
            let text = format!(
                "rows of different dimensions cannot be compared: {} has {one}, {} has {other}",
                names.0, names.1
            );
            return Err(Error::field("other", text));
        }
        asked.searched.row_type().metric(Some(asked.metric))?;
        let (rest, left) = (asked.of.numbers(), asked.k.unwrap_or(usize::MAX));
        Ok(Self { asked, join: None, limits, rest, begun: VecDeque::new(), round: None, left })
    }

    /// Hits that are there for the taking.
    pub fn found(&mut self) -> Option<Found> {
        let Some(Begun::Found(_)) = self.begun.front() else { return None };
        let Some(Begun::Found(mut found)) = self.begun.pop_front() else { return None };
        found.hits.retain(|hit| self.asked.tells(found.query, hit.row));
        found.hits.truncate(self.left);
        self.left = if found.is_last { self.asked.k.unwrap_or(usize::MAX) } else { self.left - found.hits.len() };
        Some(found)
    }

    /// What is to be searched now, once all that is found was taken; `None` where that was all. Asked again before the
    /// answer, it says the same again.
    pub fn search(&mut self) -> Option<Search> {
        while self.begun.is_empty() && !self.rest.is_empty() {
            let first = self.rest.start;
            self.rest.start = self.rest.end.min(first.saturating_add(self.round(0).queries as u32));
            let asked = (first..self.rest.start).filter(|query| self.asked.asks(*query));
            self.begun.extend(asked.map(|query| Begun::Open { query, found: 0 }));
        }
        let Some(Begun::Open { found, .. }) = self.begun.front() else { return None };
        let round = self.round(*found);
        let queries = self.begun.iter().filter_map(|begun| round.asks_of(begun)).take(round.queries);
        let queries: Vec<u32> = queries.collect();
        self.round = Some(Round { queries: queries.len(), ..round });
        let search = self.asked.search(self.asked.queries(&queries), round.k);
        Some(match &self.join {
            Some((corpus, _)) => Search { corpus: corpus.clone(), ..search },
            None => search,
        })
    }

    /// Takes what the search found.
    pub fn answer(&mut self, ranked: Vec<Ranked>) {
        let Some(round) = self.round.take() else { return };
        let mut ranked = ranked.into_iter().take(round.queries);
        for begun in std::mem::take(&mut self.begun) {
            let Some((query, ranked)) = round.asks_of(&begun).and_then(|query| Some((query, ranked.next()?))) else {
                self.begun.push_back(begun);
                continue;
            };
            let mut hits = ranked.hits;
            let is_full = hits.len() == round.k && round.k < self.asked.searched.visible_rows();
            let is_last = round.wanted >= self.asked.most() || !(is_full || hits.len() > round.wanted);
            hits.truncate(round.wanted);
            hits.drain(..round.found.min(hits.len()));
            hits.shrink_to_fit();
            self.begun.push_back(Begun::Found(Found { query, hits, is_last }));
            if !is_last {
                self.begun.push_back(Begun::Open { query, found: round.wanted });
            }
        }
    }

    /// Hits that are found and not taken yet.
    #[must_use]
    pub fn kept(&self) -> usize {
        let kept = |begun: &Begun| match begun {
            Begun::Found(found) => found.hits.len(),
            Begun::Open { .. } => 0,
        };
        self.begun.iter().map(kept).sum()
    }

    /// The search for more, of queries of which so many hits are found.
    fn round(&self, found: usize) -> Round {
        let (rows, dim) = (self.asked.searched.visible_rows(), self.asked.searched.dim());
        let most = self.asked.most();
        let first = self.asked.k.map_or(FIRST, |_| most);
        let wanted = if found == 0 { first } else { found.saturating_mul(MORE) };
        let wanted = wanted.min(found.saturating_add(HITS)).min(most);
        // Of every row no list is made that would have to fit.
        let k = if self.fits(wanted) { wanted } else { wanted.max(rows.div_ceil(2)) };
        let work = (MULTIPLY_ADDS / rows.saturating_mul(dim).max(1)).max(FEW);
        let sent = match &self.asked.of {
            Of::Queries(Queries::Rows(_)) => usize::MAX,
            Of::Rows { .. } if self.asked.is_self() => usize::MAX,
            _ => SENT_BYTES / (dim * size_of::<f32>()).max(1),
        };
        let queries = QUERIES.min(HITS / k.min(rows).max(1)).min(work).min(sent).max(1);
        let queries = if self.join.is_some() { self.join_part(queries, k) } else { queries };
        Round { found, wanted, k, queries }
    }

    /// Queries of a part of a join, at most so many.
    fn join_part(&self, queries: usize, k: usize) -> usize {
        let part = queries.min((self.asked.searched.visible_rows() / JOIN_PARTS).max(FEW));
        // A part in several pieces would not be done one after the other.
        let pieces = self.asked.search(Queries::Rows(vec![0; part]), k).pieces(&self.limits);
        let part = pieces.first().map_or(part, |piece| piece.items.len());
        if part > JOIN_QUERIES { part - part % JOIN_QUERIES } else { part }
    }

    /// Whether a backend has room for what it finds of a query.
    fn fits(&self, k: usize) -> bool {
        let one = self.asked.search(Queries::Rows(vec![0]), k);
        one.pieces(&self.limits).iter().all(|piece| piece.bytes() <= self.limits.max_bytes)
    }
}

/// Bytes that a join may come to keep, until it is dropped.
struct Room {
    taken: Arc<AtomicUsize>,
    bytes: usize,
}

impl Room {
    /// `None` where there is not so much.
    fn take(taken: &Arc<AtomicUsize>, bytes: usize) -> Option<Self> {
        let more = |taken: usize| taken.checked_add(bytes).filter(|all| *all <= JOIN_BYTES);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self { taken: taken.clone(), bytes })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Round {
    /// The query, if it is one of those that this is about.
    fn asks_of(&self, begun: &Begun) -> Option<u32> {
        match begun {
            Begun::Open { query, found } if *found == self.found => Some(*query),
            _ => None,
        }
    }
}

/// Adds a row's hits to pairs. `corpus` has the row, `searched` the hits; `texts` are the text ids of both.
pub fn add_pairs(
    pairs: &mut Pairs,
    corpus: &CorpusView,
    row: u32,
    searched: &CorpusView,
    hits: &[Hit],
    texts: &[TextIds; 2],
) {
    let id = corpus.label(row).0;
    for hit in hits {
        pairs.text_ids.extend(texts[0].get(row).map(str::to_owned));
        pairs.neighbour_text_ids.extend(texts[1].get(hit.row).map(str::to_owned));
        pairs.rows.push(row);
        pairs.memory_ids.push(id);
        pairs.neighbours.push(hit.row);
        pairs.neighbour_ids.push(searched.label(hit.row).0);
        pairs.scores.push(reported(hit.score));
    }
}
