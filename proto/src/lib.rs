//! The wire: messages, clients and servers of `megaring.v1`, generated from the .proto files beside this crate, and the
//! descriptor set for reflection.
//!
//! The .proto files are the documentation; their comments are on the generated items too. Payload fields
//! (`Vectors.data`, `EncodeResponse.masks`) are [`bytes::Bytes`], so a received message is not copied again.

pub mod codec;

/// Package `megaring.v1`.
#[expect(
    missing_docs,
    reason = "oneof modules and the plumbing of clients and servers have no comments in the .proto files"
)]
pub mod v1 {
    tonic::include_proto!("megaring.v1");
}

pub use tonic_types::Status as RpcStatus;

/// The encoded `google.protobuf.FileDescriptorSet` of all files and what they import, with comments.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
