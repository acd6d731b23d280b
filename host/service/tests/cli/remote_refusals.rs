//! What a command makes of a server that is full, drains, changes meanwhile or is another: one of the test's own.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use megaring_proto::v1 as pb;
use megaring_proto::v1::compute_server::{Compute, ComputeServer};
use megaring_proto::v1::corpora_server::{Corpora, CorporaServer};
use tokio::runtime::Runtime;
use tonic::codegen::BoxStream;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::common::{Folder, Ran};

/// A server that refuses a number of calls first.
#[derive(Clone)]
struct Fake {
    refusal: Arc<dyn Fn() -> Status + Send + Sync>,
    refusals: usize,
    calls: Arc<AtomicUsize>,
    /// The generations that pages are of, the last one again and again.
    generations: Arc<Mutex<Vec<u64>>>,
}

impl Fake {
    fn new(refusals: usize, refusal: impl Fn() -> Status + Send + Sync + 'static) -> Self {
        let (calls, generations) = (Arc::default(), Arc::new(Mutex::new(vec![1])));
        Self { refusal: Arc::new(refusal), refusals, calls, generations }
    }

    fn pass(&self) -> Result<(), Status> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        if call < self.refusals { Err((self.refusal)()) } else { Ok(()) }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn generation(&self) -> u64 {
        let mut generations = self.generations.lock().unwrap();
        if generations.len() > 1 { generations.remove(0) } else { generations[0] }
    }

    fn serve(&self) -> (Runtime, SocketAddr) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let within = runtime.enter();
        let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = incoming.local_addr().unwrap();
        let services = tonic::transport::Server::builder()
            .add_service(ComputeServer::new(self.clone()))
            .add_service(CorporaServer::new(self.clone()));
        runtime.spawn(services.serve_with_incoming(incoming));
        drop(within);
        (runtime, address)
    }

    fn run(&self, folder: &Folder, args: &[&str]) -> Ran {
        let (runtime, address) = self.serve();
        let ran = folder.run(&[args, &["--server", &address.to_string()]].concat());
        drop(runtime);
        ran
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn unknown<T>() -> Answer<T> {
    Err(Status::unimplemented("not here"))
}

fn made() -> Option<pb::Made> {
    Some(pb::Made { backend: pb::Backend::Cpu.into(), exact: true, ..pb::Made::default() })
}

#[tonic::async_trait]
impl Compute for Fake {
    type SearchStreamStream = BoxStream<pb::SearchStreamResponse>;
    type SearchRangeStream = BoxStream<pb::SearchRangeResponse>;
    type JoinStream = BoxStream<pb::JoinResponse>;
    type EncodeStreamStream = BoxStream<pb::EncodeStreamResponse>;

    async fn search(&self, _: Request<pb::SearchRequest>) -> Answer<pb::SearchResponse> {
        unknown()
    }

    async fn search_stream(
        &self,
        _: Request<Streaming<pb::SearchStreamRequest>>,
    ) -> Answer<BoxStream<pb::SearchStreamResponse>> {
        unknown()
    }

    async fn search_range(&self, _: Request<pb::SearchRangeRequest>) -> Answer<BoxStream<pb::SearchRangeResponse>> {
        unknown()
    }

    /// A join that ends in its middle.
    async fn join(&self, _: Request<pb::JoinRequest>) -> Answer<BoxStream<pb::JoinResponse>> {
        self.pass()?;
        let pair = pb::JoinResponse {
            rows: vec![0],
            memory_ids: vec![7],
            neighbours: vec![1],
            neighbour_ids: vec![8],
            scores: vec![0.5],
            next_row: 1,
            ..pb::JoinResponse::default()
        };
        let messages = vec![Ok(pair), Err(draining())];
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn score(&self, _: Request<pb::ScoreRequest>) -> Answer<pb::ScoreResponse> {
        unknown()
    }

    async fn encode(&self, _: Request<pb::EncodeRequest>) -> Answer<pb::EncodeResponse> {
        unknown()
    }

    async fn encode_stream(
        &self,
        _: Request<Streaming<pb::EncodeStreamRequest>>,
    ) -> Answer<BoxStream<pb::EncodeStreamResponse>> {
        unknown()
    }

    /// Answers that have fewer points than they say.
    async fn nearest(&self, _: Request<pb::NearestRequest>) -> Answer<pb::NearestResponse> {
        Ok(Response::new(pb::NearestResponse::default()))
    }

    async fn checksum(&self, request: Request<pb::ChecksumRequest>) -> Answer<pb::ChecksumResponse> {
        self.pass()?;
        let count = request.into_inner().contents.len();
        let (crc32c, xxhash64) = (vec![0xabc; count], vec![0xdef; count]);
        Ok(Response::new(pb::ChecksumResponse { crc32c, xxhash64, made: made() }))
    }
}

#[tonic::async_trait]
impl Corpora for Fake {
    async fn create(&self, _: Request<pb::CreateRequest>) -> Answer<pb::CreateResponse> {
        unknown()
    }

    async fn append(&self, _: Request<Streaming<pb::AppendRequest>>) -> Answer<pb::AppendResponse> {
        self.pass()?;
        unknown()
    }

    async fn upsert(&self, _: Request<Streaming<pb::AppendRequest>>) -> Answer<pb::AppendResponse> {
        unknown()
    }

    async fn delete(&self, _: Request<Streaming<pb::DeleteRequest>>) -> Answer<pb::DeleteResponse> {
        unknown()
    }

    /// Four rows without columns; their page is of the next generation.
    async fn fetch(&self, _: Request<pb::FetchRequest>) -> Answer<pb::FetchResponse> {
        Ok(Response::new(pb::FetchResponse { generation: self.generation(), ..pb::FetchResponse::default() }))
    }

    async fn describe(&self, request: Request<pb::DescribeRequest>) -> Answer<pb::DescribeResponse> {
        let generation = self.generation();
        let name = request.into_inner().name;
        let corpus = pb::Corpus { name, dim: 2, deleted_rows: 4, generation, ..pb::Corpus::default() };
        Ok(Response::new(pb::DescribeResponse { corpus: Some(corpus) }))
    }

    async fn list(&self, _: Request<pb::ListRequest>) -> Answer<pb::ListResponse> {
        unknown()
    }

    async fn drop(&self, _: Request<pb::DropRequest>) -> Answer<pb::DropResponse> {
        unknown()
    }
}

fn told(code: Code, text: &str, mut details: ErrorDetails) -> Status {
    details.set_error_info("TEST", "megaring", std::collections::HashMap::new());
    Status::with_error_details(code, text, details)
}

fn full() -> Status {
    told(
        Code::ResourceExhausted,
        "the ring is full; try again in 1 ms",
        ErrorDetails::with_retry_info(Some(Duration::from_millis(1))),
    )
}

fn draining() -> Status {
    told(Code::Unavailable, "the service is draining and takes no new work", ErrorDetails::new())
}

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("a", "content").write("rows.jsonl", "{\"embedding\": [1, 2]}\n");
    folder
}

#[test]
fn a_full_server_is_asked_again_some_times_and_no_more() {
    let folder = folder();
    let fake = Fake::new(7, full);
    let ran = fake.run(&folder, &["checksum", "a"]).succeeded();
    assert!(ran.stdout.contains("00000abc  0000000000000def  a"), "{}", ran.stdout);
    assert_eq!(fake.calls(), 8);
    let fake = Fake::new(usize::MAX, full);
    let ran = fake.run(&folder, &["checksum", "a"]).failed(1, &["the ring is full"]);
    assert_eq!((fake.calls(), ran.stdout.as_str()), (11, ""));
    // Neither where it does not say when, nor what was perhaps done.
    let fake = Fake::new(usize::MAX, || told(Code::ResourceExhausted, "no room on the disk", ErrorDetails::new()));
    fake.run(&folder, &["checksum", "a"]).failed(1, &["no room on the disk"]);
    assert_eq!(fake.calls(), 1);
    let fake = Fake::new(usize::MAX, full);
    fake.run(&folder, &["corpus", "append", "rows", "rows.jsonl"]).failed(1, &["the ring is full"]);
    assert_eq!(fake.calls(), 1);
}

#[test]
fn a_server_that_drains_or_is_older_or_sends_half_is_told() {
    let folder = folder();
    let fake = Fake::new(usize::MAX, draining);
    fake.run(&folder, &["checksum", "a"]).failed(1, &["the service is draining"]);
    let fake = Fake::new(0, draining);
    fake.run(&folder, &["corpus", "list"]).failed(1, &["does not know this call", "not here"]);
    fake.run(&folder, &["nearest", "rows", "--query", "0,0,0,0,0"]).failed(1, &["not complete"]);
    // What was told of a long answer before it ended is no answer, and no file.
    let ran = fake.run(&folder, &["join", "rows", "--json"]).failed(1, &["the service is draining"]);
    assert_eq!(ran.records().len(), 1);
    let ran = fake.run(&folder, &["join", "rows", "--out", "pairs.npy"]).failed(1, &["the service is draining"]);
    assert_eq!((ran.stdout.as_str(), folder.path("pairs.npy").exists()), ("", false));
    fake.run(&folder, &["join", "rows", "--threshold", "0.5", "--groups"]).failed(1, &["draining"]);
}

#[test]
fn an_export_is_of_one_version() {
    let folder = folder();
    // Described, read, described, read, and so on.
    let fake = Fake::new(0, full);
    *fake.generations.lock().unwrap() = vec![1, 2, 2, 3, 3];
    let export = ["corpus", "export", "rows", "--out", "rows.npy"];
    let ran = fake.run(&folder, &export).succeeded();
    assert_eq!(ran.stderr.matches("changed while it was read").count(), 2, "{}", ran.stderr);
    assert!(folder.path("rows.npy").exists());
    std::fs::remove_file(folder.path("rows.npy")).unwrap();
    *fake.generations.lock().unwrap() = (1..100).collect();
    fake.run(&folder, &export).failed(1, &["changed each of 5 times", "nothing is written"]);
    let left: Vec<_> = std::fs::read_dir(folder.as_ref()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}
