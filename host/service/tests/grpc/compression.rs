//! Compressed messages: taken, answered in kind where a request was compressed, and bounded as others are.

use megaring_datasets::Embeddings;
use megaring_proto::v1 as pb;
use megaring_proto::v1::search_stream_response::Result as Reply;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::common::{Running, Wanted, float32, folder, labelled};
use crate::{packed, raw};

const BOTH: [CompressionEncoding; 2] = [CompressionEncoding::Gzip, CompressionEncoding::Zstd];
/// A small limit for messages.
const LIMIT: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn compressed_calls_are_answered_as_others_are() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let rows = Embeddings { rows: 300, dim: 16, ..Embeddings::default() }.generate();
    server.corpus("rows", &rows).await;
    let request =
        || pb::SearchRequest { corpus: "rows".into(), queries: Some(float32(&rows)), k: 7, ..Default::default() };
    let plain = server.compute().await.search(request()).await.expect("an answer").into_inner();
    for encoding in BOTH {
        let mut compute = server.compute().await.send_compressed(encoding).accept_compressed(encoding);
        let answer = compute.search(request()).await.expect("an answer");
        let compressed = answer.metadata().get("grpc-encoding").map(|name| name.to_str().expect("ASCII").to_owned());
        assert_eq!(compressed, Some(encoding.to_string()));
        assert!(answer.into_inner().results == plain.results, "the answer differs");
        let messages = (1..4).map(|request_id| pb::SearchStreamRequest { request_id, search: Some(request()) });
        let messages = tokio_stream::iter(messages.collect::<Vec<_>>());
        let mut replies = compute.search_stream(messages).await.expect("a stream").into_inner();
        for number in 1..4 {
            let reply = replies.message().await.expect("the stream goes on").expect("a reply");
            let Some(Reply::Response(answer)) = reply.result else { panic!("an answer") };
            assert!(reply.request_id == number && answer.results == plain.results, "the answer differs");
        }
        let mut corpora = server.corpora().await.send_compressed(encoding).accept_compressed(encoding);
        let append = pb::AppendRequest { corpus: "rows".into(), rows: Some(labelled(&rows.head(0))) };
        corpora.append(tokio_stream::once(append)).await.expect("it is taken");
        let mut admin = server.admin().await.send_compressed(encoding).accept_compressed(encoding);
        admin.backends(pb::BackendsRequest {}).await.expect("an answer");
        let mut health = HealthClient::new(server.channel().await).send_compressed(encoding);
        health.check(HealthCheckRequest { service: String::new() }).await.expect("an answer");
        check_reflection(&server, encoding).await;
    }
    server.stop().await;
}

async fn check_reflection(server: &Running, encoding: CompressionEncoding) {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let ask = tokio_stream::once(ServerReflectionRequest { host: String::new(), message_request });
    let mut client =
        ServerReflectionClient::new(server.channel().await).send_compressed(encoding).accept_compressed(encoding);
    let mut replies = client.server_reflection_info(ask).await.expect("a stream").into_inner();
    replies.message().await.expect("the stream goes on").expect("a reply");
}

/// Clients say in every call what they could decompress. That alone is no wish.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_is_compressed_only_where_the_request_was() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let accepts = ("grpc-accept-encoding", "identity, deflate, gzip");
    let list = raw::framed(&pb::ListRequest {});
    for (encoding, expected) in [(None, None), (Some("identity"), None), (Some("gzip"), Some("gzip"))] {
        let headers: Vec<_> = encoding.map(|name| ("grpc-encoding", name)).into_iter().chain([accepts]).collect();
        let reply = raw::post(server.address, "Corpora/List", &headers, list.clone(), true).await;
        assert_eq!((reply.status().0, reply.header("grpc-encoding")), (Code::Ok as i32, expected), "{encoding:?}");
        assert_eq!(reply.data[0], u8::from(expected.is_some()), "{encoding:?}");
    }
    // Whoever cannot decompress gets what it can read.
    let reply = raw::post(server.address, "Corpora/List", &[("grpc-encoding", "gzip")], list, true).await;
    assert_eq!((reply.status().0, reply.header("grpc-encoding"), reply.data[0]), (Code::Ok as i32, None, 0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decompressed_is_refused_plainly() {
    let folder = folder();
    let mut setup = Wanted::default();
    setup.server.max_message_bytes = LIMIT;
    let server = Running::start(folder.path(), setup).await;
    let too_large = [("gzip", packed::gzip(2 * LIMIT)), ("zstd", packed::zstd(2 * LIMIT))];
    let broken = [("gzip", b"no gzip at all".to_vec()), ("zstd", b"no zstd at all".to_vec())];
    for method in ["Compute/Search", "Corpora/Append", "Compute/SearchStream"] {
        let refused = async |encoding: &str, packed: &[u8]| {
            let body = packed::framed(packed).into();
            let reply = raw::post(server.address, method, &[("grpc-encoding", encoding)], body, true).await;
            let (code, message) = reply.status();
            (Code::from(code), message.replace("%20", " "), reply.header("grpc-accept-encoding").map(str::to_owned))
        };
        for (encoding, packed) in &too_large {
            assert!(packed.len() < LIMIT / 10);
            let (code, message, _) = refused(encoding, packed).await;
            assert_eq!(code, Code::OutOfRange, "{method} {encoding}: {message}");
            assert!(message.contains("too large") && message.contains(&LIMIT.to_string()), "{message}");
        }
        for (encoding, packed) in &broken {
            let (code, message, _) = refused(encoding, packed).await;
            assert_eq!(code, Code::InvalidArgument, "{method} {encoding}: {message}");
            assert!(message.contains("cannot be decompressed"), "{message}");
        }
        let (code, message, instead) = refused("deflate", b"whatever").await;
        assert_eq!((code, instead.as_deref()), (Code::Unimplemented, Some("gzip,zstd,identity")), "{message}");
    }
    server.stop().await;
}

/// A status of megaring's own is not taken for one of those.
#[test]
fn other_statuses_stay_as_they_are() {
    let own = Status::with_details(Code::Internal, "Error decompressing: x", b"details"[..].into());
    for status in [own, Status::internal("Error"), Status::cancelled("Error decompressing: x")] {
        let (code, message) = (status.code(), status.message().to_owned());
        let same = megaring_server::error::of_compressed(status);
        assert_eq!((same.code(), same.message()), (code, message.as_str()));
    }
}
