//! Join and SearchRange under way: what a client that does not read costs, and every way in which a stream ends early.

use std::sync::OnceLock;
use std::time::Duration;

use megaring_datasets::reference::Metric;
use megaring_datasets::{Embeddings, Matrix};
use megaring_engine::Terms;
use megaring_engine::long_search::{Asked, LongSearch, Of};
use megaring_proto::v1 as pb;
use megaring_server::Drained;
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::common::{Running, Wanted, eventually, float32, folder, hold, reason, within_a_minute};
use crate::join::{Pair, Told, expected};

/// Rows that are joined by several searches, each with far more pairs than a narrow client lets come unread.
const ROWS: usize = 8_200;
const K: u32 = 120;

fn rows() -> Matrix {
    Embeddings { rows: ROWS, dim: 8, seed: 5, ..Embeddings::default() }.generate()
}

fn join() -> pb::JoinRequest {
    pb::JoinRequest { corpus: "rows".into(), metric: pb::Metric::Dot.into(), k: Some(K), ..Default::default() }
}

/// The pairs of the rows before this one.
fn truth(end: u32) -> Vec<Pair> {
    static ALL: OnceLock<Vec<Pair>> = OnceLock::new();
    let all = ALL.get_or_init(|| expected(Metric::Dot, (&rows(), None), 0..ROWS as u32, Some(K as usize), None));
    all.iter().copied().filter(|(row, ..)| *row < end).collect()
}

async fn serve(folder: &std::path::Path, setup: Wanted, rows: &Matrix) -> Running {
    let server = Running::start(folder, setup).await;
    server.corpus("rows", rows).await;
    server
}

/// A join of which a narrow client has read the first message.
async fn begun(server: &Running) -> (Streaming<pb::JoinResponse>, Told) {
    let mut stream = server.narrow().await.join(join()).await.expect("a stream").into_inner();
    let mut told = Told::default();
    told.add(&stream.message().await.expect("the stream goes on").expect("a message"));
    (stream, told)
}

fn answered(server: &Running) -> u64 {
    server.engine.metrics().snapshot().jobs_answered
}

/// What a status says of how far its stream came.
fn came_to(end: &Status, name: &str) -> u32 {
    let details = end.get_error_details();
    let info = details.error_info().expect("an ErrorInfo");
    let next = info.metadata.get(name).unwrap_or_else(|| panic!("no {name} in {info:?}"));
    assert!(end.message().ends_with(&format!("{name} is {next}")), "{}", end.message());
    next.parse().expect("a number")
}

/// Pairs of rows that were told of in full.
fn whole(told: &Told) -> Vec<Pair> {
    told.pairs.iter().copied().filter(|(row, ..)| *row < told.next_row).collect()
}

/// While one client does not read, others are answered, and nothing more is searched for the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_has_nothing_done_for_it() {
    let folder = folder();
    let rows = rows();
    let server = serve(folder.path(), Wanted::default(), &rows).await;
    let (mut unread, mut told) = begun(&server).await;
    let first = answered(&server);
    assert_eq!(first, 1, "its first message needs one search");
    let mut other = Told::default();
    other.read(&mut server.compute().await.join(join()).await.expect("a stream").into_inner()).await.expect("an end");
    let whole = answered(&server) - first;
    assert!(whole >= 3, "a join is {whole} searches");
    assert_eq!(server.engine.admission().in_flight(), 0, "nor does it hold a permit");
    told.read(&mut unread).await.expect("an end");
    assert_eq!(answered(&server), 2 * whole, "the rest was searched as it was read");
    let want = truth(ROWS as u32);
    assert!(told.pairs == want && other.pairs == want);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_server_ends_it_and_says_how_far_it_came() {
    let folder = folder();
    let mut setup = Wanted::default();
    setup.server.drain_limit = Duration::from_secs(3_600);
    let server = serve(folder.path(), setup, &rows()).await;
    let (mut stream, mut told) = begun(&server).await;
    let numbers = (0..ROWS as u32).step_by(4).collect();
    let range = pb::SearchRangeRequest {
        corpus: "rows".into(),
        query_rows: Some(pb::RowNumbers { numbers }),
        threshold: Some(-1.0),
        ..Default::default()
    };
    let mut hits = server.narrow().await.search_range(range).await.expect("a stream").into_inner();
    // All that this one still sends is found already.
    let mut compute = server.narrow().await;
    let searched = pb::JoinRequest { end: Some(2_000), ..join() };
    let mut searched = compute.join(searched).await.expect("a stream").into_inner();
    let gate = server.engine.admission().clone();
    let draining = server.drain();
    eventually("it drains", || gate.is_closed()).await;
    let end = within_a_minute("the join ends", told.read(&mut stream)).await.expect_err("the server drains");
    assert_eq!((end.code(), reason(&end).as_str()), (Code::Unavailable, "DRAINING"));
    assert_eq!(came_to(&end, "next_row"), told.next_row);
    assert!((1..ROWS as u32).contains(&told.next_row), "it came to {}", told.next_row);
    let mut queries = 0;
    let end = loop {
        match within_a_minute("the search ends", hits.message()).await {
            Ok(message) => queries += message.expect("no good end").results.iter().filter(|part| part.is_last).count(),
            Err(end) => break end,
        }
    };
    assert_eq!((end.code(), reason(&end).as_str()), (Code::Unavailable, "DRAINING"));
    assert_eq!(came_to(&end, "next_query") as usize, queries);
    let end =
        within_a_minute("it ends, too", Told::default().read(&mut searched)).await.expect_err("the server drains");
    assert_eq!((end.code(), reason(&end).as_str()), (Code::Unavailable, "DRAINING"));
    assert_eq!(draining.await.expect("no panic"), Drained::Fully);
    assert_eq!(whole(&told), truth(told.next_row));
}

/// Where nothing passes, a message tells of each search.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_told_how_far_it_is_where_nothing_is_found() {
    let folder = folder();
    let server = serve(folder.path(), Wanted::default(), &rows()).await;
    let request = pb::JoinRequest { k: None, threshold: Some(1e9), ..join() };
    let mut stream = server.compute().await.join(request).await.expect("a stream").into_inner();
    let mut came_to = Vec::new();
    while let Some(message) = stream.message().await.expect("the stream goes on") {
        assert!(message.rows.is_empty() && message.made.is_some());
        came_to.push(message.next_row);
    }
    assert_eq!(came_to, [4_096, 8_192, ROWS as u32]);
    server.stop().await;
}

/// What was not told when a server drained, another call brings.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_on_where_one_ended() {
    let folder = folder();
    let rows = rows();
    let server = serve(folder.path(), Wanted::default(), &rows).await;
    let (stream, told) = begun(&server).await;
    drop(stream);
    let mut rest = Told { next_row: told.next_row, ..Told::default() };
    let request = pb::JoinRequest { begin: told.next_row, ..join() };
    rest.read(&mut server.compute().await.join(request).await.expect("a stream").into_inner()).await.expect("an end");
    let both = [whole(&told), rest.pairs].concat();
    assert!(both == truth(ROWS as u32) && rest.generations == told.generations);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_it() {
    let folder = folder();
    let rows = rows();
    let server = serve(folder.path(), Wanted::default(), &rows).await;
    // Until a message comes in time, however busy the machine is.
    for timeout in (0..).map(|tries| Duration::from_millis(100 << tries)) {
        let mut request = Request::new(join());
        request.set_timeout(timeout);
        let mut compute = server.narrow().await;
        let mut stream = match compute.join(request).await {
            Ok(stream) => stream.into_inner(),
            // The client's own timer has another word for it.
            Err(late) => {
                assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late:?}");
                continue;
            }
        };
        let mut told = Told::default();
        // The server's time began before its first word, so that it is over then. Nothing is read until that.
        tokio::time::sleep(timeout).await;
        let end = within_a_minute("the stream ends", told.read(&mut stream)).await.expect_err("too late");
        assert_eq!((end.code(), reason(&end).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
        assert_eq!(came_to(&end, "next_row"), told.next_row);
        assert_eq!(whole(&told), truth(told.next_row));
        break;
    }
    server.stop().await;
}

/// Given up amid a search, and between two.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_searches_no_further() {
    let folder = folder();
    let rows = Embeddings { rows: 40_000, dim: 64, seed: 1, ..Embeddings::default() }.generate();
    let server = serve(folder.path(), Wanted::default(), &rows).await;
    let idle = || server.engine.admission().in_flight() == 0 && server.engine.outstanding() == 0;
    let mut compute = server.narrow().await;
    let call = tokio::spawn(async move { compute.join(join()).await.map(|_| ()) });
    eventually("a search is admitted", || server.engine.admission().in_flight() == 1).await;
    call.abort();
    assert!(call.await.expect_err("it was cancelled").is_cancelled());
    eventually("nothing is under way", idle).await;
    assert!(answered(&server) < 10, "ten searches are the whole join");
    let (stream, _) = begun(&server).await;
    let before = answered(&server);
    drop(stream);
    let queries = Some(float32(&rows.head(1)));
    let one = pb::SearchRequest { corpus: "rows".into(), queries, k: 1, ..Default::default() };
    let mut compute = server.compute().await;
    for _ in 0..20 {
        compute.search(one.clone()).await.expect("an answer");
    }
    assert_eq!(answered(&server), before + 20);
    assert!(idle());
    server.stop().await;
}

/// A full server refuses it as it refuses others; one that is begun waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_is_begun_waits_for_room() {
    let folder = folder();
    let rows = rows();
    let server = serve(folder.path(), Wanted { tenant_jobs: 1, ..Wanted::default() }, &rows).await;
    let (mut stream, mut told) = begun(&server).await;
    let held = hold(&server.engine, "");
    let refused = server.compute().await.join(join()).await.expect_err("no permit");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "FULL"));
    assert!(
        refused.get_error_details().retry_info().is_some()
            && refused.metadata().get("grpc-retry-pushback-ms").is_some()
    );
    let before = server.engine.metrics().snapshot().jobs_refused;
    let reading = tokio::spawn(async move {
        let end = told.read(&mut stream).await;
        (end, told)
    });
    eventually("it asks for room again and again", || server.engine.metrics().snapshot().jobs_refused > before + 2)
        .await;
    drop(held);
    let (end, told) = within_a_minute("it goes on", reading).await.expect("no panic");
    end.expect("a good end");
    assert!(told.pairs == truth(ROWS as u32));
    server.stop().await;
}

/// Where the processor alone works, the searches of a join go on where the last one ended, also where more hits are
/// wanted than one piece has room for.
#[tokio::test(flavor = "multi_thread")]
async fn a_join_goes_on_where_it_ended() {
    let folder = folder();
    let server = serve(folder.path(), Wanted::default(), &rows()).await;
    let corpus = server.engine.store().view("rows").expect("the corpus");
    let asked = |k, threshold| {
        let of = Of::Rows { corpus: corpus.clone(), rows: 0..ROWS as u32 };
        Asked { searched: corpus.clone(), of, metric: megaring_core::Metric::Dot, k: Some(k), threshold }
    };
    for k in [10, 650] {
        let mut search = LongSearch::new(asked(k, None), &server.engine).expect("good rows");
        let mut told = 0;
        loop {
            told += std::iter::from_fn(|| search.found()).count();
            let Some(next) = search.search() else { break };
            let joined = next.corpus.clone();
            let megaring_core::search::Queries::Rows(rows) = &next.queries else { panic!("rows are named") };
            let end = rows.last().expect("a row") + 1;
            search.answer(server.engine.run(next, Terms::default()).await.expect("an answer").answer);
            assert_eq!(joined.self_join().expect("it is a join").turn().begin(), end as usize, "k {k}");
        }
        assert_eq!(told, ROWS);
    }
    let mut search = LongSearch::new(asked(10, Some(0.5)), &server.engine).expect("good rows");
    assert!(search.search().expect("a search").corpus.self_join().is_none(), "a threshold leaves too much open");
    server.stop().await;
}
