//! What stands around the work: a call that is refused, a budget that runs out, the board, and a record's proof.

use megaring_ledger::{RECORD_BYTES, leaf_hash, verify_inclusion};
use megaring_proto::v1 as pb;
use megaring_proto::v1::admin_client::AdminClient;
use megaring_proto::v1::compute_client::ComputeClient;
use megaring_proto::v1::corpora_client::CorporaClient;
use megaring_proto::v1::ledger_client::LedgerClient;
use serde_json::json;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::host::{BUDGET, Host, PRICE};
use crate::console::{Failure, Output, counted};
use crate::remote::{Caller, Line};

/// How often the board is looked at for something that it is to show.
const LOOKS: usize = 100;

/// Does each, shows it, and fails where it is not as it should be.
pub(super) fn tell(corpus: &str, dim: usize, host: &Host, output: &mut Output) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Work(format!("the system refused a client: {error}")))?;
    let endpoint = Endpoint::from_shared(format!("http://{}", host.address())).map_err(Failure::work)?;
    let channel = runtime.block_on(endpoint.connect()).map_err(Failure::work)?;
    let clients = Clients { runtime, channel };
    if !output.is_json() {
        output.text("THE GATE, A BUDGET, THE BOARD AND THE LEDGER")?;
    }
    clients.refusal(corpus, clients.line(&host.tokens().reader)?, output)?;
    clients.budget(corpus, dim, clients.line(&host.tokens().spender)?, output)?;
    let admin = clients.line(&host.tokens().admin)?;
    clients.board(admin.clone(), output)?;
    clients.proof(admin, output)?;
    if output.is_json() { Ok(()) } else { output.text("") }
}

struct Clients {
    runtime: Runtime,
    channel: Channel,
}

impl Clients {
    /// The channel as the owner of a token uses it.
    fn line(&self, token: &str) -> Result<Line, Failure> {
        Ok(Line::new(self.channel.clone(), Caller::new(Some(token), None)?))
    }

    /// A reader who would drop a corpus.
    fn refusal(&self, corpus: &str, reader: Line, output: &mut Output) -> Result<(), Failure> {
        let request = pb::DropRequest { name: corpus.to_owned() };
        let dropped = self.runtime.block_on(async { CorporaClient::new(reader).drop(request).await });
        let status = denied(dropped.map(drop), Code::PermissionDenied, "a reader could drop a corpus")?;
        let told = json!({ "gate": "denied", "status": format!("{:?}", status.code()), "text": status.message() });
        output.answer(&told, || format!("a reader drops a corpus: {:?}, {}", status.code(), status.message()))
    }

    /// Searches until the day's budget is spent.
    fn budget(&self, corpus: &str, dim: usize, spender: Line, output: &mut Output) -> Result<(), Failure> {
        let mut compute = ComputeClient::new(spender);
        let queries = pb::Vectors {
            data: 1.0_f32.to_le_bytes().repeat(dim).into(),
            dtype: pb::Dtype::Float32.into(),
            rows: 1,
            dim: dim as u32,
            int8_scale: None,
        };
        let request =
            pb::SearchRequest { corpus: corpus.to_owned(), queries: Some(queries), k: 1, ..Default::default() };
        let affordable = BUDGET / PRICE;
        for _ in 0..affordable {
            self.runtime.block_on(compute.search(request.clone())).map_err(refused)?;
        }
        let further = self.runtime.block_on(compute.search(request)).map(drop);
        let status = denied(further, Code::ResourceExhausted, "more could be spent than the budget allows")?;
        let told = json!({ "gate": "budget", "answered": affordable, "text": status.message() });
        output.answer(&told, || {
            let searches = counted(affordable, "search", "searches");
            format!("{searches} at {PRICE} each of {BUDGET} a day, then: {}", status.message())
        })
    }

    /// The board, once it shows that the budget is spent: it is told a few times a second.
    fn board(&self, admin: Line, output: &mut Output) -> Result<(), Failure> {
        let board = self.runtime.block_on(async {
            let request = pb::BoardRequest { interval_ms: 100 };
            let mut boards = AdminClient::new(admin).board(request).await?.into_inner();
            for _ in 0..LOOKS {
                let board = boards.message().await?;
                if board.as_ref().and_then(|board| board.health).is_some_and(|health| health.budget_pressure == 1.0) {
                    return Ok(board);
                }
            }
            Ok(None)
        });
        let unseen = || Failure::work("the board does not show that a budget is spent");
        let board = board.map_err(refused)?.ok_or_else(unseen)?;
        let health = board.health.unwrap_or_default();
        let closed = board.breakers.iter().filter(|breaker| breaker.state() == pb::BreakerState::Closed).count();
        let told = json!({
            "gate": "board",
            "jobs_per_second": health.jobs_per_second,
            "p99_seconds": health.p99_seconds,
            "memory_pressure": health.memory_pressure,
            "budget_pressure": health.budget_pressure,
            "breakers": board.breakers.len(),
            "breakers_closed": closed,
        });
        output.answer(&told, || {
            format!(
                "the board: {:.0} jobs/s, p99 {:.4} s, memory pressure {:.2}, budget pressure {:.2}, {closed} of {} \
                 breakers closed",
                health.jobs_per_second,
                health.p99_seconds,
                health.memory_pressure,
                health.budget_pressure,
                board.breakers.len(),
            )
        })
    }

    /// The first record, with the proof that it is under the root.
    fn proof(&self, admin: Line, output: &mut Output) -> Result<(), Failure> {
        let request = pb::InclusionRequest { record: 0, size: 0 };
        let proof = self.runtime.block_on(async { LedgerClient::new(admin).inclusion(request).await });
        let pb::InclusionResponse { record, leaf, path, size, root } = proof.map_err(refused)?.into_inner();
        let hash = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).map_err(|_| Failure::work("a hash has 32 bytes"));
        let path: Vec<[u8; 32]> = path.iter().map(|node| hash(node)).collect::<Result<_, _>>()?;
        let (leaf, root) = (hash(&leaf)?, hash(&root)?);
        let bytes = record.and_then(|record| <[u8; RECORD_BYTES]>::try_from(record.bytes).ok());
        let is_leaf = bytes.is_some_and(|bytes| leaf_hash(&bytes) == leaf);
        if !is_leaf || !verify_inclusion(&leaf, 0, size, &path, &root) {
            return Err(Failure::work("the ledger's first record and its proof do not make the root"));
        }
        let short: String = root[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let told = json!({ "gate": "proof", "record": 0, "size": size, "path": path.len(), "root_begins": short });
        output.answer(&told, || {
            let steps = counted(path.len() as u64, "hash", "hashes");
            format!("the ledger: record 0 is one of {size} under the root {short}…, proved by {steps}")
        })
    }
}

/// The status of a call that must be refused.
fn denied(result: Result<(), Status>, code: Code, otherwise: &str) -> Result<Status, Failure> {
    match result {
        Err(status) if status.code() == code => Ok(status),
        Err(status) => Err(refused(status)),
        Ok(()) => Err(Failure::Work(otherwise.to_owned())),
    }
}

fn refused(status: Status) -> Failure {
    Failure::Work(format!("the server answered {:?}: {}", status.code(), status.message()))
}
