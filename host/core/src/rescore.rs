//! From candidates to the answer: exact scores for whatever the bound leaves, and one total order.
//!
//! The order is: better float64 score first, equal scores by smaller row number. Candidates are visited from the most
//! promising upper bound down, so scoring stops as soon as the k-th best exact score beats every bound that is left.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rayon::prelude::*;

use crate::corpus::CorpusView;
use crate::exact::{self, ExactKernel, Overlap};
use crate::lists::{Candidate, Candidates};
use crate::metric::{Element, Metric};
use crate::screen::QueryScreen;

/// A row in the answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Row number in the corpus.
    pub row: u32,
    /// The exact score; replies carry it rounded to float32.
    pub score: f64,
}

/// One query's answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ranked {
    /// At most k hits, best first.
    pub hits: Vec<Hit>,
    /// Rows whose exact score was computed.
    pub rescored: u64,
}

/// What is asked of every query.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// How rows compare.
    pub metric: Metric,
    /// Hits wanted.
    pub k: usize,
    /// Exact scores a hit must pass (see [`Metric::passes`]).
    pub threshold: Option<f64>,
}

/// Rows scored between two looks at the bound.
const BLOCK: usize = 16;
/// Rows of one parallel task when every row is scored.
const SWEEP: usize = 8192;

/// Ranks one query. `candidates` must contain every visible row that can belong to the answer, with honest upper
/// bounds.
#[must_use]
pub fn rank(
    view: &CorpusView,
    query: &[f32],
    ask: Ask,
    candidates: &Candidates<'_>,
    kernel: &dyn ExactKernel,
) -> Ranked {
    match *candidates {
        Candidates::Listed(listed) => rank_listed(&Scorer::new(view, query, ask.metric, kernel), ask, listed),
        Candidates::EveryRow => rank_every_row(&Scorer::new(view, query, ask.metric, kernel), ask),
        Candidates::Ranked { rows, scored } => {
            let hits = rows.iter().map(|ranked| Hit { row: ranked.row, score: ranked.score }).collect();
            Ranked { hits, rescored: u64::from(scored) }
        }
    }
}

fn rank_listed(scorer: &Scorer<'_>, ask: Ask, listed: &[Candidate]) -> Ranked {
    // A hidden row that a screen could not tell from others is none all the same.
    let view = scorer.view;
    let mut order: Vec<Candidate> = match view.is_whole() {
        true => listed.to_vec(),
        false => listed.iter().filter(|candidate| view.shows(candidate.row)).copied().collect(),
    };
    order.sort_unstable_by(|x, y| y.upper.total_cmp(&x.upper).then(x.row.cmp(&y.row)));
    let offset = scorer.upper_offset();
    let mut best = Best::new(ask.k.min(order.len()), ask.metric);
    let mut rescored = 0;
    for block in order.chunks(BLOCK) {
        if best.worst_goodness().is_some_and(|worst| f64::from(block[0].upper) + offset < worst) {
            break;
        }
        let mut ids = [0; BLOCK];
        for (id, candidate) in ids.iter_mut().zip(block) {
            *id = candidate.row;
        }
        let ids = &mut ids[..block.len()];
        ids.sort_unstable();
        let mut scores = [0.0; BLOCK];
        scorer.score(ids, &mut scores[..block.len()]);
        rescored += block.len() as u64;
        for (row, score) in ids.iter().zip(scores) {
            best.offer(Hit { row: *row, score }, ask.threshold);
        }
    }
    Ranked { hits: best.into_sorted(), rescored }
}

fn rank_every_row(scorer: &Scorer<'_>, ask: Ask) -> Ranked {
    let rows = scorer.view.rows();
    let mut hits: Vec<Hit> = (0..rows.div_ceil(SWEEP))
        .into_par_iter()
        .flat_map_iter(|sweep| {
            let visible = scorer.view.visible_runs(sweep * SWEEP..(sweep + 1) * SWEEP);
            let ids: Vec<u32> = visible.flatten().map(|row| row as u32).collect();
            let mut scores = vec![0.0; ids.len()];
            scorer.score(&ids, &mut scores);
            let mut hits: Vec<Hit> = ids.into_iter().zip(scores).map(|(row, score)| Hit { row, score }).collect();
            if let Some(threshold) = ask.threshold {
                hits.retain(|hit| ask.metric.passes(hit.score, threshold));
            }
            keep_best(&mut hits, ask.k, ask.metric);
            hits
        })
        .collect();
    keep_best(&mut hits, ask.k, ask.metric);
    hits.sort_unstable_by(|x, y| compare(ask.metric, x, y));
    Ranked { hits, rescored: scorer.view.visible_rows() as u64 }
}

/// Exact scores of named rows (any order, repeats allowed), in the order given.
pub fn score_rows(
    view: &CorpusView,
    query: &[f32],
    metric: Metric,
    ids: &[u32],
    kernel: &dyn ExactKernel,
    out: &mut [f64],
) {
    Scorer::new(view, query, metric, kernel).score(ids, out);
}

/// The total order of hits: the better one is `Less`.
#[must_use]
pub fn compare(metric: Metric, x: &Hit, y: &Hit) -> Ordering {
    let (gx, gy) = (metric.goodness(x.score), metric.goodness(y.score));
    gy.partial_cmp(&gx).unwrap_or(Ordering::Equal).then(x.row.cmp(&y.row))
}

fn keep_best(hits: &mut Vec<Hit>, k: usize, metric: Metric) {
    if k == 0 {
        hits.clear();
    } else if hits.len() > k {
        hits.select_nth_unstable_by(k - 1, |x, y| compare(metric, x, y));
        hits.truncate(k);
    }
}

struct Scorer<'a> {
    view: &'a CorpusView,
    query: &'a [f32],
    metric: Metric,
    norm2: f64,
    kernel: &'a dyn ExactKernel,
}

impl<'a> Scorer<'a> {
    fn new(view: &'a CorpusView, query: &'a [f32], metric: Metric, kernel: &'a dyn ExactKernel) -> Self {
        let mut norm2 = 0.0;
        if metric.element() == Element::Float32 {
            kernel.dot(query, query, &[0], std::slice::from_mut(&mut norm2));
        }
        Self { view, query, metric, norm2, kernel }
    }

    /// What turns an upper bound of g into one of the metric's goodness, its absolute slack included.
    fn upper_offset(&self) -> f64 {
        match self.metric {
            Metric::Cosine | Metric::Dot | Metric::Hamming | Metric::Jaccard => 0.0,
            Metric::L2 => 2.0 * QueryScreen::l2_slack(self.norm2) - self.norm2,
        }
    }

    fn score(&self, ids: &[u32], out: &mut [f64]) {
        let mut done = 0;
        while let Some(first) = ids.get(done) {
            let (start, segment) = self.view.segment_of(*first as usize);
            let range = start as u32..(start + segment.rows()) as u32;
            let run = ids[done..].iter().take_while(|id| range.contains(id)).count();
            self.score_in_segment(start, segment.data(), &ids[done..done + run], &mut out[done..done + run]);
            done += run;
        }
    }

    fn score_in_segment(&self, start: usize, data: &dyn crate::corpus::SegmentData, ids: &[u32], out: &mut [f64]) {
        let rows = data.embeddings();
        if start == 0 {
            self.kernel_scores(rows, ids, out);
        } else {
            let local: Vec<u32> = ids.iter().map(|id| id - start as u32).collect();
            self.kernel_scores(rows, &local, out);
        }
        if self.metric == Metric::Cosine {
            let norms2 = data.norms2();
            for (id, score) in ids.iter().zip(out) {
                *score = exact::cosine(*score, self.norm2, norms2[*id as usize - start]);
            }
        }
    }

    fn kernel_scores(&self, rows: &[f32], ids: &[u32], out: &mut [f64]) {
        match self.metric {
            Metric::Cosine | Metric::Dot => self.kernel.dot(self.query, rows, ids, out),
            Metric::L2 => self.kernel.l2(self.query, rows, ids, out),
            Metric::Hamming | Metric::Jaccard => {
                let mut found = vec![Overlap::default(); ids.len()];
                self.kernel.overlap(self.query, rows, ids, &mut found);
                out.iter_mut().zip(found).for_each(|(out, found)| *out = found.score(self.metric));
            }
        }
    }
}

/// The best k hits so far, the worst of them on top.
struct Best {
    k: usize,
    metric: Metric,
    heap: BinaryHeap<WorstFirst>,
}

/// Orders hits so that the worst is the greatest.
struct WorstFirst {
    metric: Metric,
    hit: Hit,
}

impl Best {
    fn new(k: usize, metric: Metric) -> Self {
        Self { k, metric, heap: BinaryHeap::with_capacity(k + 1) }
    }

    /// Goodness of the k-th best, once there are k.
    fn worst_goodness(&self) -> Option<f64> {
        let worst = self.heap.peek()?;
        (self.heap.len() == self.k).then(|| self.metric.goodness(worst.hit.score))
    }

    fn offer(&mut self, hit: Hit, threshold: Option<f64>) {
        if threshold.is_some_and(|t| !self.metric.passes(hit.score, t)) {
            return;
        }
        self.heap.push(WorstFirst { metric: self.metric, hit });
        if self.heap.len() > self.k {
            self.heap.pop();
        }
    }

    fn into_sorted(self) -> Vec<Hit> {
        self.heap.into_sorted_vec().into_iter().map(|entry| entry.hit).collect()
    }
}

impl Ord for WorstFirst {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self.metric, &self.hit, &other.hit)
    }
}

impl PartialOrd for WorstFirst {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for WorstFirst {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for WorstFirst {}
