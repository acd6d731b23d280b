//! Random histories of a corpus beside a plain list: rows are appended, replaced, deleted, merged, copied and searched,
//! the store is closed or lost and opened again, and what is there is what the list says. Some corpora have their ids
//! as texts, of which several have one hash.
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
use megaring_corpus::{
    Access, CreateOptions, IdList, OpenOptions, Rows, Selection, Store, TextIds, find, find_each, find_texts,
};

use crate::common::{TWINS, assert_derived, random};

const DIM: usize = 5;
const NAME: &str = "a";
/// Steps of a history.
const STEPS: u64 = 24;
/// Ids are below it, so that they come again.
const IDS: u64 = 60;

#[derive(Debug, Clone, PartialEq)]
struct Row {
    id: Id,
    title: String,
    values: Vec<f32>,
}

/// A number, or a text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Id {
    Number(u64),
    Text(String),
}

/// The column of text ids.
const COLUMN: &str = "path";

/// The corpus as a list, and how many rows it ever got.
#[derive(Debug, Default, Clone)]
struct Model {
    rows: Vec<Row>,
    ever: u64,
    /// The largest id that a row ever had, and one.
    next_id: u64,
    unique: bool,
    has_texts: bool,
}

impl Model {
    fn got(&mut self, rows: &[Row]) {
        self.ever += rows.len() as u64;
        for row in rows {
            if let Id::Number(number) = row.id {
                self.next_id = self.next_id.max(number + 1);
            }
        }
    }

    /// The id that a number stands for: of texts, the first have one hash.
    fn id(&self, number: u64) -> Id {
        match TWINS.get(number as usize) {
            _ if !self.has_texts => Id::Number(number),
            Some(twin) => Id::Text((*twin).to_owned()),
            None => Id::Text(format!("inbox/{number}")),
        }
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
        let has_texts = random(&mut seed).is_multiple_of(2);
        let id_column = has_texts.then(|| COLUMN.to_owned());
        let row_type = if random(&mut seed).is_multiple_of(4) { RowType::bits(32 * DIM - 8) } else { DIM.into() };
        store.create_with(NAME, row_type, CreateOptions { unique_ids: unique, id_column }).unwrap();
        let model = Model { unique, has_texts, ..Model::default() };
        Self { seed, folder, store, row_type, model, held: None, copies: 0 }
    }

    fn below(&mut self, end: u64) -> u64 {
        random(&mut self.seed) % end
    }

    fn step(&mut self, step: u64) {
        match self.below(16) {
            0..=2 => self.append(step),
            3..=5 => self.upsert(step),
            6..=7 => self.delete(),
            8 => _ = self.store.compact(NAME).unwrap(),
            9 => self.copy(),
            10 => self.search(),
            11 => self.lose(),
            12 => self.select(),
            13..=14 => self.delete_selected(step),
            _ => self.hold(),
        }
    }

    /// Rows of a batch, whose ids may come more than once.
    fn fresh(&mut self, step: u64) -> Vec<Row> {
        let many = if self.below(4) == 0 { 40 } else { 6 };
        let count = self.below(many);
        let mut row = |at: u64| {
            let value = random(&mut self.seed);
            let values = (0..DIM).map(|i| self.value((value >> (8 * i)) & 15)).collect();
            Row { id: self.model.id((value >> 20) % IDS), title: format!("{step}.{at}"), values }
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
        let has_ids = self.below(3) > 0 || self.model.has_texts;
        let mut rows = self.fresh(step);
        let mut appender = self.store.append(NAME).unwrap();
        let mut batch = self.batch(&rows);
        if !has_ids {
            batch.memory_ids.clear();
            let first = if self.model.unique { self.model.next_id } else { self.model.ever };
            rows.iter_mut().zip(first..).for_each(|(row, id)| row.id = Id::Number(id));
        }
        appender.push(batch).unwrap();
        let all = self.model.rows.iter().chain(&rows).map(|row| row.id.clone());
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
        let rows = self.fresh(step);
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
        let numbers: Vec<u64> = (0..count).map(|_| self.below(IDS + 5)).collect();
        let mut ids: Vec<Id> = numbers.iter().map(|number| self.model.id(*number)).collect();
        let (numbers, texts) = split(&ids);
        let deleted = self.store.delete_all(NAME, &numbers, &texts).unwrap();
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|id| !self.model.rows.iter().any(|row| row.id == *id));
        assert_eq!((deleted.missing, deleted.missing_texts), split(&ids));
        let ids: Vec<Id> = numbers.into_iter().map(Id::Number).chain(texts.into_iter().map(Id::Text)).collect();
        let before = self.model.rows.len();
        self.model.rows.retain(|row| !ids.contains(&row.id));
        assert_eq!((deleted.rows, deleted.total_rows), (before - self.model.rows.len(), self.model.rows.len()));
    }

    /// Rows of an age, and some whose ids are next to each other but for one that is spared.
    fn delete_selected(&mut self, step: u64) {
        let (from, spared, old) = (self.below(IDS), self.below(IDS), self.below(step + 1));
        let (some, spared) =
            ((from..from + 10).map(|at| self.model.id(at)).collect::<Vec<Id>>(), self.model.id(spared));
        let is_some = match self.model.has_texts {
            true => format!("path in ('{}')", split(&some).1.join("', '")),
            false => format!("memory_id between {from} and {}", from + 9),
        };
        let filter = format!("title like '{old}.%' or {is_some}");
        let (numbers, texts) = split(std::slice::from_ref(&spared));
        let deny = IdList { numbers: numbers.into_iter().collect(), texts: texts.into_iter().collect() };
        let selection = Selection { filter: Some(filter.parse().unwrap()), deny, ..Selection::default() };
        let deleted = self.store.delete_selected(NAME, &selection, &|| true).unwrap();
        let before = self.model.rows.len();
        let goes = |row: &Row| {
            let is_old = row.title.starts_with(&format!("{old}."));
            (is_old || some.contains(&row.id)) && row.id != spared
        };
        self.model.rows.retain(|row| !goes(row));
        assert_eq!((deleted.rows, deleted.total_rows), (before - self.model.rows.len(), self.model.rows.len()));
    }

    /// A copy is what the corpus is now, whatever becomes of the corpus.
    fn copy(&mut self) {
        self.copies += 1;
        let name = format!("copy-{}", self.copies);
        self.store.take_from(&self.store, NAME, &name).unwrap();
        let gone = [1, 2, 3].map(|number| self.model.id(number));
        let (numbers, texts) = split(&gone);
        self.store.delete_all(NAME, &numbers, &texts).unwrap();
        assert_eq!(rows_of(&self.store.view(&name).unwrap()), self.model.rows);
        self.model.rows.retain(|row| !gone.contains(&row.id));
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

    /// Rows are found by their ids, allowed and denied, and fetched.
    fn select(&mut self) {
        let view = self.store.view(NAME).unwrap();
        let count = self.below(8);
        let listed: Vec<Id> = (0..count)
            .map(|_| {
                let number = self.below(IDS + 5);
                self.model.id(number)
            })
            .collect();
        let (numbers, texts) = split(&listed);
        let list = IdList { numbers: numbers.iter().copied().collect(), texts: texts.iter().cloned().collect() };
        let model = |is_wanted: &dyn Fn(&Row) -> bool| {
            self.model.rows.iter().filter(|row| is_wanted(row)).cloned().collect::<Vec<Row>>()
        };
        let allow = Selection { allow: Some(list.clone()), ..Selection::default() };
        let allowed = rows_of(&self.store.select(&view, &allow).unwrap().view);
        assert_eq!(allowed, model(&|row| listed.contains(&row.id)));
        let deny = Selection { deny: list, ..Selection::default() };
        let left = rows_of(&self.store.select(&view, &deny).unwrap().view);
        assert_eq!(left, model(&|row| !listed.contains(&row.id)));
        let rows = match self.model.has_texts {
            true => find_texts(&view, &texts, usize::MAX).unwrap().0,
            false => find(&view, &numbers, usize::MAX).unwrap().0,
        };
        let all = rows_of(&view);
        let places: Vec<usize> = view.visible_runs(0..view.rows()).flatten().collect();
        let found = rows.iter().map(|row| &all[places.iter().position(|place| *place == *row as usize).unwrap()]);
        let wanted = listed.iter().flat_map(|id| self.model.rows.iter().filter(move |row| row.id == *id));
        assert_eq!(found.collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
        let each = find_each(&view, &numbers, &texts, "query_ids");
        let is_once = |id: &Id| self.model.rows.iter().filter(|row| row.id == *id).count() == 1;
        if listed.iter().all(is_once) { assert_eq!(each.unwrap(), rows) } else { assert!(each.is_err()) }
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
        let ids: Vec<Id> = rows.iter().map(|row| row.id.clone()).collect();
        Rows {
            memory_ids: split(&ids).0,
            ids: split(&ids).1,
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
    let texts = TextIds::of(view).unwrap();
    let row = |row: usize| {
        let (number, title) = view.label(row as u32);
        let id = texts.get(row as u32).map_or(Id::Number(number), |text| Id::Text(text.to_owned()));
        Row { id, title: title.to_owned(), values: view.embedding(row as u32).to_vec() }
    };
    view.visible_runs(0..view.rows()).flatten().map(row).collect()
}

/// The numbers among ids, and the texts.
fn split(ids: &[Id]) -> (Vec<u64>, Vec<String>) {
    let (mut numbers, mut texts) = (Vec::new(), Vec::new());
    for id in ids {
        match id {
            Id::Number(number) => numbers.push(*number),
            Id::Text(text) => texts.push(text.clone()),
        }
    }
    (numbers, texts)
}

fn has_twice(mut ids: Vec<Id>) -> bool {
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
