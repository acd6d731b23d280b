//! What the router would do, told over the wire, and calibrations as streams.

use std::time::Duration;

use megaring_core::operation::Size;
use megaring_core::{BackendKind, Opcode};
use megaring_datasets::poison;
use megaring_engine::calibration::{
    Calibrated, Calibration, Costs, Failed, Fingerprint, Kept, Measurement, Noise, SCHEMA,
};
use megaring_engine::cost::Workload;
use megaring_proto::v1 as pb;
use megaring_proto::v1::admin_client::AdminClient;
use megaring_proto::v1::calibrate_progress::Message;
use megaring_proto::v1::prospect::Outcome;
use megaring_server::reply;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::common::{Running, Wanted, end, folder, reason, violation, within_a_minute};

fn question(operation: pb::Operation) -> pb::ExplainRequest {
    pb::ExplainRequest { operation: operation.into(), rows: 5_562, dim: 384, items: 7, k: 10, ..Default::default() }
}

fn times(prospect: &pb::Prospect) -> &pb::Times {
    match &prospect.outcome {
        Some(Outcome::Times(times)) => times,
        other => panic!("no times: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_is_explained_part_by_part() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let mut admin = server.admin().await;
    let encode = pb::ExplainRequest { text_bytes: 40_000, items: 100, ..Default::default() };
    for (operation, request) in [
        (pb::Operation::Search, question(pb::Operation::Search)),
        (pb::Operation::Search, pb::ExplainRequest { cold: true, ..question(pb::Operation::Search) }),
        (pb::Operation::Score, pb::ExplainRequest { k: 0, ..question(pb::Operation::Score) }),
        (pb::Operation::Nearest, pb::ExplainRequest { dim: 0, ..question(pb::Operation::Nearest) }),
        (pb::Operation::Nearest, pb::ExplainRequest { dim: 5, ..question(pb::Operation::Nearest) }),
        (pb::Operation::Encode, encode),
    ] {
        let request = pb::ExplainRequest { operation: operation.into(), ..request };
        let found = admin.explain(request).await.expect("a good question").into_inner();
        let kinds: Vec<i32> = found.prospects.iter().map(|prospect| prospect.backend).collect();
        assert_eq!(kinds, [pb::Backend::Cpu, pb::Backend::Cuda, pb::Backend::Wgpu].map(i32::from), "{operation:?}");
        let cpu = times(&found.prospects[0]);
        assert_eq!((found.chosen, cpu.basis), (Some(0), pb::Basis::Assumed.into()));
        assert!(cpu.model_ns > 0 && cpu.alone_ns > 0 && cpu.upload_ns == 0, "{cpu:?}");
        assert_eq!(cpu.total_ns, cpu.alone_ns + cpu.wait_ns + cpu.upload_ns);
        assert!(!found.reason.is_empty() && !found.prospects[0].device.is_empty());
        for absent in &found.prospects[1..] {
            let told = matches!(&absent.outcome, Some(Outcome::NotAskedReason(reason)) if reason.contains("off"));
            assert!(told && absent.device.is_empty(), "{absent:?}");
        }
    }
    let forced = pb::ExplainRequest { backend: pb::Backend::Cuda.into(), ..question(pb::Operation::Search) };
    let found = admin.explain(forced).await.expect("a good question").into_inner();
    assert!(found.chosen.is_none() && found.reason.contains("switched off"), "{found:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corpus_stands_for_its_size() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    server.corpus("rows", &poison::constant(300, 8, 1.0)).await;
    let mut admin = server.admin().await;
    for operation in [pb::Operation::Search, pb::Operation::Score] {
        let of_size = pb::ExplainRequest { rows: 300, dim: 8, ..question(operation) };
        let of_corpus = pb::ExplainRequest { corpus: "rows".into(), rows: 0, dim: 0, ..question(operation) };
        let size = admin.explain(of_size).await.expect("a good question").into_inner();
        let corpus = admin.explain(of_corpus).await.expect("a good question").into_inner();
        assert_eq!(times(&size.prospects[0]).model_ns, times(&corpus.prospects[0]).model_ns);
    }
    let nearest = question(pb::Operation::Nearest);
    let of = |name: &str| pb::ExplainRequest { corpus: name.into(), rows: 0, dim: 0, ..nearest.clone() };
    let refused = admin.explain(of("rows")).await.expect_err("it has no coordinates");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "CORPUS_STATE"));
    let refused = admin.explain(of("gone")).await.expect_err("there is none");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "CORPUS_NOT_FOUND"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_question_names_its_field() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    server.corpus("rows", &poison::constant(3, 8, 1.0)).await;
    let mut admin = server.admin().await;
    let search = || question(pb::Operation::Search);
    let of_corpus = || pb::ExplainRequest { corpus: "rows".into(), rows: 0, dim: 0, ..search() };
    let encode = || pb::ExplainRequest {
        operation: pb::Operation::Encode.into(),
        text_bytes: 9,
        items: 1,
        ..Default::default()
    };
    for (request, field) in [
        (pb::ExplainRequest { operation: 0, ..search() }, "operation"),
        (pb::ExplainRequest { operation: 9, ..search() }, "operation"),
        (pb::ExplainRequest { rows: 0, ..search() }, "rows"),
        (pb::ExplainRequest { rows: 1 << 32, ..search() }, "rows"),
        (pb::ExplainRequest { dim: 0, ..search() }, "dim"),
        (pb::ExplainRequest { dim: 32_769, ..search() }, "dim"),
        (pb::ExplainRequest { items: 0, ..search() }, "items"),
        (pb::ExplainRequest { k: 0, ..search() }, "k"),
        (pb::ExplainRequest { backend: 7, ..search() }, "backend"),
        (pb::ExplainRequest { k: 0, ..question(pb::Operation::Nearest) }, "k"),
        (pb::ExplainRequest { dim: 6, ..question(pb::Operation::Nearest) }, "dim"),
        (pb::ExplainRequest { items: 0, ..encode() }, "items"),
        (pb::ExplainRequest { text_bytes: 0, ..encode() }, "text_bytes"),
        (pb::ExplainRequest { corpus: "rows".into(), ..encode() }, "corpus"),
        (pb::ExplainRequest { rows: 3, ..of_corpus() }, "rows"),
        (pb::ExplainRequest { dim: 8, ..of_corpus() }, "dim"),
        (pb::ExplainRequest { cold: true, ..of_corpus() }, "cold"),
    ] {
        let refused = admin.explain(request.clone()).await.expect_err("it is wrong");
        assert_eq!((refused.code(), violation(&refused).0.as_str()), (Code::InvalidArgument, field), "{request:?}");
    }
    admin.explain(of_corpus()).await.expect("the server goes on");
    server.stop().await;
}

async fn first_step(stream: &mut Streaming<pb::CalibrateProgress>) -> pb::CalibrationStep {
    let message = within_a_minute("a step", stream.message()).await.expect("it goes on").expect("a message");
    match message.message {
        Some(Message::Step(step)) => step,
        other => panic!("no step: {other:?}"),
    }
}

/// Calibrates as soon as nobody else does.
async fn next_turn(
    admin: &mut AdminClient<Channel>,
    timeout: Option<Duration>,
) -> Result<Streaming<pb::CalibrateProgress>, Status> {
    within_a_minute("the one before it ends", async {
        loop {
            let mut request = Request::new(pb::CalibrateRequest::default());
            if let Some(timeout) = timeout {
                request.set_timeout(timeout);
            }
            match admin.calibrate(request).await {
                Err(refused) if refused.code() == Code::FailedPrecondition => assert_eq!(reason(&refused), "UNDER_WAY"),
                answer => return answer.map(Response::into_inner),
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_calibrates_at_a_time_and_a_client_that_goes_away_ends_it() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let (mut admin, whole) = (server.admin().await, pb::CalibrateRequest::default());
    let mut stream = admin.calibrate(whole).await.expect("nobody calibrates").into_inner();
    let step = first_step(&mut stream).await;
    assert!(step.done == 0 && step.steps > 10 && step.left_ns.is_none() && !step.what.is_empty(), "{step:?}");
    let refused = admin.calibrate(whole).await.expect_err("one is under way");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "UNDER_WAY"));
    assert!(refused.message().contains("calibration"), "{}", refused.message());
    drop(stream);

    // So does a deadline, where the client stays.
    let late = match next_turn(&mut admin, Some(Duration::from_millis(300))).await {
        Ok(stream) => end(stream).await,
        Err(late) => late,
    };
    assert_eq!(late.code(), Code::DeadlineExceeded);
    let mut again = next_turn(&mut admin, None).await.expect("the late one ends");
    first_step(&mut again).await;

    // And so does a drain.
    let draining = server.drain();
    let end = end(again).await;
    assert_eq!((end.code(), reason(&end).as_str()), (Code::Unavailable, "DRAINING"));
    draining.await.expect("no panic");
}

fn made(kept: Kept) -> Calibrated {
    let (processor, build, setup) = ("p".into(), "b".into(), "s".into());
    let fingerprint = Fingerprint { processor, threads: 1, build, setup, backends: Vec::new() };
    let sample = |items| {
        let size = Size { items, bytes: 800, multiply_adds: 800 * items, candidates: 8 * items };
        Measurement::new(&Workload { opcode: Opcode::Search, size }, (1e3 * items as f64, 0.0))
    };
    let samples = || (1..5).map(sample).collect();
    let cpu = Costs::fitted(BackendKind::Cpu, samples(), Vec::new()).expect("times");
    let wgpu = Costs::fitted(BackendKind::Wgpu, samples(), vec![[1e6, 2e6], [2e6, 4e6]]).expect("times");
    let calibration = Calibration {
        schema: SCHEMA,
        fingerprint,
        made_unix_s: 1,
        took_s: 2.5,
        quick: true,
        backends: vec![cpu, wgpu],
        failed: vec![Failed { backend: "cuda".into(), reason: "it fell".into() }],
        noise: Noise::default(),
        doubts: vec!["it was loud".into()],
    };
    Calibrated { calibration, kept }
}

#[test]
fn a_result_tells_what_was_found_and_what_became_of_it() {
    let result = |kept| match reply::calibrated(made(kept)).message {
        Some(Message::Result(result)) => result,
        other => panic!("no result: {other:?}"),
    };
    let saved = result(Kept::Saved("a/b.json".into()));
    assert_eq!((saved.kept, saved.reason.as_str(), saved.saved_to.as_str()), (true, "", "a/b.json"));
    assert_eq!(Duration::from_nanos(saved.took_ns), Duration::from_millis(2_500));
    assert_eq!((saved.quick, saved.doubts), (true, vec!["it was loud".to_owned()]));
    assert_eq!(saved.failed[0].backend, i32::from(pb::Backend::Cuda));
    let [cpu, wgpu] = &saved.backends[..] else { panic!("{:?}", saved.backends) };
    assert_eq!((cpu.backend, wgpu.backend), (pb::Backend::Cpu.into(), pb::Backend::Wgpu.into()));
    assert_eq!(cpu.operations.len(), 1, "what was measured alone");
    let search = &cpu.operations[0];
    assert!(search.operation == "search" && search.typical_error < 0.01, "{search:?}");
    assert_eq!((cpu.upload_per_byte_ns, wgpu.upload_per_byte_ns > 0.0), (0.0, true));
    let unsaved = result(Kept::Unsaved("full".into()));
    assert_eq!((unsaved.kept, unsaved.reason.as_str(), unsaved.saved_to.as_str()), (true, "full", ""));
    let refused = result(Kept::Refused("loud".into()));
    assert_eq!((refused.kept, refused.reason.as_str(), refused.saved_to.as_str()), (false, "loud", ""));
}
