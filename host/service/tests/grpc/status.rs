//! Every row of the error table: the status, and the detail a program acts on.

use std::io::Write as _;
use std::time::Duration;

use megaring::WgpuConfig;
use megaring_core::{BackendKind, Error};
use megaring_datasets::poison;
use megaring_proto::v1 as pb;
use megaring_proto::v1::nearest_request::Among;
use megaring_server::error::{self, MAX_TEXT_BYTES, answered, rpc_status};
use megaring_wgpu::AdapterReport;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::common::{Running, Wanted, eventually, float32, folder, hold, let_go, reason, violation};
use crate::raw;

fn search(corpus: &str) -> pb::SearchRequest {
    let queries = Some(float32(&poison::constant(1, 8, 1.0)));
    pb::SearchRequest { corpus: corpus.into(), queries, k: 1, ..Default::default() }
}

#[test]
fn each_error_has_its_status_and_reason() {
    let retry_after = Duration::from_millis(40);
    let name = || "c".to_owned();
    let cases = [
        (Error::field("f", "d"), Code::InvalidArgument, "INVALID_FIELD"),
        (Error::CorpusNotFound { name: name() }, Code::NotFound, "CORPUS_NOT_FOUND"),
        (Error::CorpusExists { name: name() }, Code::AlreadyExists, "CORPUS_EXISTS"),
        (Error::Exhausted { what: "the ring", retry_after }, Code::ResourceExhausted, "FULL"),
        (Error::DeadlineExceeded { stage: "queued" }, Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        (Error::Cancelled, Code::Cancelled, "CANCELLED"),
        (Error::Draining, Code::Unavailable, "DRAINING"),
        (Error::UnderWay { what: "it" }, Code::FailedPrecondition, "UNDER_WAY"),
        (
            Error::BackendUnavailable { kind: BackendKind::Cuda, reason: "no driver".into() },
            Code::FailedPrecondition,
            "BACKEND_UNAVAILABLE",
        ),
        (Error::Precondition { name: name(), reason: "lacks it".into() }, Code::FailedPrecondition, "CORPUS_STATE"),
        (
            Error::DataLoss { corpus: name(), segment: "s".into(), reason: "crc".into() },
            Code::DataLoss,
            "SEGMENT_DAMAGED",
        ),
        (Error::Storage("disk full".into()), Code::ResourceExhausted, "STORAGE_REFUSED"),
        (Error::Internal("secret".into()), Code::Internal, "INTERNAL_FAULT"),
    ];
    for (error, code, expected) in cases {
        let status = error::status(&error);
        assert_eq!((status.code(), reason(&status).as_str()), (code, expected));
        let embedded = rpc_status(&status);
        assert_eq!((embedded.code, embedded.message.as_str()), (code as i32, status.message()));
        assert!(!embedded.details.is_empty());
        let details = status.get_error_details();
        let has_delay = details.retry_info().and_then(|retry| retry.retry_delay);
        assert_eq!(has_delay, matches!(error, Error::Exhausted { .. }).then_some(retry_after));
        let pushback = status.metadata().get(error::PUSHBACK).map(|value| value.to_str().expect("ASCII"));
        let expected = match error {
            Error::Exhausted { .. } => Some("40"),
            Error::Storage(_) => Some("-1"),
            _ => None,
        };
        assert_eq!(pushback, expected, "{error}");
    }
}

#[test]
fn a_row_stands_in_brackets_and_long_texts_are_cut() {
    let status = error::status(&Error::row("queries.data", 3, "NaN"));
    assert_eq!(violation(&status), ("queries.data[3]".into(), "NaN".into()));
    let status = error::status(&Error::CorpusNotFound { name: "é".repeat(5_000_000) });
    let details = status.get_error_details();
    let named = &details.resource_info().expect("a resource").resource_name;
    for text in [status.message(), named] {
        assert!(text.len() <= MAX_TEXT_BYTES && text.contains("é…é"), "{}", text.len());
    }
}

#[test]
fn a_status_without_details_travels_in_a_stream_too() {
    let bare = rpc_status(&Status::unavailable("away"));
    assert_eq!((bare.code, bare.message.as_str(), bare.details.len()), (14, "away", 0));
}

#[tokio::test]
async fn a_panic_is_internal_with_an_id_and_no_secrets() {
    async fn panics(text: &str) -> Result<(), Error> {
        panic!("{text}")
    }
    let first = answered(panics("secret")).await.expect_err("a panic");
    let second = answered(panics("secret")).await.expect_err("a panic");
    let id = |status: &Status| status.get_error_details().request_info().expect("an id").request_id.clone();
    assert_eq!(first.code(), Code::Internal);
    assert!(first.message().contains(&id(&first)) && !first.message().contains("secret"));
    assert_ne!(id(&first), id(&second));
    assert_eq!(answered(async { Ok(7) }).await.expect("no panic"), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_and_existing_corpora_are_resources() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    server.corpus("there", &poison::constant(3, 8, 1.0)).await;
    let (mut compute, mut corpora) = (server.compute().await, server.corpora().await);
    let append = pb::AppendRequest { corpus: "gone".into(), rows: None };
    let nearest = pb::NearestRequest { among: Some(Among::Corpus("gone".into())), k: 1, ..Default::default() };
    let score = pb::ScoreRequest { corpus: "gone".into(), ..Default::default() };
    let refusals = [
        compute.search(search("gone")).await.expect_err("no corpus"),
        compute.score(score).await.expect_err("no corpus"),
        compute.nearest(nearest).await.expect_err("no corpus"),
        corpora.describe(pb::DescribeRequest { name: "gone".into() }).await.expect_err("no corpus"),
        corpora.drop(pb::DropRequest { name: "gone".into() }).await.expect_err("no corpus"),
        corpora.append(tokio_stream::once(append)).await.expect_err("no corpus"),
    ];
    for refused in refusals {
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "CORPUS_NOT_FOUND"));
        let details = refused.get_error_details();
        let resource = details.resource_info().expect("a resource");
        assert_eq!((resource.resource_type.as_str(), resource.resource_name.as_str()), (error::CORPUS, "gone"));
    }
    let refused = corpora
        .create(pb::CreateRequest { name: "there".into(), dim: 8, ..Default::default() })
        .await
        .expect_err("it exists");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::AlreadyExists, "CORPUS_EXISTS"));
    assert_eq!(refused.get_error_details().resource_info().expect("a resource").resource_name, "there");
    let nearest = pb::NearestRequest { among: Some(Among::Corpus("there".into())), k: 1, ..Default::default() };
    let refused = compute.nearest(nearest).await.expect_err("no coordinates");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "CORPUS_STATE"));
    assert!(refused.message().contains("coordinates"), "{}", refused.message());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_backend_answers_or_says_why_not() {
    forced_backends(Wanted::default(), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_wgpu_backend_answers_and_says_whether_it_is_emulated() {
    let Some(AdapterReport { name, software, .. }) = adapter() else { return };
    let wgpu = WgpuConfig { adapter: Some(name), ..WgpuConfig::default() };
    forced_backends(Wanted { wgpu: Some(wgpu), ..Wanted::default() }, software).await;
}

/// The adapter that tests run on: the one that `MEGARING_WGPU_ADAPTER` names, or the first that has what it takes.
fn adapter() -> Option<AdapterReport> {
    let wish = std::env::var("MEGARING_WGPU_ADAPTER").unwrap_or_default().to_lowercase();
    let mut usable = megaring_wgpu::adapters().into_iter().filter(|adapter| adapter.lacks.is_none());
    let found = usable.find(|adapter| adapter.name.to_lowercase().contains(&wish));
    assert!(wish.is_empty() || found.is_some(), "no adapter is named {wish:?}");
    if found.is_none() {
        // Past the capture of tests that pass: it is to be counted.
        _ = writeln!(
            std::io::stdout(),
            "\nskipped: this machine has no adapter (`megaring doctor` says how to get one)"
        );
    }
    found
}

async fn forced_backends(setup: Wanted, emulated: bool) {
    let folder = folder();
    let with_wgpu = setup.wgpu.is_some();
    let server = Running::start(folder.path(), setup).await;
    server.corpus("rows", &poison::constant(3, 8, 1.0)).await;
    let mut compute = server.compute().await;
    let states = server.admin().await.backends(pb::BackendsRequest {}).await.expect("an answer").into_inner();
    assert_eq!(states.backends.len(), 3);
    assert!(!states.server_version.is_empty());
    for state in states.backends {
        let request = pb::SearchRequest { backend: state.backend, ..search("rows") };
        let result = compute.search(request).await;
        match state.state.clone().expect("a state") {
            pb::backend_state::State::Capabilities(able) => {
                assert!(!able.device.is_empty() && !able.instruction_set.is_empty() && able.lanes > 0);
                assert!(able.operations.contains(&"search".to_owned()) && able.max_bytes > 0 && able.max_queries > 0);
                let is_wgpu = state.backend() == pb::Backend::Wgpu;
                assert_eq!((is_wgpu && !with_wgpu, able.emulated), (false, is_wgpu && emulated));
                let made = result.expect("an answer").into_inner().made.expect("how it was made");
                assert_eq!((made.backend, made.instruction_set), (state.backend, able.instruction_set));
            }
            pb::backend_state::State::UnavailableReason(why) => {
                assert!(state.backend() != pb::Backend::Wgpu || !with_wgpu, "{why}");
                let refused = result.expect_err("it is not there");
                assert_eq!(
                    (refused.code(), reason(&refused).as_str()),
                    (Code::FailedPrecondition, "BACKEND_UNAVAILABLE")
                );
                let details = refused.get_error_details();
                let violations = &details.precondition_failure().expect("a precondition").violations;
                assert_eq!(violations[0].description, why);
            }
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_permit_the_client_is_told_when_to_come_back() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted { tenant_jobs: 1, ..Wanted::default() }).await;
    server.corpus("rows", &poison::constant(3, 8, 1.0)).await;
    let mut compute = server.compute().await;
    let ask = |tenant: &'static str| {
        let mut request = Request::new(search("rows"));
        request.metadata_mut().insert("megaring-tenant", tenant.parse().expect("ASCII"));
        request
    };
    let permit = hold(&server.engine, "busy");
    let refused = compute.search(ask("busy")).await.expect_err("no permit");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "FULL"));
    let details = refused.get_error_details();
    let delay = details.retry_info().and_then(|retry| retry.retry_delay).expect("a delay");
    let pushback = refused.metadata().get(error::PUSHBACK).expect("a trailer").to_str().expect("ASCII");
    let pushback = Duration::from_millis(pushback.parse().expect("a whole number"));
    assert!(delay > Duration::ZERO && (delay..delay + Duration::from_millis(1)).contains(&pushback), "{pushback:?}");
    compute.search(ask("other")).await.expect("another tenant has room");
    drop(permit);
    // It may be rescored just now, which is not interrupted.
    eventually("its place is free", || server.engine.admission().in_flight() == 0).await;
    compute.search(ask("busy")).await.expect("room again");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_may_wait_a_call_is_answered_once_there_is_room() {
    let folder = folder();
    let queue = Duration::from_secs(3_600);
    let server = Running::start(folder.path(), Wanted { tenant_jobs: 2, queue, ..Wanted::default() }).await;
    server.corpus("rows", &poison::constant(3, 8, 1.0)).await;
    let gate = server.engine.admission().clone();
    let compute = server.compute().await;
    let call = || {
        let mut compute = compute.clone();
        tokio::spawn(async move { compute.search(search("rows")).await })
    };
    let held = [hold(&server.engine, ""), hold(&server.engine, "")];
    let (first, gone) = (call(), call());
    eventually("both stand in line", || gate.waiting() == 2).await;
    gone.abort();
    eventually("who goes away leaves the line", || gate.waiting() == 1).await;
    drop(held);
    let made = first.await.expect("no panic").expect("an answer").into_inner().made.expect("how it was made");
    assert!(made.queue_ns > 0);
    eventually("nothing is held", || gate.in_flight() == 0).await;
    let held = [hold(&server.engine, ""), hold(&server.engine, "")];
    let late = call();
    eventually("it stands in line", || gate.waiting() == 1).await;
    let draining = server.drain();
    let refused = late.await.expect("no panic").expect_err("the server drains");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "DRAINING"));
    drop(held);
    assert_eq!(draining.await.expect("no panic"), megaring_server::Drained::Fully);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passed_deadline_is_deadline_exceeded_and_keeps_nothing() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let rows = poison::constant(3, 8, 1.0);
    server.corpus("rows", &rows).await;
    let (code, _) = raw::call(server.address, "Compute/Search", "1n", raw::framed(&search("rows")), true).await;
    assert_eq!(code, Code::DeadlineExceeded as i32);
    // An append whose client never closes its side: only the deadline ends it.
    let message = pb::AppendRequest { corpus: "rows".into(), rows: Some(crate::common::labelled(&rows)) };
    let (code, _) = raw::call(server.address, "Corpora/Append", "50m", raw::framed(&message), false).await;
    assert_eq!(code, Code::DeadlineExceeded as i32);
    // A request that never arrives whole: the deadline runs before the handler does.
    let half = raw::framed(&search("rows")).slice(..20);
    let (code, _) = raw::call(server.address, "Compute/Search", "50m", half, false).await;
    assert_eq!(code, Code::DeadlineExceeded as i32);
    let (code, _) = raw::call(server.address, "Compute/Search", "99999999H", raw::framed(&search("rows")), true).await;
    assert_eq!(code, Code::Ok as i32);
    let described = server.corpora().await.describe(pb::DescribeRequest { name: "rows".into() }).await;
    assert_eq!(described.expect("an answer").into_inner().corpus.expect("a description").rows, 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_segment_is_data_loss_and_the_others_go_on() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    for name in ["damaged", "whole"] {
        server.corpus(name, &poison::constant(64, 8, 1.0)).await;
    }
    let described = server.corpora().await.describe(pb::DescribeRequest { name: "damaged".into() }).await;
    let file = described.expect("an answer").into_inner().corpus.expect("a description").segments.remove(0).file;
    server.stop().await;
    let_go(folder.path()).await;
    let path = folder.path().join("damaged").join(&file);
    let bytes = std::fs::read(&path).expect("the file");
    let mut wrong = bytes;
    let middle = wrong.len() / 2;
    wrong[middle] ^= 1;
    std::fs::write(&path, wrong).expect("it is damaged");

    let server = Running::start(folder.path(), Wanted::default()).await;
    let (mut compute, mut corpora) = (server.compute().await, server.corpora().await);
    let append = pb::AppendRequest { corpus: "damaged".into(), rows: None };
    let refusals = [
        compute.search(search("damaged")).await.expect_err("it is damaged"),
        corpora.append(tokio_stream::once(append)).await.expect_err("it is damaged"),
    ];
    for refused in refusals {
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::DataLoss, "SEGMENT_DAMAGED"));
        let details = refused.get_error_details();
        let resource = details.resource_info().expect("a resource");
        assert_eq!(resource.resource_type, error::SEGMENT);
        assert_eq!(resource.resource_name, format!("damaged/{file}"));
    }
    let described = corpora.describe(pb::DescribeRequest { name: "damaged".into() }).await.expect("an answer");
    let fault = described.into_inner().corpus.expect("a description").fault.expect("a fault");
    assert_eq!(fault.segment, file);
    assert!(!fault.reason.is_empty());
    compute.search(search("whole")).await.expect("the other corpus goes on");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_frees_its_memory_unanswered() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let rows = megaring_datasets::Embeddings { rows: 40_000, dim: 64, seed: 1, ..Default::default() }.generate();
    server.corpus("rows", &rows).await;
    // Far more work than is done between its admission and the cancellation.
    let queries =
        Some(float32(&megaring_datasets::Matrix::new(60_000, 64, rows.values.repeat(2)[..60_000 * 64].to_vec())));
    let request = pb::SearchRequest { corpus: "rows".into(), queries, k: 40, ..Default::default() };
    let mut compute = server.compute().await;
    let call = tokio::spawn(async move { compute.search(request).await.map(|_| ()) });
    eventually("the job is admitted", || server.engine.admission().in_flight() == 1).await;
    call.abort();
    assert!(call.await.expect_err("it was cancelled").is_cancelled());
    eventually("the permit is back", || server.engine.admission().in_flight() == 0).await;
    eventually("no slot is outstanding", || server.engine.outstanding() == 0).await;
    assert_eq!(server.engine.admission().bytes_in_flight(), 0);
    assert_eq!(server.engine.metrics().snapshot().jobs_answered, 0);
    server.stop().await;
}
