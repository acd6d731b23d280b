//! Streams both ways: order, pipelining, errors in place, and every way a stream ends.

use megaring_datasets::{Embeddings, Matrix, memories, poison, queries, reference};
use megaring_proto::v1 as pb;
use pb::encode_stream_response::Result as Encoded;
use pb::search_stream_response::Result as Found;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::RpcStatusExt as _;

use crate::common::{Running, Wanted, float32, folder, reason, within_a_minute};
use crate::raw;

fn rows() -> Matrix {
    Embeddings { rows: 500, dim: 16, seed: 5, ..Embeddings::default() }.generate()
}

fn ask(request_id: u64, queries: &Matrix, k: u32) -> pb::SearchStreamRequest {
    let search = pb::SearchRequest { corpus: "rows".into(), queries: Some(float32(queries)), k, ..Default::default() };
    pb::SearchStreamRequest { request_id, search: Some(search) }
}

fn found(reply: pb::SearchStreamResponse) -> pb::SearchResponse {
    match reply.result {
        Some(Found::Response(response)) => response,
        other => panic!("request {} got {other:?}", reply.request_id),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_come_in_order_and_a_bad_request_gets_its_own_error() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let rows = rows();
    server.corpus("rows", &rows).await;
    // Large and small ones in turn, so that later ones are ready first; ids as a client may choose them.
    let batches: Vec<Matrix> = (0..40).map(|n| queries(&rows, if n % 2 == 0 { 300 } else { 1 }, n)).collect();
    let id = |index: usize| (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let bad = [(7, 0), (20, 3), (39, 0)];
    let mut requests: Vec<_> = batches.iter().enumerate().map(|(index, batch)| ask(id(index), batch, 3)).collect();
    requests[7] = ask(id(7), &batches[7], 0);
    requests[20] = ask(id(20), &poison::nan_in_row(&batches[20], 3), 3);
    requests[39].search = None;
    let mut replies =
        server.compute().await.search_stream(tokio_stream::iter(requests)).await.expect("a stream").into_inner();
    for (index, batch) in batches.iter().enumerate() {
        let reply = replies.message().await.expect("the stream goes on").expect("a reply");
        assert_eq!(reply.request_id, id(index));
        if bad.iter().any(|(bad, _)| *bad == index) {
            let Some(Found::Error(error)) = reply.result else { panic!("request {index} is bad") };
            let field = error.get_details_bad_request().map(|bad| bad.field_violations[0].field.clone());
            let expected = match index {
                7 => (Code::InvalidArgument, Some("k".to_owned())),
                20 => (Code::InvalidArgument, Some("queries.data[3]".to_owned())),
                _ => (Code::InvalidArgument, Some("corpus".to_owned())),
            };
            assert_eq!((Code::from(error.code), field), expected);
            continue;
        }
        let expected = reference::search(reference::Metric::Cosine, &batch.values, &rows.values, rows.dim, 3, None);
        let response = found(reply);
        assert_eq!(response.results.len(), expected.len());
        for (hits, expected) in response.results.iter().zip(expected) {
            assert_eq!(hits.rows, expected.iter().map(|hit| hit.row).collect::<Vec<_>>());
        }
    }
    assert_eq!(replies.message().await.expect("a good end"), None);
    server.stop().await;
}

/// The first reply arrives while the sending side is open, and with a bound of one the stream still makes progress.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_a_conversation_under_any_bound() {
    let folder = folder();
    let rows = rows();
    for stream_in_flight in [0, 1, 64] {
        let mut setup = Wanted::default();
        setup.server.stream_in_flight = stream_in_flight;
        let server = Running::start(folder.path(), setup).await;
        if stream_in_flight == 0 {
            server.corpus("rows", &rows).await;
        }
        let (send, receive) = mpsc::channel(100);
        let stream = server.compute().await.search_stream(ReceiverStream::new(receive)).await;
        let mut replies = stream.expect("a stream").into_inner();
        for id in 0..10 {
            send.send(ask(id, &rows.head(1), 1)).await.expect("it is sent");
            let reply = replies.message().await.expect("the stream goes on").expect("a reply");
            assert_eq!((reply.request_id, found(reply).results[0].rows.clone()), (id, vec![0]));
        }
        for id in 0..100 {
            send.send(ask(id, &rows.head(1), 1)).await.expect("it is sent");
        }
        drop(send);
        for id in 0..100 {
            assert_eq!(replies.message().await.expect("the stream goes on").expect("a reply").request_id, id);
        }
        assert_eq!(replies.message().await.expect("a good end"), None);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memories_are_encoded_in_a_stream() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let profile = reference::Profile::whitemagic().expect("the profile");
    let memories = memories(3000, 11).expect("memories");
    let memory = |memory: reference::Memory<'_>| pb::Memory {
        content: memory.content.into(),
        importance: memory.importance,
        access_count: memory.access_count,
        age_days: memory.age_days,
        galactic_distance: memory.galactic_distance,
        garden: memory.garden.into(),
    };
    let all: Vec<pb::Memory> = memories.iter().map(memory).collect();
    let request = |(index, batch): (usize, &[pb::Memory])| pb::EncodeStreamRequest {
        request_id: index as u64,
        encode: Some(pb::EncodeRequest { memories: batch.to_vec(), ..Default::default() }),
    };
    let mut requests: Vec<_> = all.chunks(256).enumerate().map(request).collect();
    let nan = pb::Memory { age_days: f64::NAN, ..pb::Memory::default() };
    requests.insert(5, request((99, &[nan])));
    let mut replies =
        server.compute().await.encode_stream(tokio_stream::iter(requests)).await.expect("a stream").into_inner();
    let (mut zones, mut errors) = (Vec::new(), Vec::new());
    while let Some(reply) = replies.message().await.expect("the stream goes on") {
        match reply.result.expect("a result") {
            Encoded::Response(response) => zones.extend(response.zones),
            Encoded::Error(error) => errors.push((reply.request_id, error.code)),
        }
    }
    assert_eq!(errors, [(99, Code::InvalidArgument as i32)]);
    let expected: Vec<u32> =
        memories.iter().map(|memory| u32::from(reference::encode(&memory, &profile).zone)).collect();
    assert_eq!(zones, expected);
    server.stop().await;
}

/// Reads to the end, and returns the ids of the replies and the status.
async fn to_the_end(mut replies: tonic::Streaming<pb::SearchStreamResponse>) -> (Vec<u64>, Status) {
    let mut ids = Vec::new();
    loop {
        match replies.message().await {
            Ok(Some(reply)) => ids.push(reply.request_id),
            Ok(None) => return (ids, Status::ok("")),
            Err(end) => return (ids, end),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_stream_ends_with_the_drain_after_its_replies() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let rows = rows();
    server.corpus("rows", &rows).await;
    let (send, receive) = mpsc::channel(4);
    let mut replies =
        server.compute().await.search_stream(ReceiverStream::new(receive)).await.expect("a stream").into_inner();
    send.send(ask(1, &rows, 5)).await.expect("it is sent");
    assert_eq!(replies.message().await.expect("the stream goes on").expect("a reply").request_id, 1);
    let drained = server.drain();
    let (ids, end) = within_a_minute("the stream ends", to_the_end(replies)).await;
    assert_eq!(ids, Vec::<u64>::new());
    assert_eq!((end.code(), reason(&end).as_str()), (Code::Unavailable, "DRAINING"));
    assert_eq!(drained.await.expect("no panic"), megaring_server::Drained::Fully);
    drop(send);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_at_its_deadline_and_at_a_message_that_cannot_be_read() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let rows = rows();
    server.corpus("rows", &rows).await;
    let first = raw::framed(&ask(1, &rows.head(1), 1));
    let (code, _) = raw::call(server.address, "Compute/SearchStream", "50m", first.clone(), false).await;
    assert_eq!(code, Code::DeadlineExceeded as i32);
    let then_garbage = [&first[..], &raw::framed_bytes(&[0x12, 0x10, 0x00])].concat();
    let (code, text) = raw::call(server.address, "Compute/SearchStream", "", then_garbage.into(), false).await;
    assert_eq!(code, Code::InvalidArgument as i32, "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_stream_leaves_nothing_under_way() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let rows = Embeddings { rows: 30_000, dim: 64, seed: 2, ..Embeddings::default() }.generate();
    server.corpus("rows", &rows).await;
    let requests: Vec<_> = (0..12).map(|id| ask(id, &rows, 20)).collect();
    let mut compute = server.compute().await.max_encoding_message_size(64 << 20);
    let replies = compute.search_stream(tokio_stream::iter(requests)).await.expect("a stream").into_inner();
    crate::common::eventually("a job is admitted", || server.engine.admission().in_flight() > 0).await;
    drop(replies);
    drop(compute);
    crate::common::eventually("the permits are back", || server.engine.admission().in_flight() == 0).await;
    crate::common::eventually("no slot is outstanding", || server.engine.outstanding() == 0).await;
    assert!(server.engine.metrics().snapshot().jobs_answered < 12);
    server.stop().await;
}
