//! Searches on every device there is, against the definition: rows of the answer are listed, bounds hold, and rescoring
//! makes the exact answer of the lists, bit for bit.

use std::sync::Arc;

use megaring_core::corpus::{HeapSegment, SegmentView};
use megaring_core::screen::{groups, packed_len};
use megaring_datasets::{Embeddings, queries};

use super::*;
use crate::gpu::Gpu;
use crate::testing::{gpus, part, run};

/// A corpus of segments of these rows.
fn corpus(values: &[f32], dim: usize, segments: &[usize]) -> CorpusView {
    let mut rest = values;
    let views = segments.iter().map(|rows| {
        let (mine, others) = rest.split_at(rows * dim);
        rest = others;
        Arc::new(SegmentView::new(Arc::new(HeapSegment::new(mine.to_vec(), dim, None)), *rows))
    });
    CorpusView::new("test".into(), 1, 1, dim, views.collect())
}

fn random(rows: usize, dim: usize, seed: u64) -> Vec<f32> {
    Embeddings { rows, dim, seed, normalized: false, ..Embeddings::default() }.generate().values
}

fn random_queries(values: &[f32], dim: usize, items: usize) -> Vec<f32> {
    let matrix = megaring_datasets::Matrix::new(values.len() / dim, dim, values.to_vec());
    queries(&matrix, items, 7).values
}

/// What a test searches, and how.
#[derive(Clone, Copy)]
struct Job<'a> {
    view: &'a CorpusView,
    queries: &'a [f32],
    metric: Metric,
    k: usize,
    threshold: Option<f64>,
    capacity: usize,
    /// Groups of a part, and parts of a round.
    cut: (usize, usize),
    table_bytes: usize,
}

impl<'a> Job<'a> {
    fn new(view: &'a CorpusView, queries: &'a [f32], metric: Metric, k: usize) -> Self {
        let capacity = view.rows().max(1);
        let (cut, table_bytes) = ((usize::MAX, usize::MAX), 32 << 20);
        Self { view, queries, metric, k, threshold: None, capacity, cut, table_bytes }
    }

    fn items(&self) -> usize {
        self.queries.len() / self.view.dim()
    }

    fn search(&self) -> Search {
        let worst = if self.metric == Metric::L2 { f64::INFINITY } else { f64::NEG_INFINITY };
        let threshold = self.threshold.unwrap_or(worst);
        let (dim, items) = (self.view.dim(), self.items());
        let ask = SearchAsk { metric: self.metric, items, dim, k: self.k, threshold };
        let mut search = Search::new(self.queries, ask, SearchCorpus::of(self.view), len(items, self.capacity));
        search.lists.table_bytes = self.table_bytes;
        search
    }

    fn rounds(&self, gpu: &Gpu) -> Vec<Vec<Part>> {
        let mut parts = Vec::new();
        for (first, segment) in self.view.segments() {
            let all = groups(segment.rows());
            let step = self.cut.0.min(all.max(1));
            for begin in (0..all).step_by(step) {
                let end = all.min(begin + step);
                let a_group = packed_len(16, self.view.dim());
                let rows = &segment.data().codes().packed[begin * a_group..end * a_group];
                let mut columns = segment.columns(self.metric)[begin * 64..end * 64].to_vec();
                let numbers = begin * 16..segment.rows().min(end * 16);
                // What is beyond the last row would be the best of all if it were looked at.
                for row in numbers.len()..(end - begin) * 16 {
                    columns[row / 16 * 64 + 16 + row % 16] = 1e30;
                }
                let numbers = first + numbers.start..first + numbers.end;
                parts.push(part(gpu, rows, bytemuck::cast_slice(&columns), numbers));
            }
        }
        parts.chunks(self.cut.1.min(parts.len().max(1))).map(<[Part]>::to_vec).collect()
    }

    /// Runs the job and checks the answer; gives back how many candidates each query has, `None` for every row.
    fn check(&self, gpu: &Gpu, what: &str) -> Vec<Option<usize>> {
        let result = run(gpu, &mut self.search(), &self.rounds(gpu), len(self.items(), self.capacity));
        let lists = CandidateLists::read(&result, self.items(), self.view.rows()).expect("well-formed lists");
        let ask = Ask { metric: self.metric, k: self.k, threshold: self.threshold };
        let queries = self.queries.chunks_exact(self.view.dim()).enumerate();
        let checked = queries.map(|(number, query)| {
            let what = format!("{what}: query {number} of {}, {}, k {}", self.items(), self.metric, self.k);
            let found = lists.of(number);
            if let Candidates::Listed(listed) = found {
                self.check_bounds(query, listed, &what);
            }
            let want = rank(self.view, query, ask, &Candidates::EveryRow, &ScalarKernel).hits;
            let got = rank(self.view, query, ask, &found, &ScalarKernel).hits;
            assert_eq!(got.len(), want.len(), "{what}");
            for (got, want) in got.iter().zip(&want) {
                assert_eq!((got.row, got.score.to_bits()), (want.row, want.score.to_bits()), "{what}");
            }
            match found {
                Candidates::Listed(listed) => {
                    // Rescoring may stop early; the list itself must have them all.
                    let missing = want.iter().find(|hit| listed.iter().all(|candidate| candidate.row != hit.row));
                    assert_eq!(missing, None, "{what}");
                    Some(listed.len())
                }
                Candidates::EveryRow => None,
                ranked @ Candidates::Ranked { .. } => panic!("{what}: {ranked:?} of a device"),
            }
        });
        checked.collect()
    }

    /// Bounds are above what they bound, and no row is listed twice.
    fn check_bounds(&self, query: &[f32], listed: &[megaring_core::lists::Candidate], what: &str) {
        let norm2 = exact::dot(query, query);
        let mut seen = vec![false; self.view.rows()];
        for candidate in listed {
            let row = candidate.row as usize;
            assert!(row < seen.len() && !std::mem::replace(&mut seen[row], true), "{what}: row {row}");
            let (first, segment) = self.view.segment_of(row);
            let dim = self.view.dim();
            let values = &segment.data().embeddings()[(row - first) * dim..(row - first + 1) * dim];
            let score = exact::score(self.metric, query, values);
            let (goodness, slack) = match self.metric {
                Metric::L2 => (norm2 - score, QueryScreen::l2_slack(norm2)),
                _ => (score, 0.0),
            };
            assert!(f64::from(candidate.upper) + slack >= goodness, "{what}: row {row}, {candidate:?}, {goodness}");
        }
    }
}

#[test]
fn every_width_and_length_is_answered_exactly() {
    let shapes = [
        (1, [1, 17, 333, 20_000]),
        (7, [2, 16, 1000, 20_000]),
        (8, [15, 31, 32, 5000]),
        (128, [1, 33, 999, 4000]),
        (384, [16, 100, 5000, 1025]),
        (768, [47, 48, 49, 1500]),
        (1536, [3, 64, 250, 700]),
        (4096, [5, 65, 130, 300]),
        (32_768, [4, 17, 34, 70]),
    ];
    for gpu in gpus() {
        for (dim, all_rows) in shapes {
            for (number, rows) in all_rows.into_iter().enumerate() {
                let values = random(rows, dim, rows as u64);
                let view = corpus(&values, dim, &[rows]);
                let metric = Metric::OF_FLOATS[(number + dim) % 3];
                for (k, items) in [(1, 3), (rows.div_ceil(100), 18), ((rows - 1) / 2, 2), (rows, 1)] {
                    let queries = random_queries(&values, dim, items);
                    let job = Job::new(&view, &queries, metric, k.max(1));
                    job.check(gpu, &format!("{rows} x {dim}"));
                }
            }
        }
    }
}

#[test]
fn a_corpus_without_rows_is_answered() {
    for gpu in gpus() {
        let view = corpus(&[], 8, &[]);
        let found = Job::new(&view, &[1.0; 24], Metric::Dot, 3).check(gpu, "no rows");
        assert_eq!(found, [None; 3]);
    }
}

#[test]
fn parts_rounds_and_blocks_change_nothing() {
    let dim = 36;
    let values = random(3001, dim, 3);
    let view = corpus(&values, dim, &[1000, 1501, 500]);
    for gpu in gpus() {
        for (number, cut) in
            [(usize::MAX, usize::MAX), (7, usize::MAX), (7, 1), (31, 2), (1, 50)].into_iter().enumerate()
        {
            for (k, table) in
                [(5, usize::MAX), (120, usize::MAX), (5, 0), (120, 0), (120, 7 * 3001 * 8), (5, 70 * 200 * 8)]
            {
                let queries = random_queries(&values, dim, 1 + 66 * (number % 2) + table.min(9));
                let job =
                    Job { cut, table_bytes: table, ..Job::new(&view, &queries, Metric::OF_FLOATS[number % 3], k) };
                job.check(gpu, &format!("parts {cut:?}, table {table}"));
            }
        }
    }
}

#[test]
fn any_number_of_queries_is_answered() {
    let values = random(700, 24, 5);
    let view = corpus(&values, 24, &[700]);
    for gpu in gpus() {
        for items in [1, 2, 3, 4, 5, 8, 15, 16, 17, 63, 64, 65, 129] {
            for k in [2, 40] {
                let queries = random_queries(&values, 24, items);
                Job::new(&view, &queries, Metric::Cosine, k).check(gpu, "numbers");
            }
        }
    }
}

#[test]
fn ties_are_all_listed_or_every_row_is() {
    let base = random(40, 16, 9);
    let values: Vec<f32> = (0..25).flat_map(|_| base.iter().copied()).collect();
    let view = corpus(&values, 16, &[1000]);
    for gpu in gpus() {
        for metric in Metric::OF_FLOATS {
            for k in [1, 10, 24, 26, 60] {
                let queries = random_queries(&base, 16, 20);
                let job = Job::new(&view, &queries, metric, k);
                let found = job.check(gpu, "copies");
                assert!(found.iter().all(|count| count.is_none_or(|count| count >= 25)), "{found:?}");
                let job = Job { capacity: 24, ..job };
                let found = job.check(gpu, "copies, little room");
                assert!(found.iter().all(Option::is_none), "{found:?}");
            }
        }
        let constant = vec![0.25; 16 * 500];
        let view = corpus(&constant, 16, &[500]);
        let found = Job::new(&view, &constant[..32], Metric::Cosine, 3).check(gpu, "all the same");
        assert_eq!(found, [Some(500); 2]);
    }
}

#[test]
fn rows_that_just_reach_the_threshold_are_listed() {
    // Zeros have cosine 0, and bounds without any width.
    let (dim, rows) = (8, 640);
    let mut values = vec![0.0; dim * rows];
    for row in (0..rows).step_by(3) {
        values[row * dim] = if row < 6 { 1.0 } else { -1.0 };
    }
    let view = corpus(&values, dim, &[rows]);
    let query: Vec<f32> = (0..dim).map(|place| if place == 0 { 1.0 } else { 0.1 }).collect();
    for gpu in gpus() {
        for k in [5, 12] {
            let found = Job::new(&view, &query, Metric::Cosine, k).check(gpu, "zeros");
            assert_eq!(found, [Some(2 + rows - rows.div_ceil(3))]);
        }
    }
}

#[test]
fn thresholds_cut_lists_short_and_lose_nothing() {
    let values = random(2000, 48, 11);
    let view = corpus(&values, 48, &[1999, 1]);
    let queries = random_queries(&values, 48, 20);
    for gpu in gpus() {
        for (metric, thresholds) in
            [(Metric::Cosine, [0.6, 1.1]), (Metric::Dot, [5.0, 1e30]), (Metric::L2, [20.0, -1e6])]
        {
            let free = Job::new(&view, &queries, metric, 200);
            let [some, none] = thresholds.map(|threshold| Job { threshold: Some(threshold), ..free });
            let count = |found: Vec<Option<usize>>| found.into_iter().map(|count| count.unwrap_or(2000)).sum::<usize>();
            let (all, cut) = (count(free.check(gpu, "free")), count(some.check(gpu, "cut")));
            assert!(cut < all, "{metric}: {cut} of {all}");
            assert_eq!(count(none.check(gpu, "nothing passes")), 0);
        }
    }
}

#[test]
fn a_threshold_is_finite_whatever_was_sent() {
    for metric in Metric::OF_FLOATS {
        let least = |threshold| {
            let ask = SearchAsk { metric, items: 1, dim: 2, k: 1, threshold };
            least_of_interest(&[1.0, 2.0], ask, 0.0)
        };
        assert_eq!(least(f64::NAN), f32::MIN, "{metric}");
        let mut ends = [f64::NEG_INFINITY, f64::INFINITY].map(least);
        ends.sort_unstable_by(f32::total_cmp);
        assert_eq!(ends, [f32::MIN, f32::MAX], "{metric}");
    }
}

#[test]
fn rows_much_shorter_than_a_query_are_told_apart_as_the_definition_does() {
    // So much that their squared distances to a query are all the same, and the first rows are the answer.
    let dim = 8;
    let values: Vec<f32> = random(640, dim, 13).iter().map(|value| value * 1e-11).collect();
    let view = corpus(&values, dim, &[640]);
    let queries: Vec<f32> = random(3, dim, 14).iter().map(|value| value * 1e7).collect();
    for gpu in gpus() {
        for k in [1, 3, 30] {
            assert_eq!(Job::new(&view, &queries, Metric::L2, k).check(gpu, "short rows"), [Some(640); 3]);
        }
    }
}

#[test]
fn what_cannot_be_screened_gets_every_row() {
    let values = random(300, 12, 15);
    let view = corpus(&values, 12, &[300]);
    let mut queries = random_queries(&values, 12, 18);
    queries[12..24].fill(0.0);
    queries[60..72].fill(1e30);
    for gpu in gpus() {
        let found = Job::new(&view, &queries, Metric::Dot, 4).check(gpu, "strange queries");
        let none: Vec<usize> = (0..18).filter(|query| found[*query].is_none()).collect();
        assert_eq!(none, [1, 5]);
        let mut wild = values.clone();
        wild[17] = 1e30;
        let view = corpus(&wild, 12, &[100, 200]);
        let found = Job::new(&view, &queries[..12], Metric::Cosine, 4).check(gpu, "a wild corpus");
        assert_eq!(found, [None]);
    }
}

#[test]
fn lists_are_short() {
    let values =
        Embeddings { rows: 5000, clusters: 0, near_duplicates: 0.0, ..Embeddings::default() }.generate().values;
    let view = corpus(&values, 384, &[5000]);
    let queries = random_queries(&values, 384, 40);
    for gpu in gpus() {
        for metric in Metric::OF_FLOATS {
            let found = Job::new(&view, &queries, metric, 10).check(gpu, "random");
            let all: usize = found.iter().map(|count| count.unwrap_or(5000)).sum();
            assert!(all <= 40 * 40, "{metric}: {found:?}");
        }
    }
}
