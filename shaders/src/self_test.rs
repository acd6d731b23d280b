//! What the backend looks at before it takes a job: that this adapter, its driver and its compiler do what the proofs of the operations take for
//! granted. Each operation runs on small data that is hard for it, and is compared with its definition.

use std::ops::Range;
use std::sync::Arc;

use megaring_core::lists::{CandidateLists, Candidates, len};
use megaring_core::corpus::{CorpusView, HeapSegment, SegmentView};
use megaring_core::exact::{self, ScalarKernel};
use megaring_core::encode::keyword::Automaton;
use megaring_core::rescore::{Ask, Hit, compare, rank};
use megaring_core::screen::QueryScreen;
use megaring_core::{Metric, nearest as points};

use crate::Unavailable;
use crate::cut::Need;
use crate::gpu::Gpu;
use crate::operation::Part;
use crate::operation::masks::{self, AutomatonShape, Masks};
use crate::operation::nearest::{self, Nearest};
use crate::operation::score::{self, Score, ScoreJob};
use crate::operation::search::{Search, SearchAsk, SearchCorpus};
use crate::trial::{bind, run};

const ROWS: usize = 600;
const DIM: usize = 44;
/// Hits asked for: of cells of 16 rows, and of single ones.
const FEW: usize = 5;
const MANY: usize = 60;
/// Queries of each of the stages that a search may begin with.
const BATCHES: [usize; 4] = [1, 5, 20, 40];
const MOST_QUERIES: usize = BATCHES[3];

/// Runs every operation.
///
/// # Errors
/// Which operation's answer is not to be trusted, or what the device said.
pub(crate) fn run_all(gpu: &Gpu, automaton: &Automaton) -> Result<(), Unavailable> {
    let told = |operation: &'static str| {
        let name = gpu.name.clone();
        move |reason: String| {
            Unavailable::new(format_args!("the adapter {name} fails the self-test of {operation}: {reason}"))
        }
    };
    test_masks(gpu, automaton).map_err(told("masks"))?;
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    let view = numbers.corpus();
    let queries: Vec<f32> = (0..MOST_QUERIES * DIM).map(|_| numbers.near_one() as f32).collect();
    test_search(gpu, &view, &queries).map_err(told("search"))?;
    score::probe::test(gpu).map_err(told("score"))?;
    test_score(gpu, &view, &queries).map_err(told("score"))?;
    test_nearest(gpu, &mut numbers).map_err(told("nearest"))
}

fn test_masks(gpu: &Gpu, automaton: &Automaton) -> Result<(), String> {
    let words = "Love, wisdom \u{212A}nowledge; ELEGANCE and a garden. ".repeat(40);
    let texts = [&words[..], "", &words[3..], "love", &words[..255], "\u{0130}"];
    let mut offsets = vec![0];
    offsets.extend(texts.iter().scan(0, |end, text| {
        *end += text.len() as u64;
        Some(*end)
    }));
    let (rows, columns) = masks::tables(automaton);
    let part = Part { binding: bind(gpu, &rows, &columns).map_err(|full| full.to_string())?, rows: 0..0 };
    let text = texts.concat().into_bytes();
    let wrong = |status| format!("the job was refused: {status:?}");
    let mut job = Masks::new(&offsets, &text, AutomatonShape::of(automaton)).map_err(wrong)?;
    let found = run(gpu, &mut job, &[vec![part]], texts.len() * size_of::<u128>())?;
    let want: Vec<u8> = texts.iter().flat_map(|text| automaton.mask(text.as_bytes()).to_le_bytes()).collect();
    if found == want { Ok(()) } else { Err("masks differ from the definition".into()) }
}

fn test_search(gpu: &Gpu, view: &CorpusView, queries: &[f32]) -> Result<(), String> {
    let (_, segment) = view.segments().next().ok_or("no rows")?;
    let codes = segment.data().codes();
    let corpus = SearchCorpus { rows: ROWS, max_norm: codes.max_norm, wild: codes.wild };
    for metric in Metric::ALL {
        let parts = parts_of(gpu, segment, Need::Screen(metric))?;
        for (items, k) in BATCHES.into_iter().flat_map(|items| [(items, FEW), (items, MANY)]) {
            let threshold = if metric == Metric::L2 { f64::INFINITY } else { f64::NEG_INFINITY };
            let ask = SearchAsk { metric, items, dim: DIM, k, threshold };
            let len = len(items, ROWS);
            let queries = &queries[..items * DIM];
            let mut job = Search::new(queries, ask, corpus, len);
            let found = run(gpu, &mut job, std::slice::from_ref(&parts), len)?;
            let found: Vec<u64> = bytemuck::allocation::pod_collect_to_vec(&found);
            let lists = CandidateLists::read(bytemuck::cast_slice(&found), items).ok_or("lists of the wrong form")?;
            for (number, query) in queries.chunks_exact(DIM).enumerate() {
                check_list(view, query, Ask { metric, k, threshold: None }, &lists.of(number))?;
            }
        }
    }
    Ok(())
}

/// Whether a list leads to the answer by definition, and is a list at all: this data needs none of every row.
fn check_list(view: &CorpusView, query: &[f32], ask: Ask, list: &Candidates<'_>) -> Result<(), String> {
    let Candidates::Listed(listed) = list else { return Err(format!("{} could not tell rows apart", ask.metric)) };
    if listed.iter().any(|candidate| candidate.row as usize >= ROWS) {
        return Err("a row that is not there was listed".into());
    }
    let (_, segment) = view.segments().next().ok_or("no rows")?;
    let rows = segment.data().embeddings().chunks_exact(DIM).enumerate();
    let score =
        |(row, values): (usize, &[f32])| Hit { row: row as u32, score: exact::score(ask.metric, query, values) };
    let mut want: Vec<Hit> = rows.map(score).collect();
    // What turns an upper bound into one of the goodness, as rescoring does it.
    let offset = match ask.metric {
        Metric::L2 => 2.0 * QueryScreen::l2_slack(exact::dot(query, query)) - exact::dot(query, query),
        Metric::Cosine | Metric::Dot => 0.0,
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

fn test_score(gpu: &Gpu, view: &CorpusView, queries: &[f32]) -> Result<(), String> {
    let (_, segment) = view.segments().next().ok_or("no rows")?;
    let parts = parts_of(gpu, segment, Need::Rows)?;
    let items = BATCHES[1];
    let queries = &queries[..items * DIM];
    for metric in Metric::ALL {
        let job = ScoreJob { queries, dim: DIM, metric, named: None, rows: ROWS };
        let len = items * ROWS * size_of::<f32>();
        let wrong = |status| format!("the job was refused: {status:?}");
        let mut job = Score::new(job, len, gpu.binding_bytes, gpu.traits).map_err(wrong)?;
        let found = run(gpu, &mut job, std::slice::from_ref(&parts), len)?;
        let rows = || segment.data().embeddings().chunks_exact(DIM);
        let pairs = queries.chunks_exact(DIM).flat_map(|query| rows().map(move |row| (query, row)));
        let want = pairs.flat_map(|(query, row)| exact::reported(exact::score(metric, query, row)).to_le_bytes());
        if !found.iter().copied().eq(want) {
            return Err(format!("{metric} scores differ from the definition"));
        }
    }
    Ok(())
}

fn test_nearest(gpu: &Gpu, numbers: &mut Numbers) -> Result<(), String> {
    let columns: [Vec<f64>; 5] = std::array::from_fn(|_| (0..ROWS).map(|_| numbers.near_one()).collect());
    let columns = columns.each_ref().map(Vec::as_slice);
    let queries: Vec<[f64; 5]> = (0..BATCHES[1]).map(|_| std::array::from_fn(|_| numbers.near_one())).collect();
    let bytes = nearest::columns(&columns);
    let binding = bind(gpu, &bytes, &[]).map_err(|full| full.to_string())?;
    let parts = vec![Part { binding, rows: 0..ROWS }];
    let point = |row: u32| columns.map(|column| column[row as usize]);
    for k in [FEW, MANY] {
        let len = len(queries.len(), ROWS);
        let weights = points::DEFAULT_WEIGHTS;
        let mut job = Nearest::new(&queries, weights, k, ROWS, nearest::extent(&columns), len);
        let found = run(gpu, &mut job, std::slice::from_ref(&parts), len)?;
        let found: Vec<u64> = bytemuck::allocation::pod_collect_to_vec(&found);
        let lists =
            CandidateLists::read(bytemuck::cast_slice(&found), queries.len()).ok_or("lists of the wrong form")?;
        for (number, query) in queries.iter().enumerate() {
            let Candidates::Listed(listed) = lists.of(number) else {
                return Err("points could not be told apart".into());
            };
            let there = listed.iter().map(|candidate| candidate.row).filter(|row| (*row as usize) < ROWS);
            let got = points::rank(there, point, *query, weights, k);
            if got != points::rank(0..ROWS as u32, point, *query, weights, k) {
                return Err(format!("lists lack points of the answer for k {k}"));
            }
        }
    }
    Ok(())
}

/// A segment in parts of an uneven number of rows.
fn parts_of(gpu: &Gpu, segment: &SegmentView, need: Need) -> Result<Vec<Part>, String> {
    let part = |rows: Range<usize>| {
        let [first, second] = need.contents(segment, DIM, &rows).ok_or("a segment lacks something")?;
        Ok(Part { binding: bind(gpu, &first, &second).map_err(|full| full.to_string())?, rows })
    };
    [0..16 * 7, 16 * 7..ROWS].into_iter().map(part).collect()
}

/// Numbers that look random (xorshift, Marsaglia 2003) and are the same every time.
struct Numbers(u64);

impl Numbers {
    /// Between -1 and 1, with all bits of a float64.
    fn near_one(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }

    /// Rows of which some are alike and some lie close together.
    fn corpus(&mut self) -> CorpusView {
        let mut values: Vec<f32> = (0..ROWS * DIM).map(|_| self.near_one() as f32).collect();
        values.copy_within(0..DIM, 300 * DIM);
        values.copy_within(DIM..3 * DIM, 400 * DIM);
        values[401 * DIM..402 * DIM].iter_mut().for_each(|value| *value *= 1.001);
        let segment = Arc::new(SegmentView::new(Arc::new(HeapSegment::new(values, DIM, None)), ROWS));
        CorpusView::new("self-test".into(), 0, 0, DIM, vec![segment])
    }
}

#[cfg(test)]
mod tests {
    use megaring_core::encode::profile::{DEFAULT, Profile};

    use super::*;
    use crate::testing::gpus;

    #[test]
    fn the_adapter_of_this_machine_passes() {
        let automaton = Automaton::new(&Profile::parse(DEFAULT).expect("the default profile"));
        for gpu in gpus() {
            run_all(&gpu, &automaton).expect("it passes");
        }
    }
}
