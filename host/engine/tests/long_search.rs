//! Long searches by themselves: what is asked for, what is kept, and that what comes out is what one search of
//! everything would answer. The searches are answered here, by the definition.

use std::sync::Arc;

use megaring_core::corpus::{CorpusView, HeapSegment, SegmentView};
use megaring_core::exact::{reported, score};
use megaring_core::matrix::Matrix;
use megaring_core::operation::Limits;
use megaring_core::rescore::{Hit, Ranked, compare};
use megaring_core::search::{Queries, Search};
use megaring_core::{Error, Metric, Operation as _};
use megaring_corpus::Pairs;
use megaring_engine::long_search::{Asked, Found, HITS, LongSearch, Of, add_pairs};

const LIMITS: Limits = Limits { max_items: 1024, max_bytes: 32 << 20 };

/// Rows of small whole numbers, so that many scores are equal.
fn view(rows: usize, dim: usize, seed: usize) -> Arc<CorpusView> {
    let value = |at: usize| ((at * 7919 + seed * 31) % 11) as f32 - 5.0;
    let segment = |first: usize, rows: usize| {
        let values = (first * dim..(first + rows) * dim).map(value).collect();
        Arc::new(SegmentView::new(Arc::new(HeapSegment::new(values, dim, None)), rows))
    };
    let first = rows / 3;
    let segments = vec![segment(0, first), segment(first, rows - first)];
    Arc::new(CorpusView::new(format!("seed-{seed}"), 1, 1, dim, segments))
}

/// All hits of a query by the definition, best first.
fn all(searched: &CorpusView, query: &[f32], metric: Metric, threshold: Option<f64>) -> Vec<Hit> {
    let hit = |row| Hit { row, score: score(metric, query, searched.embedding(row)) };
    let passes = |hit: &Hit| threshold.is_none_or(|threshold| metric.passes(f64::from(reported(hit.score)), threshold));
    let mut hits: Vec<Hit> = (0..searched.rows() as u32).map(hit).filter(passes).collect();
    hits.sort_by(|one, other| compare(metric, one, other));
    hits
}

fn answer(search: &Search) -> Vec<Ranked> {
    let one = |query| {
        let values = search.queries.of(query, &search.corpus);
        let mut hits = all(&search.corpus, values, search.metric, search.threshold);
        hits.truncate(search.k);
        Ranked { hits, rescored: 0 }
    };
    (0..search.queries.len()).map(one).collect()
}

/// All that is found, query by query, and what was searched for it. Every search is asked for twice.
fn run(mut search: LongSearch, answer: impl Fn(&Search) -> Vec<Ranked>) -> (Vec<(u32, Vec<Hit>)>, Vec<Search>) {
    let (mut told, mut searches): (Vec<(u32, Vec<Hit>)>, _) = (Vec::new(), Vec::new());
    let mut is_open = false;
    loop {
        while let Some(Found { query, hits, is_last }) = search.found() {
            match told.last_mut() {
                Some((before, found)) if is_open => {
                    assert_eq!(*before, query, "one query after the other");
                    found.extend(hits);
                }
                _ => told.push((query, hits)),
            }
            is_open = !is_last;
        }
        let Some(first) = search.search() else { break };
        let again = search.search().expect("it is not answered yet");
        assert_eq!((&first.queries, first.k), (&again.queries, again.k));
        search.answer(answer(&again));
        searches.push(again);
    }
    assert!(!is_open, "every query has an end");
    (told, searches)
}

fn rows_of(corpus: &Arc<CorpusView>, rows: std::ops::Range<u32>) -> Of {
    Of::Rows { corpus: corpus.clone(), rows }
}

/// k of every size, with and without a threshold, of a corpus with itself and with another.
#[test]
fn every_row_gets_what_one_search_of_everything_would_give() {
    let (corpus, other) = (view(900, 3, 1), view(1300, 3, 2));
    for (metric, threshold) in [(Metric::Cosine, 0.5), (Metric::Dot, 3.0), (Metric::L2, 40.0)] {
        for searched in [&corpus, &other] {
            let is_self = Arc::ptr_eq(searched, &corpus);
            for (k, threshold) in
                [(None, Some(threshold)), (Some(1), None), (Some(70), Some(threshold)), (Some(5000), None)]
            {
                let of = rows_of(&corpus, 100..350);
                let asked = Asked { searched: searched.clone(), of, metric, k, threshold };
                let (told, _) = run(LongSearch::within(asked, LIMITS).expect("one dimension"), answer);
                let want = (100..350).map(|row| {
                    let hits = all(searched, corpus.embedding(row), metric, threshold).into_iter();
                    let is_told = |hit: &Hit| !is_self || if k.is_none() { hit.row > row } else { hit.row != row };
                    (row, hits.filter(is_told).take(k.unwrap_or(usize::MAX)).collect())
                });
                let want: Vec<(u32, Vec<Hit>)> = want.collect();
                assert!(want.iter().any(|(_, hits)| !hits.is_empty()), "{metric} {k:?}");
                assert_eq!(told, want, "{metric} {k:?} {threshold:?} {is_self}");
            }
        }
    }
}

#[test]
fn queries_that_are_sent_or_named_keep_their_order() {
    let corpus = view(700, 4, 3);
    let named = vec![699, 0, 5, 5];
    let values = named.iter().flat_map(|row| corpus.embedding(*row)).copied().collect();
    let sent = Queries::Sent(Matrix { rows: named.len(), dim: 4, values });
    for queries in [sent, Queries::Rows(named.clone())] {
        let asked = Asked {
            searched: corpus.clone(),
            of: Of::Queries(queries),
            metric: Metric::Dot,
            k: None,
            threshold: Some(1.0),
        };
        let (told, _) = run(LongSearch::within(asked, LIMITS).expect("good queries"), answer);
        let want = named
            .iter()
            .enumerate()
            .map(|(number, row)| (number as u32, all(&corpus, corpus.embedding(*row), Metric::Dot, Some(1.0))));
        assert_eq!(told, want.collect::<Vec<_>>());
    }
}

/// Where few pass, few are asked for, once; where lists come back full, more, of those queries alone.
#[test]
fn more_is_asked_for_only_where_there_may_be_more() {
    let corpus = view(100_000, 1, 1);
    let asked = |k, threshold| Asked {
        searched: corpus.clone(),
        of: rows_of(&corpus, 0..500),
        metric: Metric::Dot,
        k,
        threshold,
    };
    let found = |count: usize| Ranked {
        hits: (0..count as u32).map(|row| Hit { row: row + 50_000, score: 1.0 }).collect(),
        rescored: 0,
    };
    // Of row 7 a thousand pass, of the others three.
    let answer = |search: &Search| {
        let Queries::Rows(rows) = &search.queries else { panic!("rows of the corpus itself") };
        rows.iter().map(|row| found(if *row == 7 { 1000 } else { 3 }.min(search.k))).collect()
    };
    let (told, searches) = run(LongSearch::within(asked(None, Some(0.5)), LIMITS).expect("one corpus"), answer);
    let asked_for: Vec<_> = searches.iter().map(|search| (search.queries.len(), search.k)).collect();
    assert_eq!(asked_for, [(500, 64), (1, 512), (1, 4096)]);
    assert_eq!(told.iter().map(|(_, hits)| hits.len()).sum::<usize>(), 499 * 3 + 1000);
    let (_, searches) = run(LongSearch::within(asked(Some(10), None), LIMITS).expect("one corpus"), answer);
    assert!(searches.iter().all(|search| search.k == 11), "the row itself may be among them");
}

/// Every row passes, of many queries: what is kept stays within bounds, and each search is a small one.
#[test]
fn what_is_kept_and_asked_for_is_bounded_whatever_passes() {
    let (large, small) = (view(700_000, 8, 1), view(20_000, 8, 1));
    let queries = |count| Of::Queries(Queries::Rows(vec![0; count]));
    let cases = [
        (&large, queries(2), None, LIMITS),
        // Neither row is among the best, so that one more is found than is told.
        (&large, rows_of(&large, 650_000..650_002), Some(600_000), LIMITS),
        (&large, queries(5_000), Some(1), LIMITS),
        (&small, queries(700), None, LIMITS),
        // Where no list of so many fits, every row is scored.
        (&large, queries(1), None, Limits { max_bytes: 64 << 10, ..LIMITS }),
    ];
    for (corpus, of, k, limits) in cases {
        let queries = of.numbers().len();
        let asked = Asked { searched: corpus.clone(), of, metric: Metric::Dot, k, threshold: Some(0.5) };
        let mut search = LongSearch::within(asked, limits).expect("one corpus");
        let (mut told, mut ends, mut most_kept) = (0, 0, 0);
        loop {
            while let Some(found) = search.found() {
                assert!(found.hits.len() <= HITS);
                let first = found.hits.first().map(|hit| hit.row as usize);
                assert!(first.is_none_or(|first| first == told % k.unwrap_or(corpus.rows())), "nothing twice");
                (told, ends) = (told + found.hits.len(), ends + usize::from(found.is_last));
            }
            let Some(job) = search.search() else { break };
            let count = job.k.min(corpus.rows());
            let work = job.queries.len() * corpus.rows() * corpus.dim();
            assert!(job.queries.len() == 1 || job.queries.len() * count <= HITS, "{} x {count}", job.queries.len());
            assert!(job.queries.len() <= 16 || work <= 1 << 34);
            let most = job.pieces(&limits).iter().map(|piece| piece.bytes()).max();
            assert!(most.is_some_and(|most| most <= limits.max_bytes), "it fits a slot");
            let hits: Vec<Hit> = (0..count as u32).map(|row| Hit { row, score: 1.0 }).collect();
            search.answer(vec![Ranked { hits, rescored: 0 }; job.queries.len()]);
            most_kept = most_kept.max(search.kept());
        }
        assert!(most_kept <= 4 * HITS, "{most_kept}");
        assert_eq!((told, ends), (queries * k.unwrap_or(corpus.rows()), queries));
    }
}

#[test]
fn corpora_of_different_dimensions_are_refused() {
    let (corpus, other) = (view(9, 3, 1), view(9, 4, 2));
    let asked = Asked { searched: other, of: rows_of(&corpus, 0..9), metric: Metric::Dot, k: Some(1), threshold: None };
    match LongSearch::within(asked, LIMITS).map(|_| ()) {
        Err(Error::Invalid(violation)) => {
            assert_eq!(violation.field, "other");
            assert!(violation.description.contains("seed-1 has 3 elements, seed-2 has 4 elements"), "{violation}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn pairs_name_both_rows() {
    let (corpus, searched) = (view(9, 3, 1), view(9, 3, 2));
    let (mut pairs, texts) = (Pairs::default(), Default::default());
    let hits = [Hit { row: 8, score: 0.1 }, Hit { row: 2, score: f64::MAX }];
    add_pairs(&mut pairs, &corpus, 4, &searched, &hits, &texts);
    add_pairs(&mut pairs, &corpus, 5, &searched, &[], &texts);
    // The ids of rows that were never named are their numbers within the segment.
    let want = Pairs {
        rows: vec![4, 4],
        memory_ids: vec![1, 1],
        neighbours: vec![8, 2],
        neighbour_ids: vec![5, 2],
        scores: vec![0.1, f32::MAX],
        ..Pairs::default()
    };
    assert_eq!(pairs, want);
}
