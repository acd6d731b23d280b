//! Search: the int8 screen (host/core's `screen.rs`, which argues the bound) with the top k fused, candidates out.
//!
//! The sums of a screen are exact, as WGSL's integers are. A bound takes eight more operations in float32, or fewer
//! where products and sums are fused, each off by at most 2⁻²³ (WGSL leaves the direction of rounding open). With the
//! roundings of what the host prepares that is below half of `SLACK` = 2⁻¹⁸, relative to the same terms. What is
//! flushed to zero, below 2⁻¹²⁶, is nothing beside them, since norms are at least 2⁻⁴⁰.
//!
//! Few queries are screened by teams of threads that share a group of rows, more queries in tiles ([`stage_for`]).

use bytemuck::{Pod, Zeroable};
use megaring_core::corpus::{Column, CorpusView};
use megaring_core::exact::ScalarKernel;
use megaring_core::lists::{CandidateLists, Candidates, ListHeader, len};
use megaring_core::rescore::{Ask, Hit, compare, rank};
use megaring_core::screen::{self, QueryScreen};
use megaring_core::search::FLAG_QUERY_ROWS;
use megaring_core::{Element, Metric, exact};
use megaring_ring::Status;
use rayon::prelude::*;

use super::bits::{self, Bits};
use super::lists::{Block, Lists, Screen, Threshold};
use super::{Delivery, Handler, Operation, Part, same_layout};
use crate::plan::{Context, Inputs, Planned, Source, split};
use crate::script::{Script, Sizes};
use crate::self_test::{DIM, HITS, ROWS, Trial};
use crate::stage::Stage;

pub(crate) const HANDLER: Handler = Handler { plan, self_test };

/// Queries whose codes lie together: `[query / 4][quad]`, a word of four codes for each.
const TOGETHER: usize = 4;
/// So many queries are worth a tile of 16, and so many one of 64.
const SOME: u32 = 8;
const MANY: u32 = 33;
/// Most workgroups of a dispatch along one dimension.
const WORKGROUPS: u32 = 65_535;
/// What flushed denormals may take from an absolute slack (see [`Threshold::slack`]).
const SLACK_MARGIN: f64 = 1.0 + 1.0 / 512.0;

/// `SearchParams` in `wgsl/shared/screen.wgsl`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct SearchParams {
    block: Block,
    quads: u32,
    screens: u32,
    codes: u32,
    unused: u32,
}

same_layout!(search_params: SearchParams { block, quads, screens, codes, unused });

/// What a search asks.
#[derive(Debug, Clone, Copy)]
struct SearchAsk {
    metric: Metric,
    /// Queries, and their width.
    items: usize,
    dim: usize,
    k: usize,
    /// Scores that a hit must pass; the metric's worst where all do.
    threshold: f64,
}

/// What a search must know of its corpus.
#[derive(Debug, Clone, Copy)]
struct SearchCorpus {
    rows: usize,
    /// The largest norm of a row.
    max_norm: f64,
    /// Whether some segment cannot be screened.
    wild: bool,
}

impl SearchCorpus {
    fn of(view: &CorpusView) -> Self {
        let codes = || view.segments().map(|(_, segment)| segment.data().codes());
        let max_norm = codes().map(|codes| codes.max_norm).fold(0.0, f64::max);
        Self { rows: view.rows(), max_norm, wild: codes().any(|codes| codes.wild) }
    }
}

fn columns(metric: Metric) -> [Column; 2] {
    [Column::Codes, Column::Screen(metric)]
}

fn plan<'a>(inputs: &Inputs<'a>, context: &Context<'_>) -> Result<Planned<'a>, Status> {
    let view = inputs.corpus_of_dim(context.corpora)?;
    let (metric, items, k) = (inputs.metric_of(&view)?, inputs.items(), inputs.k()?);
    // Queries are made ready on the host, which sends them as they are.
    if inputs.descriptor.flags & FLAG_QUERY_ROWS != 0 {
        return Err(Status::BadDescriptor);
    }
    let (queries, _) = split::<f32>(inputs.payload, items, view.dim())?;
    inputs.check_room(size_of::<ListHeader>())?;
    let threshold = inputs.descriptor.threshold;
    if metric.element() == Element::Bit {
        let bits = Bits::new(queries, (metric, k, threshold), (view.rows(), view.dim()), inputs.result_len());
        let source = if bits.is_unscreened() { Source::Nothing } else { Source::corpus(view, &bits::COLUMNS)? };
        return Ok(Planned::new(bits, source));
    }
    let ask = SearchAsk { metric, items, dim: view.dim(), k, threshold };
    let search = Search::new(queries, ask, SearchCorpus::of(&view), inputs.result_len());
    let source = if search.is_unscreened { Source::Nothing } else { Source::corpus(view, &columns(metric))? };
    Ok(Planned::new(search, source))
}

fn self_test(trial: &Trial<'_>) -> Result<(), String> {
    // For each of the stages that a search may begin with.
    const BATCHES: [usize; 4] = [1, 5, 20, 40];
    for metric in Metric::OF_FLOATS {
        let parts = trial.parts(&columns(metric))?;
        let threshold = if metric == Metric::L2 { f64::INFINITY } else { f64::NEG_INFINITY };
        for (items, k) in BATCHES.into_iter().flat_map(|items| HITS.map(|k| (items, k))) {
            let ask = SearchAsk { metric, items, dim: DIM, k, threshold };
            let len = len(items, ROWS);
            let queries = &trial.queries[..items * DIM];
            let mut job = Search::new(queries, ask, SearchCorpus::of(&trial.view), len);
            let found: Vec<u64> = bytemuck::allocation::pod_collect_to_vec(&trial.run(&mut job, &parts, len)?);
            let lists = CandidateLists::read(bytemuck::cast_slice(&found), items, ROWS);
            let lists = lists.map_err(|misshapen| misshapen.to_string())?;
            for (number, query) in queries.chunks_exact(DIM).enumerate() {
                check_list(&trial.view, query, Ask { metric, k, threshold: None }, &lists.of(number))?;
            }
        }
    }
    self_test_bits(trial)
}

/// The rows' bits are as good as any.
fn self_test_bits(trial: &Trial<'_>) -> Result<(), String> {
    const ITEMS: usize = 6;
    let (parts, queries) = (trial.parts(&bits::COLUMNS)?, &trial.queries[..ITEMS * DIM]);
    for metric in Metric::OF_BITS {
        let threshold = if metric.is_distance() { f64::INFINITY } else { f64::NEG_INFINITY };
        for k in HITS {
            let len = len(ITEMS, ROWS);
            let mut job = Bits::new(queries, (metric, k, threshold), (ROWS, DIM), len);
            let found: Vec<u64> = bytemuck::allocation::pod_collect_to_vec(&trial.run(&mut job, &parts, len)?);
            let lists = CandidateLists::read(bytemuck::cast_slice(&found), ITEMS, ROWS);
            let lists = lists.map_err(|misshapen| misshapen.to_string())?;
            for (number, query) in queries.chunks_exact(DIM).enumerate() {
                check_list(&trial.view, query, Ask { metric, k, threshold: None }, &lists.of(number))?;
            }
        }
    }
    Ok(())
}

/// Whether a list leads to the answer by definition, and is a list at all: this data needs none of every row.
fn check_list(view: &CorpusView, query: &[f32], ask: Ask, list: &Candidates<'_>) -> Result<(), String> {
    let Candidates::Listed(listed) = list else { return Err(format!("{} could not tell rows apart", ask.metric)) };
    let (_, segment) = view.segment_of(0);
    let rows = segment.data().embeddings().chunks_exact(query.len()).zip(0..);
    let score = |(values, row): (&[f32], u32)| Hit { row, score: exact::score(ask.metric, query, values) };
    let mut want: Vec<Hit> = rows.map(score).collect();
    // What turns an upper bound into one of the goodness, as rescoring does it.
    let offset = match ask.metric {
        Metric::L2 => 2.0 * QueryScreen::l2_slack(exact::dot(query, query)) - exact::dot(query, query),
        Metric::Cosine | Metric::Dot | Metric::Hamming | Metric::Jaccard => 0.0,
    };
    let goodness = |row: u32| ask.metric.goodness(want[row as usize].score);
    if listed.iter().any(|candidate| f64::from(candidate.upper) + offset < goodness(candidate.row)) {
        return Err(format!("{} bounds are below what they bound", ask.metric));
    }
    want.sort_unstable_by(|x, y| compare(ask.metric, x, y));
    want.truncate(ask.k);
    let got = rank(view, query, ask, list, &ScalarKernel).hits;
    if got == want { Ok(()) } else { Err(format!("{} lists lack rows of the answer for k {}", ask.metric, ask.k)) }
}

/// A search job.
struct Search {
    lists: Lists,
    quads: usize,
    /// A query that cannot be screened has none.
    screens: Vec<Option<QueryScreen>>,
    thresholds: Vec<Threshold>,
    codes: Vec<u32>,
    /// Every row is a candidate for every query: the job needs nothing of the corpus, nor of the device.
    is_unscreened: bool,
}

impl Search {
    /// A search with these queries, one after the other, for a result of `result` bytes.
    fn new(queries: &[f32], ask: SearchAsk, corpus: SearchCorpus, result: usize) -> Self {
        let lists = Lists::new(ask.items, ask.k, corpus.rows, result).with_work(ask.dim);
        let quads = screen::quads(ask.dim);
        let mut search = Self {
            lists,
            quads,
            screens: Vec::new(),
            thresholds: Vec::new(),
            codes: Vec::new(),
            is_unscreened: lists.is_unscreened() || corpus.wild || ask.dim == 0,
        };
        if !search.is_unscreened {
            search.prepare(queries, ask, corpus.max_norm);
        }
        search
    }

    fn prepare(&mut self, queries: &[f32], ask: SearchAsk, max_norm: f64) {
        let mut codes = vec![0; ask.items.next_multiple_of(TOGETHER) * self.quads];
        let few = TOGETHER * ask.dim;
        let made: Vec<Vec<_>> = queries
            .par_chunks(few)
            .zip(codes.par_chunks_mut(TOGETHER * self.quads))
            .with_min_len(16)
            .map(|(queries, words)| {
                let place = |(place, query): (usize, &[f32])| prepare_one(query, place, ask, max_norm, words);
                queries.chunks_exact(ask.dim).enumerate().map(place).collect()
            })
            .collect();
        (self.screens, self.thresholds) = made.into_iter().flatten().unzip();
        self.codes = codes;
        self.is_unscreened = self.screens.iter().all(Option::is_none);
    }

    fn screens_at(&self) -> usize {
        self.lists.input_len()
    }

    fn codes_at(&self) -> usize {
        self.screens_at() + self.screens.len() * size_of::<[f32; 4]>()
    }

    fn params(&self, block: &Block) -> SearchParams {
        const VEC4: usize = size_of::<[u32; 4]>();
        SearchParams {
            block: *block,
            quads: self.quads as u32,
            screens: (self.screens_at() / VEC4) as u32,
            codes: (self.codes_at() / VEC4) as u32,
            unused: 0,
        }
    }
}

/// Quantises a query and lays its codes among those of the `words` of its fours. Says what its threshold is made of.
fn prepare_one(
    query: &[f32],
    place: usize,
    ask: SearchAsk,
    max_norm: f64,
    words: &mut [u32],
) -> (Option<QueryScreen>, Threshold) {
    let mut codes = vec![0; query.len().next_multiple_of(screen::QUAD)];
    let screen = QueryScreen::new(ask.metric, query, max_norm, &mut codes[..query.len()]);
    let Some(known) = screen else { return (None, Threshold { least: f32::MAX, slack: 0.0 }) };
    for (four, codes) in words.chunks_exact_mut(TOGETHER).zip(codes.as_chunks::<{ screen::QUAD }>().0) {
        four[place] = u32::from_le_bytes(codes.map(i8::cast_unsigned));
    }
    let slack = (2.0 * known.slack * SLACK_MARGIN) as f32;
    (screen, Threshold { least: least_of_interest(query, ask, known.slack), slack })
}

/// The least upper bound that can pass the caller's threshold. Always finite: a threshold that is not a number rules
/// out nothing.
fn least_of_interest(query: &[f32], ask: SearchAsk, slack: f64) -> f32 {
    let goodness = ask.metric.goodness(ask.threshold);
    let norm2 = if ask.metric == Metric::L2 { exact::dot(query, query) } else { 0.0 };
    let least = ((goodness + norm2 - 2.0 * slack) as f32).next_down();
    if least.is_nan() { f32::MIN } else { least.clamp(f32::MIN, f32::MAX) }
}

/// The stage that fills the cells of so many queries, with the groups and the queries of a workgroup. A team is
/// counted as 32 of 128 threads; teams of another size go on to further groups.
fn stage_for(queries: u32) -> (Stage, u32, u32) {
    match queries {
        0..=1 => (Stage::SearchOne, 4, 1),
        2..SOME => (Stage::SearchFew, 4, 4),
        SOME..MANY => (Stage::SearchSome, 16, 16),
        MANY.. => (Stage::SearchMany, 4, 64),
    }
}

impl Screen for Search {
    fn fill_cells(&self, script: &mut Script, part: &Part, block: &Block) {
        let groups = block.rows.div_ceil(screen::GROUP_ROWS as u32);
        let (stage, groups_at_once, queries_at_once) = stage_for(block.queries);
        let workgroups = [groups.div_ceil(groups_at_once).min(WORKGROUPS), block.queries.div_ceil(queries_at_once), 1];
        let [work, _] = self.lists.work(block);
        script.dispatch(stage, Some(&part.binding), &self.params(block), workgroups, work);
    }

    fn collect(&self, script: &mut Script, part: &Part, block: &Block) {
        let workgroups = block.collect_workgroups();
        let [_, work] = self.lists.work(block);
        script.dispatch(Stage::SearchCollect, Some(&part.binding), &self.params(block), workgroups, work);
    }
}

impl Operation for Search {
    fn sizes(&self) -> Sizes {
        if self.is_unscreened {
            return Sizes::default();
        }
        self.lists.sizes(self.screens.len() * size_of::<[f32; 4]>() + size_of_val(&*self.codes))
    }

    fn fill(&self, input: &mut [u8]) {
        if self.is_unscreened {
            return;
        }
        self.lists.fill(input, self.thresholds.iter().copied());
        let (head, codes) = input.split_at_mut(self.codes_at());
        codes[..size_of_val(&*self.codes)].copy_from_slice(bytemuck::cast_slice(&self.codes));
        let places = head[self.screens_at()..].as_chunks_mut::<{ size_of::<[f32; 4]>() }>().0;
        for (place, screen) in places.iter_mut().zip(&self.screens) {
            let [scale, a, b] = screen.map_or([0.0; 3], |screen| [screen.scale, screen.a, screen.b]);
            place.copy_from_slice(bytemuck::cast_slice(&[scale, a, b, 0.0]));
        }
    }

    fn round(&mut self, parts: &[Part], first: bool) -> Script {
        if self.is_unscreened { Script::default() } else { self.lists.round(self, parts, first) }
    }

    fn delivery(&self) -> Delivery {
        let (lists, is_unscreened) = (self.lists, self.is_unscreened);
        let strange: Vec<bool> = self.screens.iter().map(Option::is_none).collect();
        Box::new(move |output, result| lists.deliver(output, result, |query| is_unscreened || strange[query]))
    }
}

#[cfg(test)]
mod tests;
