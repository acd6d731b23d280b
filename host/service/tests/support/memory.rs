//! What every backend must answer that has memory of its own, beside what `suite.rs` asks: corpora that grow there,
//! that crowd each other out, and callers that go away meanwhile.

use std::time::{Duration, Instant};

use megaring_core::matrix::Matrix;
use megaring_core::rescore::Ranked;
use megaring_core::search::Search;
use megaring_core::{Error, Metric};
use megaring_corpus::Rows;
use megaring_datasets::Embeddings;
use megaring_engine::{Outcome, Terms};
use tokio::task::JoinHandle;

use crate::suite::{Hits, Subject, rows_find_each_other, truth};

/// What the backend has counted under a name.
pub(crate) fn count(subject: &Subject, name: &str) -> u64 {
    let counters = subject.engine.counters();
    let found = counters.iter().flat_map(|(_, counters)| counters).find(|(counted, _)| *counted == name);
    found.unwrap_or_else(|| panic!("{name} is not in {counters:?}")).1
}

/// The first `batch` rows of a stored corpus as queries, top 10 by cosine, in a call of its own.
pub(crate) fn call(
    subject: &Subject,
    (corpus, rows): (&str, &megaring_datasets::Matrix),
    batch: usize,
    terms: Terms,
) -> JoinHandle<Result<Outcome<Vec<Ranked>>, Error>> {
    let queries = Matrix { rows: batch, dim: rows.dim, values: rows.head(batch).values };
    let corpus = subject.engine.store().view(corpus).expect("the corpus is there");
    let job = Search { corpus, queries, metric: Metric::Cosine, k: 10, threshold: None };
    let engine = subject.engine.clone();
    tokio::spawn(async move { engine.run(job, terms).await })
}

/// Whether a search was answered with the first ten of each.
pub(crate) fn is_true(outcome: Outcome<Vec<Ranked>>, truth: &[Hits]) -> bool {
    let ranked = outcome.answer;
    ranked.len() == truth.len()
        && ranked.iter().zip(truth).all(|(ranked, want)| {
            let got = ranked.hits.iter().map(|hit| (hit.row, hit.score.to_bits()));
            got.eq(want[..10].iter().copied())
        })
}

/// Nothing is under way any more, and nothing is held.
pub(crate) async fn settles(subject: &Subject) {
    let begun = Instant::now();
    while subject.engine.outstanding() + subject.engine.admission().in_flight() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "something is still held");
        tokio::task::yield_now().await;
    }
    assert_eq!(subject.engine.admission().bytes_in_flight(), 0);
}

/// Each version of a corpus, the longer ones of several segments.
pub(crate) fn a_corpus_that_grows_is_searched_as_it_is(subject: &Subject) {
    let rows = Embeddings { rows: 500, dim: 40, seed: 8, ..Embeddings::default() }.generate();
    subject.store_rows("grows", &rows.head(100), &[40]);
    for len in [100, 101, 300, 500] {
        let now = rows.head(len);
        if len > 100 {
            let from = subject.engine.store().view("grows").expect("the corpus is there").rows();
            let mut appender = subject.engine.store().append("grows").expect("the corpus is there");
            let embeddings = Matrix { rows: len - from, dim: 40, values: rows.values[from * 40..len * 40].to_vec() };
            appender.push(Rows { embeddings, ..Rows::default() }).expect("finite rows");
            appender.commit().expect("room on disk");
        }
        let truths = Metric::ALL.map(|metric| truth(metric, &now.values, &now));
        rows_find_each_other(subject, ("grows", &now), &truths, &[(5, &[1, 30])]);
    }
}

/// Corpora that need more than the backend has: some give way to others, and the largest may have to be streamed.
pub(crate) fn corpora_beyond_the_memory_are_searched(subject: &Subject) {
    let corpora: Vec<_> = [(400, 128, 1), (900, 128, 2), (400, 128, 3), (1_500, 96, 4)]
        .into_iter()
        .map(|(rows, dim, seed)| Embeddings { rows, dim, seed, ..Embeddings::default() }.generate())
        .collect();
    let truths: Vec<_> =
        corpora.iter().map(|rows| Metric::ALL.map(|metric| truth(metric, &rows.head(20).values, rows))).collect();
    for (number, rows) in corpora.iter().enumerate() {
        subject.store_rows(&format!("c{number}"), rows, &[rows.rows / 2]);
    }
    for round in 0..2 {
        for (number, (rows, truths)) in corpora.iter().zip(&truths).enumerate() {
            for (metric, truth) in Metric::ALL.into_iter().zip(truths) {
                let (name, asked) = (format!("c{number}"), rows.head(20));
                let queries = Matrix { rows: 20, dim: rows.dim, values: asked.values };
                let got = subject.search(&name, queries, metric, 10);
                for (got, want) in got.iter().zip(truth) {
                    assert_eq!(got[..], want[..10], "{name} {metric} round {round} on {}", subject.name);
                }
            }
        }
    }
}

/// Callers that come and go while their corpora push each other out of the memory: nobody's rows are overwritten under
/// a job that still reads them, not even where its caller has gone.
pub(crate) async fn callers_that_go_away_leave_the_others_answers_alone(subject: &Subject) {
    let corpora: Vec<_> =
        (0..3).map(|seed| Embeddings { rows: 400, dim: 64, seed, ..Embeddings::default() }.generate()).collect();
    let truths: Vec<_> = corpora.iter().map(|rows| truth(Metric::Cosine, &rows.head(150).values, rows)).collect();
    for (number, rows) in corpora.iter().enumerate() {
        subject.store_rows(&format!("c{number}"), rows, &[]);
    }
    let forced = || Terms { backend: Some(subject.backend), ..Terms::default() };
    let begin = |number: usize| call(subject, (&format!("c{number}"), &corpora[number]), 150, forced());
    for round in 0..12 {
        let calls: Vec<_> = (0..6).map(|call| (call % 3, begin(call % 3))).collect();
        for (at, (number, call)) in calls.into_iter().enumerate() {
            if (at + round) % 3 == 0 {
                call.abort();
                continue;
            }
            let outcome = call.await.expect("no panic").expect("a good job");
            assert!(is_true(outcome, &truths[number]), "corpus {number} in round {round}");
        }
    }
    settles(subject).await;
}
