//! The gate over the wire: every reason with its status, the wait that helps, and words; the board, told of and mapped;
//! and that all calls have a row in the table.

use std::time::Duration;

use megaring_board::{BoardView, BreakerRule};
use megaring_core::gate::{self, Maturity, Reason, TOOLS, Tool, breaker_slot};
use megaring_core::{BackendKind, Opcode};
use megaring_datasets::Matrix;
use megaring_ledger::{Entry, Kind};
use megaring_proto::v1 as pb;
use megaring_ring::event_ring::{Read, Start};
use megaring_server::ServerConfig;
use megaring_simd::gate::{GateConfig, Rate};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::common::{Running, Wanted, end, float32, folder, reason, violation, within_a_minute};

fn guarded(gate: GateConfig) -> Wanted {
    Wanted { server: ServerConfig { gate, ..ServerConfig::new(([127, 0, 0, 1], 0).into()) }, ..Wanted::default() }
}

fn search(corpus: &str) -> pb::SearchRequest {
    let queries = Some(float32(&Matrix::new(1, 2, vec![1.0, 0.5])));
    pb::SearchRequest { corpus: corpus.into(), queries, k: 1, ..Default::default() }
}

async fn start(folder: &tempfile::TempDir, gate: GateConfig) -> Running {
    let server = Running::start(folder.path(), guarded(gate)).await;
    server.corpus("a", &Matrix::new(2, 2, vec![1.0, 0.0, 0.5, 1.0])).await;
    server
}

/// The delay before a retry, which gRPC's own retries are told as well.
fn retry_after(status: &Status) -> Option<Duration> {
    let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let pushback = status.metadata().get("grpc-retry-pushback-ms").and_then(|value| value.to_str().ok()?.parse().ok());
    match (delay, pushback) {
        (Some(delay), Some(pushback)) => assert!(Duration::from_millis(pushback) >= delay, "{delay:?} {pushback}"),
        (None, pushback) => assert!(pushback.is_none(), "never again, but {pushback:?}"),
        (delay, None) => panic!("a delay of {delay:?} that gRPC is not told of"),
    }
    delay
}

#[test]
fn every_call_of_the_api_has_a_row() {
    let described = FileDescriptorSet::decode(megaring_proto::FILE_DESCRIPTOR_SET).expect("it decodes");
    let services =
        described.file.iter().flat_map(|file| file.service.iter().map(move |service| (file.package(), service)));
    let methods = services.filter(|(package, _)| *package == "megaring.v1").flat_map(|(package, service)| {
        service
            .method
            .iter()
            .map(move |method| (format!("{package}.{}/{}", service.name(), method.name()), method.client_streaming()))
    });
    let mut count = 0;
    for (name, is_streaming) in methods {
        let tool = gate::tool_id(&name).unwrap_or_else(|| panic!("{name} has no row in tools.toml"));
        assert_eq!(TOOLS[usize::from(tool)].handler == gate::Handler::Streaming as u8, is_streaming, "{name}");
        count += 1;
    }
    assert_eq!(count, TOOLS.len(), "a row stands for no call");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_come_too_often_are_told_when_to_come_again() {
    let (folder, rate) = (folder(), Rate { per_second: 0.01, burst: 2 });
    let server = start(&folder, GateConfig { rates: vec![("search".into(), rate)], ..GateConfig::default() }).await;
    let mut compute = server.compute().await;
    for _ in 0..2 {
        compute.search(search("a")).await.expect("two may come at once");
    }
    let mut events = server.engine.telemetry().ring().consumer(Start::Latest).expect("a place");
    let refused = compute.search(search("a")).await.expect_err("a third may not");
    let Read::Event(event) = events.try_read() else { panic!("it leaves an event") };
    let (entry, id) = (Entry::from(&event), gate::tool_id("megaring.v1.Compute/Search"));
    assert_eq!((event.kind(), entry.reason, Some(entry.tool)), (Kind::REFUSED.0, Reason::Rate as u8, id));
    assert_eq!((refused.code(), reason(&refused)), (Code::ResourceExhausted, "DENIED_RATE".into()));
    assert!(refused.message().contains("\"search\"") && refused.message().contains("0.01 a second"), "{refused}");
    let delay = retry_after(&refused).expect("waiting helps");
    assert!(delay > Duration::from_secs(60) && delay <= Duration::from_secs(100), "{delay:?}");
    let stream = tokio_stream::once(pb::SearchStreamRequest { request_id: 1, search: Some(search("a")) });
    let refused = compute.search_stream(stream).await.expect_err("nor may a stream of them");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    compute
        .score(pb::ScoreRequest { corpus: "a".into(), queries: search("a").queries, ..Default::default() })
        .await
        .expect("others may");
    assert_eq!(server.engine.metrics().snapshot().jobs_refused, 0, "none came as far as the engine");
    let told =
        server.admin().await.board(pb::BoardRequest::default()).await.expect("it is told").into_inner().message().await;
    let told = told.expect("one comes").expect("one message");
    let limiter = told.rate_limiters.iter().find(|limiter| limiter.name == "search").expect("it counts");
    assert!(limiter.due_in_ns > 100_000_000_000, "{limiter:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_everywhere_is_refused_until_it_may_be_tried() {
    let folder = folder();
    let server = start(&folder, GateConfig::default()).await;
    let mut compute = server.compute().await;
    let board = server.engine.board();
    let slot = breaker_slot(BackendKind::Cpu, Opcode::Search);
    let rule = BreakerRule { failures: 1, first: Duration::from_secs(3600), ..BreakerRule::default() };
    board.breaker(slot).failed(&rule, 0, board.now_ns());
    let refused = compute.search(search("a")).await.expect_err("the only backend fails");
    assert_eq!((refused.code(), reason(&refused)), (Code::Unavailable, "DENIED_BREAKER".into()));
    assert!(refused.message().contains("search on cpu"), "{refused}");
    assert!(retry_after(&refused).expect("waiting helps") > Duration::from_secs(3000));
    let told =
        server.admin().await.board(pb::BoardRequest::default()).await.expect("it is told").into_inner().message().await;
    let told = told.expect("one comes").expect("one message");
    let open: Vec<_> = told.breakers.iter().filter(|breaker| breaker.state() != pb::BreakerState::Closed).collect();
    assert!(matches!(&open[..], [breaker] if breaker.operation == "search" && breaker.failures == 1), "{open:?}");
    // Other operations go on. A success of it ends the wait.
    compute.encode(pb::EncodeRequest::default()).await.expect("encoding is well");
    board.breaker(slot).answered(u64::MAX);
    compute.search(search("a")).await.expect("it is well again");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_governor_refuses_what_its_rules_name() {
    let folder = folder();
    let rules = vec!["budget_pressure < 1: batch, change".parse().expect("a rule")];
    let server = Running::start(folder.path(), guarded(GateConfig { rules, ..GateConfig::default() })).await;
    let mut compute = server.compute().await;
    let mut corpora = server.corpora().await;
    let create = pb::CreateRequest { name: "b".into(), dim: 2, ..Default::default() };
    let refused = corpora.create(create).await.expect_err("no changes now");
    assert_eq!((refused.code(), reason(&refused)), (Code::ResourceExhausted, "DENIED_GOVERNOR".into()));
    assert!(refused.message().contains("change are refused while budget_pressure < 1"), "{refused}");
    assert_eq!(retry_after(&refused), Some(Duration::from_secs(1)));
    corpora.list(pb::ListRequest {}).await.expect("looking is no change");
    let memory = |length| pb::Memory { content: "a".repeat(length), ..Default::default() };
    let encode = |length| pb::EncodeRequest { memories: vec![memory(length)], ..Default::default() };
    compute.encode(encode(10)).await.expect("a single one passes");
    let refused = compute.encode(encode(gate::QUERY_BYTES as usize)).await.expect_err("a long one counts as a batch");
    assert!(refused.message().contains("count as batch"), "{refused}");
    server.stop().await;
}

/// No call of the API is experimental for now, so that the table here says it of one.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_experimental_is_refused_unless_it_is_wanted() {
    let mut tools = TOOLS.to_vec();
    let list = gate::tool_id("megaring.v1.Corpora/List").expect("it has a row");
    tools[usize::from(list)].maturity = Maturity::Experimental as u8;
    let tools: &[Tool] = tools.leak();
    for maturity in [Maturity::Stable, Maturity::Experimental] {
        let folder = folder();
        let server = start(&folder, GateConfig { tools, maturity, ..GateConfig::default() }).await;
        let listed = server.corpora().await.list(pb::ListRequest {}).await;
        if maturity == Maturity::Stable {
            let refused = listed.expect_err("it is experimental");
            assert_eq!((refused.code(), reason(&refused)), (Code::FailedPrecondition, "DENIED_MATURITY".into()));
            assert!(refused.message().contains("`--maturity experimental` lets it in"), "{refused}");
            assert_eq!(retry_after(&refused), None);
            server.compute().await.search(search("a")).await.expect("others are let in");
        } else {
            listed.expect("it is wanted");
        }
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_long_for_its_call_is_refused_before_it_is_read() {
    let folder = folder();
    let server = start(&folder, GateConfig::default()).await;
    let name = "x".repeat(70_000);
    let refused = server.corpora().await.describe(pb::DescribeRequest { name }).await.expect_err("no name is so long");
    assert_eq!((refused.code(), reason(&refused)), (Code::OutOfRange, "DENIED_SIZE".into()));
    assert!(refused.message().contains("70004 bytes, and 65536 are the most"), "{refused}");
    assert_eq!(retry_after(&refused), None);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_board_is_told_of_again_and_again_until_the_server_drains() {
    let folder = folder();
    let server = start(&folder, GateConfig::default()).await;
    let mut admin = server.admin().await;
    let refused = admin.board(pb::BoardRequest { interval_ms: 99 }).await.expect_err("too often");
    assert_eq!(violation(&refused).0, "interval_ms");
    let mut boards = admin.board(pb::BoardRequest { interval_ms: 100 }).await.expect("it begins").into_inner();
    for _ in 0..3 {
        let board = boards.message().await.expect("one comes").expect("it goes on");
        assert!(board.alive && board.pid == u64::from(std::process::id()) && board.health.is_some(), "{board:?}");
        let operations = board.breakers.iter().map(|breaker| breaker.operation.as_str());
        assert!(Opcode::ALL.iter().all(|opcode| operations.clone().any(|operation| operation == opcode.name())));
    }
    // A deadline ends it as well.
    let mut request = Request::new(pb::BoardRequest { interval_ms: 100 });
    request.set_timeout(Duration::from_millis(300));
    let late = match admin.board(request).await {
        Ok(boards) => end(boards.into_inner()).await,
        Err(late) => late,
    };
    assert_eq!(late.code(), Code::DeadlineExceeded);
    let ended = server.drain();
    assert_eq!(end(boards).await.code(), Code::Unavailable);
    ended.await.expect("the server does not panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_may_map_the_board_of_a_server() {
    let folder = folder();
    let path = folder.path().join(".board");
    let wanted = Wanted { board_file: Some(path.clone()), ..Wanted::default() };
    let server = Running::start(folder.path(), wanted).await;
    server.corpus("a", &Matrix::new(2, 2, vec![1.0, 0.0, 0.5, 1.0])).await;
    let view = BoardView::open(&path).expect("it is there");
    let mut compute = server.compute().await;
    // Until what was done shows: health is told some times a second.
    within_a_minute("searches show", async {
        loop {
            compute.search(search("a")).await.expect("it is answered");
            if view.health().is_some_and(|health| health.jobs_per_second > 0.0 && health.p99_seconds > 0.0) {
                break;
            }
        }
    })
    .await;
    assert!(view.is_alive());
    let pressure = view.health().expect("whole").memory_pressure;
    assert!((0.0..=1.0).contains(&pressure) && (pressure > 0.0 || !cfg!(target_os = "linux")), "{pressure}");
    drop(compute);
    server.stop().await;
    within_a_minute("the board ends", async {
        while view.silent_for().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
