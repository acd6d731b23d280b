//! The rows of what stands around a call: a budget, and a small search over gRPC with all of it on, beside one with all
//! of it off.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use megaring::Setup;
use megaring_bench::Failure;
use megaring_budget::{Account, Budgets, Limits, Moment};
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_core::gate::Role;
use megaring_core::matrix::Matrix;
use megaring_corpus::{Access, Rows, Store};
use megaring_datasets::Embeddings;
use megaring_engine::measure::sampler::{Call as Turn, Subject};
use megaring_engine::recorder::LedgerConfig;
use megaring_proto::v1 as pb;
use megaring_proto::v1::compute_client::ComputeClient;
use megaring_server::tenants::Token;
use megaring_server::tenants::file::with_token;
use megaring_server::{Server, ServerConfig};
use megaring_simd::gate::{GateConfig, Rate};
use tokio::runtime::Runtime;
use tonic::Request;
use tonic::transport::Channel;

use crate::limits;
use crate::rows::Row;

/// Tenants whose accounts are used in turn.
const TENANTS: u64 = 64;
/// The corpus searched.
const ROWS: usize = 100;
const DIM: usize = 384;

/// Accounts, and a second thread that uses them while they are measured.
pub(crate) struct Spending {
    accounts: Vec<Arc<Account>>,
    rival: Arc<Rival>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Rival {
    runs: AtomicBool,
    ends: AtomicBool,
    rounds: AtomicU64,
}

impl Spending {
    pub(crate) fn set() -> Self {
        let budgets = Budgets::new(Moment::now());
        let accounts: Vec<Arc<Account>> = (0..TENANTS).map(|tenant| budgets.account(tenant)).collect();
        let limits = Limits { call: 1 << 20, session: u64::MAX / 2, day: u64::MAX / 2 };
        accounts.iter().for_each(|account| account.set_limits(limits));
        let rival = Arc::new(Rival::default());
        let (of_thread, shared) = (accounts.clone(), rival.clone());
        let thread = std::thread::spawn(move || {
            while !shared.ends.load(Ordering::Acquire) {
                if !shared.runs.load(Ordering::Acquire) {
                    std::thread::park();
                    continue;
                }
                let round = shared.rounds.fetch_add(1, Ordering::AcqRel);
                black_box(spend(&of_thread, round.wrapping_mul(5)));
            }
        });
        Self { accounts, rival, thread: Some(thread) }
    }

    pub(crate) fn row(&self) -> Row<'_> {
        let subject = Subject::repeated(|Turn { repeats, .. }| {
            self.rival.runs.store(true, Ordering::Release);
            self.thread.as_ref().inspect(|thread| thread.thread().unpark());
            let before = self.rival.rounds.load(Ordering::Acquire);
            while self.rival.rounds.load(Ordering::Acquire) == before {
                std::thread::yield_now();
            }
            let begun = Instant::now();
            let charged: u64 = (0..repeats).map(|at| spend(&self.accounts, at.into())).sum();
            let took = begun.elapsed();
            self.rival.runs.store(false, Ordering::Release);
            if charged == 90 * u64::from(repeats) { Ok(took) } else { Err("an amount was not charged".into()) }
        });
        Row { name: "budget, set aside and charged, 64 tenants, 2 threads", limit: Some(limits::BUDGET), subject }
    }
}

/// What a call does with an account.
fn spend(accounts: &[Arc<Account>], at: u64) -> u64 {
    let account = &accounts[(at % TENANTS) as usize];
    let now = Moment::now();
    account.reserve(0, 100, now).map_or(0, |hold| hold.settle(90))
}

impl Drop for Spending {
    fn drop(&mut self) {
        self.rival.ends.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

/// Two servers over the same rows, and a client of each.
pub(crate) struct Wire {
    client: Runtime,
    queries: megaring_datasets::Matrix,
    bare: ComputeClient<Channel>,
    guarded: ComputeClient<Channel>,
    token: Token,
    /// Its end is the servers'.
    _server: Runtime,
    _folder: tempfile::TempDir,
}

impl Wire {
    pub(crate) fn set() -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let server = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let client = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let rows = Embeddings { rows: ROWS, dim: DIM, ..Embeddings::default() }.generate();
        let queries = megaring_datasets::queries(&rows, 64, 7);
        let token = Token::random()?;
        let tenants = folder.path().join("tenants.toml");
        let budget = "rates = { search = \"1000000:1000000\" }\nbudget = { unit = \"nanoseconds\", day = 1_000_000_000_000_000 }\n";
        std::fs::write(&tenants, with_token("", "bench", Role::Reader, token.hash())? + budget)?;
        let off = ServerConfig::new(([127, 0, 0, 1], 0).into());
        let rules = vec!["memory_pressure > 2: query".parse()?];
        let rates = vec![("search".to_owned(), Rate { per_second: 1e6, burst: 1_000_000 })];
        let gate = GateConfig { rates, rules, ..GateConfig::default() };
        let on = ServerConfig { tenants: Some(tenants), gate, ..off.clone() };
        let ledger = LedgerConfig { folder: folder.path().join("ledger"), segments: 0 };
        let bare = serve(&folder.path().join("bare"), &rows, off, None, &server, &client)?;
        let guarded = serve(&folder.path().join("guarded"), &rows, on, Some(ledger), &server, &client)?;
        Ok(Self { client, queries, bare, guarded, token, _server: server, _folder: folder })
    }

    pub(crate) fn rows(&self) -> Vec<Row<'_>> {
        let row = |name, compute, token| Row { name, limit: None, subject: self.searches(compute, token) };
        vec![
            row("search of 100 x 384 over gRPC, all off", &self.bare, None),
            row("  the same: tenant, rates, rule, budget, ledger", &self.guarded, Some(self.token.text())),
        ]
    }

    fn searches<'a>(&'a self, compute: &ComputeClient<Channel>, token: Option<&str>) -> Subject<'a, Failure> {
        let mut compute = compute.clone();
        let authorization = token.map(|token| format!("Bearer {token}"));
        Subject::new(move |Turn { number, .. }| {
            let query = number as usize % self.queries.rows;
            let values = &self.queries.values[query * DIM..(query + 1) * DIM];
            let queries = pb::Vectors {
                data: values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into(),
                dtype: pb::Dtype::Float32.into(),
                rows: 1,
                dim: DIM as u32,
                int8_scale: None,
            };
            let message =
                pb::SearchRequest { corpus: "gates".into(), queries: Some(queries), k: 10, ..Default::default() };
            let mut request = Request::new(message);
            if let Some(authorization) = &authorization {
                request.metadata_mut().insert("authorization", authorization.parse()?);
            }
            let begun = Instant::now();
            let answer = self.client.block_on(compute.search(request))?;
            let took = begun.elapsed();
            let hits = answer.get_ref().results.first().map_or(0, |hits| hits.rows.len());
            if hits == 10 { Ok(took) } else { Err(format!("a search found {hits} rows").into()) }
        })
    }
}

fn serve(
    data: &std::path::Path,
    rows: &megaring_datasets::Matrix,
    config: ServerConfig,
    ledger: Option<LedgerConfig>,
    server: &Runtime,
    client: &Runtime,
) -> Result<ComputeClient<Channel>, Failure> {
    std::fs::create_dir(data)?;
    let store = Store::open(data, Access::Exclusive)?;
    store.create("gates", DIM)?;
    let mut appender = store.append("gates")?;
    let embeddings = Matrix { rows: ROWS, dim: DIM, values: rows.values.clone() };
    appender.push(Rows { embeddings, ..Rows::default() })?;
    appender.commit()?;
    let mut setup = Setup::new(Profile::parse(DEFAULT)?);
    (setup.cuda, setup.wgpu, setup.engine.ledger) = (None, None, ledger);
    let engine = setup.start(store)?;
    let bound = server.block_on(async { Server::bind(config, engine) })?;
    let channel = Channel::from_shared(format!("http://{}", bound.address()))?;
    // It ends with its runtime.
    drop(server.spawn(bound.serve(std::future::pending())));
    Ok(ComputeClient::new(client.block_on(channel.connect())?))
}
