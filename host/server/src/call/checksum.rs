//! `rpc Checksum`.

use megaring_core::checksum::{Checksum, Checksums};
use megaring_core::texts::Texts;
use megaring_core::{Answered, Error};
use megaring_engine::Outcome;
use megaring_proto::v1 as pb;

use super::{Call, Named, Validated};
use crate::reply::made;
use crate::reply_limit::ReplyLimit;

/// Bytes of a string's checksums in a reply.
const REPLY_BYTES: usize = size_of::<u32>() + size_of::<u64>();

impl Call for pb::ChecksumRequest {
    type Operation = Checksum;
    type Response = pb::ChecksumResponse;

    fn corpus(&self) -> Option<&str> {
        None
    }

    fn backend(&self) -> i32 {
        self.backend
    }

    fn payload_bytes(&self) -> usize {
        self.contents.iter().map(|content| size_of::<u64>() + content.len()).sum()
    }

    fn validate(self, _: Option<Named>, limit: ReplyLimit) -> Result<Validated<Self>, Error> {
        let count = self.contents.len();
        limit.ensure(Checksum::ITEMS, count, 1, REPLY_BYTES)?;
        let mut contents = Texts::default();
        contents.offsets.reserve(count + 1);
        contents.bytes.reserve(self.contents.iter().map(Vec::len).sum());
        self.contents.iter().for_each(|content| contents.push(content));
        let reply = |Outcome { answer, made: how }: Outcome<Vec<Checksums>>, _: &_| {
            Ok(pb::ChecksumResponse {
                crc32c: answer.iter().map(|checksums| checksums.crc32c).collect(),
                xxhash64: answer.iter().map(|checksums| checksums.xxhash64).collect(),
                made: Some(made(how)),
            })
        };
        Ok(Validated { job: Checksum { contents }, reply_bytes: count * REPLY_BYTES, reply: Box::new(reply) })
    }
}
