//! One tenant's account.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use megaring_ledger::Reservation;
use megaring_ring::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

use crate::limits::{Limits, Reason, Refusal};
use crate::moment::{Moment, day};

/// The longest that an amount can be set aside for a transaction.
pub const MAX_LASTS: Duration = Duration::from_secs(3600);
/// Sessions of a day that an account tells apart.
const MAX_SESSIONS: usize = 1 << 16;
/// Approvals that can be open, and those that have ended and are remembered.
const MAX_APPROVALS: usize = 1 << 16;

/// An account: what its tenant may spend, and has spent.
#[derive(Debug)]
pub struct Account {
    numbers: Arc<AtomicU64>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    limits: Limits,
    /// Counted from 1970-01-01; it never goes back.
    day: u64,
    total: Sum,
    sessions: HashMap<u64, Sum>,
    open: HashMap<u64, Approval>,
    /// The same by when they expire.
    expiries: BTreeSet<(Instant, u64)>,
    ended: HashMap<u64, Ended>,
    /// The same, oldest first.
    endings: VecDeque<u64>,
}

/// What is charged and what is set aside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    settled: u64,
    reserved: u64,
}

/// An amount that is set aside for a call of this process. Dropped, it is given back.
#[derive(Debug)]
pub struct Hold {
    account: Arc<Account>,
    session: u64,
    amount: u64,
}

/// An amount that is set aside for a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Approval {
    /// By which it is settled or released; there is no other of this number.
    pub id: u64,
    /// What is set aside.
    pub amount: u64,
    /// FNV-1a 64 of the session's name.
    pub session: u64,
    /// FNV-1a 64 of the recipient's name.
    pub recipient: u64,
    /// How long it is set aside.
    pub lasts: Duration,
    /// When it expires, Unix time in nanoseconds: for people, since it goes by the clock that does not jump.
    pub expires_unix_ns: u64,
    expires: Instant,
}

/// What became of an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Settled(u64),
    Released,
    Expired,
}

/// Why an approval cannot be settled or released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettleError {
    /// There is none of this number, or it ended long ago.
    Unknown {
        /// The number.
        id: u64,
    },
    /// It was settled before.
    Settled {
        /// At this amount.
        amount: u64,
    },
    /// It was released before.
    Released,
    /// It was not settled in time.
    Expired,
    /// It is for less.
    TooMuch {
        /// What was to be charged.
        wanted: u64,
        /// What is set aside.
        amount: u64,
    },
}

/// An account at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// What may be charged.
    pub limits: Limits,
    /// The account's day, counted from 1970-01-01.
    pub day: u64,
    /// Charged that day.
    pub day_settled: u64,
    /// Set aside.
    pub day_reserved: u64,
    /// Charged that day to the session that was asked about.
    pub session_settled: u64,
    /// Set aside for that session.
    pub session_reserved: u64,
    /// Approvals that are neither settled nor released nor expired.
    pub open_approvals: usize,
}

impl Account {
    /// An account without limits, whose approvals get the next of these numbers.
    pub(crate) fn new(numbers: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self { numbers, held: Mutex::new(Held::default()) })
    }

    /// Sets the limits. What is spent already stays so; it may be more than they allow.
    pub fn set_limits(&self, limits: Limits) {
        self.lock().limits = limits;
    }

    /// Sets an amount aside for a call of this process, in a session by the FNV-1a 64 of its name.
    ///
    /// # Errors
    /// [`Refusal`] where a limit has no room for it.
    pub fn reserve(self: &Arc<Self>, session: u64, amount: u64, now: Moment) -> Result<Hold, Refusal> {
        let mut held = self.lock();
        held.advance(now);
        held.set_aside(session, amount, now)?;
        drop(held);
        Ok(Hold { account: self.clone(), session, amount })
    }

    /// Sets an amount aside for a transaction, until it is settled or released, and no longer than it `lasts`
    /// ([`MAX_LASTS`] at most).
    ///
    /// # Errors
    /// [`Refusal`] where a limit has no room for it.
    pub fn approve(
        &self,
        session: u64,
        amount: u64,
        recipient: u64,
        lasts: Duration,
        now: Moment,
    ) -> Result<Approval, Refusal> {
        let lasts = lasts.min(MAX_LASTS);
        let mut held = self.lock();
        held.advance(now);
        if held.open.len() >= MAX_APPROVALS {
            let refusal = Refusal::of(Reason::Approvals, amount, MAX_APPROVALS as u64, Sum::default());
            let retry_after = held.expiries.first().map(|(at, _)| at.saturating_duration_since(now.at));
            return Err(Refusal { retry_after, ..refusal });
        }
        held.set_aside(session, amount, now)?;
        // Relaxed: a number is unique, whatever else is seen.
        let id = self.numbers.fetch_add(1, Ordering::Relaxed);
        let expires_unix_ns = now.unix_ns.saturating_add(u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX));
        let approval = Approval { id, amount, session, recipient, lasts, expires_unix_ns, expires: now.at + lasts };
        held.opens(approval);
        Ok(approval)
    }

    /// Charges a part of what an approval has set aside, or all of it, and gives back the rest.
    ///
    /// # Errors
    /// [`SettleError`]; nothing is changed then.
    pub fn settle(&self, id: u64, amount: u64, now: Moment) -> Result<Approval, SettleError> {
        self.conclude(id, Ended::Settled(amount), now)
    }

    /// Gives back what an approval has set aside.
    ///
    /// # Errors
    /// [`SettleError`]; nothing is changed then.
    pub fn release(&self, id: u64, now: Moment) -> Result<Approval, SettleError> {
        self.conclude(id, Ended::Released, now)
    }

    fn conclude(&self, id: u64, ended: Ended, now: Moment) -> Result<Approval, SettleError> {
        let mut held = self.lock();
        held.advance(now);
        let approval = held.open.get(&id).copied().ok_or_else(|| match held.ended.get(&id) {
            None => SettleError::Unknown { id },
            Some(Ended::Settled(amount)) => SettleError::Settled { amount: *amount },
            Some(Ended::Released) => SettleError::Released,
            Some(Ended::Expired) => SettleError::Expired,
        })?;
        match ended {
            Ended::Settled(wanted) if wanted > approval.amount => {
                Err(SettleError::TooMuch { wanted, amount: approval.amount })
            }
            _ => {
                held.ends(&approval, ended);
                Ok(approval)
            }
        }
    }

    /// How it stands, and how a session of it does.
    #[must_use]
    pub fn describe(&self, session: u64, now: Moment) -> Statement {
        let mut held = self.lock();
        held.advance(now);
        let of_session = held.sessions.get(&session).copied().unwrap_or_default();
        Statement {
            limits: held.limits,
            day: held.day,
            day_settled: held.total.settled,
            day_reserved: held.total.reserved,
            session_settled: of_session.settled,
            session_reserved: of_session.reserved,
            open_approvals: held.open.len(),
        }
    }

    /// The share of the day's limit that is spent or set aside, 0 to 1; 0 without such a limit.
    #[must_use]
    pub fn pressure(&self, now: Moment) -> f64 {
        let mut held = self.lock();
        held.advance(now);
        let Sum { settled, reserved } = held.total;
        match held.limits.day {
            u64::MAX => 0.0,
            limit => (settled.saturating_add(reserved) as f64 / limit.max(1) as f64).min(1.0),
        }
    }

    /// What the ledger tells of a call: what it was charged, in a day of `unix_ns`.
    pub(crate) fn replay_call(&self, session: u64, settled: u64, unix_ns: u64) {
        let mut held = self.lock();
        held.turn_to(day(unix_ns));
        held.charge(session, settled);
    }

    /// What the ledger tells of an approval: that it was made at `unix_ns`, and how much of its time is left.
    pub(crate) fn replay_approval(&self, reservation: &Reservation, unix_ns: u64, now: Moment) {
        let &Reservation { id, amount, session, recipient, lasts_ns, .. } = reservation;
        let left_ns = lasts_ns.saturating_sub(now.unix_ns.saturating_sub(unix_ns));
        let lasts = Duration::from_nanos(lasts_ns).min(MAX_LASTS);
        let expires = now.at + Duration::from_nanos(left_ns).min(MAX_LASTS);
        let expires_unix_ns = unix_ns.saturating_add(lasts_ns);
        let mut held = self.lock();
        held.turn_to(day(unix_ns));
        held.hold(session, amount);
        held.opens(Approval { id, amount, session, recipient, lasts, expires_unix_ns, expires });
    }

    /// What the ledger tells of an approval's end.
    pub(crate) fn replay_end(&self, reservation: &Reservation, is_settled: bool, unix_ns: u64) {
        let mut held = self.lock();
        held.turn_to(day(unix_ns));
        let ended = if is_settled { Ended::Settled(reservation.settled) } else { Ended::Released };
        match held.open.get(&reservation.id).copied() {
            Some(approval) => held.ends(&approval, ended),
            // Of one that was made before what is replayed.
            None => {
                held.charge(reservation.session, reservation.settled);
                held.remember(reservation.id, ended);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // What it guards is whole between any two statements.
        self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Held {
    /// Goes on to this moment: its day, should it be a later one, and what has expired.
    fn advance(&mut self, now: Moment) {
        self.turn_to(day(now.unix_ns));
        while let Some((_, id)) = self.expiries.first().copied().filter(|(at, _)| *at <= now.at) {
            // Every number here is of an open one.
            let Some(approval) = self.open.get(&id).copied() else { break };
            self.ends(&approval, Ended::Expired);
        }
    }

    fn turn_to(&mut self, day: u64) {
        if day <= self.day {
            return;
        }
        self.day = day;
        self.total.settled = 0;
        // What is set aside stays so.
        self.sessions.retain(|_, sum| {
            sum.settled = 0;
            sum.reserved > 0
        });
    }

    /// Sets an amount aside, where every limit has room for it.
    fn set_aside(&mut self, session: u64, wanted: u64, now: Moment) -> Result<(), Refusal> {
        let Limits { call, session: of_session, day } = self.limits;
        if wanted > call {
            return Err(Refusal::of(Reason::Call, wanted, call, Sum::default()));
        }
        let tomorrow = Some(now.until_after(self.day));
        if !self.total.has_room(wanted, day) {
            return Err(Refusal { retry_after: tomorrow, ..Refusal::of(Reason::Day, wanted, day, self.total) });
        }
        let is_full = self.sessions.len() >= MAX_SESSIONS;
        let refused = |sum| Refusal::of(Reason::Session, wanted, of_session, sum);
        match self.sessions.entry(session) {
            Entry::Occupied(mut known) => {
                let sum = known.get_mut();
                if !sum.has_room(wanted, of_session) {
                    return Err(refused(*sum));
                }
                sum.reserved += wanted;
            }
            Entry::Vacant(_) if is_full => {
                let refusal = Refusal::of(Reason::Sessions, wanted, MAX_SESSIONS as u64, Sum::default());
                return Err(Refusal { retry_after: tomorrow, ..refusal });
            }
            Entry::Vacant(_) if wanted > of_session => return Err(refused(Sum::default())),
            Entry::Vacant(new) => {
                new.insert(Sum { settled: 0, reserved: wanted });
            }
        }
        self.total.reserved += wanted;
        Ok(())
    }

    fn hold(&mut self, session: u64, amount: u64) {
        let sum = self.sessions.entry(session).or_default();
        sum.reserved = sum.reserved.saturating_add(amount);
        self.total.reserved = self.total.reserved.saturating_add(amount);
    }

    fn give_back(&mut self, session: u64, amount: u64) {
        let sum = self.sessions.entry(session).or_default();
        sum.reserved = sum.reserved.saturating_sub(amount);
        self.total.reserved = self.total.reserved.saturating_sub(amount);
    }

    fn charge(&mut self, session: u64, amount: u64) {
        let sum = self.sessions.entry(session).or_default();
        sum.settled = sum.settled.saturating_add(amount);
        self.total.settled = self.total.settled.saturating_add(amount);
    }

    fn opens(&mut self, approval: Approval) {
        self.expiries.insert((approval.expires, approval.id));
        self.open.insert(approval.id, approval);
    }

    fn ends(&mut self, approval: &Approval, ended: Ended) {
        self.open.remove(&approval.id);
        self.expiries.remove(&(approval.expires, approval.id));
        self.give_back(approval.session, approval.amount);
        if let Ended::Settled(amount) = ended {
            self.charge(approval.session, amount);
        }
        self.remember(approval.id, ended);
    }

    fn remember(&mut self, id: u64, ended: Ended) {
        if self.endings.len() >= MAX_APPROVALS
            && let Some(oldest) = self.endings.pop_front()
        {
            self.ended.remove(&oldest);
        }
        self.endings.push_back(id);
        self.ended.insert(id, ended);
    }
}

impl Sum {
    fn has_room(&self, wanted: u64, limit: u64) -> bool {
        self.room(limit).is_some_and(|room| wanted <= room)
    }

    /// What is left of a limit; `None` where it is passed already.
    fn room(&self, limit: u64) -> Option<u64> {
        limit.checked_sub(self.settled)?.checked_sub(self.reserved)
    }
}

impl Refusal {
    fn of(reason: Reason, wanted: u64, limit: u64, sum: Sum) -> Self {
        Self { reason, wanted, limit, settled: sum.settled, reserved: sum.reserved, retry_after: None }
    }
}

impl Hold {
    /// Charges what the call came to, to the day that the account has; what was charged. Where it came to more than was
    /// set aside, no more is than the limits have room for.
    #[must_use]
    pub fn settle(mut self, amount: u64) -> u64 {
        let mut held = self.account.lock();
        let Held { limits, total, sessions, .. } = &mut *held;
        let sum = sessions.entry(self.session).or_default();
        let room = |sum: &mut Sum, limit| {
            sum.reserved = sum.reserved.saturating_sub(self.amount);
            sum.room(limit).unwrap_or(0)
        };
        let room = room(total, limits.day).min(room(sum, limits.session));
        // Limits that were lowered meanwhile do not hold for what was set aside before.
        let charged = amount.min(room.max(self.amount));
        for sum in [total, sum] {
            sum.settled = sum.settled.saturating_add(charged);
        }
        drop(held);
        self.amount = 0;
        charged
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.amount > 0 {
            self.account.lock().give_back(self.session, self.amount);
        }
    }
}

impl fmt::Display for SettleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { id } => write!(f, "there is no reservation {id}"),
            Self::Settled { amount } => write!(f, "the reservation was settled already, at {amount}"),
            Self::Released => f.write_str("the reservation was released already"),
            Self::Expired => f.write_str("the reservation has expired, and its amount was given back"),
            Self::TooMuch { wanted, amount } => {
                write!(f, "{wanted}; {amount} are set aside, and no more than that can be charged")
            }
        }
    }
}

impl std::error::Error for SettleError {}
