//! Searches over gRPC on loopback: one client, one connection, the server in this process on a runtime of its own.
//! Everything is within the time but the making of the request: encoding, HTTP/2, validation, the ring, rescoring and
//! decoding.

use std::sync::Arc;
use std::time::{Duration, Instant};

use megaring_core::matrix::Matrix;
use megaring_core::{BackendKind, Error};
use megaring_corpus::Rows;
use megaring_datasets::Embeddings;
use megaring_engine::Engine;
use megaring_engine::measure::sampler::{Call, Subject};
use megaring_harness::record::{Residence, Sizes};
use megaring_proto::v1::compute_client::ComputeClient;
use megaring_proto::v1::{self, Dtype, Metric, SearchRequest, Vectors};
use megaring_server::{Server, ServerConfig};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Channel;

use super::session::{Case, Session};
use crate::console::Failure;

/// Queries in a batch.
pub(super) const BATCHES: [usize; 2] = [1, 64];
/// Sizes of the corpus.
const ROWS: usize = 5_562;
const DIM: usize = 384;
const K: u32 = 10;
const NAME: &str = "bench";

pub(super) fn run(session: &mut Session) -> Result<(), Failure> {
    if session.lacks_time() {
        BATCHES.iter().for_each(|_| session.miss());
        return Ok(());
    }
    let engine = session.engine().clone();
    let queries = store(&engine)?;
    let runtime = |mut builder: Builder| {
        let refused = |error| Failure::Work(format!("the system refused threads: {error}"));
        builder.enable_all().build().map_err(refused)
    };
    let (server, client) = (runtime(Builder::new_multi_thread())?, runtime(Builder::new_current_thread())?);
    let compute = serve(&engine, &server, &client)?;
    for items in BATCHES {
        let sizes = Sizes { rows: ROWS as u64, dim: DIM as u64, k: K.into(), items: items as u64 };
        let multiply_adds = (ROWS * DIM * items) as f64;
        let bytes = (ROWS * DIM + items * DIM * size_of::<f32>()) as f64;
        let residence = Residence::Resident;
        let case = Case { suite: "grpc", name: "search over gRPC", residence, sizes, multiply_adds, bytes };
        let entrant = |kind| {
            let (client, queries, mut compute) = (&client, &queries, compute.clone());
            let subject =
                Subject::new(move |call: Call| ask(client, &mut compute, request(kind, queries, call.number, items)));
            (kind, subject)
        };
        session.measure(&case, session.kinds().into_iter().map(entrant).collect());
    }
    server.shutdown_background();
    Ok(())
}

/// Stores the corpus; answers queries of it.
fn store(engine: &Engine) -> Result<megaring_datasets::Matrix, Failure> {
    let rows = Embeddings { rows: ROWS, dim: DIM, ..Embeddings::default() }.generate();
    let queries = megaring_datasets::queries(&rows, 1_024, 7);
    let embeddings = Matrix { rows: ROWS, dim: DIM, values: rows.values };
    engine.store().create(NAME, DIM)?;
    let mut appender = engine.store().append(NAME)?;
    appender.push(Rows { embeddings, ..Rows::default() })?;
    appender.commit()?;
    Ok(queries)
}

fn serve(engine: &Arc<Engine>, server: &Runtime, client: &Runtime) -> Result<ComputeClient<Channel>, Failure> {
    let config = ServerConfig::new(([127, 0, 0, 1], 0).into());
    let bound = server.block_on(async { Server::bind(config, engine.clone()) }).map_err(Failure::work)?;
    let channel = Channel::from_shared(format!("http://{}", bound.address())).map_err(Failure::work)?;
    // It ends with its runtime.
    drop(server.spawn(bound.serve(std::future::pending())));
    Ok(ComputeClient::new(client.block_on(channel.connect()).map_err(Failure::work)?))
}

fn request(kind: BackendKind, queries: &megaring_datasets::Matrix, call: u64, items: usize) -> SearchRequest {
    let first = (call as usize).wrapping_mul(37) % (queries.rows - items + 1);
    let values = &queries.values[first * DIM..(first + items) * DIM];
    let vectors = Vectors {
        data: values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into(),
        dtype: Dtype::Float32.into(),
        rows: items as u32,
        dim: DIM as u32,
        int8_scale: None,
    };
    let backend = match kind {
        BackendKind::Cpu => v1::Backend::Cpu,
        BackendKind::Cuda => v1::Backend::Cuda,
        BackendKind::Wgpu => v1::Backend::Wgpu,
    };
    SearchRequest {
        corpus: NAME.into(),
        queries: Some(vectors),
        metric: Metric::Cosine.into(),
        k: K,
        backend: backend.into(),
        ..SearchRequest::default()
    }
}

fn ask(client: &Runtime, compute: &mut ComputeClient<Channel>, request: SearchRequest) -> Result<Duration, Error> {
    let begun = Instant::now();
    let answer = client.block_on(compute.search(request));
    let took = begun.elapsed();
    answer.map_err(|status| Error::Internal(format!("{:?}: {}", status.code(), status.message())))?;
    Ok(took)
}
