//! Compiles the .proto files with protox (no protoc needed) into messages, clients and servers, and writes the
//! descriptor set that reflection serves.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

/// The files that declare services; what they import is found beside them.
const FILES: [&str; 5] = [
    "megaring/v1/compute.proto",
    "megaring/v1/corpora.proto",
    "megaring/v1/admin.proto",
    "megaring/v1/ledger.proto",
    "megaring/v1/budgets.proto",
];

/// Fields that are taken from the message without a copy.
const WITHOUT_COPY: [&str; 5] = [
    ".megaring.v1.Vectors.data",
    ".megaring.v1.EncodeResponse.masks",
    ".megaring.v1.SearchResponse.columns",
    ".megaring.v1.NearestResponse.columns",
    ".megaring.v1.FetchResponse.columns",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=megaring");
    println!("cargo::rerun-if-changed=google");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let mut builder = tonic_prost_build::configure()
        .codec_path("crate::codec::Codec")
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .emit_rerun_if_changed(false);
    for field in WITHOUT_COPY {
        builder = builder.bytes(field);
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}
