//! `megaring.v1.Ledger`: what is kept of calls, and proofs of it. All of it is read from disk, on threads for blocking
//! work. A tenant sees its own records, an administrator all.

use futures_util::StreamExt as _;
use megaring_core::Error;
use megaring_core::gate::{Denial, Reason, Role};
use megaring_ledger::{Kind, LedgerView, Query};
use megaring_proto::v1 as pb;
use megaring_proto::v1::ledger_server::Ledger;
use megaring_ring::slot::fnv1a64;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::{Caller, Service, blocking};
use crate::error::{answered, status};
use crate::{reply, validate};

/// Records of one message of a query: some 300 KiB.
const AT_A_TIME: usize = 1024;

#[tonic::async_trait]
impl Ledger for Service {
    type QueryStream = BoxStream<pb::QueryResponse>;

    async fn root(&self, request: Request<pb::RootRequest>) -> Result<Response<pb::RootResponse>, Status> {
        let size = request.into_inner().size;
        let made = self.look(move |ledger| {
            let size = all_if_zero(size, ledger);
            let root = ledger.root_at(size).map_err(|error| refused("size", error))?.to_vec();
            Ok(pb::RootResponse { size, root, first: ledger.first() })
        });
        answered(made).await.map(Response::new)
    }

    async fn inclusion(
        &self,
        request: Request<pb::InclusionRequest>,
    ) -> Result<Response<pb::InclusionResponse>, Status> {
        let caller = Caller::of(&request).map_err(|error| status(&error))?;
        let pb::InclusionRequest { record: index, size } = request.into_inner();
        let made = self.look(move |ledger| {
            let size = all_if_zero(size, ledger);
            let path = ledger.inclusion(index, size).map_err(|error| refused("record", error))?;
            let root = ledger.root_at(size).map_err(|error| refused("size", error))?.to_vec();
            let mut records = ledger.read(index..index + 1).map_err(|error| refused("record", error))?;
            let none = || Error::Internal(format!("the ledger has no record {index}"));
            let record = records.next().ok_or_else(none)?.map_err(|error| refused("record", error))?;
            caller.may_see(record.tenant())?;
            let leaf = record.leaf_hash().to_vec();
            let path = path.iter().map(|hash| hash.to_vec()).collect();
            Ok(pb::InclusionResponse { record: Some(reply::record(&record)), leaf, path, size, root })
        });
        answered(made).await.map(Response::new)
    }

    async fn consistency(
        &self,
        request: Request<pb::ConsistencyRequest>,
    ) -> Result<Response<pb::ConsistencyResponse>, Status> {
        let pb::ConsistencyRequest { old_size, new_size } = request.into_inner();
        let made = self.look(move |ledger| {
            let new_size = all_if_zero(new_size, ledger);
            let root = |size, field| ledger.root_at(size).map_err(|error| refused(field, error));
            let path = ledger.consistency(old_size, new_size).map_err(|error| refused("old_size", error))?;
            Ok(pb::ConsistencyResponse {
                old_size,
                new_size,
                old_root: root(old_size, "old_size")?.to_vec(),
                new_root: root(new_size, "new_size")?.to_vec(),
                path: path.iter().map(|hash| hash.to_vec()).collect(),
            })
        });
        answered(made).await.map(Response::new)
    }

    async fn query(&self, request: Request<pb::QueryRequest>) -> Result<Response<Self::QueryStream>, Status> {
        let caller = Caller::of(&request).map_err(|error| status(&error))?;
        let request = request.into_inner();
        let service = self.clone();
        let begun = blocking(move || {
            let query = query(&caller, &request)?;
            Ok((query, service.recorder()?.view().map_err(|error| refused("ledger", error))?))
        });
        let (query, ledger) = answered(begun).await?;
        let (sender, messages) = channel(2);
        // Not awaited: it ends when all is read, or once the receiver of its messages is gone.
        drop(tokio::task::spawn_blocking(move || send(&ledger, query, &sender)));
        Ok(Response::new(ReceiverStream::new(messages).boxed()))
    }
}

impl Service {
    fn recorder(&self) -> Result<&megaring_engine::recorder::Recorder, Error> {
        let off = || Error::WrongState("the server keeps no ledger; serve with one (`--ledger on`)".into());
        self.engine.recorder().ok_or_else(off)
    }

    /// Asks the ledger as it is now.
    async fn look<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&LedgerView) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let service = self.clone();
        blocking(move || service.recorder()?.look(ask).map_err(|error| refused("ledger", error))?).await
    }
}

impl Caller {
    /// Whether a tenant's records are the caller's to see.
    fn may_see(&self, tenant: u64) -> Result<(), Error> {
        if self.passed.identity.role == Role::Admin || tenant == fnv1a64(self.tenant().as_bytes()) {
            return Ok(());
        }
        let description = "it is another tenant's, which administrators alone may see".to_owned();
        Err(Error::Denied(Denial { reason: Reason::Role, description, retry_after: None }))
    }
}

/// What is asked for, in the ledger's terms.
fn query(caller: &Caller, request: &pb::QueryRequest) -> Result<Query, Error> {
    let kind = match pb::RecordKind::try_from(request.kind) {
        Ok(pb::RecordKind::Unspecified) => None,
        Ok(kind) => Some(Kind(kind as u64)),
        Err(_) => return Err(Error::field("kind", format!("{} is no kind of record", request.kind))),
    };
    let is_admin = caller.passed.identity.role == Role::Admin;
    let tenant = match request.tenant.as_str() {
        "" if is_admin => None,
        "" => Some(fnv1a64(caller.tenant().as_bytes())),
        name => Some(fnv1a64(name.as_bytes())),
    };
    tenant.map_or(Ok(()), |tenant| caller.may_see(tenant))?;
    Ok(Query {
        tenant,
        since_ns: request.since_unix_ns,
        until_ns: request.until_unix_ns,
        opcode: validate::any_operation(request.operation)?.map(|opcode| opcode as u16),
        kind,
        limit: usize::try_from(request.limit).ok().filter(|limit| *limit > 0),
    })
}

/// Sends the records that are asked for, as long as somebody reads them.
fn send(ledger: &LedgerView, query: Query, to: &Sender<Result<pb::QueryResponse, Status>>) {
    let mut records = Vec::new();
    let mut found = ledger.query(query);
    loop {
        let next = found.next();
        let ends = !matches!(next, Some(Ok(_)));
        if (ends && !records.is_empty()) || records.len() == AT_A_TIME {
            let message = pb::QueryResponse { records: std::mem::take(&mut records) };
            if to.blocking_send(Ok(message)).is_err() {
                return;
            }
        }
        match next {
            Some(Ok(record)) => records.push(reply::record(&record)),
            Some(Err(error)) => {
                // Where nobody is left to be told, nothing is lost.
                let _ = to.blocking_send(Err(status(&refused("ledger", error))));
                return;
            }
            None => return,
        }
    }
}

fn all_if_zero(size: u64, ledger: &LedgerView) -> u64 {
    if size == 0 { ledger.size() } else { size }
}

/// Why the ledger does not answer, where `field` was asked about.
fn refused(field: &str, error: megaring_ledger::Error) -> Error {
    use megaring_ledger::Error as Ledger;
    match error {
        Ledger::Beyond { .. } | Ledger::Removed { .. } => Error::field(field, error.to_string()),
        Ledger::Damaged { .. } => Error::LedgerDamaged(error.to_string()),
        _ => Error::Storage(format!("the ledger: {error}")),
    }
}
