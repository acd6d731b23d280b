//! The accounts of all tenants, and what the ledger tells of them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use megaring_ledger::{Error, Kind, LedgerView, Record};
use megaring_ring::sync::{AtomicU64, Ordering};

use crate::account::Account;
use crate::moment::Moment;

/// Accounts by the FNV-1a 64 of their tenants' names.
#[derive(Debug)]
pub struct Budgets {
    accounts: RwLock<HashMap<u64, Arc<Account>>>,
    /// The next number of an approval.
    numbers: Arc<AtomicU64>,
}

impl Budgets {
    /// No accounts yet. Numbers of approvals begin at the Unix time in nanoseconds, so that none is given twice, also
    /// by a process that comes later.
    #[must_use]
    pub fn new(now: Moment) -> Self {
        Self { accounts: RwLock::default(), numbers: Arc::new(AtomicU64::new(now.unix_ns)) }
    }

    /// A tenant's account; it is made where there is none.
    #[must_use]
    pub fn account(&self, tenant: u64) -> Arc<Account> {
        if let Some(known) = self.accounts.read().unwrap_or_else(PoisonError::into_inner).get(&tenant) {
            return known.clone();
        }
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        accounts.entry(tenant).or_insert_with(|| Account::new(self.numbers.clone())).clone()
    }

    /// Whether there is no account.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accounts.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The largest share of a day's limit that an account has spent or set aside, 0 to 1.
    #[must_use]
    pub fn pressure(&self, now: Moment) -> f64 {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        accounts.values().map(|account| account.pressure(now)).fold(0.0, f64::max)
    }

    /// Tells the accounts what a ledger has of today's amounts and of approvals that are open; how many records of it
    /// are damaged, of which nobody knows what they said. It reads no more than it needs: from the newest segment back.
    ///
    /// # Errors
    /// As [`LedgerView::read`].
    pub fn restore(&self, ledger: &LedgerView, now: Moment) -> Result<u64, Error> {
        let mut damaged = 0;
        for record in ledger.read(begin(ledger, now)?..ledger.size())? {
            match record {
                Ok(record) => self.replay(&record, now),
                Err(Error::Damaged { .. }) => damaged += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(damaged)
    }

    /// Tells the account of a record's tenant what it says of amounts. Records are told in order.
    pub fn replay(&self, record: &Record, now: Moment) {
        let (kind, entry, unix_ns) = (record.kind(), record.entry(), record.timestamp_ns());
        let account = || self.account(record.tenant());
        match kind {
            Kind::ANSWERED if entry.settled > 0 => account().replay_call(entry.count, entry.settled, unix_ns),
            Kind::RESERVED => {
                let reservation = entry.reservation();
                // A number that is given anew would be of two.
                self.numbers.fetch_max(reservation.id.saturating_add(1), Ordering::Relaxed);
                account().replay_approval(&reservation, unix_ns, now);
            }
            Kind::SETTLED | Kind::RELEASED => {
                account().replay_end(&entry.reservation(), kind == Kind::SETTLED, unix_ns);
            }
            _ => {}
        }
    }
}

/// The first record that may count: that of the oldest segment with one of today, or with an approval that may be open.
/// A clock that jumped to a later day has begun it for good, so whatever is of a day as late counts, too.
fn begin(ledger: &LedgerView, now: Moment) -> Result<u64, Error> {
    let since_ns = now.counts_since_ns();
    let each = ledger.segment_records();
    let (first, mut begin) = (ledger.first(), ledger.size());
    while begin > first {
        let start = ((begin - 1) / each * each).max(first);
        let mut records = ledger.read(start..begin)?;
        let counts = |record: Result<Record, Error>| record.map_or(true, |record| record.timestamp_ns() >= since_ns);
        if !records.any(counts) {
            break;
        }
        begin = start;
    }
    Ok(begin)
}
