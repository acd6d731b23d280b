//! Exact search: rows and queries for everybody, and megaring's answers.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use megaring_bench::{Failure, queries};
use megaring_core::corpus::CorpusView;
use megaring_core::matrix::Matrix;
use megaring_core::search::Search;
use megaring_core::{BackendKind, Metric};
use megaring_corpus::Rows;
use megaring_datasets::{Embeddings, npy, reference, sample};
use megaring_engine::long_search::{Asked, Found, LongSearch, Of};
use megaring_engine::{Engine, Outcome, Terms};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::micros;

/// What to make.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Make {
    kind: Kind,
    /// Rows to make.
    rows: usize,
    /// Elements of each; the sample's are 384.
    dim: usize,
    /// Queries to make.
    queries: usize,
    /// What both are drawn from.
    seed: u64,
    /// Where `rows.npy` and `queries.npy` are written.
    folder: PathBuf,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// The real sample, and behind it the sample again, each time with other noise.
    Real,
    /// Drawn like the embeddings of a text model.
    Generated,
}

/// Length of the noise on a repeated row of the sample, of which each has length 1: a cosine of about 0.96 to its
/// origin, as between texts that say the same.
const NOISE: f32 = 0.3;

impl Make {
    /// Writes the files; every row and every query has length 1, to float32 rounding.
    pub(crate) fn write(&self) -> Result<Value, Failure> {
        let mut rows = match self.kind {
            Kind::Real => self.repeated(sample()?.embeddings),
            Kind::Generated => {
                Embeddings { rows: self.rows, dim: self.dim, seed: self.seed, ..Embeddings::default() }.generate()
            }
        };
        normalise(&mut rows);
        let mut queries = megaring_datasets::queries(&rows, self.queries, self.seed);
        normalise(&mut queries);
        fs::write(self.folder.join("rows.npy"), npy::write(&rows))?;
        fs::write(self.folder.join("queries.npy"), npy::write(&queries))?;
        Ok(json!({ "rows": rows.rows, "dim": rows.dim, "queries": queries.rows }))
    }

    fn repeated(&self, sample: megaring_datasets::Matrix) -> megaring_datasets::Matrix {
        let (dim, own) = (sample.dim, sample.values.len());
        // Directions without clusters or duplicates, of length 1.
        let recipe = Embeddings { rows: self.rows, dim, seed: self.seed, clusters: 0, ..Embeddings::default() };
        let mut made = Embeddings { near_duplicates: 0.0, exact_duplicates: 0.0, ..recipe }.generate();
        let origins = sample.values.iter().cycle();
        for (at, (value, origin)) in made.values.iter_mut().zip(origins).enumerate() {
            *value = if at < own { *origin } else { origin + NOISE * *value };
        }
        made
    }
}

fn normalise(matrix: &mut megaring_datasets::Matrix) {
    for row in matrix.values.chunks_exact_mut(matrix.dim) {
        let norm = row.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt();
        row.iter_mut().for_each(|value| *value = (f64::from(*value) / norm.max(f64::MIN_POSITIVE)) as f32);
    }
}

/// What to search.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    /// Where each repetition's queries begin among those loaded.
    firsts: Vec<usize>,
    /// Queries of each repetition.
    count: usize,
    k: usize,
    metric: String,
    /// Whether the rows found are told.
    #[serde(default)]
    ids: bool,
}

/// A stored corpus and the queries that go with it.
pub(crate) struct Loaded {
    corpus: Arc<CorpusView>,
    queries: Matrix,
}

/// Rows that are stored at a time, so that few are in memory twice.
const ROWS_AT_A_TIME: usize = 65_536;

impl Loaded {
    pub(crate) fn new(engine: &Arc<Engine>, rows: &Path, queries: &Path) -> Result<Self, Failure> {
        const NAME: &str = "peers";
        let (rows, queries) = (npy::read(&fs::read(rows)?)?, npy::read(&fs::read(queries)?)?);
        let store = engine.store();
        if store.describe(NAME).is_ok() {
            store.drop_corpus(NAME)?;
        }
        store.create(NAME, rows.dim)?;
        let mut appender = store.append(NAME)?;
        for part in rows.values.chunks(ROWS_AT_A_TIME * rows.dim) {
            let embeddings = Matrix { rows: part.len() / rows.dim, dim: rows.dim, values: part.to_vec() };
            appender.push(Rows { embeddings, ..Rows::default() })?;
        }
        appender.commit()?;
        let queries = Matrix { rows: queries.rows, dim: queries.dim, values: queries.values };
        Ok(Self { corpus: store.view(NAME)?, queries })
    }

    pub(crate) fn rows(&self) -> usize {
        self.corpus.rows()
    }

    /// Searches once for each beginning.
    pub(crate) fn search(&self, engine: &Arc<Engine>, ask: &Ask) -> Result<Value, Failure> {
        let metric: Metric = ask.metric.parse()?;
        let (mut took, mut ids, mut backend) = (Vec::new(), Vec::new(), BackendKind::Cpu);
        for &first in &ask.firsts {
            if first.saturating_add(ask.count) > self.queries.rows {
                return Err(format!("there are {} queries", self.queries.rows).into());
            }
            let job = Search {
                corpus: self.corpus.clone(),
                queries: queries(&self.queries, first, ask.count).into(),
                metric,
                k: ask.k,
                threshold: None,
            };
            let begun = Instant::now();
            let Outcome { answer, made } = engine.run_blocking(job, Terms::default())?;
            took.push(micros(begun));
            backend = made.backend;
            if ask.ids {
                ids.push(
                    answer.iter().map(|one| one.hits.iter().map(|hit| hit.row).collect()).collect::<Vec<Vec<_>>>(),
                );
            }
        }
        Ok(json!({ "us": took, "ids": ids, "backend": backend.name() }))
    }

    /// Joins rows of the corpus with it, once for each beginning: `k` of each, the row itself in front.
    pub(crate) fn join(&self, engine: &Arc<Engine>, ask: &Ask) -> Result<Value, Failure> {
        let metric: Metric = ask.metric.parse()?;
        let (mut took, mut ids) = (Vec::new(), Vec::new());
        for &first in &ask.firsts {
            let rows = first..first.saturating_add(ask.count);
            if rows.end > self.corpus.rows() {
                return Err(format!("there are {} rows", self.corpus.rows()).into());
            }
            let begun = Instant::now();
            let of = Of::Rows { corpus: self.corpus.clone(), rows: rows.start as u32..rows.end as u32 };
            let k = Some(ask.k.saturating_sub(1).max(1));
            let mut search =
                LongSearch::new(Asked { searched: self.corpus.clone(), of, metric, k, threshold: None }, engine)?;
            let mut found: Vec<Vec<u32>> = Vec::with_capacity(ask.count);
            loop {
                while let Some(Found { query, hits, .. }) = search.found() {
                    found.push(std::iter::once(query).chain(hits.iter().map(|hit| hit.row)).collect());
                }
                let Some(next) = search.search() else { break };
                search.answer(engine.run_blocking(next, Terms::default())?.answer);
            }
            took.push(micros(begun));
            if ask.ids {
                ids.push(found);
            }
        }
        Ok(json!({ "us": took, "ids": ids }))
    }

    /// Cosines by the naive reference, which shares no code with what is measured.
    pub(crate) fn scores(&self, pairs: &[(usize, usize)]) -> Result<Value, Failure> {
        let mut scores = Vec::with_capacity(pairs.len());
        for &(query, row) in pairs {
            if query >= self.queries.rows || row >= self.corpus.rows() {
                return Err(format!("there is no query {query} or no row {row}").into());
            }
            let (start, segment) = self.corpus.segment_of(row);
            let dim = self.corpus.dim();
            let values = &segment.data().embeddings()[(row - start) * dim..][..dim];
            scores.push(reference::Metric::Cosine.score(self.queries.row(query), values));
        }
        Ok(json!({ "scores": scores }))
    }
}
