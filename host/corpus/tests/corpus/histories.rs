//! Random histories of a corpus beside a plain list: rows are appended, replaced, deleted, merged, copied and searched,
//! the store is closed or lost and opened again, and what is there is what the list says.
//!
//! `MEGARING_HISTORIES` says how many; 40 unless set.

use std::path::Path;
use std::sync::Arc;

use megaring_core::corpus::CorpusView;
use megaring_core::exact::{self, ScalarKernel};
use megaring_core::lists::Candidates;
use megaring_core::matrix::Matrix;
use megaring_core::rescore::{Ask, Hit, compare, rank};
use megaring_core::{Element, Error, Metric, RowType};
use megaring_corpus::{Access, CreateOptions, OpenOptions, Rows, Store};

use crate::common::{assert_derived, random};

const DIM: usize = 5;
const NAME: &str = "a";
/// Steps of a history.
const STEPS: u64 = 24;
/// Ids are below it, so that they come again.
const IDS: u64 = 60;

#[derive(Debug, Clone, PartialEq)]
struct Row {
    id: u64,
    title: String,
    values: Vec<f32>,
}

/// The corpus as a list, and how many rows it ever got.
#[derive(Debug, Default, Clone)]
struct Model {
    rows: Vec<Row>,
    ever: u64,
    /// The largest id that a row ever had, and one.
    next_id: u64,
    unique: bool,
}

impl Model {
    fn got(&mut self, rows: &[Row]) {
        self.ever += rows.len() as u64;
        self.next_id = rows.iter().map(|row| row.id + 1).fold(self.next_id, u64::max);
    }
}

struct History {
    seed: u64,
    folder: tempfile::TempDir,
    store: Arc<Store>,
    row_type: RowType,
    model: Model,
    /// A version that somebody still reads, and what it must go on showing.
    held: Option<(Arc<CorpusView>, Vec<Row>)>,
    copies: usize,
}

#[test]
fn histories_leave_what_the_list_says() {
    let count = std::env::var("MEGARING_HISTORIES").map_or(40, |count| count.parse().unwrap());
    for number in 1..=count {
        let mut history = History::new(number);
        for step in 0..STEPS {
            history.step(step);
            let shown = history.store.view(NAME).unwrap();
            assert_eq!(rows_of(&shown), history.model.rows, "history {number}, step {step}");
        }
        history.settles();
    }
}

impl History {
    fn new(number: u64) -> Self {
        let mut seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), &mut seed);
        let unique = random(&mut seed).is_multiple_of(3);
        let row_type = if random(&mut seed).is_multiple_of(4) { RowType::bits(32 * DIM - 8) } else { DIM.into() };
        store.create_with(NAME, row_type, CreateOptions { unique_ids: unique }).unwrap();
        let model = Model { unique, ..Model::default() };
        Self { seed, folder, store, row_type, model, held: None, copies: 0 }
    }

    fn below(&mut self, end: u64) -> u64 {
        random(&mut self.seed) % end
    }

    fn step(&mut self, step: u64) {
        match self.below(13) {
            0..=2 => self.append(step),
            3..=5 => self.upsert(step),
            6..=7 => self.delete(),
            8 => _ = self.store.compact(NAME).unwrap(),
            9 => self.copy(),
            10 => self.search(),
            11 => self.lose(),
            _ => self.hold(),
        }
    }

    /// Rows of a batch, whose ids may come more than once.
    fn fresh(&mut self, step: u64, ids: impl Fn(u64) -> u64) -> Vec<Row> {
        let many = if self.below(4) == 0 { 40 } else { 6 };
        let count = self.below(many);
        let mut row = |at: u64| {
            let value = random(&mut self.seed);
            let values = (0..DIM).map(|i| self.value((value >> (8 * i)) & 15)).collect();
            Row { id: ids(value >> 20), title: format!("{step}.{at}"), values }
        };
        (0..count).map(&mut row).collect()
    }

    /// One of sixteen elements, or words of bits, none of which is NaN as a number.
    fn value(&self, of: u64) -> f32 {
        match self.row_type.element {
            Element::Float32 => of as f32 - 7.0,
            Element::Bit => f32::from_bits((of * 0x1003) as u32),
        }
    }

    fn metrics(&self) -> &'static [Metric] {
        match self.row_type.element {
            Element::Float32 => &Metric::OF_FLOATS,
            Element::Bit => &Metric::OF_BITS,
        }
    }

    fn append(&mut self, step: u64) {
        let has_ids = self.below(3) > 0;
        let mut rows = self.fresh(step, |id| id % IDS);
        let mut appender = self.store.append(NAME).unwrap();
        let mut batch = self.batch(&rows);
        if !has_ids {
            batch.memory_ids.clear();
            let first = if self.model.unique { self.model.next_id } else { self.model.ever };
            rows.iter_mut().zip(first..).for_each(|(row, id)| row.id = id);
        }
        appender.push(batch).unwrap();
        let all = self.model.rows.iter().chain(&rows).map(|row| row.id);
        if self.model.unique && has_ids && has_twice(all.collect()) {
            assert!(matches!(appender.commit(), Err(Error::Invalid(_))));
            return;
        }
        let appended = appender.commit().unwrap();
        assert_eq!((appended.rows, appended.replaced), (rows.len(), 0));
        self.model.got(&rows);
        self.model.rows.extend(rows);
        assert_eq!(appended.total_rows, self.model.rows.len());
    }

    fn upsert(&mut self, step: u64) {
        let rows = self.fresh(step, |id| id % IDS);
        let mut appender = self.store.upsert(NAME).unwrap();
        appender.push(self.batch(&rows)).unwrap();
        let appended = appender.commit().unwrap();
        let before = self.model.rows.len();
        self.model.rows.retain(|row| !rows.iter().any(|new| new.id == row.id));
        let replaced = before - self.model.rows.len();
        let is_last = |at: usize| !rows[at + 1..].iter().any(|later| later.id == rows[at].id);
        self.model.got(&rows);
        let before = self.model.rows.len();
        self.model.rows.extend((0..rows.len()).filter(|at| is_last(*at)).map(|at| rows[at].clone()));
        assert_eq!((appended.rows, appended.replaced), (self.model.rows.len() - before, replaced));
    }

    fn delete(&mut self) {
        let count = self.below(12);
        let mut ids: Vec<u64> = (0..count).map(|_| self.below(IDS + 5)).collect();
        let deleted = self.store.delete(NAME, &ids).unwrap();
        ids.sort_unstable();
        ids.dedup();
        let missing = ids.iter().copied().filter(|id| !self.model.rows.iter().any(|row| row.id == *id));
        assert_eq!(deleted.missing, missing.collect::<Vec<_>>());
        let before = self.model.rows.len();
        self.model.rows.retain(|row| !ids.contains(&row.id));
        assert_eq!((deleted.rows, deleted.total_rows), (before - self.model.rows.len(), self.model.rows.len()));
    }

    /// A copy is what the corpus is now, whatever becomes of the corpus.
    fn copy(&mut self) {
        self.copies += 1;
        let name = format!("copy-{}", self.copies);
        self.store.take_from(&self.store, NAME, &name).unwrap();
        self.store.delete(NAME, &[1, 2, 3]).unwrap();
        assert_eq!(rows_of(&self.store.view(&name).unwrap()), self.model.rows);
        self.model.rows.retain(|row| ![1, 2, 3].contains(&row.id));
        self.store.drop_corpus(&name).unwrap();
    }

    fn search(&mut self) {
        let view = self.store.view(NAME).unwrap();
        let query: Vec<f32> =
            (0..DIM).map(|_| self.below(16)).collect::<Vec<u64>>().into_iter().map(|of| self.value(of)).collect();
        let places: Vec<u32> = view.visible_runs(0..view.rows()).flatten().map(|row| row as u32).collect();
        for metric in self.metrics().iter().copied() {
            let ask = Ask { metric, k: 7, threshold: None };
            let found = rank(&view, &query, ask, &Candidates::EveryRow, &ScalarKernel).hits;
            let score =
                |(row, place): (&Row, &u32)| Hit { row: *place, score: exact::score(metric, &query, &row.values) };
            let mut want: Vec<Hit> = self.model.rows.iter().zip(&places).map(score).collect();
            want.sort_by(|x, y| compare(metric, x, y));
            want.truncate(7);
            assert_eq!(found, want, "{metric}");
        }
    }

    /// The store is closed and opened again, or what is on the disk is opened as if the process had been killed.
    fn lose(&mut self) {
        if self.below(2) == 0 {
            // The folder is locked as long as anybody has the store.
            self.held = None;
            let (folder, seed) = (self.folder.path().to_owned(), &mut self.seed);
            let closed = std::mem::replace(
                &mut self.store,
                Store::open(tempfile::tempdir().unwrap().path(), Access::Exclusive).unwrap(),
            );
            drop(closed);
            self.store = open(&folder, seed);
            return;
        }
        // Merging goes on meanwhile: what a copy lacks of the files that it names is another test's (`crash.rs`).
        self.store.compact(NAME).unwrap();
        let other = tempfile::tempdir().unwrap();
        copy_folder(self.folder.path(), other.path());
        let log = other.path().join(NAME).join("manifest.log");
        let mut bytes = std::fs::read(&log).unwrap();
        bytes.extend([7; 9]);
        std::fs::write(&log, bytes).unwrap();
        let store = open(other.path(), &mut self.seed);
        assert_eq!(rows_of(&store.view(NAME).unwrap()), self.model.rows);
        assert!(store.verify(NAME).unwrap().is_clean());
    }

    fn batch(&self, rows: &[Row]) -> Rows {
        Rows {
            memory_ids: rows.iter().map(|row| row.id).collect(),
            titles: rows.iter().map(|row| row.title.clone()).collect(),
            embeddings: Matrix {
                rows: rows.len(),
                dim: DIM,
                values: rows.iter().flat_map(|row| &row.values).copied().collect(),
            },
            element: self.row_type.element,
            ..Rows::default()
        }
    }

    fn hold(&mut self) {
        if let Some((view, rows)) = &self.held {
            assert_eq!(rows_of(view), *rows);
        }
        self.held = Some((self.store.view(NAME).unwrap(), self.model.rows.clone()));
    }

    fn settles(self) {
        let described = self.store.describe(NAME).unwrap();
        assert_eq!((described.rows, described.unique_ids), (self.model.rows.len(), self.model.unique));
        assert_eq!(described.row_type, self.row_type);
        self.store.compact(NAME).unwrap();
        let view = self.store.view(NAME).unwrap();
        assert_eq!((view.rows(), self.store.describe(NAME).unwrap().deleted_rows), (self.model.rows.len(), 0));
        assert_eq!(rows_of(&view), self.model.rows);
        assert_derived(&view);
        assert!(self.store.verify(NAME).unwrap().is_clean());
    }
}

/// Everything goes into the log, some of it, or nothing.
fn open(folder: &Path, seed: &mut u64) -> Arc<Store> {
    let small_bytes = [0, 700, 1 << 20][random(seed) as usize % 3];
    Store::open_with(folder, Access::Exclusive, OpenOptions { small_bytes, ..OpenOptions::default() }).unwrap()
}

fn rows_of(view: &CorpusView) -> Vec<Row> {
    let row = |row: usize| {
        let (id, title) = view.label(row as u32);
        Row { id, title: title.to_owned(), values: view.embedding(row as u32).to_vec() }
    };
    view.visible_runs(0..view.rows()).flatten().map(row).collect()
}

fn has_twice(mut ids: Vec<u64>) -> bool {
    ids.sort_unstable();
    ids.windows(2).any(|pair| pair[0] == pair[1])
}

fn copy_folder(from: &Path, to: &Path) {
    let folder = to.join(NAME);
    std::fs::create_dir(&folder).unwrap();
    for entry in std::fs::read_dir(from.join(NAME)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
}
