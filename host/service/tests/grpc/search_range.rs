//! SearchRange over the wire: every row that passes, by the naive reference, in messages of bounded size.

use megaring_datasets::reference::{self, Hit};
use megaring_datasets::{Embeddings, Matrix, poison, queries};
use megaring_proto::v1 as pb;
use prost::Message as _;
use tonic::{Code, Status, Streaming};

use crate::common::{Running, Wanted, append, float32, folder, labelled, let_go, reason, violation};

const METRICS: [(pb::Metric, reference::Metric); 3] = [
    (pb::Metric::Cosine, reference::Metric::Cosine),
    (pb::Metric::Dot, reference::Metric::Dot),
    (pb::Metric::L2, reference::Metric::L2),
];

/// Two large segments and a few rows in the log.
const PARTS: [usize; 3] = [1500, 1500, 40];

fn rows() -> Matrix {
    let rows = PARTS.iter().sum();
    Embeddings { rows, dim: 48, seed: 7, clusters: 9, exact_duplicates: 0.05, ..Embeddings::default() }.generate()
}

fn ask(queries: &Matrix, metric: pb::Metric, threshold: f64) -> pb::SearchRangeRequest {
    pb::SearchRangeRequest {
        corpus: "rows".into(),
        queries: Some(float32(queries)),
        metric: metric.into(),
        threshold: Some(threshold),
        ..Default::default()
    }
}

fn by_rows(numbers: Vec<u32>, metric: pb::Metric, threshold: f64) -> pb::SearchRangeRequest {
    let query_rows = Some(pb::RowNumbers { numbers });
    pb::SearchRangeRequest { queries: None, query_rows, ..ask(&Matrix::new(0, 1, Vec::new()), metric, threshold) }
}

/// The hits of all queries, put together from the messages.
struct Told {
    hits: Vec<pb::Hits>,
    messages: usize,
    largest: usize,
    rescored: u64,
}

/// Reads to the end, and checks that every message goes on where the one before ended.
async fn told(mut stream: Streaming<pb::SearchRangeResponse>) -> Result<Told, Status> {
    let mut told = Told { hits: Vec::new(), messages: 0, largest: 0, rescored: 0 };
    let (mut is_open, mut generation) = (false, None);
    while let Some(message) = stream.message().await? {
        assert!(message.generation > 0 && *generation.get_or_insert(message.generation) == message.generation);
        (told.messages, told.largest) = (told.messages + 1, told.largest.max(message.encoded_len()));
        if let Some(made) = &message.made {
            assert!(made.exact && made.backend() == pb::Backend::Cpu && !made.instruction_set.is_empty());
            told.rescored += made.rows_rescored;
        }
        for part in message.results {
            if !is_open {
                told.hits.push(pb::Hits::default());
            }
            assert_eq!(part.query as usize, told.hits.len() - 1, "queries in order");
            let (hits, more) = (told.hits.last_mut().expect("one was begun"), part.hits.expect("hits"));
            hits.rows.extend(more.rows);
            hits.memory_ids.extend(more.memory_ids);
            hits.scores.extend(more.scores);
            hits.titles.extend(more.titles);
            is_open = !part.is_last;
        }
    }
    assert!(!is_open, "the last query has an end");
    Ok(told)
}

fn assert_hits(told: &Told, expected: &[Vec<Hit>], context: &str) {
    assert_eq!(told.hits.len(), expected.len(), "{context}");
    for (query, (hits, expected)) in told.hits.iter().zip(expected).enumerate() {
        let numbers: Vec<u32> = expected.iter().map(|hit| hit.row).collect();
        assert_eq!(hits.rows, numbers, "{context}, query {query}: rows");
        let scores: Vec<u32> = hits.scores.iter().map(|score| score.to_bits()).collect();
        assert_eq!(
            scores,
            expected.iter().map(|hit| hit.reported().to_bits()).collect::<Vec<_>>(),
            "{context}: scores"
        );
        let ids: Vec<u64> = numbers.iter().map(|row| 1000 + u64::from(*row)).collect();
        assert_eq!(hits.memory_ids, ids, "{context}, query {query}: ids");
    }
}

fn expected(metric: reference::Metric, queries: &[f32], rows: &Matrix, threshold: f64) -> Vec<Vec<Hit>> {
    reference::search(metric, queries, &rows.values, rows.dim, rows.rows, Some(threshold))
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_pass_come_best_first_in_every_metric() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let rows = rows();
    append(&server, "rows", &rows, &PARTS).await;
    let described = server.corpora().await.describe(pb::DescribeRequest { name: "rows".into() }).await;
    assert!(described.expect("an answer").into_inner().corpus.expect("a corpus").segments.len() > 1);
    let queries = poison::zero_row(&queries(&rows, 21, 3), 2);
    let mut compute = server.compute().await;
    // Thresholds that few pass, many pass, and all or none pass.
    let thresholds = [[0.9, 0.1, -1.0, 1.1], [0.8, 0.05, -1e6, 1e6], [0.5, 1.9, 1e6, -1.0]];
    for ((wire, metric), thresholds) in METRICS.into_iter().zip(thresholds) {
        for threshold in thresholds {
            let context = format!("{wire:?} {threshold}");
            let want = expected(metric, &queries.values, &rows, threshold);
            let stream = compute.search_range(ask(&queries, wire, threshold)).await.expect("a stream").into_inner();
            assert_hits(&told(stream).await.expect("an end"), &want, &context);
            let numbers = vec![3039, 0, 7, 7, 1500];
            let values: Vec<f32> = numbers.iter().flat_map(|row| rows.row(*row as usize)).copied().collect();
            let want = expected(metric, &values, &rows, threshold);
            let stream = compute.search_range(by_rows(numbers, wire, threshold)).await.expect("a stream").into_inner();
            assert_hits(&told(stream).await.expect("an end"), &want, &context);
        }
    }
    // Where few pass, few are scored: the screen drops the others.
    let want = expected(reference::Metric::Cosine, &queries.values, &rows, 0.97);
    assert!(want.iter().map(Vec::len).sum::<usize>() > 0);
    let stream = compute.search_range(ask(&queries, pb::Metric::Cosine, 0.97)).await.expect("a stream").into_inner();
    let told = told(stream).await.expect("an end");
    assert_hits(&told, &want, "few");
    assert!((1..20 * 3000 / 2).contains(&told.rescored), "{} rows were scored", told.rescored);
    server.stop().await;
}

/// Titles of every length: many to a message, one alone, and one that no message could carry.
#[tokio::test(flavor = "multi_thread")]
async fn hits_are_spread_over_messages_within_the_limit() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let rows = poison::constant(400, 4, 1.0);
    let mut corpora = server.corpora().await;
    corpora.create(pb::CreateRequest { name: "rows".into(), dim: 4, ..Default::default() }).await.expect("it is made");
    let mut labelled = labelled(&rows);
    (labelled.titles[7], labelled.titles[9]) = ("t".repeat(3_000), "u".repeat(5_000));
    let titles = labelled.titles.clone();
    let message = pb::AppendRequest { corpus: "rows".into(), rows: Some(labelled) };
    corpora.append(tokio_stream::once(message)).await.expect("rows are added");
    server.stop().await;
    let_go(folder.path()).await;

    let mut setup = Wanted::default();
    setup.server.max_message_bytes = 4096;
    let server = Running::start(folder.path(), setup).await;
    let mut compute = server.compute().await;
    let one = rows.head(1);
    let want = expected(reference::Metric::Cosine, &one.values, &rows, 1.0);
    let request = ask(&one, pb::Metric::Cosine, 1.0);
    let all = told(compute.search_range(request.clone()).await.expect("a stream").into_inner()).await.expect("an end");
    assert_hits(&all, &want, "without titles");
    assert!(all.messages > 2 && (512..=2048).contains(&all.largest), "{} of {}", all.messages, all.largest);
    let request = pb::SearchRangeRequest { with_titles: true, ..request };
    let mut stream = compute.search_range(request).await.expect("a stream").into_inner();
    let mut seen = Vec::new();
    let refused = loop {
        match stream.message().await {
            Ok(Some(message)) => {
                assert!(message.encoded_len() <= 4096);
                seen.extend(message.results.into_iter().flat_map(|part| part.hits.expect("hits").titles));
            }
            Ok(None) => panic!("a title of 5,000 bytes does not fit"),
            Err(refused) => break refused,
        }
    };
    assert_eq!(seen, titles[..9], "all before it, the one of 3,000 bytes too");
    assert_eq!((refused.code(), violation(&refused).0.as_str()), (Code::InvalidArgument, "with_titles"));
    server.stop().await;
}

/// More hits of one query than are kept at a time, and lists that no backend has room for.
#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_nearly_all_rows_pass_gets_them_all() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let value = |at: usize| ((at * 7919) % 1009) as f32 / 8.0 - 60.0;
    let rows = Matrix::new(300_000, 4, (0..1_200_000).map(value).collect());
    append(&server, "rows", &rows, &[rows.rows]).await;
    let queries = Matrix::new(2, 4, vec![1.0, -1.0, 0.5, 2.0, 0.0, 0.0, 0.0, 1.0]);
    let want = expected(reference::Metric::L2, &queries.values, &rows, 1e5);
    assert!(want.iter().all(|hits| hits.len() > megaring_engine::long_search::HITS));
    let mut compute = server.compute().await;
    let stream = compute.search_range(ask(&queries, pb::Metric::L2, 1e5)).await.expect("a stream").into_inner();
    let told = told(stream).await.expect("an end");
    assert_hits(&told, &want, "nearly all");
    assert!(told.largest <= 256 << 10, "{}", told.largest);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_to_find_answers_one_message() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    server.corpus("rows", &rows().head(9)).await;
    server
        .corpora()
        .await
        .create(pb::CreateRequest { name: "empty".into(), dim: 48, ..Default::default() })
        .await
        .expect("it is made");
    let mut compute = server.compute().await;
    let none = Matrix::new(0, 48, Vec::new());
    let two = rows().head(2);
    for (corpus, queries) in [("rows", &none), ("empty", &none), ("empty", &two)] {
        let request = pb::SearchRangeRequest { corpus: corpus.into(), ..ask(queries, pb::Metric::Dot, -1e9) };
        let told = told(compute.search_range(request).await.expect("a stream").into_inner()).await.expect("an end");
        assert_eq!((told.messages, told.hits), (1, vec![pb::Hits::default(); queries.rows]), "{corpus}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_input_is_named() {
    let folder = folder();
    let mut setup = Wanted::default();
    setup.server.max_message_bytes = 8192;
    let server = Running::start(folder.path(), setup).await;
    let rows = rows().head(20);
    server.corpus("rows", &rows).await;
    let good = || ask(&rows.head(4), pb::Metric::Cosine, 0.5);
    let named = |numbers| Some(pb::RowNumbers { numbers });
    let sent = |queries| pb::SearchRangeRequest { queries: Some(queries), ..good() };
    let cases = [
        (pb::SearchRangeRequest { corpus: String::new(), ..good() }, "corpus", "name a corpus"),
        (pb::SearchRangeRequest { metric: 9, ..good() }, "metric", "9"),
        (pb::SearchRangeRequest { backend: 9, ..good() }, "backend", "9"),
        (pb::SearchRangeRequest { threshold: None, ..good() }, "threshold", "give one"),
        (pb::SearchRangeRequest { threshold: Some(f64::NAN), ..good() }, "threshold", "NaN"),
        (pb::SearchRangeRequest { threshold: Some(f64::NEG_INFINITY), ..good() }, "threshold", "inf"),
        (pb::SearchRangeRequest { query_rows: named(vec![1]), ..good() }, "query_rows", "one of the two"),
        (by_rows(vec![0, 20], pb::Metric::Dot, 0.0), "query_rows.numbers[1]", "no such row; the corpus has 20"),
        (by_rows(vec![0; 43], pb::Metric::Dot, 0.0), "query_rows", "42 is the most"),
        (sent(float32(&poison::nan_in_row(&rows.head(4), 3))), "queries.data[3]", "column"),
        (sent(float32(&Matrix::new(1, 5, vec![1.0; 5]))), "queries.dim", "5 elements where the corpus has 48"),
    ];
    let mut compute = server.compute().await;
    for (request, field, word) in cases {
        let refused = compute.search_range(request).await.expect_err(field);
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
        let (found, description) = violation(&refused);
        assert_eq!(found, field);
        assert!(description.contains(word), "{word:?} in {description:?}");
    }
    let gone = pb::SearchRangeRequest { corpus: "gone".into(), ..good() };
    assert_eq!(compute.search_range(gone).await.expect_err("no corpus").code(), Code::NotFound);
    let forced = pb::SearchRangeRequest { backend: pb::Backend::Cuda.into(), ..good() };
    assert_eq!(compute.search_range(forced).await.expect_err("no GPU").code(), Code::FailedPrecondition);
    let forced = pb::SearchRangeRequest { backend: pb::Backend::Cpu.into(), ..good() };
    told(compute.search_range(forced).await.expect("a stream").into_inner()).await.expect("the server goes on");
    server.stop().await;
}
