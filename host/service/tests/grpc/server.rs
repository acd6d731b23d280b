//! The port: health, reflection, limits, an orderly end.

use megaring_datasets::poison;
use megaring_engine::Engine;
use megaring_proto::v1 as pb;
use megaring_server::{Drained, ServeError, Server, ServerConfig};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::common::{Running, Wanted, folder, hold, reason};

const SERVICES: [&str; 3] = ["megaring.v1.Compute", "megaring.v1.Corpora", "megaring.v1.Admin"];

fn health_of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

fn is(response: &HealthCheckResponse, expected: ServingStatus) -> bool {
    response.status == expected as i32
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_per_service_and_not_serving_while_draining() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let mut health = HealthClient::new(server.channel().await);
    for service in ["", SERVICES[0], SERVICES[1], SERVICES[2]] {
        let response = health.check(health_of(service)).await.expect("a known service").into_inner();
        assert!(is(&response, ServingStatus::Serving), "{service}");
    }
    let unknown = health.check(health_of("megaring.v1.Other")).await.expect_err("no such service");
    assert_eq!(unknown.code(), Code::NotFound);

    let mut watched = health.watch(health_of(SERVICES[0])).await.expect("a stream").into_inner();
    let first = watched.message().await.expect("the stream goes on").expect("a state");
    assert!(is(&first, ServingStatus::Serving));
    // A job holds the drain open, so that its middle can be looked at.
    server.corpus("rows", &poison::constant(3, 8, 1.0)).await;
    let permit = hold(&server.engine, "");
    let mut compute = server.compute().await;
    let mut corpora = server.corpora().await;
    let drained = server.drain();
    let next = watched.message().await.expect("the stream goes on").expect("a state");
    assert!(is(&next, ServingStatus::NotServing));
    for service in ["", SERVICES[0], SERVICES[1], SERVICES[2]] {
        let response = health.check(health_of(service)).await.expect("a known service").into_inner();
        assert!(is(&response, ServingStatus::NotServing), "{service}");
    }
    let refusals = [
        corpora
            .create(pb::CreateRequest { name: "late".into(), dim: 4, ..Default::default() })
            .await
            .expect_err("it drains"),
        corpora.drop(pb::DropRequest { name: "late".into() }).await.expect_err("it drains"),
        corpora
            .append(tokio_stream::once(pb::AppendRequest { corpus: "late".into(), rows: None }))
            .await
            .expect_err("it drains"),
        compute
            .encode(pb::EncodeRequest { memories: vec![pb::Memory::default()], ..Default::default() })
            .await
            .expect_err("it drains"),
    ];
    for refused in refusals {
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "DRAINING"));
    }
    assert!(!drained.is_finished(), "a job is under way");
    drop(permit);
    assert_eq!(drained.await.expect("no panic"), Drained::Fully);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_takes_too_long_is_cut_off() {
    let folder = folder();
    let mut setup = Wanted::default();
    setup.server.drain_limit = std::time::Duration::from_millis(50);
    let server = Running::start(folder.path(), setup).await;
    server.corpus("rows", &poison::constant(3, 8, 1.0)).await;
    let permit = hold(&server.engine, "");
    assert_eq!(server.stop().await, Drained::CutOff);
    drop(permit);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_said_plainly() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let engine: std::sync::Arc<Engine> = server.engine.clone();
    let refused = Server::bind(ServerConfig::new(server.address), engine).map(|_| ()).expect_err("it is taken");
    assert!(matches!(&refused, ServeError::InUse(address) if address.network() == Some(server.address)));
    let text = refused.to_string();
    assert!(text.contains(&server.address.to_string()) && text.contains("another program"), "{text}");
    server.stop().await;
}

/// The policy is one that gRPC takes, for a service that is there, and heeds what a full server says.
#[tokio::test(flavor = "multi_thread")]
async fn the_service_config_is_a_retry_policy_for_what_may_be_retried() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let answer = server.admin().await.backends(pb::BackendsRequest {}).await.expect("an answer").into_inner();
    let config: serde_json::Value = serde_json::from_str(&answer.service_config).expect("JSON");
    let [method] = config["methodConfig"].as_array().expect("a list").as_slice() else { panic!("one: {config}") };
    assert_eq!(method["name"], serde_json::json!([{ "service": SERVICES[0] }]));
    let policy = &method["retryPolicy"];
    assert!((2..=5).contains(&policy["maxAttempts"].as_u64().expect("a number")), "gRPC takes no more than five");
    assert_eq!(policy["retryableStatusCodes"], serde_json::json!(["RESOURCE_EXHAUSTED", "UNAVAILABLE"]));
    for (name, least) in [("initialBackoff", "0.1s"), ("maxBackoff", "1s")] {
        assert_eq!(policy[name], least);
    }
    assert!(policy["backoffMultiplier"].as_f64().expect("a number") > 1.0);
    server.stop().await;
}

/// Both versions of the protocol name the services and serve the files; error details can be resolved too.
#[tokio::test(flavor = "multi_thread")]
async fn reflection_serves_both_versions() {
    macro_rules! check {
        ($version:ident, $channel:expr) => {{
            use prost::Message as _;
            use tonic_reflection::pb::$version::ServerReflectionRequest;
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            let ask = |message_request| ServerReflectionRequest {
                host: String::new(),
                message_request: Some(message_request),
            };
            let asked = [
                ask(MessageRequest::ListServices(String::new())),
                ask(MessageRequest::FileContainingSymbol("megaring.v1.Compute.SearchStream".into())),
                ask(MessageRequest::FileByFilename("google/rpc/status.proto".into())),
                ask(MessageRequest::FileContainingSymbol("google.rpc.BadRequest".into())),
            ];
            let mut client = ServerReflectionClient::new($channel);
            let replies = client.server_reflection_info(tokio_stream::iter(asked)).await.expect("a stream");
            let mut replies = replies.into_inner();
            let first = replies.message().await.expect("the stream goes on").expect("a reply");
            let Some(MessageResponse::ListServicesResponse(list)) = first.message_response else { panic!("a list") };
            let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
            for service in SERVICES.into_iter().chain(["grpc.health.v1.Health"]) {
                assert!(names.contains(&service), "{service} in {names:?}");
            }
            for file in ["megaring/v1/compute.proto", "google/rpc/status.proto", "error_details.proto"] {
                let reply = replies.message().await.expect("the stream goes on").expect("a reply");
                let Some(MessageResponse::FileDescriptorResponse(found)) = reply.message_response else {
                    panic!("a file: {reply:?}")
                };
                let bytes = found.file_descriptor_proto[0].as_slice();
                let name = prost_types::FileDescriptorProto::decode(bytes).expect("a descriptor").name;
                assert!(name.as_ref().is_some_and(|name| name.ends_with(file)), "{name:?}");
            }
        }};
    }
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    check!(v1, server.channel().await);
    check!(v1alpha, server.channel().await);
    server.stop().await;
}

/// A message near the default limit of 64 MiB goes through in both directions.
#[tokio::test(flavor = "multi_thread")]
async fn large_messages_pass() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let dim = 32_768;
    let rows = megaring_datasets::Matrix::new(4, dim, vec![0.5; 4 * dim]);
    server.corpus("wide", &rows).await;
    let count = 480;
    let queries = megaring_datasets::Matrix::new(count, dim, vec![0.25; count * dim]);
    let request = pb::SearchRequest {
        corpus: "wide".into(),
        queries: Some(crate::common::float32(&queries)),
        k: 4,
        ..Default::default()
    };
    let mut compute = server.compute().await.max_encoding_message_size(64 << 20);
    let response = compute.search(request).await.expect("an answer").into_inner();
    assert_eq!(response.results.len(), count);
    assert!(response.results.iter().all(|hits| hits.rows == [0, 1, 2, 3] && hits.scores == [1.0; 4]));
    server.stop().await;
}
