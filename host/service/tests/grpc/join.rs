//! Join over the wire: the neighbours of rows, and all pairs, by the naive reference.

use megaring_datasets::reference::{self, Metric};
use megaring_datasets::{Embeddings, Matrix};
use megaring_proto::v1 as pb;
use prost::Message as _;
use tonic::{Code, Status, Streaming};

use crate::common::{Running, Wanted, append, folder, labelled, let_go, reason, violation};

const METRICS: [(pb::Metric, Metric); 3] =
    [(pb::Metric::Cosine, Metric::Cosine), (pb::Metric::Dot, Metric::Dot), (pb::Metric::L2, Metric::L2)];

/// A row, the one near it and the bits of their score.
pub(crate) type Pair = (u32, u32, u32);

/// What came, and how far.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) pairs: Vec<Pair>,
    pub(crate) next_row: u32,
    pub(crate) generations: Option<(u64, u64)>,
    pub(crate) messages: usize,
    pub(crate) largest: usize,
}

impl Told {
    /// Adds a message, and checks that it goes on where the one before ended.
    pub(crate) fn add(&mut self, message: &pb::JoinResponse) {
        let generations = (message.generation, message.other_generation);
        assert_eq!(*self.generations.get_or_insert(generations), generations, "one version from start to end");
        let count = message.rows.len();
        let lengths = [message.memory_ids.len(), message.neighbours.len(), message.neighbour_ids.len()];
        assert_eq!((lengths, message.scores.len()), ([count; 3], count));
        let ids = |rows: &[u32]| rows.iter().map(|row| 1000 + u64::from(*row)).collect::<Vec<_>>();
        assert_eq!(message.memory_ids, ids(&message.rows));
        assert_eq!(message.neighbour_ids, ids(&message.neighbours));
        assert!(message.rows.is_sorted() && message.rows.first().is_none_or(|row| *row >= self.next_row));
        assert!(message.next_row >= self.next_row);
        assert!(message.rows.last().is_none_or(|row| *row <= message.next_row));
        let pairs = message.rows.iter().zip(&message.neighbours).zip(&message.scores);
        self.pairs.extend(pairs.map(|((row, near), score)| (*row, *near, score.to_bits())));
        self.next_row = message.next_row;
        (self.messages, self.largest) = (self.messages + 1, self.largest.max(message.encoded_len()));
    }

    /// Reads to the end; the status, where that is not a good one.
    pub(crate) async fn read(&mut self, stream: &mut Streaming<pb::JoinResponse>) -> Result<(), Status> {
        while let Some(message) = stream.message().await? {
            self.add(&message);
        }
        Ok(())
    }
}

/// The neighbours of some rows of `a` in `b`, where that is another corpus, or in `a`.
pub(crate) fn expected(
    metric: Metric,
    (a, b): (&Matrix, Option<&Matrix>),
    rows: std::ops::Range<u32>,
    k: Option<usize>,
    threshold: Option<f64>,
) -> Vec<Pair> {
    let searched = b.unwrap_or(a);
    let queries = &a.values[rows.start as usize * a.dim..rows.end as usize * a.dim];
    let all = reference::search(metric, queries, &searched.values, a.dim, searched.rows, threshold);
    let pairs = rows.zip(all).flat_map(|(row, hits)| {
        let is_told = move |near: u32| b.is_some() || if k.is_none() { near > row } else { near != row };
        let hits = hits.into_iter().filter(move |hit| is_told(hit.row)).take(k.unwrap_or(usize::MAX));
        hits.map(move |hit| (row, hit.row, hit.reported().to_bits()))
    });
    pairs.collect()
}

fn rows(count: usize, seed: u64) -> Matrix {
    Embeddings { rows: count, dim: 24, clusters: 9, exact_duplicates: 0.1, seed, ..Embeddings::default() }.generate()
}

fn ask(metric: pb::Metric, k: Option<u32>, threshold: Option<f64>) -> pb::JoinRequest {
    pb::JoinRequest { corpus: "a".into(), metric: metric.into(), k, threshold, ..Default::default() }
}

/// A server with the corpora a and b, of several segments.
async fn serve(folder: &std::path::Path, a: &Matrix, b: &Matrix) -> Running {
    let server = Running::start(folder, Wanted::default()).await;
    append(&server, "a", a, &[a.rows / 2, a.rows - a.rows / 2 - 7, 7]).await;
    append(&server, "b", b, &[b.rows - 3, 3]).await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_get_their_neighbours_and_pairs_are_told_once() {
    let folder = folder();
    // More duplicates of one row than are asked for first.
    let (mut a, b) = (rows(800, 1), rows(300, 2));
    let copy = a.row(0).to_vec();
    (100..190).for_each(|row| a.values[row * 24..(row + 1) * 24].copy_from_slice(&copy));
    let server = serve(folder.path(), &a, &b).await;
    let mut compute = server.compute().await;
    for ((wire, metric), threshold) in METRICS.into_iter().zip([0.6, 0.6, 0.8]) {
        for other in [None, Some(&b)] {
            for (k, threshold) in [
                (Some(1), None),
                (Some(10), None),
                (Some(5000), None),
                (Some(10), Some(threshold)),
                (None, Some(threshold)),
            ] {
                for (begin, end) in [(0, None), (0, Some(0)), (99, Some(431)), (799, None), (800, None)] {
                    let want =
                        expected(metric, (&a, other), begin..end.unwrap_or(800), k.map(|k| k as usize), threshold);
                    let name = if other.is_some() { "b".to_owned() } else { String::new() };
                    let request = pb::JoinRequest { other: name, begin, end, ..ask(wire, k, threshold) };
                    let mut stream = compute.join(request).await.expect("a stream").into_inner();
                    let mut told = Told { next_row: begin, ..Told::default() };
                    told.read(&mut stream).await.expect("an end");
                    let context = format!("{wire:?} {k:?} {threshold:?} {begin} {end:?} {}", other.is_some());
                    assert_eq!(told.pairs, want, "{context}");
                    assert_eq!(told.next_row, end.unwrap_or(800), "{context}");
                    let (one, two) = told.generations.expect("it is named");
                    assert!(one > 0 && two > 0 && (other.is_some() || one == two));
                }
            }
        }
    }
    // The corpus under its own name is itself.
    let request = pb::JoinRequest { other: "a".into(), ..ask(pb::Metric::Cosine, None, Some(1.0)) };
    let mut told = Told::default();
    told.read(&mut compute.join(request).await.expect("a stream").into_inner()).await.expect("an end");
    assert_eq!(told.pairs, expected(Metric::Cosine, (&a, None), 0..800, None, Some(1.0)));
    assert!(told.pairs.len() > 90 * 91 / 2, "{}", told.pairs.len());
    server.stop().await;
}

/// A row's neighbours in several messages, and rows of which none are found, which are told of too.
#[tokio::test(flavor = "multi_thread")]
async fn messages_keep_to_the_limit_and_say_how_far_they_came() {
    let folder = folder();
    let (a, b) = (rows(400, 3), rows(200, 4));
    serve(folder.path(), &a, &b).await.stop().await;
    let_go(folder.path()).await;
    let mut setup = Wanted::default();
    setup.server.max_message_bytes = 4096;
    let server = Running::start(folder.path(), setup).await;
    let mut compute = server.compute().await;
    let mut told = Told::default();
    let request = ask(pb::Metric::Cosine, Some(399), None);
    told.read(&mut compute.join(request).await.expect("a stream").into_inner()).await.expect("an end");
    assert_eq!(told.pairs, expected(Metric::Cosine, (&a, None), 0..400, Some(399), None));
    assert!(told.messages > 400 && told.largest <= 2048, "{} of {}", told.messages, told.largest);
    let mut stream = compute.join(ask(pb::Metric::Cosine, None, Some(1.5))).await.expect("a stream").into_inner();
    let only = stream.message().await.expect("the stream goes on").expect("a message");
    assert_eq!((only.rows.len(), only.next_row), (0, 400));
    assert!(only.made.is_some_and(|made| made.exact && made.bytes_read > 0), "it says how nothing was found");
    assert_eq!(stream.message().await.expect("a good end"), None);
    server.stop().await;
}

/// Rows that are added meanwhile are not seen, and a corpus without rows has no pairs.
#[tokio::test(flavor = "multi_thread")]
async fn one_version_is_read_from_start_to_end() {
    let folder = folder();
    // More than one search takes.
    let a = rows(4400, 5);
    let server = serve(folder.path(), &a, &rows(9, 6)).await;
    let mut stream =
        server.narrow().await.join(ask(pb::Metric::Dot, Some(30), None)).await.expect("a stream").into_inner();
    let mut told = Told::default();
    told.add(&stream.message().await.expect("the stream goes on").expect("a message"));
    assert!(told.next_row < 4096, "it is not done yet");
    let mut added = labelled(&rows(500, 7));
    added.memory_ids.iter_mut().for_each(|id| *id += 4400);
    let more = pb::AppendRequest { corpus: "a".into(), rows: Some(added) };
    server.corpora().await.append(tokio_stream::once(more)).await.expect("rows are added");
    told.read(&mut stream).await.expect("an end");
    assert_eq!(told.pairs, expected(Metric::Dot, (&a, None), 0..4400, Some(30), None));
    let mut again = Told { next_row: 4899, ..Told::default() };
    let request = pb::JoinRequest { begin: 4899, ..ask(pb::Metric::Dot, Some(1), None) };
    let mut compute = server.compute().await;
    again.read(&mut compute.join(request).await.expect("a stream").into_inner()).await.expect("an end");
    assert!(again.pairs.len() == 1 && again.generations > told.generations);
    server
        .corpora()
        .await
        .create(pb::CreateRequest { name: "empty".into(), dim: 24, ..Default::default() })
        .await
        .expect("it is made");
    for (corpus, other, rows) in [("empty", "", 0), ("empty", "a", 0), ("b", "empty", 9)] {
        let request =
            pb::JoinRequest { corpus: corpus.into(), other: other.into(), ..ask(pb::Metric::L2, Some(3), None) };
        let mut told = Told::default();
        told.read(&mut compute.join(request).await.expect("a stream").into_inner()).await.expect("an end");
        assert_eq!((told.pairs.len(), told.next_row, told.messages), (0, rows, 1), "{corpus} with {other:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_input_is_named() {
    let folder = folder();
    let server = serve(folder.path(), &rows(20, 8), &rows(20, 9)).await;
    server
        .corpora()
        .await
        .create(pb::CreateRequest { name: "wide".into(), dim: 25, ..Default::default() })
        .await
        .expect("it is made");
    let good = || ask(pb::Metric::Cosine, Some(3), None);
    let cases = [
        (pb::JoinRequest { corpus: String::new(), ..good() }, "corpus", "name a corpus"),
        (pb::JoinRequest { other: "wide".into(), ..good() }, "other", "a has 24 elements, wide has 25 elements"),
        (pb::JoinRequest { metric: -1, ..good() }, "metric", "-1"),
        (pb::JoinRequest { backend: 4, ..good() }, "backend", "4"),
        (pb::JoinRequest { k: Some(0), ..good() }, "k", "at least 1"),
        (pb::JoinRequest { k: None, ..good() }, "k", "neither k nor a threshold"),
        (pb::JoinRequest { threshold: Some(f64::INFINITY), ..good() }, "threshold", "inf"),
        (pb::JoinRequest { end: Some(21), ..good() }, "end", "21; the corpus has 20 rows"),
        (pb::JoinRequest { begin: 21, ..good() }, "begin", "20 at most"),
        (pb::JoinRequest { begin: 5, end: Some(4), ..good() }, "begin", "4 at most"),
        (pb::JoinRequest { begin: u32::MAX, ..good() }, "begin", "20 at most"),
    ];
    let mut compute = server.compute().await;
    for (request, field, word) in cases {
        let refused = compute.join(request).await.expect_err(field);
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
        let (found, description) = violation(&refused);
        assert_eq!(found, field);
        assert!(description.contains(word), "{word:?} in {description:?}");
    }
    for request in
        [pb::JoinRequest { corpus: "gone".into(), ..good() }, pb::JoinRequest { other: "gone".into(), ..good() }]
    {
        let refused = compute.join(request).await.expect_err("no corpus");
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "CORPUS_NOT_FOUND"));
    }
    let forced = pb::JoinRequest { backend: pb::Backend::Cuda.into(), ..good() };
    let refused = compute.join(forced).await.expect_err("no GPU");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "BACKEND_UNAVAILABLE"));
    server.stop().await;
}
