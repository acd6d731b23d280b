//! `megaring.v1.Budgets`: what tenants may spend, for transactions of their own. What is set aside is in the ledger
//! before it is answered, so that it counts whatever becomes of this process.

use std::sync::Arc;
use std::time::Duration;

use megaring_budget::{Account, Approval, Moment, SettleError};
use megaring_core::Error;
use megaring_core::gate::{Denial, Reason, Role};
use megaring_engine::charge::refused;
use megaring_ledger::{Kind, Reservation};
use megaring_proto::v1 as pb;
use megaring_proto::v1::budgets_server::Budgets;
use megaring_ring::slot::fnv1a64;
use tonic::{Request, Response, Status};

use super::{Caller, Service};
use crate::error::answered;
use crate::tenants::Identity;

/// How long an amount is set aside where nothing else is asked for.
const LASTS: Duration = Duration::from_secs(60);
/// Longest name of a recipient, in bytes.
const MAX_RECIPIENT_BYTES: usize = 128;

#[tonic::async_trait]
impl Budgets for Service {
    async fn describe(
        &self,
        request: Request<pb::DescribeBudgetRequest>,
    ) -> Result<Response<pb::DescribeBudgetResponse>, Status> {
        answered(async { self.do_describe(&Caller::of(&request)?, request.get_ref()) }).await.map(Response::new)
    }

    async fn reserve(&self, request: Request<pb::ReserveRequest>) -> Result<Response<pb::ReserveResponse>, Status> {
        answered(async { self.do_reserve(&Caller::of(&request)?, request.get_ref()).await }).await.map(Response::new)
    }

    async fn settle(&self, request: Request<pb::SettleRequest>) -> Result<Response<pb::SettleResponse>, Status> {
        answered(async {
            let pb::SettleRequest { tenant, reservation, amount } = request.get_ref();
            let returned = self.conclude(&Caller::of(&request)?, tenant, *reservation, Some(*amount)).await?;
            Ok(Response::new(pb::SettleResponse { returned }))
        })
        .await
    }

    async fn release(&self, request: Request<pb::ReleaseRequest>) -> Result<Response<pb::ReleaseResponse>, Status> {
        answered(async {
            let pb::ReleaseRequest { tenant, reservation } = request.get_ref();
            let returned = self.conclude(&Caller::of(&request)?, tenant, *reservation, None).await?;
            Ok(Response::new(pb::ReleaseResponse { returned }))
        })
        .await
    }
}

impl Service {
    fn do_describe(
        &self,
        caller: &Caller,
        request: &pb::DescribeBudgetRequest,
    ) -> Result<pb::DescribeBudgetResponse, Error> {
        let (tenant, account) = self.account(caller, &request.tenant)?;
        let told = account.describe(caller.passed.identity.session, Moment::now());
        let limit = |limit: u64| (limit < u64::MAX).then_some(limit);
        Ok(pb::DescribeBudgetResponse {
            unit: tenant.unit().map_or("", |unit| unit.name()).to_owned(),
            tenant: tenant.tenant,
            call_limit: limit(told.limits.call),
            session_limit: limit(told.limits.session),
            day_limit: limit(told.limits.day),
            day_settled: told.day_settled,
            day_reserved: told.day_reserved,
            session_settled: told.session_settled,
            session_reserved: told.session_reserved,
            open_reservations: told.open_approvals as u64,
        })
    }

    async fn do_reserve(&self, caller: &Caller, request: &pb::ReserveRequest) -> Result<pb::ReserveResponse, Error> {
        self.refuse_if_draining()?;
        let (tenant, account) = self.account(caller, &request.tenant)?;
        let recipient = &request.recipient;
        if recipient.len() > MAX_RECIPIENT_BYTES {
            let reason = format!("{} bytes; {MAX_RECIPIENT_BYTES} are legal", recipient.len());
            return Err(Error::field("recipient", reason));
        }
        if tenant.blocks(recipient) {
            let description = format!("{:?} may not reserve an amount for {recipient:?}", tenant.tenant);
            return Err(Error::Denied(Denial { reason: Reason::Recipient, description, retry_after: None }));
        }
        let lasts = match request.lasts_ms {
            0 => LASTS,
            lasts => Duration::from_millis(lasts),
        };
        if lasts > megaring_budget::MAX_LASTS {
            let most = megaring_budget::MAX_LASTS.as_millis();
            return Err(Error::field("lasts_ms", format!("{}; {most} at most", request.lasts_ms)));
        }
        let (session, recipient) = (caller.passed.identity.session, fnv1a64(recipient.as_bytes()));
        let approval = account
            .approve(session, request.amount, recipient, lasts, Moment::now())
            .map_err(|refusal| refused(&refusal))?;
        self.tell(Kind::RESERVED, caller, &tenant, &reservation(&approval, 0));
        if let Err(reason) = self.kept().await {
            // Nobody is told its number.
            if account.release(approval.id, Moment::now()).is_ok() {
                self.tell(Kind::RELEASED, caller, &tenant, &reservation(&approval, 0));
            }
            return Err(reason);
        }
        Ok(pb::ReserveResponse { reservation: approval.id, expires_unix_ns: approval.expires_unix_ns })
    }

    /// Settles a reservation at an amount, or releases it; what is given back.
    async fn conclude(&self, caller: &Caller, tenant: &str, id: u64, amount: Option<u64>) -> Result<u64, Error> {
        let (tenant, account) = self.account(caller, tenant)?;
        let now = Moment::now();
        let ended = match amount {
            Some(amount) => account.settle(id, amount, now),
            None => account.release(id, now),
        };
        let approval = ended.map_err(|error| match error {
            SettleError::Unknown { .. } => Error::Unknown(error.to_string()),
            SettleError::TooMuch { .. } => Error::field("amount", error.to_string()),
            _ => Error::WrongState(error.to_string()),
        })?;
        let (kind, settled) = amount.map_or((Kind::RELEASED, 0), |amount| (Kind::SETTLED, amount));
        self.tell(kind, caller, &tenant, &reservation(&approval, settled));
        self.kept().await?;
        Ok(approval.amount - settled)
    }

    /// The tenant of a name, which must be the caller's own but for administrators, and its account.
    fn account(&self, caller: &Caller, name: &str) -> Result<(Identity, Arc<Account>), Error> {
        let own = &caller.passed.identity;
        let tenant = if name.is_empty() || name == own.tenant {
            own.clone()
        } else if own.role < Role::Admin {
            let description = format!("the budget is that of {name:?}, which administrators alone may touch");
            return Err(Error::Denied(Denial { reason: Reason::Role, description, retry_after: None }));
        } else {
            let unknown = || Error::Unknown(format!("no tenant is named {name:?}"));
            self.tenants.named(name).ok_or_else(unknown)?
        };
        let account = self.tenants.budgets().account(fnv1a64(tenant.tenant.as_bytes()));
        Ok((tenant, account))
    }

    fn tell(&self, kind: Kind, caller: &Caller, tenant: &Identity, reservation: &Reservation) {
        self.engine.telemetry().reserved(kind, &tenant.tenant, caller.call(), reservation);
    }

    /// Waits until what was told is in the ledger, where there is one.
    async fn kept(&self) -> Result<(), Error> {
        let Some(recorder) = self.engine.recorder() else { return Ok(()) };
        recorder.keep().await.map_err(|fault| {
            let description = format!("the ledger cannot be written: {fault}");
            Error::Denied(Denial { reason: Reason::Ledger, description, retry_after: Some(Duration::from_secs(1)) })
        })
    }
}

fn reservation(approval: &Approval, settled: u64) -> Reservation {
    let Approval { id, amount, session, recipient, lasts, .. } = *approval;
    let lasts_ns = u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX);
    Reservation { id, amount, settled, session, recipient, lasts_ns }
}
