//! Corpora of bits over the wire: what is made, appended, searched, scored and joined, and what is refused.

use megaring_datasets::reference::{self, Hit, Metric};
use megaring_proto::v1 as pb;
use tonic::Code;

use crate::common::{Running, Wanted, folder, violation};

const BITS: u32 = 72;
const ROWS: usize = 40;

/// The bytes of a row, some rows alike.
fn bytes(row: usize) -> Vec<u8> {
    (0..BITS as usize / 8).map(|at| ((row % 31) * 59 + at * at * 7) as u8).collect()
}

/// The rows as words.
fn words(rows: impl Iterator<Item = usize>) -> Vec<f32> {
    let word = |four: &[u8]| f32::from_bits(four.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)));
    rows.flat_map(|row| bytes(row).chunks(4).map(word).collect::<Vec<f32>>()).collect()
}

fn vectors(rows: impl Iterator<Item = usize>) -> pb::Vectors {
    let data: Vec<u8> = rows.flat_map(bytes).collect();
    let rows = (data.len() * 8) as u32 / BITS;
    pb::Vectors { data: data.into(), dtype: pb::Dtype::Bit.into(), rows, dim: BITS, int8_scale: None }
}

async fn filled(server: &Running) {
    let create = pb::CreateRequest {
        name: "bits".into(),
        dim: BITS,
        dtype: pb::Dtype::Bit.into(),
        ..pb::CreateRequest::default()
    };
    let made = server.corpora().await.create(create).await.expect("it is made").into_inner().corpus.expect("described");
    assert_eq!((made.dim, made.dtype()), (BITS, pb::Dtype::Bit));
    let rows = pb::Rows { embeddings: Some(vectors(0..ROWS)), ..pb::Rows::default() };
    let message = pb::AppendRequest { corpus: "bits".into(), rows: Some(rows) };
    server.corpora().await.append(tokio_stream::once(message)).await.expect("they are stored");
}

fn answered(hits: &[pb::Hits]) -> Vec<Vec<(u32, f32)>> {
    hits.iter().map(|hits| hits.rows.iter().copied().zip(hits.scores.iter().copied()).collect()).collect()
}

fn expected(metric: Metric, queries: &[f32], k: usize, threshold: Option<f64>) -> Vec<Vec<(u32, f32)>> {
    let width = words(0..1).len();
    let found = reference::search(metric, queries, &words(0..ROWS), width, k, threshold);
    let hit = |hit: &Hit| (hit.row, hit.reported());
    found.iter().map(|hits| hits.iter().map(hit).collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bits_are_searched_scored_and_joined() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    filled(&server).await;
    let mut compute = server.compute().await;
    let queries = words(5..8);
    for (asked, metric) in [
        (pb::Metric::Unspecified, Metric::Hamming),
        (pb::Metric::Hamming, Metric::Hamming),
        (pb::Metric::Jaccard, Metric::Jaccard),
    ] {
        let search = pb::SearchRequest {
            corpus: "bits".into(),
            queries: Some(vectors(5..8)),
            metric: asked.into(),
            k: 9,
            ..pb::SearchRequest::default()
        };
        let found = compute.search(search.clone()).await.expect("it answers").into_inner();
        let want = expected(metric, &queries, 9, None);
        assert_eq!(answered(&found.results), want, "{metric:?}");
        let by_row = pb::RowNumbers { numbers: vec![5, 6, 7] };
        let named = pb::SearchRequest { queries: None, query_rows: Some(by_row), ..search.clone() };
        assert_eq!(answered(&compute.search(named).await.expect("it answers").into_inner().results), want);
        // A reported score lets its own row pass.
        let threshold = f64::from(want[0][4].1);
        let some = pb::SearchRequest { threshold: Some(threshold), k: 40, ..search };
        let found = compute.search(some).await.expect("it answers").into_inner();
        assert_eq!(answered(&found.results), expected(metric, &queries, 40, Some(threshold)));
        let range = pb::SearchRangeRequest {
            corpus: "bits".into(),
            queries: Some(vectors(5..8)),
            metric: asked.into(),
            threshold: Some(threshold),
            ..pb::SearchRangeRequest::default()
        };
        let mut stream = compute.search_range(range).await.expect("it answers").into_inner();
        let mut ranged = vec![Vec::new(); 3];
        while let Some(message) = stream.message().await.expect("it goes on") {
            for part in message.results {
                let hits = part.hits.unwrap_or_default();
                ranged[part.query as usize].extend(hits.rows.into_iter().zip(hits.scores));
            }
        }
        assert_eq!(ranged, expected(metric, &queries, ROWS, Some(threshold)));
        let score = pb::ScoreRequest {
            corpus: "bits".into(),
            queries: Some(vectors(5..8)),
            metric: asked.into(),
            ..pb::ScoreRequest::default()
        };
        let scores = compute.score(score).await.expect("it answers").into_inner().scores.expect("a matrix");
        let width = words(0..1).len();
        let want = reference::score(metric, &queries, &words(0..ROWS), width);
        assert_eq!(scores.data, want.iter().flat_map(|score| score.to_le_bytes()).collect::<Vec<u8>>());
    }
    let join = pb::JoinRequest { corpus: "bits".into(), k: Some(1), ..pb::JoinRequest::default() };
    let mut stream = compute.join(join).await.expect("it answers").into_inner();
    let mut pairs = Vec::new();
    while let Some(message) = stream.message().await.expect("it goes on") {
        pairs.extend(message.rows.into_iter().zip(message.neighbours).zip(message.scores));
    }
    let all = expected(Metric::Hamming, &words(0..ROWS), ROWS, None);
    let nearest = |(row, hits): (usize, &Vec<(u32, f32)>)| {
        let (other, score) = *hits.iter().find(|(other, _)| *other != row as u32).expect("another");
        ((row as u32, other), score)
    };
    assert_eq!(pairs, all.iter().enumerate().map(nearest).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_rows_of_bits_is_refused_by_its_field() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    filled(&server).await;
    let (mut corpora, mut compute) = (server.corpora().await, server.compute().await);
    let create = |dim, dtype: pb::Dtype| pb::CreateRequest {
        name: "other".into(),
        dim,
        dtype: dtype.into(),
        ..pb::CreateRequest::default()
    };
    for (dim, dtype, field) in [(12, pb::Dtype::Bit, "dim"), (0, pb::Dtype::Bit, "dim"), (8, pb::Dtype::Int8, "dtype")]
    {
        let status = corpora.create(create(dim, dtype)).await.expect_err("it cannot be");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(violation(&status).0, field);
    }
    let search = |queries: pb::Vectors, metric: pb::Metric| pb::SearchRequest {
        corpus: "bits".into(),
        queries: Some(queries),
        metric: metric.into(),
        k: 1,
        ..pb::SearchRequest::default()
    };
    let floats = pb::Vectors { data: vec![0; 4 * 72].into(), dtype: pb::Dtype::Float32.into(), ..vectors(0..1) };
    let short = pb::Vectors { data: vec![0; 8].into(), ..vectors(0..1) };
    let narrow = pb::Vectors { data: vec![0; 8].into(), dim: 64, ..vectors(0..1) };
    for (queries, metric, field) in [
        (vectors(0..1), pb::Metric::Cosine, "metric"),
        (floats, pb::Metric::Hamming, "queries.dtype"),
        (short, pb::Metric::Hamming, "queries.data"),
        (narrow, pb::Metric::Hamming, "queries.dim"),
    ] {
        let status = compute.search(search(queries, metric)).await.expect_err("it cannot be");
        assert_eq!(status.code(), Code::InvalidArgument, "{field}");
        assert_eq!(violation(&status).0, field);
    }
}
