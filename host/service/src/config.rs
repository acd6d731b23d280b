//! Settings, each from the first place that names it: flag, environment, configuration file, default.
//!
//! The clap command is the one table of all settings. An option `--ring-slots` of a command `a b` has the environment
//! variable `MEGARING_A_B_RING_SLOTS` and the key `ring_slots` in the table `[a.b]` of the file; options of every
//! command (all of [`Settings`]) have no path. [`mod@file`] puts a file's values into the command as its defaults, so
//! nothing else decides precedence. Relative paths are relative to the working directory, wherever they were written.

use std::fmt;
use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use megaring_board::BreakerRule;
use megaring_core::encode::profile::{self, Profile};
use megaring_core::gate::Maturity;
use megaring_core::{BackendKind, Error};
use megaring_corpus::import::unreadable;
use megaring_corpus::{Access, Store};
use megaring_cuda::{CudaMode, CudaScreen};
use megaring_engine::calibration::Keeper;
use megaring_engine::recorder::LedgerConfig;
use megaring_engine::router::Routing;
use megaring_engine::{Engine, EngineConfig};
use megaring_ring::WaitStrategy;
use megaring_server::{Address, ServerConfig, TlsConfig};
use megaring_simd::gate::{GateConfig, Rate, Rule};

use crate::{CudaConfig, Setup, WgpuConfig};

pub mod file;
mod values;

pub(crate) use self::values::{HTTPS, UNIX};
pub use self::values::{duration, size};
use self::values::{listen, log_filter, mode, rate, ring_slots, rule, server};

/// What every command knows. Sizes are bytes and take units (`256MiB`), durations too (`10s`).
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Settings")]
pub struct Settings {
    /// Folder that holds the corpora
    #[arg(long, global = true, env = "MEGARING_DATA", value_name = "FOLDER", default_value = "megaring-data")]
    pub data: PathBuf,
    /// Server that does the work, in the place of this process: its address
    #[arg(long, global = true, env = "MEGARING_SERVER", value_name = "ADDRESS", value_parser = server, help = SERVER_HELP)]
    pub server: Option<String>,
    /// Address that the server listens on, such as localhost:7272 or unix:/run/megaring.sock; port 0 takes a free one
    #[arg(long, global = true, env = "MEGARING_LISTEN", value_name = "ADDRESS", default_value = LISTEN, value_parser = listen)]
    pub listen: String,
    /// Permissions of a Unix socket that is listened on, in octal digits
    #[arg(long, global = true, env = "MEGARING_SOCKET_MODE", value_name = "MODE", default_value = "600", value_parser = mode)]
    pub socket_mode: u32,
    /// Certificate in PEM, with those up to the authority: a server's, by which it encrypts; a client's, which some
    /// servers ask for
    #[arg(long, global = true, env = "MEGARING_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key in PEM
    #[arg(long, global = true, env = "MEGARING_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Certificates in PEM of authorities: a server lets in only clients with a certificate of theirs, a client trusts
    /// only servers with one [default: no client is asked; the system's authorities]
    #[arg(long, global = true, env = "MEGARING_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Let others than this machine connect without encryption, and without tenants
    #[arg(long, global = true, env = "MEGARING_INSECURE")]
    pub insecure: bool,
    /// Connections that a server has at once; further ones wait
    #[arg(long, global = true, env = "MEGARING_CONNECTIONS", value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,
    /// How long a connection may be without a call before a server closes it; 0s is for ever
    #[arg(long, global = true, env = "MEGARING_IDLE_TIMEOUT", value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub idle_timeout: Duration,
    /// CPU worker threads; 0 is one for each processor
    #[arg(long, global = true, env = "MEGARING_CPU_WORKERS", value_name = "N", default_value_t = 0)]
    pub cpu_workers: usize,
    /// How idle threads wait: busy-spin, yield, hybrid-spin:50us or park
    #[arg(long, global = true, env = "MEGARING_WAIT", value_name = "HOW", default_value_t = WaitStrategy::default())]
    pub wait: WaitStrategy,
    /// Submission slots of a ring, a power of two
    #[arg(long, global = true, env = "MEGARING_RING_SLOTS", value_name = "N", default_value = "256", value_parser = ring_slots)]
    pub ring_slots: usize,
    /// Bytes of a ring's arena; touched only as far as they are used
    #[arg(long, global = true, env = "MEGARING_ARENA_BYTES", value_name = "SIZE", default_value = "256MiB", value_parser = size)]
    pub arena_bytes: usize,
    /// Largest message that the server takes or sends
    #[arg(long, global = true, env = "MEGARING_MESSAGE_LIMIT", value_name = "SIZE", default_value = "64MiB", value_parser = size)]
    pub message_limit: usize,
    /// Most bytes of messages that the server has received and not yet answered; room for one at least
    #[arg(long, global = true, env = "MEGARING_MESSAGE_MEMORY", value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    pub message_memory: usize,
    /// Requests of one stream that are worked on at once
    #[arg(long, global = true, env = "MEGARING_STREAM_IN_FLIGHT", value_name = "N", default_value_t = 16)]
    pub stream_in_flight: usize,
    /// Jobs of one tenant that may be in flight; 0 is no limit of its own
    #[arg(long, global = true, env = "MEGARING_TENANT_JOBS", value_name = "N", default_value_t = 0)]
    pub tenant_jobs: usize,
    /// How long a call may wait for room before it is refused, where too much is in flight; 0 refuses it at once
    #[arg(long, global = true, env = "MEGARING_QUEUE", value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub queue: Duration,
    /// How long a small search may wait to be batched with others; 0 disables batching
    #[arg(long, global = true, env = "MEGARING_GATHER", value_name = "TIME", default_value = "200us", value_parser = duration)]
    pub gather: Duration,
    /// Instruction set of the CPU kernels: baseline, avx2, avx512 or neon [default: the best of this machine]
    #[arg(long, global = true, env = "MEGARING_ISA", value_name = "NAME")]
    pub isa: Option<String>,
    /// Whether to use an NVIDIA GPU: auto, where there is what it needs, or off
    #[arg(long, global = true, env = "MEGARING_CUDA", value_name = "WHEN", default_value_t = GpuUse::Auto)]
    pub cuda: GpuUse,
    /// How the GPU's kernel is brought to work: persistent, launch or graph
    #[arg(long, global = true, env = "MEGARING_CUDA_MODE", value_name = "MODE", default_value_t = CudaMode::default())]
    pub cuda_mode: CudaMode,
    /// Number of the GPU, as the driver counts those that it shows
    #[arg(long, global = true, env = "MEGARING_CUDA_DEVICE", value_name = "N", default_value_t = 0)]
    pub cuda_device: usize,
    /// Most device memory that corpora may take [default: three quarters of what is free]
    #[arg(long, global = true, env = "MEGARING_CUDA_MEMORY", value_name = "SIZE", value_parser = size)]
    pub cuda_memory: Option<usize>,
    /// What the GPU screens with: int8 (a quarter of the memory) or float32 (fewer rows left where rows lie close);
    /// answers are the same
    #[arg(long, global = true, env = "MEGARING_CUDA_SCREEN", value_name = "TYPE", default_value_t = CudaScreen::default())]
    pub cuda_screen: CudaScreen,
    /// Whether to use a GPU through Vulkan, Metal or DX12: auto, where there is one that CUDA does not have already, or
    /// off
    #[arg(long, global = true, env = "MEGARING_WGPU", value_name = "WHEN", default_value_t = GpuUse::Auto)]
    pub wgpu: GpuUse,
    /// The adapter for that, by any part of its name; one that is software, and one beside CUDA, must be named
    /// [default: the best of the others]
    #[arg(long, global = true, env = "MEGARING_WGPU_ADAPTER", value_name = "NAME")]
    pub wgpu_adapter: Option<String>,
    /// Most of its memory that corpora may take; larger ones are streamed through
    #[arg(long, global = true, env = "MEGARING_WGPU_MEMORY", value_name = "SIZE", default_value = "2GiB", value_parser = size)]
    pub wgpu_memory: usize,
    /// Encoder profile (TOML) [default: whitemagic-v1, built in]
    #[arg(long, global = true, env = "MEGARING_PROFILE", value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// File that keeps what the backends were measured to cost [default: .calibration.json in the data folder]
    #[arg(long, global = true, env = "MEGARING_CALIBRATION", value_name = "FILE")]
    pub calibration: Option<PathBuf>,
    /// Whether a server measures them by itself where there is a choice and nothing is known: auto or off
    #[arg(long, global = true, env = "MEGARING_CALIBRATE", value_name = "WHEN", default_value_t = Calibrating::Auto)]
    pub calibrate: Calibrating,
    /// File to map the event ring from, so that other processes can follow it [default: in memory]
    #[arg(long, global = true, env = "MEGARING_EVENTS_FILE", value_name = "FILE")]
    pub events_file: Option<PathBuf>,
    /// A server's state board, which other processes can map [default: .board in the data folder]
    #[arg(long, global = true, env = "MEGARING_BOARD", value_name = "FILE")]
    pub board: Option<PathBuf>,
    /// File of the tenants that a server lets in, should it be there [default: .tenants.toml in the data folder]
    #[arg(long, global = true, env = "MEGARING_TENANTS", value_name = "FILE")]
    pub tenants: Option<PathBuf>,
    /// Token by which a server knows who asks
    #[arg(long, global = true, env = "MEGARING_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Session that what is asked of a server counts towards, where its tenant has a limit for each
    #[arg(long, global = true, env = "MEGARING_SESSION", value_name = "NAME")]
    pub session: Option<String>,
    /// Whether a server keeps what becomes of calls in a ledger: on, off, or required, where it refuses what it could
    /// not keep
    #[arg(long, global = true, env = "MEGARING_LEDGER", value_name = "WHEN", default_value_t = Keeping::On)]
    pub ledger: Keeping,
    /// Folder of the ledger [default: .ledger in the data folder]
    #[arg(long, global = true, env = "MEGARING_LEDGER_FOLDER", value_name = "FOLDER")]
    pub ledger_folder: Option<PathBuf>,
    /// Segments of 65,536 records (8 MiB) that the ledger keeps, the newest; of older ones their roots stay; 0 is all
    #[arg(long, global = true, env = "MEGARING_LEDGER_SEGMENTS", value_name = "N", default_value_t = 0)]
    pub ledger_segments: u64,
    /// How often calls of a kind may come, as in search=100 a second, or search=100:20 with 20 at once; may be given
    /// several times
    #[arg(long, global = true, env = "MEGARING_RATE", value_name = "KIND=RATE", value_delimiter = ',', value_parser = rate)]
    pub rate: Vec<(String, Rate)>,
    /// When which calls are refused, as in "memory_pressure > 0.95: batch, change"; may be given several times
    #[arg(long, global = true, env = "MEGARING_RULE", value_name = "RULE", value_delimiter = ';', value_parser = rule)]
    pub rule: Vec<Rule>,
    /// Which calls there are: stable, or experimental ones too
    #[arg(long, global = true, env = "MEGARING_MATURITY", value_name = "MATURITY", default_value_t = Maturity::Stable)]
    pub maturity: Maturity,
    /// Failures of one operation on one backend, each within 10 s of the one before, after which it is left alone for a
    /// while
    #[arg(long, global = true, env = "MEGARING_BREAKER_FAILURES", value_name = "N", default_value_t = BreakerRule::default().failures, value_parser = clap::value_parser!(u64).range(1..))]
    pub breaker_failures: u64,
    /// How long a stopping server waits for calls under way
    #[arg(long, global = true, env = "MEGARING_DRAIN_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub drain_timeout: Duration,
    /// What is logged on stderr: off, error, warn, info, debug, trace, or directives such as megaring=debug
    #[arg(long, global = true, env = "MEGARING_LOG", value_name = "LEVEL", default_value = "info", value_parser = log_filter)]
    pub log: String,
}

/// Whether a GPU is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuUse {
    /// It is used where this machine has what it needs.
    Auto,
    /// It is left alone.
    Off,
}

/// Whether a server keeps a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// It does. A disk that is full holds up no answer.
    On,
    /// It does, and refuses calls while it cannot.
    Required,
    /// It does not.
    Off,
}

/// Whether a server measures its backends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calibrating {
    /// Where more than one could do the work, and no calibration holds for this machine.
    Auto,
    /// Never: only `megaring calibrate` and the API's call do.
    Off,
}

/// A setting that is one of a few words.
macro_rules! words {
    ($name:ident { $($choice:ident $word:literal),* }) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$choice => $word,)*
                })
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                match name {
                    $($word => Ok(Self::$choice),)*
                    _ => Err(format!("it is {}", [$($word),*].join(" or "))),
                }
            }
        }
    };
}

words!(GpuUse { Auto "auto", Off "off" });
words!(Calibrating { Auto "auto", Off "off" });
words!(Keeping { On "on", Required "required", Off "off" });

/// Name of the calibration's file in the data folder. A name with a dot is no corpus's.
const CALIBRATION: &str = ".calibration.json";

/// The same of the state board.
const BOARD: &str = ".board";

/// The same of the ledger's folder.
const LEDGER: &str = ".ledger";

/// The same of the file of tenants.
const TENANTS: &str = ".tenants.toml";

/// What the help says of the address of a server. A URL would be taken for a link in documents.
const SERVER_HELP: &str = "Server that does the work, in the place of this process: its address, such as localhost:7272, \
    https://example.org:7272 or unix:/run/megaring.sock";

/// Loopback, which needs no tenants.
const LISTEN: &str = "127.0.0.1:7272";

impl Settings {
    /// The server that is to do the work, as a host and a port. Whoever empties the variable means none.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        self.server.as_deref().filter(|address| !address.is_empty())
    }

    /// Opens the data folder.
    ///
    /// # Errors
    /// One sentence that names the folder: not there, not a folder, not writable, in use.
    pub fn store(&self, access: Access) -> Result<Arc<Store>, Error> {
        let found = std::fs::metadata(&self.data);
        if access == Access::ReadOnly && found.is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            let help = "`megaring corpus import NAME FILE` makes it, --data or MEGARING_DATA names another";
            let reason = format!("the data folder {} does not exist; {help}", self.data.display());
            return Err(Error::field("data", reason));
        }
        Store::open(&self.data, access)
    }

    /// Starts an engine over a store as the settings say, for one command: its events and its board stay in memory, and
    /// it keeps no ledger, since the files are a running server's. Beside the CPU, only backends of these kinds are
    /// started, where the settings allow it: a GPU takes longer to start than most commands take.
    ///
    /// # Errors
    /// A profile that cannot be read, or what [`Engine::start`] refuses.
    pub fn engine(&self, store: Arc<Store>, kinds: &[BackendKind]) -> Result<Arc<Engine>, Error> {
        self.engine_keeping(store, kinds, None)
    }

    /// [`Self::engine`] with this ledger.
    pub(crate) fn engine_keeping(
        &self,
        store: Arc<Store>,
        kinds: &[BackendKind],
        ledger: Option<LedgerConfig>,
    ) -> Result<Arc<Engine>, Error> {
        let mut setup = self.setup()?;
        setup.cuda = setup.cuda.filter(|_| kinds.contains(&BackendKind::Cuda));
        setup.wgpu = setup.wgpu.filter(|_| kinds.contains(&BackendKind::Wgpu));
        (setup.engine.events_file, setup.engine.board_file, setup.engine.ledger) = (None, None, ledger);
        let engine = setup.start(store)?;
        if engine.router().lanes().len() > 1 {
            // What is found does not matter here: without it costs are assumed, and commands that are about it say so.
            let _ = Keeper::new(engine.clone(), Some(self.calibration_file())).restore();
        }
        Ok(engine)
    }

    /// Where calibrations are kept.
    #[must_use]
    pub fn calibration_file(&self) -> PathBuf {
        self.calibration.clone().unwrap_or_else(|| self.data.join(CALIBRATION))
    }

    /// Where a server's state board is.
    #[must_use]
    pub fn board_file(&self) -> PathBuf {
        self.board.clone().unwrap_or_else(|| self.data.join(BOARD))
    }

    /// Where a server's ledger is.
    #[must_use]
    pub fn ledger_folder(&self) -> PathBuf {
        self.ledger_folder.clone().unwrap_or_else(|| self.data.join(LEDGER))
    }

    /// Where a server's tenants are listed.
    #[must_use]
    pub fn tenants_file(&self) -> PathBuf {
        self.tenants.clone().unwrap_or_else(|| self.data.join(TENANTS))
    }

    /// How the engine of a server is set up.
    ///
    /// # Errors
    /// A profile that cannot be read.
    pub fn setup(&self) -> Result<Setup, Error> {
        let engine = EngineConfig {
            tenant_jobs: self.tenant_jobs,
            queue: self.queue,
            batch_wait: self.gather,
            events_file: self.events_file.clone(),
            board_file: Some(self.board_file()),
            ledger: (self.ledger != Keeping::Off)
                .then(|| LedgerConfig { folder: self.ledger_folder(), segments: self.ledger_segments }),
            routing: Routing {
                breaker: BreakerRule { failures: self.breaker_failures, ..BreakerRule::default() },
                ..Routing::default()
            },
            ..EngineConfig::new(self.read_profile()?)
        };
        Ok(Setup {
            cpu_workers: self.cpu_workers,
            wait: self.wait,
            ring_slots: self.ring_slots,
            arena_bytes: self.arena_bytes,
            isa: self.isa.clone(),
            cuda: (self.cuda == GpuUse::Auto).then(|| self.cuda_config()),
            wgpu: (self.wgpu == GpuUse::Auto).then(|| self.wgpu_config()),
            engine,
        })
    }

    /// Where to listen: what the name stands for, IPv4 first, since whoever knows the name finds that too.
    ///
    /// # Errors
    /// A name that stands for nothing.
    pub fn listen_addresses(&self) -> Result<Vec<Address>, Error> {
        let name = &self.listen;
        if let Some(path) = name.strip_prefix(UNIX) {
            return Ok(vec![Address::Unix { path: path.into(), mode: self.socket_mode }]);
        }
        let unknown = |error| Error::field("listen", format!("{name} names no address: {error}"));
        let mut addresses: Vec<SocketAddr> = name.to_socket_addrs().map_err(unknown)?.collect();
        addresses.sort_by_key(SocketAddr::is_ipv6);
        Ok(addresses.into_iter().map(Address::from).collect())
    }

    /// The certificate of this side and its key, where there are some.
    ///
    /// # Errors
    /// One without the other.
    pub fn tls_identity(&self) -> Result<Option<(&Path, &Path)>, Error> {
        let lacks = |field: &str| Err(Error::field(field, "a certificate and its key are named together"));
        match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
            (None, None) => Ok(None),
            (Some(_), None) => lacks("tls_key"),
            (None, Some(_)) => lacks("tls_cert"),
        }
    }

    /// How a server on this address is set up.
    ///
    /// # Errors
    /// A part of what encryption needs.
    pub fn server_config(&self, address: Address) -> Result<ServerConfig, Error> {
        let client_authorities = self.tls_ca.clone();
        let tls = match self.tls_identity()? {
            Some((certificate, key)) => {
                Some(TlsConfig { certificate: certificate.into(), key: key.into(), client_authorities })
            }
            None if client_authorities.is_some() => {
                return Err(Error::field("tls_cert", "a server that asks for certificates has one of its own"));
            }
            None => None,
        };
        Ok(ServerConfig {
            address,
            tls,
            is_insecure: self.insecure,
            connections: self.connections as usize,
            idle: self.idle_timeout,
            max_message_bytes: self.message_limit,
            message_memory: self.message_memory,
            stream_in_flight: self.stream_in_flight,
            drain_limit: self.drain_timeout,
            calibration: Some(self.calibration_file()),
            gate: GateConfig {
                rates: self.rate.clone(),
                rules: self.rule.clone(),
                maturity: self.maturity,
                ..GateConfig::default()
            },
            tenants: Some(self.tenants_file()),
            requires_ledger: self.ledger == Keeping::Required,
        })
    }

    /// An engine for work that needs no corpus: over an empty folder of its own, so the data folder need not be there.
    ///
    /// # Errors
    /// As [`Self::engine`].
    pub fn private_engine(&self, kinds: &[BackendKind]) -> Result<Arc<Engine>, Error> {
        let folder =
            tempfile::tempdir().map_err(|error| Error::Storage(format!("no temporary folder can be made: {error}")))?;
        // Nothing is ever stored in it, so it need not outlive its being opened.
        let store = Store::open(folder.path(), Access::ReadOnly)?;
        self.engine(store, kinds)
    }

    /// How the CUDA backend is set up, should it be used.
    #[must_use]
    pub fn cuda_config(&self) -> CudaConfig {
        CudaConfig {
            mode: self.cuda_mode,
            device: self.cuda_device,
            memory_bytes: self.cuda_memory.unwrap_or(0),
            screen: self.cuda_screen,
        }
    }

    /// How the wgpu backend is set up, should it be used.
    #[must_use]
    pub fn wgpu_config(&self) -> WgpuConfig {
        // An empty name would be a part of every adapter's, software too: whoever empties a variable means none.
        let adapter = self.wgpu_adapter.clone().filter(|name| !name.trim().is_empty());
        WgpuConfig { adapter, memory_bytes: self.wgpu_memory }
    }

    /// The encoder's profile: the file's, or the built-in one.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the file cannot be read or is no profile.
    pub fn read_profile(&self) -> Result<Profile, Error> {
        let wrong = |place: String, error: profile::ProfileError| Error::field(place, error.to_string());
        match &self.profile {
            None => Profile::parse(profile::DEFAULT).map_err(|error| wrong("the built-in profile".into(), error)),
            Some(path) => Profile::parse(&read_text(path)?).map_err(|error| wrong(path.display().to_string(), error)),
        }
    }
}

pub(crate) fn read_text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|error| Error::field("path", unreadable(path, &error)))
}
