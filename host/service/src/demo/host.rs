//! The server of the demo: the real one, on a free port, with a runtime of its own in this process, three tenants, and
//! a ledger that is gone when it ends.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use megaring_core::BackendKind;
use megaring_core::gate::Role;
use megaring_corpus::Store;
use megaring_engine::recorder::LedgerConfig;
use megaring_server::tenants::Token;
use megaring_server::tenants::file::with_token;
use megaring_server::{Address, Drained, ServeError, Server, ServerConfig};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::config::Settings;
use crate::console::Failure;

/// What the tenant with a budget may spend a day, in millionths of some currency.
pub(super) const BUDGET: u64 = 30;
/// What a single query takes of it.
pub(super) const PRICE: u64 = 10;

/// Tokens of the tenants.
pub(super) struct Tokens {
    pub(super) admin: String,
    pub(super) reader: String,
    /// Of a reader who has a budget.
    pub(super) spender: String,
}

/// A running server.
pub(super) struct Host {
    runtime: Runtime,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<Drained, ServeError>>,
    address: Address,
    tokens: Tokens,
    /// Tenants and ledger.
    _folder: TempDir,
}

impl Tokens {
    /// Makes tenants, and the text of their file.
    fn make() -> Result<(Self, String), Failure> {
        let [admin, reader, spender] = [Token::random()?, Token::random()?, Token::random()?];
        let text = with_token("", "demo", Role::Admin, admin.hash())
            .and_then(|text| with_token(&text, "reader", Role::Reader, reader.hash()))
            .and_then(|text| with_token(&text, "spender", Role::Reader, spender.hash()))
            .map_err(Failure::Work)?;
        let budget = format!("\n[tenant.budget]\nunit = \"micros\"\nday = {BUDGET}\nprices = {{ query = {PRICE} }}\n");
        let [admin, reader, spender] = [admin, reader, spender].map(|token| token.text().to_owned());
        Ok((Self { admin, reader, spender }, text + &budget))
    }
}

impl Host {
    pub(super) fn start(settings: &Settings, store: Arc<Store>) -> Result<Self, Failure> {
        let folder = tempfile::tempdir().map_err(Failure::work)?;
        let (tokens, tenants) = Tokens::make()?;
        let tenants_file = folder.path().join("tenants.toml");
        std::fs::write(&tenants_file, tenants).map_err(Failure::work)?;
        let ledger = LedgerConfig { folder: folder.path().join("ledger"), segments: 0 };
        let engine = settings.engine_keeping(store, &BackendKind::ALL, Some(ledger))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("megaring-demo-server")
            .enable_all()
            .build()
            .map_err(|error| Failure::Work(format!("the system refused threads: {error}")))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        // Both ends are here: whatever certificates there are, they are of other servers.
        let plain = Settings { tls_cert: None, tls_key: None, tls_ca: None, ..settings.clone() };
        let config = ServerConfig { tenants: Some(tenants_file), ..plain.server_config(address.into())? };
        let (stop, stopped) = oneshot::channel::<()>();
        let within = runtime.enter();
        let server = Server::bind(config, engine).map_err(Failure::work)?;
        let address = server.address().clone();
        let serving = runtime.spawn(server.serve(async {
            // A sender that is gone means the same as one that sent.
            let _ = stopped.await;
        }));
        drop(within);
        Ok(Self { runtime, stop, serving, address, tokens, _folder: folder })
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn tokens(&self) -> &Tokens {
        &self.tokens
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
