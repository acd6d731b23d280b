//! Filters over the wire: by text, in parts, and by lists of ids; the columns of hits; what is refused.

use megaring_corpus::RoaringTreemap;
use megaring_datasets::{Embeddings, Matrix, points, reference};
use megaring_engine::Terms;
use megaring_proto::v1 as pb;
use megaring_proto::v1::condition::Condition as Kind;
use megaring_proto::v1::filter::Where;
use megaring_proto::v1::nearest_request::Among;
use megaring_proto::v1::value::Value as Sent;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::common::{Running, Wanted, float32, folder, labelled, violation};

const ROWS: usize = 200;

/// Rows of which each third is of zone 0, 1 and 2, and the importance rises.
async fn start(folder: &std::path::Path) -> (Running, Matrix, Vec<[f64; 5]>) {
    let server = Running::start(folder, Wanted::default()).await;
    let rows = Embeddings { rows: ROWS, dim: 24, seed: 9, ..Embeddings::default() }.generate();
    let cloud = points(ROWS, 10);
    let mut corpora = server.corpora().await;
    let create = pb::CreateRequest { name: "rows".into(), dim: 24, ..Default::default() };
    corpora.create(create).await.expect("it is made");
    let stored = pb::Rows {
        zone: (0..ROWS as u32).map(|row| row % 3).collect(),
        importance: (0..ROWS).map(|row| row as f64 / ROWS as f64).collect(),
        coordinates: cloud.iter().flatten().copied().collect(),
        ..labelled(&rows)
    };
    let message = pb::AppendRequest { corpus: "rows".into(), rows: Some(stored) };
    corpora.append(tokio_stream::once(message)).await.expect("they are stored");
    (server, rows, cloud)
}

fn text(text: &str) -> pb::Filter {
    pb::Filter { r#where: Some(Where::Text(text.into())), ..pb::Filter::default() }
}

fn parts(kind: Kind) -> pb::Filter {
    pb::Filter { r#where: Some(Where::Condition(of(kind))), ..pb::Filter::default() }
}

fn of(kind: Kind) -> pb::Condition {
    pb::Condition { condition: Some(kind) }
}

fn value(value: Sent) -> Option<pb::Value> {
    Some(pb::Value { value: Some(value) })
}

fn compare(column: &str, comparator: pb::Comparator, sent: Sent) -> Kind {
    Kind::Compare(pb::Comparison { column: column.into(), comparator: comparator.into(), value: value(sent) })
}

/// Whether a row passes.
type Passes = fn(usize) -> bool;

/// Filters, and which rows they let pass.
fn filters() -> Vec<(pb::Filter, Passes)> {
    let zones = Kind::OneOf(pb::Membership {
        column: "zone".into(),
        values: [Sent::Integer(0), Sent::Unsigned(2)].map(|sent| pb::Value { value: Some(sent) }).into(),
    });
    let important = Kind::Between(pb::Between {
        column: "importance".into(),
        low: value(Sent::Number(0.5)),
        high: value(Sent::Integer(7)),
    });
    let both = Kind::All(pb::Conditions { conditions: vec![of(zones), of(important)] });
    let either = Kind::Any(pb::Conditions {
        conditions: vec![
            of(Kind::StartsWith(pb::Prefix { column: "title".into(), prefix: "row 1".into() })),
            of(compare("memory_id", pb::Comparator::GreaterOrEqual, Sent::Unsigned(1190))),
        ],
    });
    let not = Kind::Not(Box::new(of(Kind::IsNull("zone".into()))));
    let some = RoaringTreemap::from_iter([1004, 1005, 1199, 1 << 40]);
    let mut roaring = Vec::new();
    some.serialize_into(&mut roaring).expect("a vector takes all");
    let listed = |roaring: Vec<u8>, ids: Vec<u64>| Some(pb::Ids { ids, roaring, texts: Vec::new() });
    vec![
        (text("zone in (0, 2) and importance >= 0.5"), |row| row % 3 != 1 && row >= 100),
        (parts(both), |row| row % 3 != 1 && row >= 100),
        (text("title like 'row 1%' or memory_id >= 1190"), |row| row >= 190 || format!("{row}").starts_with('1')),
        (parts(either), |row| row >= 190 || format!("{row}").starts_with('1')),
        (parts(not), |_| true),
        (text("zone is null"), |_| false),
        (pb::Filter { allow: listed(roaring.clone(), vec![1007]), ..Default::default() }, |row| {
            [4, 5, 7, 199].contains(&row)
        }),
        (pb::Filter { deny: listed(roaring.clone(), vec![]), ..text("zone <> 0") }, |row| {
            row % 3 != 0 && ![4, 5, 199].contains(&row)
        }),
        (pb::Filter { allow: listed(vec![], vec![]), ..Default::default() }, |_| false),
        (pb::Filter::default(), |_| true),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_answers_the_rows_that_pass() {
    let folder = folder();
    let (server, rows, cloud) = start(folder.path()).await;
    let mut compute = server.compute().await;
    let asked = rows.head(3);
    for (number, (filter, passes)) in filters().into_iter().enumerate() {
        let left: Vec<usize> = (0..ROWS).filter(|row| passes(*row)).collect();
        let values = left.iter().flat_map(|row| rows.row(*row)).copied().collect();
        let subset = Matrix { rows: left.len(), dim: 24, values };
        for (k, metric) in [(1, reference::Metric::Cosine), (12, reference::Metric::L2), (500, reference::Metric::Dot)]
        {
            let search = pb::SearchRequest {
                corpus: "rows".into(),
                queries: Some(float32(&asked)),
                metric: match metric {
                    reference::Metric::Cosine => pb::Metric::Cosine,
                    reference::Metric::Dot => pb::Metric::Dot,
                    _ => pb::Metric::L2,
                }
                .into(),
                k,
                filter: Some(filter.clone()),
                ..pb::SearchRequest::default()
            };
            let found = compute.search(search).await.expect("an answer").into_inner().results;
            let want = reference::search(metric, &asked.values, &subset.values, 24, k as usize, None);
            for (hits, want) in found.iter().zip(want) {
                let want: Vec<u32> = want.iter().map(|hit| left[hit.row as usize] as u32).collect();
                assert_eq!(hits.rows, want, "filter {number}, k {k}");
            }
        }
        let range = pb::SearchRangeRequest {
            corpus: "rows".into(),
            queries: Some(float32(&asked)),
            metric: pb::Metric::Dot.into(),
            threshold: Some(0.1),
            filter: Some(filter.clone()),
            ..pb::SearchRangeRequest::default()
        };
        let mut messages = compute.search_range(range).await.expect("an answer").into_inner();
        let mut found = vec![Vec::new(); 3];
        while let Some(message) = messages.message().await.expect("more") {
            for hits in message.results {
                found[hits.query as usize].extend(hits.hits.unwrap_or_default().rows);
            }
        }
        let want = reference::search(reference::Metric::Dot, &asked.values, &subset.values, 24, ROWS, Some(0.1));
        let renumber = |hits: &Vec<reference::Hit>| hits.iter().map(|hit| left[hit.row as usize] as u32).collect();
        assert_eq!(found, want.iter().map(renumber).collect::<Vec<Vec<u32>>>(), "filter {number}");
        let score = pb::ScoreRequest {
            corpus: "rows".into(),
            queries: Some(float32(&asked)),
            filter: Some(filter.clone()),
            ..pb::ScoreRequest::default()
        };
        let scored = compute.score(score).await.expect("an answer").into_inner();
        assert_eq!(scored.scores.expect("a matrix").dim as usize, left.len(), "filter {number}");
        let told = scored.rows.map(|rows| rows.numbers.into_iter().map(|row| row as usize).collect());
        assert_eq!(told.unwrap_or_else(|| (0..ROWS).collect::<Vec<_>>()), left, "filter {number}");
        let nearest = pb::NearestRequest {
            queries: Some(pb::Points { coordinates: vec![0.1; 5] }),
            among: Some(Among::Corpus("rows".into())),
            k: 9,
            filter: Some(filter),
            ..pb::NearestRequest::default()
        };
        let found = compute.nearest(nearest).await.expect("an answer").into_inner().results.remove(0);
        let subset: Vec<[f64; 5]> = left.iter().map(|row| cloud[*row]).collect();
        let want = reference::nearest(&subset, &[0.1; 5], &[1.0, 1.0, 0.8, 1.5, 2.0], 9);
        let want: Vec<u32> = want.iter().map(|neighbour| left[neighbour.row as usize] as u32).collect();
        assert_eq!(found.rows, want, "filter {number}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_come_with_the_columns_asked_for() {
    let folder = folder();
    let (server, rows, _) = start(folder.path()).await;
    let mut compute = server.compute().await;
    let search = pb::SearchRequest {
        corpus: "rows".into(),
        queries: Some(float32(&rows.head(2))),
        k: 5,
        filter: Some(text("zone = 1")),
        columns: vec!["memory_id".into(), "importance".into()],
        ..pb::SearchRequest::default()
    };
    let answer = compute.search(search.clone()).await.expect("an answer").into_inner();
    let fetch = |rows: Vec<u32>| pb::FetchRequest {
        corpus: "rows".into(),
        which: Some(pb::fetch_request::Which::Rows(pb::RowNumbers { numbers: rows })),
        columns: vec!["memory_id".into(), "importance".into()],
    };
    let hits: Vec<u32> = answer.results.iter().flat_map(|hits| hits.rows.clone()).collect();
    assert_eq!(hits.len(), 10);
    let fetched = server.corpora().await.fetch(fetch(hits)).await.expect("columns").into_inner();
    assert!(!answer.columns.is_empty() && answer.columns == fetched.columns);
    let nearest = pb::NearestRequest {
        queries: Some(pb::Points { coordinates: vec![0.1; 5] }),
        among: Some(Among::Corpus("rows".into())),
        k: 4,
        columns: vec!["memory_id".into(), "importance".into()],
        ..pb::NearestRequest::default()
    };
    let answer = compute.nearest(nearest).await.expect("an answer").into_inner();
    let fetched = server.corpora().await.fetch(fetch(answer.results[0].rows.clone())).await.expect("columns");
    assert_eq!(answer.columns, fetched.into_inner().columns);
    let plain = pb::SearchRequest { columns: Vec::new(), ..search };
    assert!(compute.search(plain).await.expect("an answer").into_inner().columns.is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_that_cannot_be_are_refused_by_name() {
    let folder = folder();
    let (server, rows, _) = start(folder.path()).await;
    let mut compute = server.compute().await;
    let search = |filter: pb::Filter| pb::SearchRequest {
        corpus: "rows".into(),
        queries: Some(float32(&rows.head(1))),
        k: 1,
        filter: Some(filter),
        ..pb::SearchRequest::default()
    };
    let junk = || Some(pb::Ids { roaring: vec![1, 2, 3], ..Default::default() });
    let empty = parts(Kind::All(pb::Conditions { conditions: vec![pb::Condition::default()] }));
    let valueless = Kind::Compare(pb::Comparison { column: "zone".into(), comparator: 1, value: None });
    for (filter, field) in [
        (text("zone <="), "filter"),
        (text("zones = 1"), "filter"),
        (text("zone = 'x'"), "filter"),
        (empty, "filter"),
        (parts(valueless), "filter"),
        (parts(compare("zone", pb::Comparator::Unspecified, Sent::Integer(1))), "filter"),
        (pb::Filter { allow: junk(), ..Default::default() }, "filter.allow.roaring"),
        (pb::Filter { deny: junk(), ..Default::default() }, "filter.deny.roaring"),
    ] {
        let refused = compute.search(search(filter)).await.expect_err("a bad filter");
        assert_eq!((refused.code(), violation(&refused).0.as_str()), (Code::InvalidArgument, field));
    }
    let columns = pb::SearchRequest { columns: vec!["nothing".into()], ..search(pb::Filter::default()) };
    let refused = compute.search(columns).await.expect_err("no such column");
    assert_eq!(violation(&refused).0, "columns");
    let score = pb::ScoreRequest {
        corpus: "rows".into(),
        queries: Some(float32(&rows.head(1))),
        rows: Some(pb::RowNumbers { numbers: vec![1] }),
        filter: Some(text("zone = 1")),
        ..pb::ScoreRequest::default()
    };
    assert_eq!(violation(&compute.score(score).await.expect_err("both")).0, "filter");
    let sent = pb::NearestRequest {
        queries: Some(pb::Points { coordinates: vec![0.1; 5] }),
        among: Some(Among::Points(pb::Points { coordinates: vec![0.0; 5] })),
        k: 1,
        ..pb::NearestRequest::default()
    };
    let filtered = pb::NearestRequest { filter: Some(text("zone = 1")), ..sent.clone() };
    assert_eq!(violation(&compute.nearest(filtered).await.expect_err("no corpus")).0, "filter");
    let columns = pb::NearestRequest { columns: vec!["zone".into()], ..sent };
    assert_eq!(violation(&compute.nearest(columns).await.expect_err("no corpus")).0, "columns");
    server.stop().await;
}

/// What is known is answered, however many filters are worked out; another has to wait, and its client is told when to
/// come again, or that its time is over.
#[tokio::test(flavor = "multi_thread")]
async fn filters_that_are_worked_out_at_once_are_bounded() {
    let folder = folder();
    let queue = std::time::Duration::from_secs(3600);
    for wanted in [Wanted::default(), Wanted { queue, ..Wanted::default() }] {
        let is_waiting = !wanted.queue.is_zero();
        let server = Running::start(folder.path(), wanted).await;
        if !is_waiting {
            server.corpus("a", &Embeddings { rows: 9, dim: 24, ..Embeddings::default() }.generate()).await;
        }
        let mut compute = server.compute().await;
        let asked = Embeddings { rows: 1, dim: 24, ..Embeddings::default() }.generate();
        let search = |filter: &str| pb::SearchRequest {
            corpus: "a".into(),
            queries: Some(float32(&asked)),
            metric: pb::Metric::Dot.into(),
            k: 3,
            filter: Some(text(filter)),
            ..pb::SearchRequest::default()
        };
        compute.search(search("memory_id > 1002")).await.expect("an answer");
        let gate = server.engine.filters();
        let mut permits = Vec::new();
        while let Ok(permit) = gate.try_admit(&Terms::default(), 0) {
            permits.push(permit);
        }
        compute.search(search("memory_id > 1002")).await.expect("it is known");
        let mut late = tonic::Request::new(search("memory_id > 1003"));
        if is_waiting {
            late.set_timeout(std::time::Duration::from_millis(20));
            let refused = compute.search(late).await.expect_err("there is no room");
            // The client's own timer may be the first.
            assert!(matches!(refused.code(), Code::DeadlineExceeded | Code::Cancelled), "{refused:?}");
            while gate.waiting() > 0 {
                tokio::task::yield_now().await;
            }
        } else {
            let refused = compute.search(late).await.expect_err("there is no room");
            assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
            assert!(refused.get_details_retry_info().is_some());
            let range = pb::SearchRangeRequest {
                corpus: "a".into(),
                queries: Some(float32(&asked)),
                metric: pb::Metric::Dot.into(),
                threshold: Some(0.1),
                filter: Some(text("memory_id > 1003")),
                ..pb::SearchRangeRequest::default()
            };
            let refused = compute.search_range(range).await.expect_err("there is no room");
            assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        }
        drop(permits);
        let found = compute.search(search("memory_id > 1003")).await.expect("an answer").into_inner();
        assert!(found.results[0].memory_ids.iter().all(|id| *id > 1003));
        assert_eq!(gate.in_flight(), 0);
        drop(compute);
        server.stop().await;
    }
}
