//! Search over gRPC on loopback: one client, one connection, the server in the same process on a runtime of its own.
//! Includes everything: encoding, HTTP/2, validation, the ring, rescoring and decoding. It stands beside what it is
//! made of: a call that does nothing (the health check), and the same search in process.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use megaring_bench::{Bench, queries};
use megaring_core::Metric;
use megaring_core::matrix::Matrix;
use megaring_core::search::Search;
use megaring_engine::Terms;
use megaring_proto::v1::compute_client::ComputeClient;
use megaring_proto::v1::{Dtype, SearchRequest, Vectors};
use megaring_server::{Server, ServerConfig};
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

fn grpc(criterion: &mut Criterion) {
    let bench = Bench::new().expect("a folder and threads");
    let rows = bench.corpus("c", 5_562, 384).expect("room on disk");
    let server = Runtime::new().expect("a runtime");
    let config = ServerConfig::new(([127, 0, 0, 1], 0).into());
    let bound = server.block_on(async { Server::bind(config, bench.engine.clone()) }).expect("a free port");
    let address = bound.address().clone();
    let serving = server.spawn(bound.serve(std::future::pending()));
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let channel = Channel::from_shared(format!("http://{address}")).expect("a good address");
    let channel = client.block_on(channel.connect()).expect("the server listens");
    let (mut health, mut compute) = (HealthClient::new(channel.clone()), ComputeClient::new(channel));
    let mut group = criterion.benchmark_group("grpc");
    group.bench_function("health check", |b| {
        b.iter(|| black_box(client.block_on(health.check(HealthCheckRequest::default())).expect("it serves")));
    });
    for count in [1, 64] {
        let (mut start, name) = (0, format!("{count} queries"));
        group.bench_function(BenchmarkId::new("search 5562x384 in process", &name), |b| {
            b.iter(|| {
                start = (start + 37) % (rows.rows - count + 1);
                let corpus = bench.engine.store().view("c").expect("the corpus is stored");
                let queries = queries(&rows, start, count);
                let job = Search { corpus, queries: queries.into(), metric: Metric::Cosine, k: 10, threshold: None };
                black_box(bench.engine.run_blocking(job, Terms::default()).expect("a good job"));
            });
        });
        group.bench_function(BenchmarkId::new("search 5562x384", &name), |b| {
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
        metric: megaring_proto::v1::Metric::Cosine.into(),
        k: 10,
        ..SearchRequest::default()
    }
}

criterion_group!(benches, grpc);
criterion_main!(benches);
