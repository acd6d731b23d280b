//! Callers of a backend that has memory of its own, and what it has counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use megaring_bench::cases::search::{Hits, truth};
use megaring_bench::cases::{Cases, Subject, matrix};
use megaring_core::corpus::CorpusView;
use megaring_core::rescore::Ranked;
use megaring_core::search::Search;
use megaring_core::{Error, Metric};
use megaring_datasets::{Embeddings, Matrix};
use megaring_engine::{Outcome, Terms};
use tokio::task::JoinHandle;

/// What the backend has counted under a name.
pub(crate) fn count(subject: &Subject, name: &str) -> u64 {
    subject.counted(name).unwrap_or_else(|| panic!("{name} is not in {:?}", subject.engine.counters()))
}

/// The first `batch` rows of a stored corpus as queries, top 10 by cosine, in a call of its own.
pub(crate) fn call(
    subject: &Subject,
    (corpus, rows): (&Arc<CorpusView>, &Matrix),
    batch: usize,
    terms: Terms,
) -> JoinHandle<Result<Outcome<Vec<Ranked>>, Error>> {
    let queries = matrix(rows.dim, &rows.head(batch).values);
    let job =
        Search { corpus: corpus.clone(), queries: queries.into(), metric: Metric::Cosine, k: 10, threshold: None };
    let engine = subject.engine.clone();
    tokio::spawn(async move { engine.run(job, terms).await })
}

/// What such a call is to be answered.
pub(crate) fn wanted(rows: &Matrix, batch: usize) -> Vec<Hits> {
    truth(Metric::Cosine, &rows.head(batch).values, rows, 10, None)
}

/// Whether a search was answered with just these hits.
pub(crate) fn is_true(outcome: Outcome<Vec<Ranked>>, truth: &[Hits]) -> bool {
    Search::parts(&outcome.answer) == truth
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

/// Callers that come and go while their corpora push each other out of the memory: nobody's rows are overwritten under
/// a job that still reads them, not even where its caller has gone.
pub(crate) async fn callers_that_go_away_leave_the_others_answers_alone(subject: &Subject) {
    let corpora: Vec<_> =
        (0..3).map(|seed| Embeddings { rows: 400, dim: 64, seed, ..Embeddings::default() }.generate()).collect();
    let truths: Vec<_> = corpora.iter().map(|rows| wanted(rows, 150)).collect();
    let stored: Vec<_> = corpora.iter().map(|rows| subject.store(rows, &[]).expect("room on disk")).collect();
    let begin = |number: usize| call(subject, (&stored[number], &corpora[number]), 150, subject.terms());
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
