//! Ids that are texts, over the wire: in every call that takes ids, and in every reply that has some.

use std::collections::HashMap;

use megaring_datasets::{Embeddings, Matrix, reference};
use megaring_proto::v1 as pb;
use megaring_proto::v1::fetch_request::Which;
use prost::Message as _;
use tonic::{Code, Status};

use crate::common::{Running, Wanted, float32, folder, labelled, violation};

const ROWS: usize = 80;
const DIM: usize = 16;

/// Texts that have one xxHash64: of two stripes of 32 bytes, the first differs, and the second makes up for it.
const TWINS: [&str; 2] = [
    "/inbox/2/from-ann/2026-11-30/mai00000001/from-ann/2026-11-30/mai",
    "/ehnm-ge/from-ann/2026-11-30/maiQ XRVoYJ/from-ann/2026-11-30/mai",
];

fn rows() -> Matrix {
    Embeddings { rows: ROWS, dim: DIM, seed: 11, ..Embeddings::default() }.generate()
}

/// The id of a row: the first two have one hash.
fn id(row: usize) -> String {
    TWINS.get(row).map_or_else(|| format!("in/{row}"), |twin| (*twin).to_owned())
}

fn ids(rows: impl IntoIterator<Item = usize>) -> Vec<String> {
    rows.into_iter().map(id).collect()
}

fn of_texts(texts: Vec<String>) -> pb::Ids {
    pb::Ids { texts, ..pb::Ids::default() }
}

/// Rows with titles, coordinates and these ids.
fn named(rows: &Matrix, ids: Vec<String>) -> pb::Rows {
    let coordinates = (0..rows.rows * 5).map(|at| at as f64 / 7.0).collect();
    pb::Rows { memory_ids: Vec::new(), ids, coordinates, ..labelled(rows) }
}

fn append(rows: pb::Rows) -> pb::AppendRequest {
    pb::AppendRequest { corpus: "rows".into(), rows: Some(rows) }
}

async fn serve(folder: &std::path::Path, setup: Wanted, unique_ids: bool) -> Running {
    let server = Running::start(folder, setup).await;
    let create = pb::CreateRequest {
        name: "rows".into(),
        dim: DIM as u32,
        unique_ids,
        id_column: "path".into(),
        ..Default::default()
    };
    let made = server.corpora().await.create(create).await.expect("it is made").into_inner().corpus;
    assert_eq!(made.expect("a description").id_column, "path");
    let message = append(named(&rows(), ids(0..ROWS)));
    server.corpora().await.append(tokio_stream::once(message)).await.expect("rows are added");
    server
}

fn search(query_ids: Vec<String>, k: u32) -> pb::SearchRequest {
    pb::SearchRequest {
        corpus: "rows".into(),
        query_ids: Some(of_texts(query_ids)),
        metric: pb::Metric::Dot.into(),
        k,
        ..pb::SearchRequest::default()
    }
}

/// The best rows for each, by the reference.
fn truth(asked: &[usize], k: usize, threshold: Option<f64>) -> Vec<Vec<usize>> {
    let rows = rows();
    let best = |query: &usize| {
        let found = reference::search(reference::Metric::Dot, rows.row(*query), &rows.values, DIM, k, threshold);
        found[0].iter().map(|hit| hit.row as usize).collect()
    };
    asked.iter().map(best).collect()
}

fn refused<T>(result: Result<T, Status>, field: &str, says: &[&str]) {
    let status = result.err().unwrap_or_else(|| panic!("{field}: it is taken"));
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let (found, description) = violation(&status);
    assert_eq!(found, field, "{description}");
    says.iter().for_each(|text| assert!(description.contains(text), "{description:?} does not say {text:?}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_them() {
    let folder = folder();
    let server = serve(folder.path(), Wanted::default(), true).await;
    let (mut compute, mut corpora) = (server.compute().await, server.corpora().await);
    let listed = corpora.list(pb::ListRequest {}).await.expect("a list").into_inner().corpora;
    assert_eq!(listed[0].id_column, "path");

    let asked = [7, 1, 0, 7];
    let sent = pb::SearchRequest {
        queries: Some(float32(&Matrix::new(4, DIM, asked.iter().flat_map(|row| rows().row(*row).to_vec()).collect()))),
        query_ids: None,
        ..search(Vec::new(), 5)
    };
    for request in [search(ids(asked), 5), sent] {
        let found = compute.search(request).await.expect("an answer").into_inner().results;
        let texts: Vec<Vec<String>> = found.iter().map(|hits| hits.text_ids.clone()).collect();
        assert_eq!(texts, truth(&asked, 5, None).into_iter().map(ids).collect::<Vec<_>>());
        assert!(found.iter().all(|hits| hits.memory_ids.len() == 5));
    }
    // Of a filtered search, too, and of one that is asked again, whose rows are gathered.
    let filter = pb::Filter { allow: Some(of_texts(vec![id(1), "none".into()])), ..pb::Filter::default() };
    for _ in 0..3 {
        let request = pb::SearchRequest { filter: Some(filter.clone()), ..search(ids([7]), 5) };
        let found = compute.search(request).await.expect("an answer").into_inner().results;
        assert_eq!((&found[0].rows[..], &found[0].text_ids[..]), (&[1][..], &ids([1])[..]));
    }
    let deny = pb::Filter { deny: Some(of_texts(ids([0]))), ..pb::Filter::default() };
    let request = pb::SearchRequest { filter: Some(deny), ..search(ids([7]), ROWS as u32) };
    let found = compute.search(request).await.expect("an answer").into_inner().results;
    assert_eq!(found[0].rows.len(), ROWS - 1, "a text of the same hash is not denied");
    assert!(!found[0].text_ids.contains(&id(0)) && found[0].text_ids.contains(&id(1)));

    let range = pb::SearchRangeRequest {
        corpus: "rows".into(),
        query_ids: Some(of_texts(ids([3, 0]))),
        metric: pb::Metric::Dot.into(),
        threshold: Some(0.2),
        ..pb::SearchRangeRequest::default()
    };
    let mut messages = compute.search_range(range).await.expect("an answer").into_inner();
    let mut found = vec![Vec::new(); 2];
    while let Some(message) = messages.message().await.expect("more") {
        for part in message.results {
            found[part.query as usize].extend(part.hits.expect("hits").text_ids);
        }
    }
    assert_eq!(found, truth(&[3, 0], ROWS, Some(0.2)).into_iter().map(ids).collect::<Vec<_>>());

    server.corpus("plain", &rows().head(20)).await;
    let join = |corpus: &str, other: &str| pb::JoinRequest {
        corpus: corpus.into(),
        other: other.into(),
        metric: pb::Metric::Dot.into(),
        k: Some(2),
        ..pb::JoinRequest::default()
    };
    for (corpus, other) in [("rows", ""), ("rows", "plain"), ("plain", "rows")] {
        let mut messages = compute.join(join(corpus, other)).await.expect("an answer").into_inner();
        while let Some(message) = messages.message().await.expect("more") {
            let texts = |name: &str, rows: &[u32]| match name {
                "rows" => ids(rows.iter().map(|row| *row as usize)),
                _ => Vec::new(),
            };
            assert_eq!(message.text_ids, texts(corpus, &message.rows));
            let searched = if other.is_empty() { corpus } else { other };
            assert_eq!(message.neighbour_text_ids, texts(searched, &message.neighbours));
        }
    }
    let nearest = pb::NearestRequest {
        queries: Some(pb::Points { coordinates: vec![0.0; 5] }),
        among: Some(pb::nearest_request::Among::Corpus("rows".into())),
        k: 3,
        ..pb::NearestRequest::default()
    };
    let found = compute.nearest(nearest).await.expect("an answer").into_inner().results;
    assert_eq!((&found[0].rows[..], &found[0].text_ids[..]), (&[0, 1, 2][..], &ids([0, 1, 2])[..]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_fetched_deleted_and_replaced_by_them() {
    let folder = folder();
    let server = serve(folder.path(), Wanted::default(), false).await;
    let mut corpora = server.corpora().await;
    let fetch = |texts: Vec<String>| pb::FetchRequest {
        corpus: "rows".into(),
        which: Some(Which::Ids(of_texts(texts))),
        columns: vec!["path".into()],
    };
    let fetched = corpora.fetch(fetch(vec![id(9), "no".into(), id(1), id(9)])).await.expect("rows").into_inner();
    assert_eq!((fetched.rows.expect("rows").numbers, fetched.missing_text_ids), (vec![9, 1, 9], vec!["no".into()]));

    // What a fetch answers can be sent again, in the place of `ids`.
    let columns = corpora.fetch(fetch(ids([5, 0]))).await.expect("rows").into_inner().columns;
    let new = Matrix::new(2, DIM, vec![9.0; 2 * DIM]);
    let upsert = append(pb::Rows { columns: columns.to_vec(), ..named(&new, Vec::new()) });
    let stored = corpora.upsert(tokio_stream::once(upsert)).await.expect("they are stored").into_inner();
    assert_eq!((stored.rows, stored.replaced, stored.total_rows), (2, 2, ROWS as u64));
    let both = append(pb::Rows { columns: columns.to_vec(), ..named(&new, ids([5, 0])) });
    refused(corpora.append(tokio_stream::once(both)).await, "rows.ids", &["twice", "path", "message 1"]);

    let messages = [
        pb::DeleteRequest { corpus: "rows".into(), text_ids: vec![id(1), "zz".into()], ..Default::default() },
        pb::DeleteRequest { text_ids: vec!["aa".into(), id(8), id(1)], ..Default::default() },
    ];
    let deleted = corpora.delete(tokio_stream::iter(messages)).await.expect("they are deleted").into_inner();
    let missing = ["aa", "zz"].map(str::to_owned).to_vec();
    assert_eq!((deleted.rows, deleted.missing, deleted.missing_text_ids), (2, 2, missing));
    let fetched = corpora.fetch(fetch(ids([0, 1]))).await.expect("rows").into_inner();
    assert_eq!(fetched.missing_text_ids, ids([1]), "a text of the same hash stays");

    let many: Vec<String> = (0..150).map(|at| format!("gone/{at:03}")).collect();
    let request = pb::DeleteRequest { corpus: "rows".into(), text_ids: many.clone(), ..Default::default() };
    let deleted = corpora.delete(tokio_stream::once(request)).await.expect("none is there").into_inner();
    assert_eq!((deleted.rows, deleted.missing, &deleted.missing_text_ids[..]), (0, 150, &many[..100]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_and_named() {
    let folder = folder();
    let server = serve(folder.path(), Wanted::default(), true).await;
    server.corpus("plain", &rows()).await;
    let (mut compute, mut corpora) = (server.compute().await, server.corpora().await);
    let three = || rows().head(3);
    let taken = ids([40, 2]).into_iter().chain(["new".into()]).collect();
    let cases = [
        (named(&three(), Vec::new()), "rows.ids", vec!["path", "missing"]),
        (named(&three(), ids([90])), "rows.ids", vec!["1 entries for 3"]),
        (named(&three(), vec!["a".into(), String::new(), "b".into()]), "rows.ids[1]", vec!["empty", "path"]),
        (named(&three(), vec!["a".into(), "b".into(), "c".repeat(5000)]), "rows.ids[2]", vec!["4096"]),
        (labelled(&three()), "rows.ids", vec!["path", "missing"]),
        (pb::Rows { ids: ids([90, 91, 92]), ..labelled(&three()) }, "rows.memory_ids[0]", vec!["1000", "path"]),
        (named(&three(), taken), "rows.ids[0]", vec!["in/40", "upsert"]),
        (named(&three(), ids([90, 91, 90])), "rows.ids[2]", vec!["in/90", "row 0"]),
    ];
    for (rows, field, says) in cases {
        refused(corpora.append(tokio_stream::once(append(rows))).await, field, &says);
    }
    let to_plain = pb::AppendRequest { corpus: "plain".into(), ..append(named(&three(), ids([90, 91, 92]))) };
    refused(corpora.append(tokio_stream::once(to_plain)).await, "rows.ids", &["no id column"]);
    let delete = pb::DeleteRequest { corpus: "plain".into(), text_ids: ids([1]), ..Default::default() };
    refused(corpora.delete(tokio_stream::once(delete)).await, "text_ids", &["plain", "no id column"]);
    let long = vec!["fits".to_owned(), "x".repeat(4097)];
    let delete = pb::DeleteRequest { corpus: "rows".into(), text_ids: long, ..Default::default() };
    refused(corpora.delete(tokio_stream::once(delete)).await, "text_ids[1]", &["4097 bytes"]);
    let which = Some(Which::Ids(of_texts(ids([1]))));
    let fetch = pb::FetchRequest { corpus: "plain".into(), which, columns: Vec::new() };
    refused(corpora.fetch(fetch).await, "ids.texts", &["no id column"]);
    for column in ["title", "*"] {
        let create = pb::CreateRequest { name: "other".into(), dim: 4, id_column: column.into(), ..Default::default() };
        refused(corpora.create(create).await, "id_column", &[column]);
    }

    let plain = |request| pb::SearchRequest { corpus: "plain".into(), ..request };
    let listed = |ids: &[u64]| pb::Ids { ids: ids.to_vec(), ..pb::Ids::default() };
    let by_number = |ids: &[u64]| pb::SearchRequest { query_ids: Some(listed(ids)), ..plain(search(Vec::new(), 1)) };
    let mut roaring = Vec::new();
    megaring_corpus::RoaringTreemap::from_iter([7_u64]).serialize_into(&mut roaring).expect("bytes");
    let both = Some(pb::RowNumbers { numbers: vec![1] });
    let allow = pb::Filter { allow: Some(of_texts(ids([1]))), ..pb::Filter::default() };
    let found = compute.search(by_number(&[1003, 1001])).await.expect("an answer").into_inner().results;
    assert_eq!((found[0].memory_ids[0], found[1].memory_ids[0], found[0].text_ids.len()), (1003, 1001, 0));
    let hash = megaring_core::checksum::xxhash64(TWINS[0].as_bytes());
    let cases = [
        (by_number(&[1003, 7]), "query_ids.ids[1]", vec!["no row", "7"]),
        (
            pb::SearchRequest { query_ids: Some(pb::Ids { roaring, ..pb::Ids::default() }), ..by_number(&[]) },
            "query_ids.ids[0]",
            vec!["no row", "7"],
        ),
        (
            pb::SearchRequest { query_ids: Some(listed(&[hash])), ..search(Vec::new(), 1) },
            "query_ids.ids[0]",
            vec!["several", "0 and 1"],
        ),
        (search(vec![id(3), "no".into()], 1), "query_ids.texts[1]", vec!["no row", "no"]),
        (plain(search(ids([3]), 1)), "query_ids.texts", vec!["no id column"]),
        (pb::SearchRequest { query_rows: both, ..search(ids([3]), 1) }, "query_ids", vec!["numbers too"]),
        (pb::SearchRequest { queries: Some(float32(&three())), ..search(ids([3]), 1) }, "query_ids", vec!["given too"]),
        (pb::SearchRequest { filter: Some(allow), ..by_number(&[1003]) }, "filter.allow.texts", vec!["no id column"]),
    ];
    for (request, field, says) in cases {
        refused(compute.search(request).await, field, &says);
    }
    // None at all are none.
    let found = compute.search(search(Vec::new(), 1)).await.expect("an answer").into_inner().results;
    assert!(found.is_empty());
    server.stop().await;
}

/// Ids as long as they may be are counted where titles are.
#[tokio::test(flavor = "multi_thread")]
async fn messages_with_long_ids_are_of_the_size_they_should_be() {
    const LIMIT: usize = 1 << 20;
    let folder = folder();
    let mut setup = Wanted::default();
    setup.server.max_message_bytes = LIMIT;
    let server = serve(folder.path(), setup, true).await;
    let long = |row: usize| format!("{row:04}{}", "/".repeat(4092));
    let mut corpora = server.corpora().await;
    let all = rows();
    let messages = (0..2).map(|part| {
        let begin = part * 40;
        let values = all.values[begin * DIM..(begin + 40) * DIM].to_vec();
        append(named(&Matrix::new(40, DIM, values), (begin..begin + 40).map(long).collect()))
    });
    corpora.append(tokio_stream::iter(messages.collect::<Vec<_>>())).await.expect("rows are added");
    let mut compute = server.compute().await;
    // 160 rows, of which 80 have ids of 4 KiB: two queries fit, and four do not.
    let found = compute.search(search(ids(0..2), 160)).await.expect("an answer").into_inner().results;
    assert_eq!((found[0].text_ids.len(), found[1].text_ids.len()), (160, 160));
    refused(compute.search(search(ids(0..4), 160)).await, "queries", &["send fewer"]);

    let (mut most, mut pairs) = (0, HashMap::<u32, usize>::new());
    let join = pb::JoinRequest { corpus: "rows".into(), k: Some(20), ..pb::JoinRequest::default() };
    let mut messages = compute.join(join).await.expect("an answer").into_inner();
    while let Some(message) = messages.message().await.expect("more") {
        most = most.max(message.encoded_len());
        assert_eq!(message.text_ids.len(), message.rows.len());
        message.rows.iter().for_each(|row| *pairs.entry(*row).or_default() += 1);
    }
    assert!(pairs.len() == 160 && pairs.values().all(|count| *count == 20), "{pairs:?}");
    assert!((100 << 10..=256 << 10).contains(&most), "{most} bytes");

    let range = pb::SearchRangeRequest {
        corpus: "rows".into(),
        query_ids: Some(of_texts(ids(0..20))),
        threshold: Some(-1.0),
        ..pb::SearchRangeRequest::default()
    };
    let mut messages = compute.search_range(range).await.expect("an answer").into_inner();
    let (mut most, mut hits) = (0, 0);
    while let Some(message) = messages.message().await.expect("more") {
        most = most.max(message.encoded_len());
        hits += message.results.iter().flat_map(|part| &part.hits).map(|hits| hits.text_ids.len()).sum::<usize>();
    }
    assert_eq!(hits, 20 * 160);
    assert!((100 << 10..=256 << 10).contains(&most), "{most} bytes");
    server.stop().await;
}
