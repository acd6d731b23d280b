//! Search over gRPC on loopback: one client, one connection, the server in the same process on a runtime of its own.
//! Includes everything: encoding, HTTP/2, validation, the ring, rescoring and decoding.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use megaring_bench::Bench;
use megaring_core::matrix::Matrix;
use megaring_proto::v1::compute_client::ComputeClient;
use megaring_proto::v1::{Dtype, Metric, SearchRequest, Vectors};
use megaring_server::{Server, ServerConfig};
use tokio::runtime::Runtime;
use tonic::transport::Channel;

fn grpc(criterion: &mut Criterion) {
    let bench = Bench::new().expect("a folder and threads");
    let rows = bench.corpus("c", 5_562, 384).expect("room on disk");
    let server = Runtime::new().expect("a runtime");
    let config = ServerConfig::new(([127, 0, 0, 1], 0).into());
    let bound = server.block_on(async { Server::bind(config, bench.engine.clone()) }).expect("a free port");
    let address = bound.address();
    let serving = server.spawn(bound.serve(std::future::pending()));
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let channel = Channel::from_shared(format!("http://{address}")).expect("a good address");
    let mut compute = ComputeClient::new(client.block_on(channel.connect()).expect("the server listens"));
    let mut group = criterion.benchmark_group("grpc");
    for count in [1, 64] {
        let mut start = 0;
        group.bench_function(BenchmarkId::new("search 5562x384", format!("{count} queries")), |b| {
            b.iter(|| {
                start = (start + 37) % (rows.rows - count + 1);
                let request = request(&rows, start, count);
                black_box(client.block_on(compute.search(request)).expect("a good request"));
            });
        });
    }
    group.finish();
    serving.abort();
}

fn request(rows: &Matrix, start: usize, count: usize) -> SearchRequest {
    let values = &rows.values[start * rows.dim..(start + count) * rows.dim];
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let queries = Vectors {
        data: data.into(),
        dtype: Dtype::Float32.into(),
        rows: count as u32,
        dim: rows.dim as u32,
        int8_scale: None,
    };
    SearchRequest {
        corpus: "c".into(),
        queries: Some(queries),
        metric: Metric::Cosine.into(),
        k: 10,
        ..SearchRequest::default()
    }
}

criterion_group!(benches, grpc);
criterion_main!(benches);
