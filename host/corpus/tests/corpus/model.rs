//! Any sequence of operations leaves what a plain model says.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use megaring_core::Error;
use megaring_core::matrix::Matrix;
use megaring_corpus::{Access, OpenOptions, Rows, Store};
use proptest::prelude::*;

use crate::common::{assert_derived, values};

const NAMES: [&str; 2] = ["a", "b"];

#[derive(Debug, Clone)]
enum Step {
    Create {
        name: usize,
        dim: usize,
    },
    /// Pushes of these numbers of rows; the flag says whether to commit.
    Append {
        name: usize,
        pushes: Vec<usize>,
        commit: bool,
    },
    Drop {
        name: usize,
    },
    Compact {
        name: usize,
    },
    /// The place among [`SMALL`] says what is small from now on.
    Reopen {
        small: usize,
    },
}

/// Nothing, some appends, all of them.
const SMALL: [u64; 3] = [0, 2048, 1 << 20];

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES.len();
    prop_oneof![
        2 => (name.clone(), 1_usize..40).prop_map(|(name, dim)| Step::Create { name, dim }),
        6 => (name.clone(), prop::collection::vec(0_usize..40, 0..4), prop::bool::weighted(0.8))
            .prop_map(|(name, pushes, commit)| Step::Append { name, pushes, commit }),
        1 => name.clone().prop_map(|name| Step::Drop { name }),
        2 => name.prop_map(|name| Step::Compact { name }),
        2 => (0..SMALL.len()).prop_map(|small| Step::Reopen { small }),
    ]
}

/// A corpus as plain vectors.
#[derive(Debug, Default)]
struct Model {
    dim: usize,
    generation: u32,
    values: Vec<f32>,
    labels: Vec<(u64, String)>,
}

/// Rows that no other call makes: `seed` counts them.
fn fresh(seed: &mut u32, count: usize, dim: usize) -> Rows {
    let mut rows = Rows { embeddings: Matrix { rows: count, dim, values: Vec::new() }, ..Rows::default() };
    for _ in 0..count {
        *seed += 1;
        rows.memory_ids.push(u64::from(*seed) << 32);
        rows.titles.push("é".repeat(*seed as usize % 4));
        rows.embeddings.values.extend((0..dim).map(|i| (*seed as f32).sin() * i as f32));
    }
    rows
}

fn apply(store: &Arc<Store>, models: &mut BTreeMap<&'static str, Model>, seed: &mut u32, step: &Step) {
    match step {
        Step::Create { name, dim } => {
            let name = NAMES[*name];
            let result = store.create(name, *dim);
            match models.contains_key(name) {
                true => assert!(matches!(result, Err(Error::CorpusExists { .. }))),
                false => {
                    result.unwrap();
                    models.insert(name, Model { dim: *dim, generation: 1, ..Model::default() });
                }
            }
        }
        Step::Append { name, pushes, commit } => {
            let Some(model) = models.get_mut(NAMES[*name]) else {
                assert!(matches!(store.append(NAMES[*name]), Err(Error::CorpusNotFound { .. })));
                return;
            };
            let mut appender = store.append(NAMES[*name]).unwrap();
            let all: Vec<Rows> = pushes.iter().map(|count| fresh(seed, *count, model.dim)).collect();
            all.iter().for_each(|rows| appender.push(rows.clone()).unwrap());
            if *commit {
                let appended = appender.commit().unwrap();
                assert!(appended.generation >= model.generation + u32::from(appended.rows > 0));
                model.generation = appended.generation;
                for rows in all {
                    model.values.extend(rows.embeddings.values);
                    model.labels.extend(rows.memory_ids.into_iter().zip(rows.titles));
                }
            }
        }
        Step::Drop { name } => match models.remove(NAMES[*name]) {
            Some(_) => store.drop_corpus(NAMES[*name]).unwrap(),
            None => assert!(matches!(store.drop_corpus(NAMES[*name]), Err(Error::CorpusNotFound { .. }))),
        },
        Step::Compact { name } => match models.contains_key(NAMES[*name]) {
            true => _ = store.compact(NAMES[*name]).unwrap(),
            false => assert!(matches!(store.compact(NAMES[*name]), Err(Error::CorpusNotFound { .. }))),
        },
        Step::Reopen { .. } => {}
    }
}

fn open(root: &Path, small: usize) -> Arc<Store> {
    let options = OpenOptions { small_bytes: SMALL[small], ..OpenOptions::default() };
    Store::open_with(root, Access::Exclusive, options).unwrap()
}

fn compare(store: &Store, models: &BTreeMap<&'static str, Model>) {
    let names: Vec<String> = store.list().into_iter().map(|description| description.name).collect();
    assert_eq!(names, models.keys().copied().collect::<Vec<_>>());
    for (name, model) in models {
        let view = store.view(name).unwrap();
        assert_eq!((view.dim(), view.rows()), (model.dim, model.labels.len()));
        assert!(view.generation() >= model.generation);
        assert_eq!(values(&view), model.values);
        for (row, (id, title)) in model.labels.iter().enumerate() {
            assert_eq!(view.label(row as u32), (*id, title.as_str()));
        }
        assert_derived(&view);
        assert!(store.verify(name).unwrap().is_clean());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn operations_leave_what_the_model_says(steps in prop::collection::vec(step(), 1..20)) {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path(), 1);
        let (mut models, mut seed) = (BTreeMap::new(), 0);
        for step in &steps {
            if let Step::Reopen { small } = step {
                drop(store);
                store = open(folder.path(), *small);
            }
            apply(&store, &mut models, &mut seed, step);
            compare(&store, &models);
        }
    }
}
