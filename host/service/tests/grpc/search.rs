//! Search, Score and Nearest over the wire equal the naive reference: ids, order and scores.

use megaring_datasets::reference::{self, DEFAULT_WEIGHTS};
use megaring_datasets::{Embeddings, Matrix, points, poison, queries, sample};
use megaring_proto::v1 as pb;

use crate::common::{Running, Wanted, float32, folder, vectors};

const METRICS: [(pb::Metric, reference::Metric); 3] = [
    (pb::Metric::Cosine, reference::Metric::Cosine),
    (pb::Metric::Dot, reference::Metric::Dot),
    (pb::Metric::L2, reference::Metric::L2),
];

fn rows() -> Matrix {
    Embeddings { rows: 700, dim: 48, seed: 7, clusters: 9, exact_duplicates: 0.05, ..Embeddings::default() }.generate()
}

fn ask(queries: pb::Vectors, metric: pb::Metric, k: u32) -> pb::SearchRequest {
    pb::SearchRequest {
        corpus: "rows".into(),
        queries: Some(queries),
        metric: metric.into(),
        k,
        ..pb::SearchRequest::default()
    }
}

/// Compares everything a reply says about the hits with the reference.
fn assert_hits(response: &pb::SearchResponse, expected: &[Vec<reference::Hit>], context: &str) {
    assert_eq!(response.results.len(), expected.len(), "{context}: one result per query");
    for (query, (hits, expected)) in response.results.iter().zip(expected).enumerate() {
        let numbers: Vec<u32> = expected.iter().map(|hit| hit.row).collect();
        let scores: Vec<u32> = expected.iter().map(|hit| hit.reported().to_bits()).collect();
        assert_eq!(hits.rows, numbers, "{context}, query {query}: rows");
        let found: Vec<u32> = hits.scores.iter().map(|score| score.to_bits()).collect();
        assert_eq!(found, scores, "{context}, query {query}: scores");
        let ids: Vec<u64> = numbers.iter().map(|row| 1000 + u64::from(*row)).collect();
        assert_eq!(hits.memory_ids, ids, "{context}, query {query}: ids");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn search_equals_the_reference_in_every_metric_and_k() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let rows = rows();
    server.corpus("rows", &rows).await;
    let queries = queries(&rows, 21, 3);
    let mut compute = server.compute().await;
    for (wire, metric) in METRICS {
        for k in [1, 10, 100, 700, 5000] {
            let response = compute.search(ask(float32(&queries), wire, k)).await.expect("an answer").into_inner();
            let expected = reference::search(metric, &queries.values, &rows.values, rows.dim, k as usize, None);
            assert_hits(&response, &expected, &format!("{wire:?} k {k}"));
            assert!(response.results.iter().all(|hits| hits.titles.is_empty()), "no titles unless asked for");
            let made = response.made.expect("how it was made");
            assert_eq!(made.backend(), pb::Backend::Cpu);
            assert!(made.exact && !made.instruction_set.is_empty() && made.rows_rescored > 0 && made.bytes_read > 0);
            assert!(made.compute_ns > 0);
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_sample_is_searched_exactly() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let rows = sample().expect("the sample").embeddings;
    server.corpus("rows", &rows).await;
    let queries = rows.head(64);
    let mut compute = server.compute().await;
    for (wire, metric) in METRICS {
        let response = compute.search(ask(float32(&queries), wire, 10)).await.expect("an answer").into_inner();
        let expected = reference::search(metric, &queries.values, &rows.values, rows.dim, 10, None);
        assert_hits(&response, &expected, &format!("{wire:?}"));
    }
    server.stop().await;
}

/// Rows of the corpus as queries, also one of zeroes, one that comes twice and none at all: each answers as its values
/// would.
#[tokio::test(flavor = "multi_thread")]
async fn rows_find_their_kin_by_number() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let rows = poison::zero_row(&rows(), 5);
    server.corpus("rows", &rows).await;
    let mut compute = server.compute().await;
    for numbers in [vec![], vec![699], vec![5, 0, 699, 0], (0..700).rev().collect::<Vec<u32>>()] {
        let values: Vec<f32> = numbers.iter().flat_map(|row| rows.row(*row as usize)).copied().collect();
        for (wire, metric) in METRICS {
            let query_rows = Some(pb::RowNumbers { numbers: numbers.clone() });
            let request = pb::SearchRequest { queries: None, query_rows, ..ask(pb::Vectors::default(), wire, 10) };
            let response = compute.search(request).await.expect("an answer").into_inner();
            let expected = reference::search(metric, &values, &rows.values, rows.dim, 10, None);
            assert_hits(&response, &expected, &format!("{wire:?}, {} rows", numbers.len()));
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thresholds_titles_zero_vectors_and_defaults() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let rows = poison::zero_row(&rows(), 5);
    server.corpus("rows", &rows).await;
    let queries = poison::zero_row(&queries(&rows, 6, 3), 2);
    let mut compute = server.compute().await;
    for ((wire, metric), threshold) in METRICS.into_iter().zip([0.9, 0.8, 0.5]) {
        let request =
            pb::SearchRequest { threshold: Some(threshold), with_titles: true, ..ask(float32(&queries), wire, 40) };
        let response = compute.search(request).await.expect("an answer").into_inner();
        let expected = reference::search(metric, &queries.values, &rows.values, rows.dim, 40, Some(threshold));
        assert_hits(&response, &expected, &format!("{wire:?} threshold"));
        assert!(expected.iter().any(|hits| hits.len() < 40), "the threshold cuts something off");
        for hits in &response.results {
            let titles: Vec<String> = hits.rows.iter().map(|row| format!("row {row}")).collect();
            assert_eq!(hits.titles, titles);
        }
    }
    let response = compute.search(ask(float32(&queries), pb::Metric::Unspecified, 10)).await.expect("an answer");
    let expected = reference::search(reference::Metric::Cosine, &queries.values, &rows.values, rows.dim, 10, None);
    assert_hits(&response.into_inner(), &expected, "no metric is cosine");
    server.stop().await;
}

/// Small multiples of 1/8 are exact in every type.
fn coarse(rows: usize, dim: usize, seed: usize) -> Matrix {
    let value = |index: usize| ((index * 7919 + seed * 31) % 101) as f32 / 8.0 - 6.0;
    Matrix::new(rows, dim, (0..rows * dim).map(value).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_dtype_gives_the_same_answer() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let rows = coarse(300, 24, 1);
    server.corpus("rows", &rows).await;
    let queries = coarse(9, 24, 2);
    let halves = queries.values.iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect();
    let brains = queries.values.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect();
    let steps = queries.values.iter().map(|value| ((value * 8.0) as i8).cast_unsigned()).collect();
    let int8 = pb::Vectors { int8_scale: Some(0.125), ..vectors(pb::Dtype::Int8, 9, 24, steps) };
    let expected = reference::search(reference::Metric::L2, &queries.values, &rows.values, rows.dim, 30, None);
    let mut compute = server.compute().await;
    for sent in [
        float32(&queries),
        vectors(pb::Dtype::Float16, 9, 24, halves),
        vectors(pb::Dtype::Bfloat16, 9, 24, brains),
        int8,
    ] {
        let context = format!("{:?}", sent.dtype());
        let response = compute.search(ask(sent, pb::Metric::L2, 30)).await.expect("an answer").into_inner();
        assert_hits(&response, &expected, &context);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_equal_the_reference_for_all_rows_and_for_named_ones() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let rows = rows();
    server.corpus("rows", &rows).await;
    let queries = queries(&rows, 5, 3);
    let named = vec![699, 0, 3, 3, 500];
    let mut compute = server.compute().await;
    for (wire, metric) in METRICS {
        let all = reference::score(metric, &queries.values, &rows.values, rows.dim);
        let some: Vec<f32> = (0..5)
            .flat_map(|query| named.iter().map(move |row| query * 700 + *row as usize))
            .map(|at| all[at])
            .collect();
        for (rows, expected) in [(None, &all), (Some(pb::RowNumbers { numbers: named.clone() }), &some)] {
            let width = rows.as_ref().map_or(700, |rows| rows.numbers.len());
            let request = pb::ScoreRequest {
                corpus: "rows".into(),
                queries: Some(float32(&queries)),
                metric: wire.into(),
                rows,
                ..pb::ScoreRequest::default()
            };
            let scores = compute.score(request).await.expect("an answer").into_inner().scores.expect("scores");
            assert_eq!((scores.rows, scores.dim as usize, scores.dtype()), (5, width, pb::Dtype::Float32));
            let bytes: Vec<u8> = expected.iter().flat_map(|score| score.to_le_bytes()).collect();
            assert_eq!(scores.data, bytes, "{wire:?}, {width} rows");
        }
    }
    server.stop().await;
}

fn flat(points: &[[f64; 5]]) -> Vec<f64> {
    points.iter().flatten().copied().collect()
}

fn assert_neighbours(
    found: &pb::NearestResponse,
    points: &[[f64; 5]],
    queries: &[[f64; 5]],
    weights: [f64; 5],
    k: usize,
) {
    assert_eq!(found.results.len(), queries.len());
    for (found, query) in found.results.iter().zip(queries) {
        let expected = reference::nearest(points, query, &weights, k);
        assert_eq!(found.rows, expected.iter().map(|at| at.row).collect::<Vec<_>>());
        assert_eq!(found.distances, expected.iter().map(|at| at.distance).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nearest_points_sent_along_and_of_a_corpus() {
    use pb::nearest_request::Among;
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let (stored, asked) = (points(400, 1), points(7, 2));
    let mut rows = crate::common::labelled(&coarse(400, 4, 1));
    rows.coordinates = flat(&stored);
    let mut corpora = server.corpora().await;
    corpora
        .create(pb::CreateRequest { name: "points".into(), dim: 4, ..Default::default() })
        .await
        .expect("it is made");
    let append = pb::AppendRequest { corpus: "points".into(), rows: Some(rows) };
    corpora.append(tokio_stream::once(append)).await.expect("rows are added");

    let mut compute = server.compute().await;
    let sent = Among::Points(pb::Points { coordinates: flat(&stored) });
    let own = [1.0, 0.0, 2.5, 0.25, 1.0];
    for (weights, k) in [(None, 1), (None, 10), (Some(own), 25), (None, 1000)] {
        for among in [sent.clone(), Among::Corpus("points".into())] {
            let in_corpus = matches!(among, Among::Corpus(_));
            let request = pb::NearestRequest {
                queries: Some(pb::Points { coordinates: flat(&asked) }),
                among: Some(among),
                k,
                weights: weights.map(Vec::from).unwrap_or_default(),
                with_titles: true,
                ..pb::NearestRequest::default()
            };
            let found = compute.nearest(request).await.expect("an answer").into_inner();
            assert_neighbours(&found, &stored, &asked, weights.unwrap_or(DEFAULT_WEIGHTS), k as usize);
            for found in &found.results {
                let ids: Vec<u64> = found.rows.iter().map(|row| 1000 + u64::from(*row)).collect();
                let titles: Vec<String> = found.rows.iter().map(|row| format!("row {row}")).collect();
                assert_eq!(found.memory_ids, if in_corpus { ids } else { Vec::new() });
                assert_eq!(found.titles, if in_corpus { titles } else { Vec::new() });
            }
            assert_eq!(found.generation > 0, in_corpus);
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_batches_and_empty_corpora_answer_empty() {
    use pb::nearest_request::Among;
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    server.corpus("rows", &rows()).await;
    server
        .corpora()
        .await
        .create(pb::CreateRequest { name: "empty".into(), dim: 48, ..Default::default() })
        .await
        .expect("it is made");
    let mut compute = server.compute().await;
    for none in [None, Some(pb::Vectors::default()), Some(vectors(pb::Dtype::Float32, 0, 48, Vec::new()))] {
        let search = pb::SearchRequest { corpus: "rows".into(), queries: none.clone(), k: 3, ..Default::default() };
        assert!(compute.search(search).await.expect("an answer").into_inner().results.is_empty());
        let score = pb::ScoreRequest { corpus: "rows".into(), queries: none, ..Default::default() };
        let scores = compute.score(score).await.expect("an answer").into_inner().scores.expect("scores");
        assert_eq!((scores.rows, scores.dim, scores.data.len()), (0, 700, 0));
    }
    let queries = queries(&rows(), 3, 3);
    let no_rows = pb::ScoreRequest {
        corpus: "rows".into(),
        queries: Some(float32(&queries)),
        rows: Some(pb::RowNumbers::default()),
        ..Default::default()
    };
    let scores = compute.score(no_rows).await.expect("an answer").into_inner().scores.expect("scores");
    assert_eq!((scores.rows, scores.dim, scores.data.len()), (3, 0, 0));

    let search = pb::SearchRequest { corpus: "empty".into(), ..ask(float32(&queries), pb::Metric::Dot, 5) };
    let response = compute.search(search).await.expect("an answer").into_inner();
    assert_eq!(response.results, vec![pb::Hits::default(); 3]);
    let asked = pb::Points { coordinates: flat(&points(2, 1)) };
    for among in [Among::Corpus("empty".into()), Among::Points(pb::Points::default())] {
        let request =
            pb::NearestRequest { queries: Some(asked.clone()), among: Some(among), k: 4, ..Default::default() };
        let response = compute.nearest(request).await.expect("an answer").into_inner();
        assert_eq!(response.results, vec![pb::Neighbours::default(); 2]);
    }
    let encoded = compute.encode(pb::EncodeRequest::default()).await.expect("an answer").into_inner();
    assert!(encoded.coordinates.is_empty() && encoded.zones.is_empty());
    server.stop().await;
}
