//! The server: a port, the services of `megaring.v1`, health and reflection on it, and an orderly end.
//!
//! Draining: health answers NOT_SERVING, streams read no further, new work is UNAVAILABLE, work under way is answered,
//! then connections close. The gate ([`Gate`]) is asked of every call before its message is decoded. Draining takes at
//! most [`ServerConfig::drain_limit`]; what is not done by then ends with the runtime. Messages are limited to
//! [`ServerConfig::max_message_bytes`] either way. Connections whose peer is gone are noticed by HTTP/2 pings.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use megaring_engine::Engine;
use megaring_engine::calibration::Keeper;
use megaring_engine::health::Monitor;
use megaring_proto::v1::admin_server::AdminServer;
use megaring_proto::v1::budgets_server::BudgetsServer;
use megaring_proto::v1::compute_server::ComputeServer;
use megaring_proto::v1::corpora_server::CorporaServer;
use megaring_proto::v1::ledger_server::LedgerServer;
use megaring_simd::gate::{Gate, GateConfig};
use thiserror::Error;
use tokio::sync::{oneshot, watch};
use tokio::time::MissedTickBehavior;
use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic_health::server::health_reporter;
use tower::layer::util::{Identity, Stack};

use self::health::Teller;
use crate::reply_limit::ReplyLimit;
use crate::service::{Service, Settings};
use crate::tenants::Tenants;

mod compression;
mod deadline;
mod gate;
mod health;

/// How a server is set up.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// Largest message in bytes, either way.
    pub max_message_bytes: usize,
    /// Requests of one stream that are worked on at once.
    pub stream_in_flight: usize,
    /// How long draining may take.
    pub drain_limit: Duration,
    /// The file that calibrations are kept in; without one they end with the process.
    pub calibration: Option<PathBuf>,
    /// What the gate before every call goes by. Its own limit on messages is the server's.
    pub gate: GateConfig,
    /// The file of those who may call, should it be there; `None` is the local tenant alone.
    pub tenants: Option<PathBuf>,
    /// Whether calls are refused while the engine's ledger cannot be written.
    pub requires_ledger: bool,
}

impl ServerConfig {
    /// 64 MiB a message, 16 requests of a stream at once, 10 s to drain, no file for calibrations, a gate without rates
    /// and rules, and the local tenant.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            max_message_bytes: 64 << 20,
            stream_in_flight: 16,
            drain_limit: Duration::from_secs(10),
            calibration: None,
            gate: GateConfig::default(),
            tenants: None,
            requires_ledger: false,
        }
    }
}

/// Why a server cannot serve.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Another program has the port.
    #[error(
        "cannot listen on {0}: another program uses this port; stop it, or choose another port (0 takes a free one)"
    )]
    PortInUse(SocketAddr),
    /// The system refuses the address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The gate cannot go by what it is told to.
    #[error("the gate: {0}")]
    Gate(String),
    /// The file of tenants is none.
    #[error("{0}")]
    Tenants(megaring_core::Error),
    /// Anybody could call.
    #[error(
        "{0} is no address of this machine's own: without tenants nobody is asked who they are, and only loopback is \
         listened on; `megaring tenant add NAME` makes one, and shows its token"
    )]
    Open(SocketAddr),
    /// The transport failed while serving.
    #[error("the server failed: {0}")]
    Failed(String),
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// All work was answered and all connections closed.
    Fully,
    /// The time limit passed first. The port is closed; what is left ends with the runtime.
    CutOff,
}

/// A service that takes compressed messages, and compresses for those who send such.
macro_rules! compressing {
    ($service:expr) => {
        $service.accept_compressed(Gzip).accept_compressed(Zstd).send_compressed(Gzip).send_compressed(Zstd)
    };
}

/// A server that listens already: connections wait until [`Server::serve`].
pub struct Server {
    config: ServerConfig,
    engine: Arc<Engine>,
    keeper: Arc<Keeper>,
    gate: Arc<Gate>,
    tenants: Arc<Tenants>,
    incoming: TcpIncoming,
    address: SocketAddr,
}

/// Flow control: enough in flight that a message of some MiB does not wait for round trips.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Flow control of all streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Streams of a connection that its client has reset before they were looked at. Many fit one write of a client that
/// gives up what it has under way; beyond that it is a flood (CVE-2023-44487), which is to end before it takes memory.
const MOST_PENDING_RESETS: usize = 4_096;
/// Streams of a connection, in all its life, that its client made the server reset by frames that do not belong there
/// (CVE-2025-8671). A good client does so where a call ends before it has sent all, and few of its frames are too late.
const MOST_FORCED_RESETS: usize = 16_384;
/// How often a silent peer is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);

impl Server {
    /// Listens. Call it within a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    /// The port is in use, or the system refuses the address; a gate or tenants that cannot be; tenants with budgets
    /// and no ledger; an address that others can reach, and no tenants.
    pub fn bind(config: ServerConfig, engine: Arc<Engine>) -> Result<Self, ServeError> {
        let listen = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ServeError::PortInUse(config.address),
            _ => ServeError::Listen { address: config.address, source },
        };
        let has_ledger = engine.recorder().is_some();
        let tenants = Tenants::open(config.tenants.clone(), engine.budgets().clone(), has_ledger);
        let tenants = tenants.map_err(ServeError::Tenants)?;
        if tenants.are_local() && !config.address.ip().is_loopback() {
            return Err(ServeError::Open(config.address));
        }
        let incoming = TcpIncoming::bind(config.address).map_err(listen)?.with_nodelay(Some(true));
        let address = incoming.local_addr().map_err(listen)?;
        let keeper = Keeper::new(engine.clone(), config.calibration.clone());
        let gate = GateConfig { max_bytes: config.max_message_bytes as u64, ..config.gate.clone() };
        let gate = Arc::new(Gate::new(engine.board().clone(), gate).map_err(ServeError::Gate)?);
        Ok(Self { config, engine, keeper, gate, tenants: Arc::new(tenants), incoming, address })
    }

    /// Where it listens; the port is the real one.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Keeps the calibration.
    #[must_use]
    pub fn keeper(&self) -> &Arc<Keeper> {
        &self.keeper
    }

    /// Those who may call.
    #[must_use]
    pub fn tenants(&self) -> &Arc<Tenants> {
        &self.tenants
    }

    /// Serves until `shutdown` resolves, then drains.
    ///
    /// # Errors
    /// A transport that fails while serving.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<Drained, ServeError> {
        let (engine, tenants) = (self.engine.clone(), self.tenants.clone());
        let monitor = Monitor::new(&engine).map_err(|error| ServeError::Failed(error.to_string()))?;
        let (drain, draining) = watch::channel(false);
        let (health, health_service) = health_reporter();
        let requires_ledger = self.config.requires_ledger;
        let teller = Teller { engine: engine.clone(), health: health.into(), requires_ledger };
        teller.begin().await;
        let routes = self.routes(draining.clone())?.add_service(compressing!(health_service));
        tokio::select! {
            ended = self.serve_routes(routes, &teller, drain, shutdown) => ended,
            never = teller.tell(monitor, draining) => match never {},
            never = follow(&tenants) => match never {},
        }
    }

    async fn serve_routes(
        self,
        routes: Routes,
        teller: &Teller,
        drain: watch::Sender<bool>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<Drained, ServeError> {
        let Self { config, engine, gate, tenants, incoming, address, .. } = self;
        let (close, closed) = oneshot::channel::<()>();
        let requires_ledger = config.requires_ledger;
        let layer = gate::GateLayer { gate, tenants, engine: engine.clone(), requires_ledger };
        let serving = builder(layer).add_routes(routes).serve_with_incoming_shutdown(incoming, async {
            // A sender that is gone means the same as one that sent.
            let _ = closed.await;
        });
        let mut serving = tokio::spawn(serving);
        tracing::debug!(%address, "serving");
        tokio::select! {
            () = shutdown => {}
            ended = &mut serving => return Err(ServeError::Failed(format!("{ended:?}"))),
        }
        tracing::debug!(limit = ?config.drain_limit, "draining");
        // Nobody listens where no stream is open.
        let _ = drain.send(true);
        teller.end().await;
        let drained = tokio::time::timeout(config.drain_limit, async {
            engine.drain().await;
            teller.forget().await;
            drop(close);
            (&mut serving).await
        });
        match drained.await {
            Ok(Ok(Ok(()))) => Ok(Drained::Fully),
            Ok(failed) => Err(ServeError::Failed(format!("{failed:?}"))),
            Err(_) => {
                serving.abort();
                tracing::warn!("the time to drain is over; what is left ends with the process");
                Ok(Drained::CutOff)
            }
        }
    }

    fn routes(&self, draining: watch::Receiver<bool>) -> Result<Routes, ServeError> {
        let ServerConfig { max_message_bytes, stream_in_flight, .. } = self.config;
        let settings = Settings { reply_limit: ReplyLimit(max_message_bytes), stream_in_flight };
        let (engine, keeper, tenants) = (self.engine.clone(), self.keeper.clone(), self.tenants.clone());
        let service = Service::new(engine, keeper, tenants, settings, draining);
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(megaring_proto::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // So that clients can print the details of errors.
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        };
        let unusable = |error: tonic_reflection::server::Error| ServeError::Failed(format!("reflection: {error}"));
        let compute = ComputeServer::new(service.clone()).max_decoding_message_size(max_message_bytes);
        let corpora = CorporaServer::new(service.clone()).max_decoding_message_size(max_message_bytes);
        Ok(Routes::new(compressing!(compute))
            .add_service(compressing!(corpora))
            .add_service(compressing!(AdminServer::new(service.clone())))
            .add_service(compressing!(LedgerServer::new(service.clone())))
            .add_service(compressing!(BudgetsServer::new(service)))
            .add_service(compressing!(reflection().build_v1().map_err(unusable)?))
            .add_service(compressing!(reflection().build_v1alpha().map_err(unusable)?)))
    }
}

type Layers = Stack<compression::CompressionLayer, Stack<gate::GateLayer, Stack<deadline::DeadlineLayer, Identity>>>;

/// How often the file of tenants is looked at.
const LOOKS: Duration = Duration::from_secs(1);

/// Reads the tenants anew whenever their file has changed.
async fn follow(tenants: &Arc<Tenants>) -> Infallible {
    let mut ticks = tokio::time::interval(LOOKS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let tenants = tenants.clone();
        // A disk may take long. A look that panicked is the next one's.
        let _ = tokio::task::spawn_blocking(move || tenants.follow()).await;
    }
}

fn builder(gate: gate::GateLayer) -> tonic::transport::Server<Layers> {
    tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_max_pending_accept_reset_streams(Some(MOST_PENDING_RESETS))
        // tonic's own default is no limit.
        .http2_max_local_error_reset_streams(Some(MOST_FORCED_RESETS))
        .layer(deadline::DeadlineLayer)
        .layer(gate)
        .layer(compression::CompressionLayer)
}
