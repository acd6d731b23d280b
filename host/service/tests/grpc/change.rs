//! Rows that are deleted and replaced over the wire: what searches, scores and fetches see of it, on the spot and after
//! a restart.

use megaring_datasets::{Embeddings, Matrix, reference};
use megaring_engine::Terms;
use megaring_proto::v1 as pb;
use megaring_proto::v1::fetch_request::Which;
use megaring_proto::v1::filter::Where;
use tonic::Code;

use crate::common::{Running, Wanted, float32, folder, labelled, let_go, reason, violation};

const ROWS: usize = 60;

fn rows() -> Matrix {
    Embeddings { rows: ROWS, dim: 16, seed: 5, ..Embeddings::default() }.generate()
}

fn search(queries: &Matrix, k: u32) -> pb::SearchRequest {
    pb::SearchRequest {
        corpus: "rows".into(),
        queries: Some(float32(queries)),
        metric: pb::Metric::Dot.into(),
        k,
        ..pb::SearchRequest::default()
    }
}

fn delete(ids: &[u64]) -> pb::DeleteRequest {
    pb::DeleteRequest { corpus: "rows".into(), ids: ids.to_vec(), ..Default::default() }
}

/// The ids of the best rows among those that are left, by the reference.
fn truth(rows: &Matrix, ids: &[u64], query: &[f32], k: usize) -> Vec<u64> {
    let found = reference::search(reference::Metric::Dot, query, &rows.values, rows.dim, k, None).remove(0);
    found.iter().map(|hit| ids[hit.row as usize]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_or_replaced_is_in_no_answer() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let all = rows();
    server.corpus("rows", &all).await;
    let mut corpora = server.corpora().await;
    let before = corpora.describe(pb::DescribeRequest { name: "rows".into() }).await.expect("it is there").into_inner();
    // In two messages, with one id twice and two that are not there.
    let messages = [delete(&[1000, 1003]), pb::DeleteRequest { ids: vec![7, 1003, 1059, 8], ..Default::default() }];
    let deleted = corpora.delete(tokio_stream::iter(messages)).await.expect("they are deleted").into_inner();
    assert_eq!((deleted.rows, deleted.missing, &deleted.missing_ids[..], deleted.total_rows), (3, 2, &[7, 8][..], 57));
    assert!(deleted.generation > before.corpus.expect("a description").generation);
    // One that is there, two that are not, and one of them twice: the last counts.
    let new = Matrix { rows: 4, dim: 16, values: all.values[..4 * 16].iter().map(|value| value * 3.0).collect() };
    let upsert = pb::AppendRequest {
        corpus: "rows".into(),
        rows: Some(pb::Rows {
            memory_ids: vec![1005, 5000, 1000, 5000],
            titles: vec!["new".into(); 4],
            ..labelled(&new)
        }),
    };
    let stored = corpora.upsert(tokio_stream::once(upsert)).await.expect("they are stored").into_inner();
    assert_eq!((stored.rows, stored.replaced, stored.total_rows), (3, 1, 59));

    let left: Vec<usize> = (0..ROWS).filter(|row| ![0, 3, 5, 59].contains(row)).collect();
    let mut values: Vec<f32> = left.iter().flat_map(|row| all.row(*row)).copied().collect();
    [0, 2, 3].iter().for_each(|row| values.extend(new.row(*row)));
    let now = Matrix { rows: 59, dim: 16, values };
    let ids: Vec<u64> = left.iter().map(|row| 1000 + *row as u64).chain([1005, 1000, 5000]).collect();
    check(&server, &now, &ids).await;

    server.stop().await;
    let_go(folder.path()).await;
    let server = Running::start(folder.path(), Wanted::default()).await;
    check(&server, &now, &ids).await;
    // Merged, the rows close up.
    server.engine.store().compact("rows").expect("it is merged");
    check(&server, &now, &ids).await;
    let described = server.corpora().await.describe(pb::DescribeRequest { name: "rows".into() }).await;
    let described = described.expect("it is there").into_inner().corpus.expect("a description");
    assert_eq!((described.rows, described.deleted_rows, described.segments[0].rows), (59, 0, 59));
    server.stop().await;
}

async fn check(server: &Running, now: &Matrix, ids: &[u64]) {
    let asked = now.head(4);
    let mut compute = server.compute().await;
    for k in [1, 10, 59, 1000] {
        let found = compute.search(search(&asked, k)).await.expect("an answer").into_inner().results;
        for (query, hits) in found.iter().enumerate() {
            assert_eq!(hits.memory_ids, truth(now, ids, asked.row(query), k as usize), "k {k}, query {query}");
        }
    }
    let score =
        pb::ScoreRequest { corpus: "rows".into(), queries: Some(float32(&asked)), ..pb::ScoreRequest::default() };
    let scored = compute.score(score).await.expect("an answer").into_inner();
    let width = scored.scores.expect("a matrix").dim;
    assert_eq!(width, 59);
    let listed = pb::RowNumbers { numbers: scored.rows.map_or_else(|| (0..59).collect(), |rows| rows.numbers) };
    let fetch = pb::FetchRequest {
        corpus: "rows".into(),
        which: Some(Which::Rows(listed.clone())),
        columns: vec!["memory_id".into(), "title".into()],
    };
    let mut corpora = server.corpora().await;
    let fetched = corpora.fetch(fetch).await.expect("columns").into_inner();
    assert_eq!(fetched.rows, Some(listed));
    let by_id = pb::FetchRequest {
        corpus: "rows".into(),
        which: Some(Which::Ids(pb::Ids { ids: ids.to_vec(), ..Default::default() })),
        columns: vec!["memory_id".into(), "title".into()],
    };
    let same = corpora.fetch(by_id).await.expect("columns").into_inner();
    assert_eq!((same.columns, same.missing_ids), (fetched.columns, vec![]));
    // Whoever is gone is neither a row nor a neighbour of one.
    let metric = pb::Metric::Dot.into();
    let join = pb::JoinRequest { corpus: "rows".into(), metric, k: Some(3), ..pb::JoinRequest::default() };
    let mut messages = compute.join(join).await.expect("an answer").into_inner();
    let mut found: Vec<(u64, u64)> = Vec::new();
    while let Some(message) = messages.message().await.expect("more") {
        found.extend(message.memory_ids.into_iter().zip(message.neighbour_ids));
    }
    let neighbours = |row: usize| {
        let near = truth(now, ids, now.row(row), 4).into_iter().filter(move |id| *id != ids[row]);
        near.take(3).map(move |id| (ids[row], id))
    };
    assert_eq!(found, (0..now.rows).flat_map(neighbours).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_a_corpus_of_unique_ids_are_refused_where_they_are_there() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let mut corpora = server.corpora().await;
    let create = pb::CreateRequest { name: "rows".into(), dim: 16, unique_ids: true, ..Default::default() };
    assert!(corpora.create(create).await.expect("it is made").into_inner().corpus.expect("described").unique_ids);
    let message = |ids: Vec<u64>| {
        let rows = pb::Rows { memory_ids: ids.clone(), ..labelled(&rows().head(ids.len())) };
        pb::AppendRequest { corpus: "rows".into(), rows: Some(rows) }
    };
    corpora.append(tokio_stream::once(message(vec![1, 2, 3]))).await.expect("they are new");
    for (messages, row) in [(vec![vec![4, 5], vec![6, 2]], 3), (vec![vec![4, 5, 4]], 2)] {
        let messages: Vec<_> = messages.into_iter().map(message).collect();
        let refused = corpora.append(tokio_stream::iter(messages)).await.expect_err("one is there");
        assert_eq!(refused.code(), Code::InvalidArgument);
        let (field, text) = violation(&refused);
        assert_eq!(field, format!("rows.memory_ids[{row}]"), "{text}");
    }
    let plain = pb::Rows { embeddings: Some(float32(&rows().head(2))), ..pb::Rows::default() };
    let unnamed = pb::AppendRequest { corpus: "rows".into(), rows: Some(plain) };
    let refused = corpora.upsert(tokio_stream::once(unnamed.clone())).await.expect_err("no ids");
    assert_eq!(violation(&refused).0, "rows.memory_ids");
    // None of it was kept, and rows without ids go on from the largest.
    let stored = corpora.append(tokio_stream::once(unnamed)).await.expect("they get ids").into_inner();
    assert_eq!(stored.total_rows, 5);
    let deleted = corpora.delete(tokio_stream::once(delete(&[4, 5]))).await.expect("they are there").into_inner();
    assert_eq!((deleted.rows, deleted.missing), (2, 0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_deleted_or_fetched_is_refused_by_name() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    server.corpus("rows", &rows()).await;
    let mut corpora = server.corpora().await;
    let refused = corpora.delete(tokio_stream::iter(Vec::<pb::DeleteRequest>::new())).await.expect_err("no corpus");
    assert_eq!(violation(&refused).0, "corpus");
    let nameless = pb::DeleteRequest { ids: vec![1000], ..Default::default() };
    let refused = corpora.delete(tokio_stream::once(nameless)).await.expect_err("no corpus");
    assert_eq!(violation(&refused).0, "corpus");
    let other = pb::DeleteRequest { corpus: "other".into(), ids: vec![1001], ..Default::default() };
    let refused = corpora.delete(tokio_stream::iter([delete(&[1000]), other.clone()])).await.expect_err("two corpora");
    assert_eq!(violation(&refused).0, "corpus");
    let refused = corpora.delete(tokio_stream::once(other)).await.expect_err("no such corpus");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "CORPUS_NOT_FOUND"));
    let none = corpora.delete(tokio_stream::once(delete(&[]))).await.expect("nothing to do").into_inner();
    assert_eq!((none.rows, none.total_rows), (0, 60), "none of the others was deleted");

    corpora.delete(tokio_stream::once(delete(&[1007]))).await.expect("it is there");
    let fetch = |which, columns: &[&str]| pb::FetchRequest {
        corpus: "rows".into(),
        which,
        columns: columns.iter().map(|name| (*name).to_owned()).collect(),
    };
    let numbers = |numbers: &[u32]| Some(Which::Rows(pb::RowNumbers { numbers: numbers.to_vec() }));
    let roaring = |roaring: &[u8]| Some(Which::Ids(pb::Ids { roaring: roaring.to_vec(), ..Default::default() }));
    for (request, field) in [
        (fetch(None, &["title"]), "which"),
        (fetch(numbers(&[3, 7]), &["title"]), "rows.numbers[1]"),
        (fetch(numbers(&[60]), &["title"]), "rows.numbers[0]"),
        (fetch(numbers(&[3]), &["nothing"]), "columns"),
        (fetch(roaring(b"nonsense"), &["title"]), "ids.roaring"),
    ] {
        let refused = corpora.fetch(request).await.expect_err(field);
        assert_eq!((refused.code(), violation(&refused).0.as_str()), (Code::InvalidArgument, field));
    }
    let mut compute = server.compute().await;
    let query_rows = pb::SearchRequest {
        queries: None,
        query_rows: Some(pb::RowNumbers { numbers: vec![6, 7] }),
        ..search(&rows().head(1), 3)
    };
    let refused = compute.search(query_rows).await.expect_err("it is deleted");
    assert_eq!(violation(&refused), ("query_rows.numbers[1]".into(), "the row is deleted".into()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_filter_lets_pass_is_deleted() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let all = rows();
    server.corpus("rows", &all).await;
    let mut corpora = server.corpora().await;
    let by = |filter: pb::Filter| pb::DeleteRequest { filter: Some(filter), ..delete(&[]) };
    let text = |text: &str| pb::Filter { r#where: Some(Where::Text(text.into())), ..Default::default() };
    let spared = pb::Ids { ids: vec![1004, 1059], ..Default::default() };
    let filter = pb::Filter { deny: Some(spared), ..text("memory_id >= 1001 and title like 'row %'") };
    let deleted = corpora.delete(tokio_stream::once(by(filter))).await.expect("they are deleted").into_inner();
    assert_eq!((deleted.rows, deleted.missing, deleted.total_rows), (57, 0, 3));
    let left =
        Matrix { rows: 3, dim: 16, values: [0, 4, 59].into_iter().flat_map(|row| all.row(row)).copied().collect() };
    let remains = || async {
        let found = server.compute().await.search(search(&all.head(1), 100)).await.expect("an answer").into_inner();
        assert_eq!(found.results[0].memory_ids, truth(&left, &[1000, 1004, 1059], all.row(0), 100));
    };
    remains().await;
    for (messages, says) in [
        (vec![by(pb::Filter::default())], "all rows"),
        (vec![by(text("zones = 1"))], "zones"),
        (vec![pb::DeleteRequest { ids: vec![1000], ..by(text("true")) }], "one of the two"),
        (vec![by(text("true")), pb::DeleteRequest { ids: vec![1000], ..Default::default() }], "one of the two"),
        (vec![delete(&[]), by(text("true"))], "first message"),
    ] {
        let refused = corpora.delete(tokio_stream::iter(messages)).await.expect_err("it cannot be");
        let (field, description) = violation(&refused);
        assert_eq!(field, "filter");
        assert!(description.contains(says), "{description}");
    }
    remains().await;
    let permits: Vec<_> = std::iter::from_fn(|| server.engine.filters().try_admit(&Terms::default(), 0).ok()).collect();
    let refused = corpora.delete(tokio_stream::once(by(text("true")))).await.expect_err("there is no room");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(permits);
    let deleted = corpora.delete(tokio_stream::once(by(text("true")))).await.expect("they are deleted").into_inner();
    assert_eq!((deleted.rows, deleted.total_rows), (3, 0));
    server.stop().await;
}
