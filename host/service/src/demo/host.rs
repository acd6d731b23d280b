//! The server of the demo: the real one, on a free port, with a runtime of its own in this process.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use megaring_core::BackendKind;
use megaring_corpus::Store;
use megaring_server::{Drained, ServeError, Server};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::config::Settings;
use crate::console::Failure;

/// A running server.
pub(super) struct Host {
    runtime: Runtime,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<Drained, ServeError>>,
    address: SocketAddr,
}

impl Host {
    pub(super) fn start(settings: &Settings, store: Arc<Store>) -> Result<Self, Failure> {
        let engine = settings.engine(store, &BackendKind::ALL)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("megaring-demo-server")
            .enable_all()
            .build()
            .map_err(|error| Failure::Work(format!("the system refused threads: {error}")))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = settings.server_config(address);
        let (stop, stopped) = oneshot::channel::<()>();
        let within = runtime.enter();
        let server = Server::bind(config, engine).map_err(Failure::work)?;
        let address = server.address();
        let serving = runtime.spawn(server.serve(async {
            // A sender that is gone means the same as one that sent.
            let _ = stopped.await;
        }));
        drop(within);
        Ok(Self { runtime, stop, serving, address })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drains and ends the server.
    pub(super) fn stop(self) -> Result<(), Failure> {
        drop(self.stop);
        match self.runtime.block_on(self.serving) {
            Ok(Ok(Drained::Fully)) => Ok(()),
            Ok(Ok(Drained::CutOff)) => Err(Failure::work("the server did not drain in time")),
            Ok(Err(error)) => Err(Failure::work(error)),
            Err(error) => Err(Failure::Work(format!("the server ended badly: {error}"))),
        }
    }
}
