//! Tenants: who calls, as what, how often, and for how much.
//!
//! A [file](mod@file) names them with the hashes of their tokens. It may change while it is served: a new one holds
//! from the next call on, and one that cannot be leaves the last good one in place. Where there is none, there is one
//! local tenant that may do everything, by whatever name its callers go ([`TENANT`]); others than this machine are then
//! let in only where that is wanted in so many words.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota};
use megaring_budget::{Account, Budgets, Limits};
use megaring_core::Error;
use megaring_core::gate::{COUNTERS, Cost, Denial, Reason, Role, TOOLS};
use megaring_engine::charge::Charge;
use megaring_ring::slot::fnv1a64;
use megaring_simd::gate::Rate;
use tonic::codegen::http::HeaderMap;
use tonic::codegen::http::header::AUTHORIZATION;

use self::file::Row;
use crate::followed::{Followed, Stamp};
use crate::validate::{TENANT, printable};

pub mod file;
mod token;

pub use token::{Token, TokenHash};

/// The metadata key with the name of a session: the run of a program, say, that has a limit of its own.
pub const SESSION: &str = "megaring-session";

/// Who may call.
pub struct Tenants {
    /// Where they are listed.
    file: Option<PathBuf>,
    budgets: Arc<Budgets>,
    /// Whether what they spend is kept.
    has_ledger: bool,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    /// None where there is no file.
    tenants: Option<Arc<[Tenant]>>,
    stamp: Stamp,
}

/// One tenant.
pub struct Tenant {
    row: Row,
    account: Arc<Account>,
    /// By counter.
    limiters: Vec<Option<(Rate, Arc<DefaultDirectRateLimiter>)>>,
}

/// Who makes a call, and as what.
#[derive(Clone)]
pub(crate) struct Identity {
    /// The tenant's name; empty where callers are not told apart.
    pub(crate) tenant: String,
    pub(crate) role: Role,
    /// The FNV-1a 64 of the session's name.
    pub(crate) session: u64,
    /// Where it is a tenant of the file: all of them, and its place.
    known: Option<(Arc<[Tenant]>, usize)>,
}

impl Tenants {
    /// The tenants of a file, or the local one where the file is not there.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a file that cannot be read, is none of tenants, or has budgets where there is no ledger.
    pub fn open(file: Option<PathBuf>, budgets: Arc<Budgets>, has_ledger: bool) -> Result<Self, Error> {
        let tenants = Self { file, budgets, has_ledger, known: RwLock::default() };
        if tenants.stamp().is_whole() {
            tenants.reload()?;
        }
        Ok(tenants)
    }

    /// Whether there is no file, and every caller is the local tenant.
    #[must_use]
    pub fn are_local(&self) -> bool {
        self.known().tenants.is_none()
    }

    /// Who makes a call with these headers.
    ///
    /// # Errors
    /// [`Error::Denied`] without a token that is known, and for the name of another tenant; [`Error::Invalid`] for
    /// names that cannot be.
    pub(crate) fn identify(&self, headers: &HeaderMap) -> Result<Identity, Error> {
        let named = printable(TENANT, headers.get(TENANT))?;
        let session = fnv1a64(printable(SESSION, headers.get(SESSION))?.unwrap_or_default().as_bytes());
        let Some(tenants) = self.known().tenants.clone() else {
            let tenant = named.unwrap_or_default().to_owned();
            return Ok(Identity { tenant, role: Role::Admin, session, known: None });
        };
        let place = find(&tenants, headers).ok_or_else(|| denied(Reason::Token, NO_TOKEN))?;
        let row = &tenants[place].row;
        if named.is_some_and(|named| named != row.name) {
            return Err(denied(
                Reason::Token,
                &format!("the token is that of {:?}, and {TENANT} names another", row.name),
            ));
        }
        let (tenant, role) = (row.name.clone(), row.role);
        Ok(Identity { tenant, role, session, known: Some((tenants, place)) })
    }

    /// A tenant of the file, or what stands for one where there is none.
    pub(crate) fn named(&self, name: &str) -> Option<Identity> {
        let session = fnv1a64(b"");
        let Some(tenants) = self.known().tenants.clone() else {
            return Some(Identity { tenant: name.to_owned(), role: Role::Admin, session, known: None });
        };
        let place = tenants.iter().position(|tenant| tenant.row.name == name)?;
        let role = tenants[place].row.role;
        Some(Identity { tenant: name.to_owned(), role, session, known: Some((tenants, place)) })
    }

    pub(crate) fn budgets(&self) -> &Arc<Budgets> {
        &self.budgets
    }

    /// What a tenant spends could not be told after a restart, were it not kept.
    fn check(&self, file: &Path, rows: Vec<Row>) -> Result<Vec<Row>, Error> {
        match rows.iter().find(|row| row.budget.is_some() && !self.has_ledger) {
            None => Ok(rows),
            Some(Row { name, .. }) => {
                let reason =
                    format!("tenant {name:?} has a budget, which is kept in a ledger; serve with one (`--ledger on`)");
                Err(Error::field("tenants", format!("{}: {reason}", file.display())))
            }
        }
    }

    /// Tenants of these rows. What they have spent, and how far ahead of their rates they are, is as it was.
    fn adopt(&self, rows: Vec<Row>, before: &[Tenant]) -> Result<Arc<[Tenant]>, Error> {
        let adopt = |row: Row| {
            let known = before.iter().find(|tenant| tenant.row.name == row.name);
            let limiters = COUNTERS.iter().enumerate().map(|(at, counter)| {
                let rate = row.rates.get(*counter).copied()?;
                let kept = known.and_then(|tenant| tenant.limiters[at].clone()).filter(|(kept, _)| *kept == rate);
                kept.or_else(|| Some((rate, Arc::new(DefaultDirectRateLimiter::direct(quota(rate)?)))))
            });
            let limiters = limiters.collect();
            let account = self.budgets.account(fnv1a64(row.name.as_bytes()));
            account.set_limits(row.budget.as_ref().map_or_else(Limits::default, file::Budget::limits));
            Tenant { row, account, limiters }
        };
        Ok(rows.into_iter().map(adopt).collect())
    }

    fn stamp(&self) -> Stamp {
        Stamp::of(&self.file)
    }

    fn known(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Followed for Tenants {
    const NAME: &'static str = "tenants";

    fn reload(&self) -> Result<(), Error> {
        let Some(file) = &self.file else { return Ok(()) };
        // Before it is read: what is written meanwhile shows the next time.
        let stamp = self.stamp();
        let rows = file::read(file).and_then(|rows| self.check(file, rows));
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        // One that cannot be is looked at again only once it has changed.
        known.stamp = stamp;
        let before = known.tenants.take();
        let made = rows.and_then(|rows| self.adopt(rows, before.as_deref().unwrap_or_default()));
        let (tenants, result) = match made {
            Ok(tenants) => (Some(tenants), Ok(())),
            Err(error) => (before, Err(error)),
        };
        known.tenants = tenants;
        result
    }

    /// One that is gone leaves everything as it is.
    fn has_changed(&self) -> bool {
        let found = self.stamp();
        self.file.is_some() && found.is_whole() && found != self.known().stamp
    }
}

impl Identity {
    fn tenant(&self) -> Option<&Tenant> {
        self.known.as_ref().map(|(tenants, place)| &tenants[*place])
    }

    /// Counts a call towards its tenant's own rate.
    ///
    /// # Errors
    /// [`Error::Denied`] where it comes too soon.
    pub(crate) fn count(&self, tool: u16) -> Result<(), Denial> {
        let counter = usize::from(TOOLS[usize::from(tool)].counter);
        let Some((rate, limiter)) = self.tenant().and_then(|tenant| tenant.limiters[counter].as_ref()) else {
            return Ok(());
        };
        limiter.check().map_err(|too_soon| {
            let name = COUNTERS.get(counter).copied().unwrap_or_default();
            Denial {
                reason: Reason::Rate,
                description: format!("the tenant's calls of the kind {name:?} come too often, and {rate} are let in"),
                retry_after: Some(too_soon.wait_time_from(DefaultClock::default().now())),
            }
        })
    }

    /// What a job of this cost is charged to; `None` where its tenant has no budget.
    pub(crate) fn charge(&self, cost: Cost) -> Option<Charge> {
        let tenant = self.tenant()?;
        let budget = tenant.row.budget.as_ref()?;
        Some(Charge { account: tenant.account.clone(), session: self.session, price: budget.price(cost) })
    }

    /// The unit of its budget; `None` where it has none.
    pub(crate) fn unit(&self) -> Option<file::Unit> {
        Some(self.tenant()?.row.budget.as_ref()?.unit)
    }

    /// Whether an amount cannot be reserved for this recipient.
    pub(crate) fn blocks(&self, recipient: &str) -> bool {
        self.tenant().is_some_and(|tenant| tenant.row.blocked_recipients.iter().any(|blocked| blocked == recipient))
    }
}

const NO_TOKEN: &str = "the call has no token that is known; send `authorization: Bearer TOKEN` with one that `megaring tenant add` has shown";

/// The tenant whose token the headers have. All tokens are looked at, so that the time it takes tells nothing of them.
fn find(tenants: &[Tenant], headers: &HeaderMap) -> Option<usize> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let sent = TokenHash::of(token.trim());
    let mut found = None;
    for (place, tenant) in tenants.iter().enumerate() {
        for hash in &tenant.row.tokens {
            if hash.is(&sent) {
                found = Some(place);
            }
        }
    }
    found.filter(|_| scheme.eq_ignore_ascii_case("bearer"))
}

fn denied(reason: Reason, description: &str) -> Error {
    Error::Denied(Denial { reason, description: description.to_owned(), retry_after: None })
}

fn quota(rate: Rate) -> Option<Quota> {
    let interval = Duration::from_secs_f64(1.0 / rate.per_second).max(Duration::from_nanos(1));
    Some(Quota::with_period(interval)?.allow_burst(NonZeroU32::new(rate.burst)?))
}
