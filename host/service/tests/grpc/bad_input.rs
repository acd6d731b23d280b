//! Every wrong input is INVALID_ARGUMENT naming the field and the row, and the server goes on.

use megaring_datasets::{Embeddings, Matrix, poison};
use megaring_proto::v1 as pb;
use megaring_proto::v1::nearest_request::Among;
use tonic::{Code, Request, Status};

use crate::common::{Running, Wanted, float32, folder, reason, vectors, violation};
use crate::raw;

const DIM: usize = 6;

fn rows(count: usize) -> Matrix {
    Embeddings { rows: count, dim: DIM, seed: 3, ..Embeddings::default() }.generate()
}

fn good_search() -> pb::SearchRequest {
    pb::SearchRequest { corpus: "rows".into(), queries: Some(float32(&rows(4))), k: 2, ..Default::default() }
}

fn good_score() -> pb::ScoreRequest {
    pb::ScoreRequest { corpus: "rows".into(), queries: Some(float32(&rows(4))), ..Default::default() }
}

fn good_nearest() -> pb::NearestRequest {
    let points = |count: usize| pb::Points { coordinates: vec![0.25; count * 5] };
    pb::NearestRequest { queries: Some(points(3)), among: Some(Among::Points(points(9))), k: 2, ..Default::default() }
}

/// Checks the one violation of a refusal.
#[track_caller]
fn assert_names(refused: &Status, field: &str, word: &str) {
    assert_eq!(refused.code(), Code::InvalidArgument, "{field}: {refused:?}");
    assert_eq!(reason(refused), "INVALID_FIELD");
    let (found, description) = violation(refused);
    assert_eq!(found, field, "{description}");
    assert!(description.contains(word), "{word:?} in {description:?}");
    assert!(refused.message().contains(word), "{word:?} in {:?}", refused.message());
}

/// Wrong vectors, the field under `queries` that is to be named, and a word that is to be said.
fn wrong_vectors() -> Vec<(pb::Vectors, &'static str, &'static str)> {
    let good = || float32(&rows(4));
    let whole = good().data;
    let sliced = |bytes: usize| pb::Vectors { data: whole.slice(..bytes), ..good() };
    let long = pb::Vectors { data: [&whole[..], &[0]].concat().into(), ..good() };
    let int8 = |scale| pb::Vectors { int8_scale: scale, ..vectors(pb::Dtype::Int8, 1, DIM, vec![127; DIM]) };
    let f16_infinity = [0x7c00_u16.to_le_bytes(); DIM].concat();
    let bf16_nan = [0x7fc0_u16.to_le_bytes(); DIM].concat();
    let mut cases = vec![
        (sliced(95), "data", "95 bytes where 4 rows of 6 float32 elements are 96 bytes"),
        (sliced(0), "data", "0 bytes"),
        (long, "data", "97 bytes"),
        (pb::Vectors { rows: 5, ..good() }, "data", "are 120 bytes"),
        (pb::Vectors { rows: u32::MAX, ..good() }, "data", "are 103079215080 bytes"),
        (pb::Vectors { rows: 0, ..good() }, "data", "96 bytes where 0 rows"),
        (pb::Vectors { dtype: pb::Dtype::Float16.into(), ..good() }, "data", "float16"),
        (pb::Vectors { dtype: 0, ..good() }, "dtype", "no element type"),
        (pb::Vectors { dtype: 17, ..good() }, "dtype", "17"),
        (pb::Vectors { dtype: -1, ..good() }, "dtype", "-1"),
        (pb::Vectors { dim: 0, ..good() }, "dim", "0 elements"),
        (pb::Vectors { dim: 5, ..good() }, "dim", "5 elements where the corpus has 6"),
        (pb::Vectors { dim: 32_769, ..good() }, "dim", "1 to 32768"),
        (pb::Vectors { dim: u32::MAX, rows: u32::MAX, ..good() }, "dim", "1 to 32768"),
        (pb::Vectors { int8_scale: Some(1.0), ..good() }, "int8_scale", "float32"),
        (int8(None), "int8_scale", "needs a scale"),
        (int8(Some(0.0)), "int8_scale", "above 0"),
        (int8(Some(-1.0)), "int8_scale", "above 0"),
        (int8(Some(f32::NAN)), "int8_scale", "NaN"),
        (int8(Some(f32::MAX)), "data[0]", "inf"),
        (vectors(pb::Dtype::Float16, 1, DIM, f16_infinity), "data[0]", "inf"),
        (vectors(pb::Dtype::Bfloat16, 1, DIM, bf16_nan), "data[0]", "NaN"),
    ];
    for value in poison::NON_FINITE {
        let poisoned = float32(&poison::with_value(&rows(4), 2, 5, value));
        cases.push((poisoned, "data[2]", "column 5"));
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_vectors_are_named_in_search_and_score() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    server.corpus("rows", &rows(20)).await;
    let mut compute = server.compute().await;
    for (queries, field, word) in wrong_vectors() {
        let field = format!("queries.{field}");
        let search = pb::SearchRequest { queries: Some(queries.clone()), ..good_search() };
        assert_names(&compute.search(search).await.expect_err(&field), &field, word);
        let score = pb::ScoreRequest { queries: Some(queries), ..good_score() };
        assert_names(&compute.score(score).await.expect_err(&field), &field, word);
    }
    compute.search(good_search()).await.expect("the server goes on");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_parameters_are_named() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    server.corpus("rows", &rows(20)).await;
    let mut compute = server.compute().await;
    let searches = [
        (pb::SearchRequest { corpus: String::new(), ..good_search() }, "corpus", "name a corpus"),
        (pb::SearchRequest { k: 0, ..good_search() }, "k", "at least 1"),
        (pb::SearchRequest { metric: 9, ..good_search() }, "metric", "9"),
        (pb::SearchRequest { backend: 9, ..good_search() }, "backend", "9"),
        (pb::SearchRequest { threshold: Some(f64::NAN), ..good_search() }, "threshold", "NaN"),
        (pb::SearchRequest { threshold: Some(f64::NEG_INFINITY), ..good_search() }, "threshold", "inf"),
    ];
    for (request, field, word) in searches {
        assert_names(&compute.search(request).await.expect_err(field), field, word);
    }
    let named = |numbers| Some(pb::RowNumbers { numbers });
    let by_rows = |numbers| pb::SearchRequest { queries: None, query_rows: named(numbers), ..good_search() };
    let searches = [
        (by_rows(vec![19, 20]), "query_rows.numbers[1]", "no such row; the corpus has 20"),
        (by_rows(vec![u32::MAX]), "query_rows.numbers[0]", "no such row"),
        (pb::SearchRequest { query_rows: named(vec![1]), ..good_search() }, "query_rows", "one of the two"),
        (
            pb::SearchRequest { queries: Some(pb::Vectors { rows: 3, ..Default::default() }), ..by_rows(vec![1]) },
            "query_rows",
            "one of the two",
        ),
    ];
    for (request, field, word) in searches {
        assert_names(&compute.search(request).await.expect_err(field), field, word);
    }
    let scores = [
        (pb::ScoreRequest { corpus: String::new(), ..good_score() }, "corpus", "name a corpus"),
        (pb::ScoreRequest { rows: named(vec![19, 20]), ..good_score() }, "rows.numbers[1]", "20"),
        (pb::ScoreRequest { rows: named(vec![u32::MAX]), ..good_score() }, "rows.numbers[0]", "no such row"),
        (pb::ScoreRequest { metric: -1, ..good_score() }, "metric", "-1"),
    ];
    for (request, field, word) in scores {
        assert_names(&compute.score(request).await.expect_err(field), field, word);
    }
    let points = |coordinates| Some(pb::Points { coordinates });
    let nan_in_second = [vec![0.0; 8], vec![f64::NAN, 0.0]].concat();
    let sent = pb::Points { coordinates: nan_in_second.clone() };
    let nearest = [
        (pb::NearestRequest { k: 0, ..good_nearest() }, "k", "at least 1"),
        (pb::NearestRequest { among: None, ..good_nearest() }, "among", "name a corpus"),
        (pb::NearestRequest { among: Some(Among::Corpus(String::new())), ..good_nearest() }, "among", "name a corpus"),
        (pb::NearestRequest { queries: points(vec![0.0; 6]), ..good_nearest() }, "queries.coordinates", "6 numbers"),
        (pb::NearestRequest { queries: points(nan_in_second), ..good_nearest() }, "queries.coordinates[1]", "w is NaN"),
        (
            pb::NearestRequest { among: Some(Among::Points(sent)), ..good_nearest() },
            "points.coordinates[1]",
            "w is NaN",
        ),
        (
            pb::NearestRequest { queries: points(vec![0.0, 1e101, 0.0, 0.0, 0.0]), ..good_nearest() },
            "queries.coordinates[0]",
            "y is 1e101",
        ),
        (pb::NearestRequest { weights: vec![1.0, 1e51, 1.0, 1.0, 1.0], ..good_nearest() }, "weights[1]", "1e51"),
        (pb::NearestRequest { weights: vec![1.0; 4], ..good_nearest() }, "weights", "4 numbers"),
        (pb::NearestRequest { weights: vec![1.0, 1.0, 1.0, -0.5, 1.0], ..good_nearest() }, "weights[3]", "-5e-1"),
        (pb::NearestRequest { weights: vec![f64::INFINITY; 5], ..good_nearest() }, "weights[0]", "inf"),
    ];
    for (request, field, word) in nearest {
        assert_names(&compute.nearest(request).await.expect_err(field), field, word);
    }
    let memory = pb::Memory { content: "fine".into(), ..pb::Memory::default() };
    let memories = [
        (pb::Memory { importance: f64::NAN, ..memory.clone() }, "memories[1].importance", "NaN"),
        (pb::Memory { age_days: f64::INFINITY, ..memory.clone() }, "memories[1].age_days", "inf"),
        (pb::Memory { galactic_distance: f64::NEG_INFINITY, ..memory.clone() }, "memories[1].galactic_distance", "inf"),
    ];
    for (bad, field, word) in memories {
        let request = pb::EncodeRequest { memories: vec![memory.clone(), bad], ..Default::default() };
        assert_names(&compute.encode(request).await.expect_err(field), field, word);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_corpora_and_metadata_are_named() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let mut corpora = server.corpora().await;
    let long = "n".repeat(60_000);
    for name in ["", "Capital", "sp ace", "../up", "-dash", &long] {
        let refused = corpora
            .create(pb::CreateRequest { name: name.into(), dim: 4, ..Default::default() })
            .await
            .expect_err("a bad name");
        assert_names(&refused, "name", "no corpus name");
    }
    for dim in [0, 32_769, u32::MAX] {
        let refused = corpora
            .create(pb::CreateRequest { name: "good".into(), dim, ..Default::default() })
            .await
            .expect_err("a bad dim");
        assert_names(&refused, "dim", &dim.to_string());
    }
    let refused = corpora.drop(pb::DropRequest { name: long }).await.expect_err("no such corpus");
    assert_eq!(refused.code(), Code::NotFound, "a name of any length fits a status");

    let mut nameless = Request::new(pb::EncodeRequest::default());
    nameless.metadata_mut().insert("megaring-tenant", "t".repeat(129).parse().expect("ASCII"));
    let refused = server.compute().await.encode(nameless).await.expect_err("a long name");
    assert_names(&refused, "megaring-tenant", "129 bytes");
    let empty = raw::framed(&pb::EncodeRequest::default());
    for malformed in ["5", "S", "5x", "123456789S", "-5S", "5 S"] {
        let (code, text) = raw::call(server.address, "Compute/Encode", malformed, empty.clone(), true).await;
        assert_eq!(code, Code::InvalidArgument as i32, "{malformed}");
        assert!(text.contains("grpc-timeout"), "{text}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message_are_the_senders_fault() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    // A memory whose content is two bytes that are not UTF-8, and a field cut short.
    let not_utf8 = [0x0a, 0x04, 0x0a, 0x02, 0xff, 0xfe];
    for bytes in [&not_utf8[..], &[0x0a, 0x10, 0x00]] {
        let (code, text) = raw::call(server.address, "Compute/Encode", "", raw::framed_bytes(bytes), true).await;
        assert_eq!(code, Code::InvalidArgument as i32, "{text}");
        assert!(text.contains("decode"), "{text}");
    }
    server.compute().await.encode(pb::EncodeRequest::default()).await.expect("the server goes on");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_would_not_fit_are_refused_before_the_work() {
    let folder = folder();
    let mut setup = Wanted::default();
    setup.server.max_message_bytes = 4096;
    let server = Running::start(folder.path(), setup).await;
    // Two appends: one of this size would not fit a message.
    server.corpus("rows", &rows(100)).await;
    let more = pb::AppendRequest { corpus: "rows".into(), rows: Some(crate::common::labelled(&rows(100))) };
    server.corpora().await.append(tokio_stream::once(more)).await.expect("rows are added");
    let mut compute = server.compute().await;
    let refused = compute.search(pb::SearchRequest { k: 200, ..good_search() }).await.expect_err("800 hits");
    assert_names(&refused, "queries", "at most 4096");
    // With a threshold nobody knows before: the search ends with the first hit that no reply could carry.
    let all = pb::SearchRequest { k: 200, threshold: Some(-1.0), ..good_search() };
    assert_names(&compute.search(all).await.expect_err("800 hits"), "queries", "more than the 682 hits");
    let few = pb::SearchRequest { k: 200, threshold: Some(2.0), ..good_search() };
    let hits = compute.search(few).await.expect("nothing passes").into_inner().results;
    assert_eq!(hits, vec![pb::Hits::default(); 4]);
    // Rows that are named are little to send, and as much work as others.
    let by_rows = |count, k| {
        let query_rows = Some(pb::RowNumbers { numbers: vec![7; count] });
        pb::SearchRequest { queries: None, query_rows, k, threshold: Some(2.0), ..good_search() }
    };
    let many = compute.search(by_rows(171, 1)).await.expect_err("171 x 24 bytes");
    assert_names(&many, "query_rows", "171 rows are named, and 170 is the most");
    assert_eq!(compute.search(by_rows(170, 1)).await.expect("nothing passes").into_inner().results.len(), 170);
    let no_threshold = pb::SearchRequest { threshold: None, ..by_rows(20, 200) };
    assert_names(&compute.search(no_threshold).await.expect_err("4,000 hits"), "query_rows", "at most 4096");
    let score = pb::ScoreRequest { queries: Some(float32(&rows(6))), ..good_score() };
    assert_names(&compute.score(score).await.expect_err("4,800 bytes"), "queries", "4800 bytes");
    let memories = vec![pb::Memory::default(); 100];
    let encode = pb::EncodeRequest { memories, ..Default::default() };
    assert_names(&compute.encode(encode).await.expect_err("4,100 bytes"), "memories", "4100 bytes");
    let large = pb::SearchRequest { queries: Some(float32(&rows(200))), ..good_search() };
    assert_eq!(compute.search(large).await.expect_err("4,800 bytes").code(), Code::OutOfRange);
    server.stop().await;
}
