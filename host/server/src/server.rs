//! The server: an address, the services of `megaring.v1`, health and reflection on it, and an orderly end.
//!
//! Draining: health answers NOT_SERVING, streams read no further, new work is UNAVAILABLE, work under way is answered,
//! then connections close. The gate ([`Gate`]) is asked of every call before its message is decoded. Draining takes at
//! most [`ServerConfig::drain_limit`]; what is not done by then ends with the runtime. Messages are limited to
//! [`ServerConfig::max_message_bytes`] either way. Connections whose peer is gone are noticed by HTTP/2 pings.

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
use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::service::Routes;
use tonic_health::server::health_reporter;
use tower::layer::util::{Identity, Stack};

use self::address::Listener;
use self::connections::{CountingLayer, Limits};
use self::health::Teller;
use self::message_memory::MessageMemory;
use self::tls::Certificates;
use crate::followed::{self, Followed as _};
use crate::reply_limit::ReplyLimit;
use crate::service::{Service, Settings};
use crate::tenants::Tenants;

mod address;
mod compression;
mod connections;
mod deadline;
mod gate;
mod health;
mod message_memory;
mod tls;

pub use self::address::Address;
pub(crate) use self::message_memory::Received;
pub use self::tls::TlsConfig;

/// How a server is set up.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// Where to listen.
    pub address: Address,
    /// By which certificates connections are encrypted; `None` leaves them as they are.
    pub tls: Option<TlsConfig>,
    /// Whether others than this machine may connect without encryption, or without being asked who they are.
    pub is_insecure: bool,
    /// Connections at once; further ones wait with the system.
    pub connections: usize,
    /// How long a connection may be without a call; zero is for ever.
    pub idle: Duration,
    /// Largest message in bytes, either way.
    pub max_message_bytes: usize,
    /// Bytes of messages that all calls together have sent and that are not answered yet; room for one message at
    /// least.
    pub message_memory: usize,
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
    /// No encryption, 4,096 connections, ten minutes without a call on one, 64 MiB a message and 1 GiB of them, 16
    /// requests of a stream at once, 10 s to drain, no file for calibrations, a gate without rates and rules, and the
    /// local tenant.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address: address.into(),
            tls: None,
            is_insecure: false,
            connections: 4096,
            idle: Duration::from_secs(600),
            max_message_bytes: 64 << 20,
            message_memory: 1 << 30,
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
    /// Another program listens there.
    #[error(
        "cannot listen on {0}: another program uses this address; stop it, or choose another (port 0 takes a free one)"
    )]
    InUse(Address),
    /// The system refuses the address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: Address,
        /// The system's reason.
        source: io::Error,
    },
    /// The gate cannot go by what it is told to.
    #[error("the gate: {0}")]
    Gate(String),
    /// The file of tenants is none.
    #[error("{0}")]
    Tenants(megaring_core::Error),
    /// The certificates are none.
    #[error("{0}")]
    Tls(megaring_core::Error),
    /// Anybody could call.
    #[error(
        "{0} is an address that others can reach, and without tenants nobody is asked who they are; \
         `megaring tenant add NAME` makes one, and shows its token, and `--insecure` serves everybody"
    )]
    NoTenants(Address),
    /// Anybody on the way could read, and send what they have read.
    #[error(
        "{0} is an address that others can reach, and without certificates what is sent can be read on the way; name \
         some (`--tls-cert` and `--tls-key`), or serve so all the same (`--insecure`)"
    )]
    NoTls(Address),
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
    certificates: Option<Arc<Certificates>>,
    listener: Listener,
    address: Address,
}

/// What is read anew when a server is told to: its tenants and its certificates.
#[derive(Clone)]
pub struct Reload {
    tenants: Arc<Tenants>,
    certificates: Option<Arc<Certificates>>,
}

impl Reload {
    /// Reads the files anew, and tells the log what came of it.
    pub fn reload(&self) {
        if !self.tenants.are_local() || self.tenants.has_changed() {
            followed::reload(&*self.tenants);
        }
        if let Some(certificates) = &self.certificates {
            followed::reload(&**certificates);
        }
    }
}

/// Flow control: enough in flight that a message of some MiB does not wait for round trips.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Flow control of all streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Calls of a connection at once; further ones wait with the client.
const STREAMS: u32 = 1024;
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
    /// Another program listens there, or the system refuses the address; a gate, tenants or certificates that cannot
    /// be; tenants with budgets and no ledger; an address that others can reach, without tenants or certificates.
    pub fn bind(config: ServerConfig, engine: Arc<Engine>) -> Result<Self, ServeError> {
        let has_ledger = engine.recorder().is_some();
        let tenants = Tenants::open(config.tenants.clone(), engine.budgets().clone(), has_ledger);
        let tenants = tenants.map_err(ServeError::Tenants)?;
        if !config.address.is_local() && !config.is_insecure {
            if tenants.are_local() {
                return Err(ServeError::NoTenants(config.address));
            }
            if config.tls.is_none() {
                return Err(ServeError::NoTls(config.address));
            }
        }
        let certificates = config.tls.clone().map(Certificates::open).transpose().map_err(ServeError::Tls)?;
        let listen = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ServeError::InUse(config.address.clone()),
            _ => ServeError::Listen { address: config.address.clone(), source },
        };
        let listener = Listener::bind(&config.address).map_err(listen)?;
        let address = listener.address().map_err(listen)?;
        let keeper = Keeper::new(engine.clone(), config.calibration.clone());
        let gate = GateConfig { max_bytes: config.max_message_bytes as u64, ..config.gate.clone() };
        let gate = Arc::new(Gate::new(engine.board().clone(), gate).map_err(ServeError::Gate)?);
        let (tenants, certificates) = (Arc::new(tenants), certificates.map(Arc::new));
        Ok(Self { config, engine, keeper, gate, tenants, certificates, listener, address })
    }

    /// Where it listens; the port is the real one.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Keeps the calibration.
    #[must_use]
    pub fn keeper(&self) -> &Arc<Keeper> {
        &self.keeper
    }

    /// What is read anew when it is told to.
    #[must_use]
    pub fn reload(&self) -> Reload {
        Reload { tenants: self.tenants.clone(), certificates: self.certificates.clone() }
    }

    /// Serves until `shutdown` resolves, then drains.
    ///
    /// # Errors
    /// A transport that fails while serving.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<Drained, ServeError> {
        let (engine, Reload { tenants, certificates }) = (self.engine.clone(), self.reload());
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
            never = followed::follow(&tenants) => match never {},
            never = async {
                match &certificates {
                    Some(certificates) => followed::follow(certificates).await,
                    None => std::future::pending().await,
                }
            } => match never {},
        }
    }

    async fn serve_routes(
        self,
        routes: Routes,
        teller: &Teller,
        drain: watch::Sender<bool>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<Drained, ServeError> {
        let Self { config, engine, gate, tenants, certificates, listener, address, .. } = self;
        let (close, closed) = oneshot::channel::<()>();
        let requires_ledger = config.requires_ledger;
        let memory = MessageMemory::new(config.message_memory as u64, config.max_message_bytes as u64);
        let layer = gate::GateLayer { gate, tenants, engine: engine.clone(), requires_ledger, memory };
        let limits = Limits { connections: config.connections.max(1), idle: config.idle };
        let incoming = connections::accept(listener, certificates, limits);
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

type Layers = Stack<
    compression::CompressionLayer,
    Stack<gate::GateLayer, Stack<deadline::DeadlineLayer, Stack<CountingLayer, Identity>>>,
>;

fn builder(gate: gate::GateLayer) -> tonic::transport::Server<Layers> {
    tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_max_pending_accept_reset_streams(Some(MOST_PENDING_RESETS))
        // tonic's own default is no limit.
        .http2_max_local_error_reset_streams(Some(MOST_FORCED_RESETS))
        .max_concurrent_streams(Some(STREAMS))
        .layer(CountingLayer)
        .layer(deadline::DeadlineLayer)
        .layer(gate)
        .layer(compression::CompressionLayer)
}
