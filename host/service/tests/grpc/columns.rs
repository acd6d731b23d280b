//! Further columns that come with an append, and rows that are fetched by stretches of their numbers.

use std::path::Path;

use megaring_corpus::Mode;
use megaring_corpus::import::ImportOptions;
use megaring_datasets::{Embeddings, Matrix};
use megaring_proto::v1 as pb;
use megaring_proto::v1::fetch_request::Which;
use megaring_server::ServerConfig;
use tonic::Code;

use crate::common::{Running, Wanted, folder, labelled, violation};

const FURTHER: [&str; 2] = ["tags", "kind"];

fn stretch(corpus: &str, begin: u32, end: Option<u32>, columns: &[&str]) -> pb::FetchRequest {
    let columns = columns.iter().map(|column| (*column).to_owned()).collect();
    pb::FetchRequest { corpus: corpus.into(), which: Some(Which::Range(pb::RowRange { begin, end })), columns }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_come_and_go_as_arrow() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/tests/data/extra.parquet");
    let store = server.engine.store();
    megaring::cli::import_file(store, "from", &file, None, ImportOptions::default(), Mode::Append)
        .expect("a good file");
    let mut corpora = server.corpora().await;
    let fetched = corpora.fetch(stretch("from", 0, None, &FURTHER)).await.expect("columns").into_inner();
    let dim = store.describe("from").expect("it is there").row_type.dim;
    let rows = fetched.rows.expect("rows").numbers.len();
    let all = Embeddings { rows: 2 * rows, dim, ..Embeddings::default() }.generate();
    let part = |from: usize| Matrix::new(rows, dim, all.values[from * dim..(from + rows) * dim].to_vec());
    corpora
        .create(pb::CreateRequest { name: "to".into(), dim: dim as u32, ..Default::default() })
        .await
        .expect("it is made");
    let columns = fetched.columns.to_vec();
    let message = |from| pb::AppendRequest {
        corpus: "to".into(),
        rows: Some(pb::Rows { columns: columns.clone(), ..labelled(&part(from)) }),
    };
    let stored = corpora.append(tokio_stream::iter([message(0), message(rows)])).await.expect("rows are added");
    assert_eq!(stored.into_inner().rows as usize, 2 * rows);
    for begin in [0, rows as u32] {
        let request = stretch("to", begin, Some(begin + rows as u32), &FURTHER);
        let again = corpora.fetch(request).await.expect("columns").into_inner();
        assert_eq!(again.columns, fetched.columns);
    }
    // An append whose messages have other columns is refused as a whole.
    let without = pb::AppendRequest { corpus: "to".into(), rows: Some(labelled(&part(0))) };
    let refused = corpora.append(tokio_stream::iter([message(0), without])).await.expect_err("other columns");
    assert_eq!(violation(&refused).0, "rows.columns");
    for (sent, says) in [(b"nothing".to_vec(), "truncated"), (columns[..200].to_vec(), "truncated")] {
        let rows = pb::Rows { columns: sent, ..labelled(&part(0)) };
        let message = pb::AppendRequest { corpus: "to".into(), rows: Some(rows) };
        let refused = corpora.append(tokio_stream::once(message)).await.expect_err("no columns");
        assert_eq!((refused.code(), violation(&refused).0.as_str()), (Code::InvalidArgument, "rows.columns"));
        assert!(violation(&refused).1.contains(says), "{refused:?}");
    }
    let described = corpora.describe(pb::DescribeRequest { name: "to".into() }).await.expect("a description");
    assert_eq!(described.into_inner().corpus.expect("a description").rows as usize, 2 * rows);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stretches_leave_deleted_rows_out_and_end_where_the_rows_do() {
    let folder = folder();
    let config = ServerConfig { max_message_bytes: 8 << 10, ..Wanted::default().server };
    let server = Running::start(folder.path(), Wanted { server: config, ..Wanted::default() }).await;
    let rows = Embeddings { rows: 100, dim: 16, ..Embeddings::default() }.generate();
    server.corpus("rows", &rows).await;
    let mut corpora = server.corpora().await;
    let delete = pb::DeleteRequest { corpus: "rows".into(), ids: vec![1001, 1099], ..Default::default() };
    corpora.delete(tokio_stream::once(delete)).await.expect("they are deleted");
    let numbers = |begin, end| {
        let mut corpora = corpora.clone();
        async move {
            let fetched = corpora.fetch(stretch("rows", begin, end, &["memory_id"])).await.expect("rows").into_inner();
            fetched.rows.unwrap_or_default().numbers
        }
    };
    assert_eq!(numbers(0, Some(4)).await, [0, 2, 3]);
    assert_eq!(numbers(97, None).await, [97, 98]);
    assert_eq!(numbers(97, Some(u32::MAX)).await, [97, 98]);
    assert!(numbers(1, Some(2)).await.is_empty() && numbers(200, None).await.is_empty());
    assert!(numbers(5, Some(3)).await.is_empty());
    let more = Embeddings { rows: 60, dim: 16, ..Embeddings::default() }.generate();
    let message = pb::AppendRequest { corpus: "rows".into(), rows: Some(labelled(&more)) };
    corpora.append(tokio_stream::once(message)).await.expect("rows are added");
    // That 158 vectors of 64 bytes do not fit 8 KiB shows before any is read; of 126, once the rest is beside them.
    for (end, field) in [(None, "range"), (Some(128), "rows")] {
        let refused = corpora.fetch(stretch("rows", 0, end, &["embedding"])).await.expect_err("too many");
        assert_eq!(violation(&refused).0, field);
    }
    corpora.fetch(stretch("rows", 0, Some(100), &["embedding"])).await.expect("what fits");
    server.stop().await;
}
