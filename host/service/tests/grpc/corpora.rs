//! Corpora over the wire: what is acknowledged is there, also after a restart; what is not, is not.

use megaring_datasets::{Embeddings, Matrix, poison};
use megaring_proto::v1 as pb;
use tonic::Code;

use crate::common::{Running, Wanted, float32, folder, labelled, let_go, violation};

fn rows(count: usize, seed: u64) -> Matrix {
    Embeddings { rows: count, dim: 16, seed, ..Embeddings::default() }.generate()
}

fn message(corpus: &str, rows: pb::Rows) -> pb::AppendRequest {
    pb::AppendRequest { corpus: corpus.into(), rows: Some(rows) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corpus_from_creation_to_drop() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let mut corpora = server.corpora().await;
    for name in ["b", "a"] {
        let made = corpora
            .create(pb::CreateRequest { name: name.into(), dim: 16, ..Default::default() })
            .await
            .expect("it is made");
        let made = made.into_inner().corpus.expect("a description");
        assert_eq!((made.name.as_str(), made.dim, made.rows), (name, 16, 0));
    }
    let full = pb::Rows {
        coordinates: vec![0.5; 50],
        galactic_distance: vec![0.1; 10],
        importance: vec![0.2; 10],
        zone: vec![4; 10],
        constellation_id: vec![65535; 10],
        last_accessed_ns: vec![u64::MAX; 10],
        is_protected: vec![true; 10],
        ..labelled(&rows(10, 1))
    };
    let messages = [
        pb::AppendRequest { corpus: "a".into(), rows: None },
        message("", full.clone()),
        message("a", full.clone()),
        message("", pb::Rows::default()),
    ];
    let stored = corpora.append(tokio_stream::iter(messages)).await.expect("rows are added").into_inner();
    assert_eq!((stored.rows, stored.total_rows), (20, 20));
    let more = corpora.append(tokio_stream::once(message("a", full))).await.expect("rows are added").into_inner();
    assert_eq!((more.rows, more.total_rows), (10, 30));
    assert!(more.generation > stored.generation);

    let listed = corpora.list(pb::ListRequest {}).await.expect("a list").into_inner().corpora;
    assert_eq!(listed.iter().map(|corpus| corpus.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let described = corpora.describe(pb::DescribeRequest { name: "a".into() }).await.expect("a description");
    let described = described.into_inner().corpus.expect("a description");
    assert_eq!(described, listed[0]);
    assert_eq!((described.rows, described.generation), (30, more.generation));
    assert_eq!(described.segments.iter().map(|segment| segment.rows).sum::<u64>(), 30);
    assert_eq!(described.segments.len(), more.segments as usize);
    for column in ["memory_id", "title", "embedding", "zone", "is_protected"] {
        assert!(described.columns.iter().any(|name| name == column), "{column} in {:?}", described.columns);
    }
    assert!(described.size_bytes > 30 * 64 && described.created_unix_ns > 0 && described.fault.is_none());

    corpora.drop(pb::DropRequest { name: "a".into() }).await.expect("it is dropped");
    let gone = corpora.describe(pb::DescribeRequest { name: "a".into() }).await.expect_err("it is gone");
    assert_eq!(gone.code(), Code::NotFound);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_without_ids_are_named_by_their_number() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let mut corpora = server.corpora().await;
    corpora
        .create(pb::CreateRequest { name: "plain".into(), dim: 16, ..Default::default() })
        .await
        .expect("it is made");
    let rows = rows(6, 1);
    let plain = || pb::Rows { embeddings: Some(float32(&rows)), ..pb::Rows::default() };
    corpora.append(tokio_stream::iter([message("plain", plain()), message("", plain())])).await.expect("added");
    let request = pb::SearchRequest {
        corpus: "plain".into(),
        queries: Some(float32(&rows.head(1))),
        k: 12,
        with_titles: true,
        ..pb::SearchRequest::default()
    };
    let hits = server.compute().await.search(request).await.expect("an answer").into_inner().results.remove(0);
    assert_eq!(hits.memory_ids, hits.rows.iter().map(|row| u64::from(*row)).collect::<Vec<_>>());
    assert_eq!(hits.titles, vec![""; 12]);
    server.stop().await;
}

/// A wrong row in a later message, a stream that breaks off, a name too many: the rows before are not kept either.
#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_fails_keeps_nothing() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let kept = rows(4, 1);
    server.corpus("kept", &kept).await;
    let mut corpora = server.corpora().await;
    let bad = pb::Rows { embeddings: Some(float32(&poison::nan_in_row(&rows(5, 2), 3))), ..pb::Rows::default() };
    let refused = corpora
        .append(tokio_stream::iter([message("kept", labelled(&rows(5, 2))), message("kept", bad)]))
        .await
        .expect_err("a NaN");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let (field, text) = violation(&refused);
    assert_eq!(field, "rows.embeddings.data[3]");
    assert!(text.contains("NaN") && text.contains("message 2") && text.contains("after 5 rows"), "{text}");

    let other = [message("kept", labelled(&rows(5, 2))), message("other", labelled(&rows(5, 2)))];
    let refused = corpora.append(tokio_stream::iter(other)).await.expect_err("two names");
    assert_eq!(violation(&refused).0, "corpus");

    // Cancelled before the server has the rows, and while it waits for more.
    let mut open = Vec::new();
    for pause in [0, 1, 10, 50, 200] {
        let (send, receive) = tokio::sync::mpsc::channel(4);
        let appending = tokio::spawn({
            let mut corpora = corpora.clone();
            async move { corpora.append(tokio_stream::wrappers::ReceiverStream::new(receive)).await.map(|_| ()) }
        });
        send.send(message("kept", labelled(&rows(5, 2)))).await.expect("it is sent");
        tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
        appending.abort();
        assert!(appending.await.expect_err("it was cancelled").is_cancelled());
        open.push(send);
    }

    let described = corpora.describe(pb::DescribeRequest { name: "kept".into() }).await.expect("a description");
    assert_eq!(described.into_inner().corpus.expect("a description").rows, 4);
    server.stop().await;
    let_go(folder.path()).await;

    let again = Running::start(folder.path(), Wanted::default()).await;
    let described = again.corpora().await.describe(pb::DescribeRequest { name: "kept".into() }).await;
    assert_eq!(described.expect("a description").into_inner().corpus.expect("a description").rows, 4);
    again.stop().await;
    // Not before: the end of the stream, seen before its cancellation, would ask for the commit.
    drop(open);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_columns_are_named() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    server.corpus("rows", &rows(4, 1)).await;
    let mut corpora = server.corpora().await;
    let good = || labelled(&rows(3, 1));
    let cases = [
        ("rows.memory_ids", pb::Rows { memory_ids: vec![1], ..good() }),
        ("rows.titles", pb::Rows { titles: vec!["t".into(); 4], ..good() }),
        ("rows.embeddings.dim", pb::Rows { embeddings: Some(float32(&poison::constant(3, 8, 1.0))), ..good() }),
        ("rows.coordinates", pb::Rows { coordinates: vec![0.0; 14], ..good() }),
        ("rows.coordinates", pb::Rows { coordinates: vec![0.0; 10], ..good() }),
        ("rows.coordinates[1]", pb::Rows { coordinates: [vec![0.0; 7], vec![f64::NAN; 8]].concat(), ..good() }),
        ("rows.galactic_distance[2]", pb::Rows { galactic_distance: vec![0.0, 0.0, f64::INFINITY], ..good() }),
        ("rows.importance", pb::Rows { importance: vec![0.0; 2], ..good() }),
        ("rows.importance[0]", pb::Rows { importance: vec![f64::NAN; 3], ..good() }),
        ("rows.zone[1]", pb::Rows { zone: vec![255, 256, 0], ..good() }),
        ("rows.constellation_id[2]", pb::Rows { constellation_id: vec![0, 65535, 65536], ..good() }),
        ("rows.last_accessed_ns", pb::Rows { last_accessed_ns: vec![0; 1], ..good() }),
        ("rows.is_protected", pb::Rows { is_protected: vec![true; 5], ..good() }),
        ("rows.titles", pb::Rows { embeddings: None, memory_ids: Vec::new(), ..good() }),
    ];
    for (field, rows) in cases {
        let refused = corpora.append(tokio_stream::once(message("rows", rows))).await.expect_err(field);
        assert_eq!(refused.code(), Code::InvalidArgument, "{field}");
        assert_eq!(violation(&refused).0, field, "{refused:?}");
    }
    let nameless = corpora.append(tokio_stream::once(message("", good()))).await.expect_err("no name");
    assert_eq!(violation(&nameless).0, "corpus");
    let silent = corpora.append(tokio_stream::empty::<pb::AppendRequest>()).await.expect_err("no message");
    assert_eq!(violation(&silent).0, "corpus");
    let described = corpora.describe(pb::DescribeRequest { name: "rows".into() }).await.expect("a description");
    assert_eq!(described.into_inner().corpus.expect("a description").rows, 4);
    server.stop().await;
}
