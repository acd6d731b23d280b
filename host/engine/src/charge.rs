//! What jobs are charged to: an account that limits what they come to, by what is predicted of them before, and by what
//! they took after.

use std::sync::Arc;
use std::time::Duration;

use megaring_budget::{Account, Hold, Moment, Refusal};
use megaring_core::Error;
use megaring_core::gate::{Denial, Reason};

/// An account, and what a job takes of it.
#[derive(Debug, Clone)]
pub struct Charge {
    /// The tenant's.
    pub account: Arc<Account>,
    /// FNV-1a 64 of the session's name.
    pub session: u64,
    /// What each job takes; `None` where the account counts nanoseconds of compute.
    pub price: Option<u64>,
}

/// An amount that is set aside for a job, and free again where this is dropped.
pub struct Reserved {
    hold: Hold,
    amount: u64,
    session: u64,
    price: Option<u64>,
}

/// What a job was charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settled {
    /// What had been set aside for it.
    pub reserved: u64,
    /// What it came to.
    pub amount: u64,
    /// FNV-1a 64 of the name of the session that it was charged to.
    pub session: u64,
}

impl Charge {
    /// Whether each job takes the same.
    #[must_use]
    pub fn has_price(&self) -> bool {
        self.price.is_some()
    }

    /// Sets aside what a job is predicted to come to.
    ///
    /// # Errors
    /// [`Error::Denied`] where that is more than the account has.
    pub fn reserve(&self, predicted: Duration) -> Result<Reserved, Error> {
        let Self { account, session, price } = self;
        let amount = price.unwrap_or_else(|| nanos(predicted));
        let hold = account.reserve(*session, amount, Moment::now()).map_err(|refusal| refused(&refusal))?;
        Ok(Reserved { hold, amount, session: *session, price: *price })
    }
}

impl Reserved {
    /// Charges what the job came to: its price, or the nanoseconds that it took, as far as the account has them.
    pub fn settle(self, took: Duration) -> Settled {
        let Self { hold, amount: reserved, session, price } = self;
        let amount = hold.settle(price.unwrap_or_else(|| nanos(took)));
        Settled { reserved, amount, session }
    }
}

/// What is said of a call that an account has no room for.
#[must_use]
pub fn refused(refusal: &Refusal) -> Error {
    let (description, retry_after) = (refusal.to_string(), refusal.retry_after);
    Error::Denied(Denial { reason: Reason::Budget, description, retry_after })
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
