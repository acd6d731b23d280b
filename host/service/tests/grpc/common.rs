//! A server in this process, on a free port and a folder of its own, and what the tests say to it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use megaring::{Setup, WgpuConfig};
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_core::search::Search;
use megaring_corpus::{Access, Store};
use megaring_datasets::Matrix;
use megaring_engine::recorder::LedgerConfig;
use megaring_engine::{Engine, Terms};
use megaring_proto::v1 as pb;
use megaring_proto::v1::admin_client::AdminClient;
use megaring_proto::v1::budgets_client::BudgetsClient;
use megaring_proto::v1::compute_client::ComputeClient;
use megaring_proto::v1::corpora_client::CorporaClient;
use megaring_proto::v1::ledger_client::LedgerClient;
use megaring_server::{Drained, Server, ServerConfig};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tonic_types::StatusExt as _;

/// A running server.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) engine: Arc<Engine>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Drained>,
}

/// What a test may want otherwise.
pub(crate) struct Wanted {
    pub(crate) server: ServerConfig,
    pub(crate) tenant_jobs: usize,
    pub(crate) queue: Duration,
    pub(crate) wgpu: Option<WgpuConfig>,
    pub(crate) board_file: Option<std::path::PathBuf>,
    pub(crate) ledger: Option<LedgerConfig>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            server: ServerConfig::new(([127, 0, 0, 1], 0).into()),
            tenant_jobs: 0,
            queue: Duration::ZERO,
            wgpu: None,
            board_file: None,
            ledger: None,
        }
    }
}

impl Running {
    /// Serves the corpora under `folder`.
    pub(crate) async fn start(folder: &std::path::Path, setup: Wanted) -> Self {
        let engine = engine(folder, &setup);
        let server = Server::bind(setup.server, engine.clone()).expect("a free port");
        let address = server.address().network().expect("it is of the network");
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            server.serve(stopped).await.expect("it serves to the end")
        });
        Self { address, engine, stop, serving }
    }

    /// Begins to drain. The server ends by itself; await [`Draining::end`].
    pub(crate) fn drain(self) -> JoinHandle<Drained> {
        drop(self.stop);
        self.serving
    }

    /// Drains and waits for the end.
    pub(crate) async fn stop(self) -> Drained {
        self.drain().await.expect("the server does not panic")
    }

    pub(crate) async fn channel(&self) -> Channel {
        let uri = format!("http://{}", self.address);
        Channel::from_shared(uri).expect("a good address").connect().await.expect("it connects")
    }

    pub(crate) async fn compute(&self) -> ComputeClient<Channel> {
        ComputeClient::new(self.channel().await).max_decoding_message_size(64 << 20)
    }

    /// A client that lets little be sent to it before it reads.
    pub(crate) async fn narrow(&self) -> ComputeClient<Channel> {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).expect("a good address");
        let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
        ComputeClient::new(endpoint.connect().await.expect("it connects"))
    }

    pub(crate) async fn corpora(&self) -> CorporaClient<Channel> {
        CorporaClient::new(self.channel().await)
    }

    pub(crate) async fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel().await)
    }

    pub(crate) async fn ledger(&self) -> LedgerClient<Channel> {
        LedgerClient::new(self.channel().await)
    }

    pub(crate) async fn budgets(&self) -> BudgetsClient<Channel> {
        BudgetsClient::new(self.channel().await)
    }

    /// Makes a corpus of these rows, with ids 1000, 1001, … and titles `row 0`, `row 1`, …
    pub(crate) async fn corpus(&self, name: &str, rows: &Matrix) {
        let mut corpora = self.corpora().await;
        let create = pb::CreateRequest { name: name.into(), dim: rows.dim as u32, ..Default::default() };
        corpora.create(create).await.expect("it is made");
        let message = pb::AppendRequest { corpus: name.into(), rows: Some(labelled(rows)) };
        corpora.append(tokio_stream::once(message)).await.expect("rows are added");
    }
}

/// Makes a corpus of these rows, with the ids and titles of [`labelled`], by as many appends as there are parts of so
/// many rows.
pub(crate) async fn append(server: &Running, name: &str, rows: &Matrix, parts: &[usize]) {
    let mut corpora = server.corpora().await;
    let create = pb::CreateRequest { name: name.into(), dim: rows.dim as u32, ..Default::default() };
    corpora.create(create).await.expect("it is made");
    let mut first = 0;
    for part in parts {
        let values = rows.values[first * rows.dim..(first + part) * rows.dim].to_vec();
        let mut labelled = labelled(&Matrix::new(*part, rows.dim, values));
        labelled.memory_ids.iter_mut().for_each(|id| *id += first as u64);
        let message = pb::AppendRequest { corpus: name.into(), rows: Some(labelled) };
        corpora.append(tokio_stream::once(message)).await.expect("rows are added");
        first += part;
    }
    assert_eq!(first, rows.rows, "every row is in a part");
}

/// An engine over the corpora under `folder`.
pub(crate) fn engine(folder: &std::path::Path, setup: &Wanted) -> Arc<Engine> {
    let store = Store::open(folder, Access::Exclusive).expect("the folder opens");
    let mut config = Setup::new(Profile::parse(DEFAULT).expect("the profile parses"));
    (config.cpu_workers, config.ring_slots, config.arena_bytes) = (2, 64, 64 << 20);
    (config.cuda, config.wgpu) = (None, setup.wgpu.clone());
    (config.engine.tenant_jobs, config.engine.queue) = (setup.tenant_jobs, setup.queue);
    (config.engine.board_file, config.engine.ledger) = (setup.board_file.clone(), setup.ledger.clone());
    config.start(store).expect("the engine starts")
}

/// Waits until a server that has ended holds its folder no longer: what a cancelled call has begun may end later.
pub(crate) async fn let_go(folder: &std::path::Path) {
    eventually("the folder is let go", || Store::open(folder, Access::Exclusive).is_ok()).await;
}

/// Rows with ids 1000, 1001, … and titles `row 0`, `row 1`, …
pub(crate) fn labelled(rows: &Matrix) -> pb::Rows {
    pb::Rows {
        memory_ids: (1000..1000 + rows.rows as u64).collect(),
        titles: (0..rows.rows).map(|row| format!("row {row}")).collect(),
        embeddings: Some(float32(rows)),
        ..pb::Rows::default()
    }
}

/// A folder for one test.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

pub(crate) fn float32(matrix: &Matrix) -> pb::Vectors {
    vectors(pb::Dtype::Float32, matrix.rows, matrix.dim, matrix.to_le_bytes())
}

pub(crate) fn vectors(dtype: pb::Dtype, rows: usize, dim: usize, data: Vec<u8>) -> pb::Vectors {
    pb::Vectors { data: data.into(), dtype: dtype.into(), rows: rows as u32, dim: dim as u32, int8_scale: None }
}

/// The field and the text of a refusal's only violation.
pub(crate) fn violation(status: &Status) -> (String, String) {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    assert_eq!(violations.len(), 1, "one violation in {status:?}");
    (violations[0].field.clone(), violations[0].description.clone())
}

/// The reason in a refusal's `ErrorInfo`.
pub(crate) fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "megaring");
    info.reason.clone()
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    within_a_minute(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// The error by which a stream ends.
pub(crate) async fn end<T>(mut stream: Streaming<T>) -> Status {
    within_a_minute("the stream's end", async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it must say why it ends"),
                Err(end) => return end,
            }
        }
    })
    .await
}

/// Waits for something that a broken server would keep a test waiting for; a minute is more than any working machine
/// takes.
pub(crate) async fn within_a_minute<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// A job of `tenant` that has been admitted and is not let finish: its permit is out until this is dropped.
pub(crate) struct Held(#[expect(dead_code, reason = "held, not looked at")] Pin<Box<dyn Future<Output = ()> + Send>>);

/// Holds a permit by a search of the corpus `rows`.
pub(crate) fn hold(engine: &Arc<Engine>, tenant: &str) -> Held {
    let corpus = engine.store().view("rows").expect("the corpus");
    let (rows, dim) = (2000, corpus.dim());
    let queries = megaring_core::matrix::Matrix { rows, dim, values: vec![1.0; rows * dim] };
    let (metric, k) = (megaring_core::Metric::Dot, corpus.rows());
    let job = Search { corpus, queries: queries.into(), metric, k, threshold: None };
    let terms = Terms { tenant: tenant.into(), ..Terms::default() };
    let engine = engine.clone();
    let mut running: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
        drop(engine.run(job, terms).await);
    });
    // Too much for one poll; nobody polls it again.
    let first = running.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(first.is_pending(), "the job is under way");
    Held(running)
}
