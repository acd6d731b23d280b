//! Jobs with known answers.

use std::sync::Arc;

use megaring_bench::Failure;
use megaring_bench::any::{Answer, Job};
use megaring_core::corpus::{CorpusTable, CorpusView};
use megaring_core::encode::keyword::Automaton;
use megaring_core::encode::profile::Profile;
use megaring_core::matrix::Matrix;
use megaring_core::nearest::{Nearest, Points};
use megaring_core::operation::Exact;
use megaring_core::rescore::{Hit, Ranked, compare};
use megaring_core::score::Score;
use megaring_core::{Backend, Metric, Residency, exact, nearest};
use megaring_simd::KernelSet;

use crate::corpora::{self, generated};
use crate::machine::{prepared, profile};

/// Numbers by SplitMix64 (Steele, Lea and Flood 2014).
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        Self(seed.wrapping_mul(0xD134_2543_DE82_EF95) ^ stream.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// A word with its mask, which may hold words that stand within it.
struct Word {
    text: String,
    mask: u128,
}

/// A job and its answer.
pub(super) struct Known {
    pub(super) job: Job,
    pub(super) answer: Answer,
}

/// What the producers draw from.
pub(super) struct Pool {
    words: Vec<Word>,
    known: Vec<Known>,
    profile: Profile,
    kernels: &'static KernelSet,
    /// Held: the jobs name it.
    pub(super) corpus: Arc<CorpusView>,
}

/// Ends a word for every word of the profile: no word holds it, so none is found across it.
const BETWEEN: u8 = 1;
/// Rows of the corpora: more than a group of the screen's codes.
const ROWS: usize = 67;
const DIM: usize = 24;
const K: usize = 5;

impl Pool {
    pub(super) fn new(jobs: usize) -> Result<Self, Failure> {
        let profile = profile()?;
        let automaton = Automaton::new(&profile);
        let words: Vec<Word> = profile
            .words()
            .iter()
            .map(|text| Word { text: text.clone(), mask: automaton.mask(text.as_bytes()) })
            .collect();
        if words.iter().any(|word| word.text.as_bytes().contains(&BETWEEN)) {
            return Err("a word of the profile holds what is to stand between words".into());
        }
        let table = CorpusTable::default();
        let rows = generated(ROWS, DIM, 40);
        let corpus = corpora::corpus(&table, rows.clone(), &[ROWS / 2]);
        let queries = megaring_datasets::queries(&rows, jobs, 41);
        let cloud = megaring_datasets::points(ROWS, 42);
        let mut draw = Draw::new(43, 0);
        let known = (0..jobs)
            .map(|index| {
                let metric = Metric::OF_FLOATS[index / 3 % 3];
                let query = Matrix { rows: 1, dim: DIM, values: queries.row(index).to_vec() };
                match index % 3 {
                    0 => search(&corpus, &rows, query, metric),
                    1 => score(&corpus, &rows, query, metric),
                    _ => points(&cloud, &mut draw),
                }
            })
            .collect();
        Ok(Self { words, known, profile, kernels: KernelSet::from_env()?, corpus })
    }

    /// Brings the corpora to the device for as long as the answer lives.
    pub(super) fn prepare(&self, backend: &dyn Backend) -> Result<Vec<Residency>, Failure> {
        self.known.iter().map(|known| prepared(backend, &known.job)).collect()
    }

    pub(super) fn known(&self, index: usize) -> &Known {
        &self.known[index]
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn exact(&self) -> Exact<'_> {
        Exact { kernel: self.kernels, profile: &self.profile }
    }

    /// A text of random words and noise into `bytes`; its mask.
    pub(super) fn text(&self, draw: &mut Draw, bytes: &mut Vec<u8>) -> u128 {
        let mut mask = 0;
        for _ in 0..draw.below(9) {
            let word = &self.words[draw.below(self.words.len())];
            for letter in word.text.bytes() {
                // Any case will do.
                bytes.push(if draw.below(2) == 0 { letter.to_ascii_uppercase() } else { letter });
            }
            // A length that lets words begin at any offset.
            bytes.extend(std::iter::repeat_n(BETWEEN, 1 + draw.below(40)));
            mask |= word.mask;
        }
        mask
    }
}

fn search(corpus: &Arc<CorpusView>, rows: &megaring_datasets::Matrix, query: Matrix, metric: Metric) -> Known {
    let score = |(row, values)| Hit { row, score: exact::score(metric, &query.values, values) };
    let mut hits: Vec<Hit> = (0..).zip(rows.iter_rows()).map(score).collect();
    hits.sort_unstable_by(|x, y| compare(metric, x, y));
    hits.truncate(K);
    let answer = Answer::Search(vec![Ranked { hits, rescored: 0 }]);
    Known { job: corpora::search(corpus, query, metric, K), answer }
}

fn score(corpus: &Arc<CorpusView>, rows: &megaring_datasets::Matrix, query: Matrix, metric: Metric) -> Known {
    let scores = rows.iter_rows().map(|values| exact::reported(exact::score(metric, &query.values, values)));
    let answer = Answer::Score(scores.collect());
    Known { job: Job::Score(Score { corpus: corpus.clone(), queries: query, metric, rows: None }), answer }
}

/// Points that travel along: a run of the cloud.
fn points(cloud: &[[f64; 5]], draw: &mut Draw) -> Known {
    let count = 1 + draw.below(cloud.len());
    let columns: [Vec<f64>; 5] = std::array::from_fn(|axis| cloud[..count].iter().map(|point| point[axis]).collect());
    let query: [f64; 5] = std::array::from_fn(|_| draw.below(2_000) as f64 / 1_000.0 - 1.0);
    let weights = nearest::DEFAULT_WEIGHTS;
    let near = nearest::rank(0..count as u32, |row| cloud[row as usize], query, weights, K);
    let job = Nearest { points: Points::Sent(Arc::new(columns)), queries: vec![query], weights, k: K };
    Known { job: Job::Nearest(job), answer: Answer::Nearest(vec![near]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_texts_mask_is_what_the_automaton_finds() {
        let pool = Pool::new(9).expect("the default profile");
        let automaton = Automaton::new(&pool.profile);
        let mut draw = Draw::new(5, 6);
        for _ in 0..500 {
            let mut bytes = Vec::new();
            let mask = pool.text(&mut draw, &mut bytes);
            assert_eq!(automaton.mask(&bytes), mask, "{}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn known_answers_differ() {
        let pool = Pool::new(60).expect("the default profile");
        for (index, one) in pool.known.iter().enumerate() {
            let same = pool.known.iter().position(|other| other.answer == one.answer);
            assert_eq!(same, Some(index));
        }
    }
}
