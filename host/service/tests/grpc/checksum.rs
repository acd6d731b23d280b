//! Checksum over the wire equals the reference; a batch whose reply would be too large is refused.

use megaring_datasets::{memories, reference};
use megaring_proto::v1 as pb;
use tonic::Code;

use crate::common::{Running, Wanted, folder};

#[tokio::test(flavor = "multi_thread")]
async fn checksums_are_those_of_the_reference() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let memories = memories(500, 3).expect("memories");
    let texts = memories.iter().map(|memory| memory.content.as_bytes().to_vec());
    let contents: Vec<Vec<u8>> = [Vec::new(), vec![0xFF; 70]].into_iter().chain(texts).collect();
    let request = pb::ChecksumRequest { contents: contents.clone(), ..Default::default() };
    let response = server.compute().await.checksum(request).await.expect("an answer").into_inner();
    let crc32c: Vec<u32> = contents.iter().map(|content| reference::crc32c(content)).collect();
    let xxhash64: Vec<u64> = contents.iter().map(|content| reference::xxhash64(content)).collect();
    assert_eq!((response.crc32c, response.xxhash64), (crc32c, xxhash64));
    assert!(response.made.is_some_and(|made| made.exact));
    let empty = server.compute().await.checksum(pb::ChecksumRequest::default()).await.expect("an answer").into_inner();
    assert!(empty.crc32c.is_empty() && empty.xxhash64.is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_beyond_the_limit_is_refused() {
    let folder = folder();
    let mut wanted = Wanted::default();
    wanted.server.max_message_bytes = 64 << 10;
    let server = Running::start(folder.path(), wanted).await;
    let request = |count| pb::ChecksumRequest { contents: vec![Vec::new(); count], ..Default::default() };
    let refusal = server.compute().await.checksum(request(20_000)).await.expect_err("240 kB of checksums");
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert!(refusal.message().contains("contents"), "{refusal}");
    server.compute().await.checksum(request(4_000)).await.expect("48 kB of checksums");
    server.stop().await;
}
