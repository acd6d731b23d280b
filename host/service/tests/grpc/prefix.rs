//! `prefix_dim` over the wire: rows count by their first elements, in every call that compares them.

use megaring_datasets::reference::{self, Hit, Metric};
use megaring_datasets::{Embeddings, Matrix};
use megaring_proto::v1 as pb;
use tonic::Code;

use crate::common::{Running, Wanted, float32, folder, violation};

const DIM: usize = 16;
const CUT: usize = 5;

fn rows() -> Matrix {
    Embeddings { rows: 200, dim: DIM, seed: 3, clusters: 9, ..Embeddings::default() }.generate()
}

fn cut(rows: &Matrix) -> Matrix {
    let values = rows.values.chunks_exact(DIM).flat_map(|row| &row[..CUT]).copied().collect();
    Matrix::new(rows.rows, CUT, values)
}

fn expected(queries: &Matrix, rows: &Matrix, k: usize, threshold: Option<f64>) -> Vec<Vec<(u32, f32)>> {
    let found = reference::search(Metric::Cosine, &queries.values, &rows.values, CUT, k, threshold);
    let hit = |hit: &Hit| (hit.row, hit.reported());
    found.iter().map(|hits| hits.iter().map(hit).collect()).collect()
}

fn pairs(hits: &pb::Hits) -> Vec<(u32, f32)> {
    hits.rows.iter().copied().zip(hits.scores.iter().copied()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_count_by_their_first_elements() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let rows = rows();
    server.corpus("rows", &rows).await;
    let (few, queries) = (cut(&rows), cut(&rows).head(4));
    let mut compute = server.compute().await;
    let search = pb::SearchRequest {
        corpus: "rows".into(),
        queries: Some(float32(&queries)),
        k: 7,
        prefix_dim: Some(CUT as u32),
        with_titles: true,
        ..pb::SearchRequest::default()
    };
    let found = compute.search(search.clone()).await.expect("it answers").into_inner();
    assert_eq!(found.results.iter().map(pairs).collect::<Vec<_>>(), expected(&queries, &few, 7, None));
    let titles = |hits: &pb::Hits| hits.rows.iter().map(|row| format!("row {row}")).collect::<Vec<_>>();
    assert!(found.results.iter().all(|hits| hits.titles == titles(hits)));
    let query_rows = Some(pb::RowNumbers { numbers: vec![0, 1, 2, 3] });
    let named = pb::SearchRequest { queries: None, query_rows: query_rows.clone(), ..search.clone() };
    let again = compute.search(named).await.expect("it answers").into_inner();
    assert_eq!(again.results, found.results);

    let filter =
        pb::Filter { r#where: Some(pb::filter::Where::Text("memory_id < 1100".into())), ..pb::Filter::default() };
    // The second time what passes may be gathered.
    for _ in 0..2 {
        let some = pb::SearchRequest { filter: Some(filter.clone()), ..search.clone() };
        let found = compute.search(some).await.expect("it answers").into_inner();
        let want = expected(&queries, &few.head(100), 7, None);
        assert_eq!(found.results.iter().map(pairs).collect::<Vec<_>>(), want);
    }

    let range = pb::SearchRangeRequest {
        corpus: "rows".into(),
        query_rows,
        threshold: Some(0.9),
        prefix_dim: Some(CUT as u32),
        ..pb::SearchRangeRequest::default()
    };
    let mut stream = compute.search_range(range).await.expect("it answers").into_inner();
    let mut ranged = vec![Vec::new(); 4];
    while let Some(message) = stream.message().await.expect("it goes on") {
        message.results.iter().for_each(|part| {
            ranged[part.query as usize].extend(pairs(part.hits.as_ref().expect("hits")));
        });
    }
    assert_eq!(ranged, expected(&queries, &few, 200, Some(0.9)));

    let score = pb::ScoreRequest {
        corpus: "rows".into(),
        queries: Some(float32(&queries)),
        prefix_dim: Some(CUT as u32),
        ..pb::ScoreRequest::default()
    };
    let scores = compute.score(score.clone()).await.expect("it answers").into_inner().scores.expect("a matrix");
    let want = reference::score(Metric::Cosine, &queries.values, &few.values, CUT);
    assert_eq!(scores.data, want.iter().flat_map(|score| score.to_le_bytes()).collect::<Vec<u8>>());
    let some = pb::ScoreRequest { filter: Some(filter), ..score };
    let answer = compute.score(some).await.expect("it answers").into_inner();
    assert_eq!(answer.rows.expect("those scored").numbers, (0..100).collect::<Vec<u32>>());
    let want = reference::score(Metric::Cosine, &queries.values, &few.head(100).values, CUT);
    assert_eq!(answer.scores.expect("a matrix").data, want.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<u8>>());

    for other in ["", "rows"] {
        let join = pb::JoinRequest {
            corpus: "rows".into(),
            other: other.into(),
            k: Some(1),
            prefix_dim: Some(CUT as u32),
            ..pb::JoinRequest::default()
        };
        let mut stream = compute.join(join).await.expect("it answers").into_inner();
        let mut joined = Vec::new();
        while let Some(message) = stream.message().await.expect("it goes on") {
            assert!(message.memory_ids.iter().zip(&message.rows).all(|(id, row)| *id == 1000 + u64::from(*row)));
            joined.extend(message.rows.into_iter().zip(message.neighbours).zip(message.scores));
        }
        let all = expected(&few, &few, 3, None);
        let nearest = |(row, hits): (usize, &Vec<(u32, f32)>)| {
            let (near, score) = *hits.iter().find(|hit| hit.0 != row as u32).expect("another");
            ((row as u32, near), score)
        };
        assert_eq!(joined, all.iter().enumerate().map(nearest).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_that_rows_do_not_have_is_refused() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let rows = rows();
    server.corpus("rows", &rows).await;
    let mut compute = server.compute().await;
    for (prefix_dim, queries, field) in [
        (0, cut(&rows).head(1), "prefix_dim"),
        (DIM as u32 + 1, cut(&rows).head(1), "prefix_dim"),
        (CUT as u32, rows.head(1), "queries.dim"),
    ] {
        let search = pb::SearchRequest {
            corpus: "rows".into(),
            queries: Some(float32(&queries)),
            k: 1,
            prefix_dim: Some(prefix_dim),
            ..pb::SearchRequest::default()
        };
        let status = compute.search(search).await.expect_err("it cannot be");
        assert_eq!((status.code(), violation(&status).0.as_str()), (Code::InvalidArgument, field));
    }
}
