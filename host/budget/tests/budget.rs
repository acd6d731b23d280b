//! Accounts beside a model that keeps every amount apart, through days, clocks that jump and amounts at the limits of
//! their type; and what a ledger tells of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use megaring_budget::{Account, Approval, Budgets, Hold, Limits, MAX_LASTS, Moment, Reason, Refusal, SettleError};
use megaring_ledger::{Entry, Kind, Ledger, LedgerView, Options, Reservation};

const DAY: u64 = 86_400 * 1_000_000_000;
const START: u64 = 20_000 * DAY + DAY / 2;
const TENANT: u64 = 7;

/// Two clocks that a test moves.
#[derive(Clone, Copy)]
struct Clock {
    unix_ns: u64,
    at: Instant,
}

impl Clock {
    fn new() -> Self {
        Self { unix_ns: START, at: Instant::now() }
    }

    fn now(&self) -> Moment {
        Moment { unix_ns: self.unix_ns, at: self.at }
    }

    fn pass(&mut self, time: Duration) {
        self.unix_ns += time.as_nanos() as u64;
        self.at += time;
    }

    fn jump(&mut self, seconds: i64) {
        self.unix_ns = self.unix_ns.saturating_add_signed(seconds * 1_000_000_000);
    }
}

fn account(limits: Limits) -> (Arc<Account>, Clock) {
    let clock = Clock::new();
    let account = Budgets::new(clock.now()).account(TENANT);
    account.set_limits(limits);
    (account, clock)
}

fn day_of(limit: u64) -> Limits {
    Limits { day: limit, ..Limits::default() }
}

#[test]
fn each_limit_says_what_it_is_and_what_is_left_of_it() {
    let (account, clock) = account(Limits { call: 50, session: 60, day: 100 });
    let now = clock.now();
    let refused = |session, amount| account.reserve(session, amount, now).err();
    let call = Refusal { reason: Reason::Call, wanted: 51, limit: 50, settled: 0, reserved: 0, retry_after: None };
    assert_eq!(refused(1, 51), Some(call));
    assert_eq!(call.to_string(), "the call comes to 51, and the budget allows 50 for one");
    assert_eq!(account.reserve(1, 40, now).map(|hold| hold.settle(35)), Ok(35));
    let held = account.reserve(1, 10, now).expect("there is room");
    let session = Refusal { reason: Reason::Session, wanted: 16, limit: 60, settled: 35, reserved: 10, ..call };
    assert_eq!(refused(1, 16), Some(session));
    assert!(refused(1, 15).is_none() && refused(2, 50).is_none(), "what is dropped is given back");
    let other = account.reserve(2, 50, now).expect("another session has its own");
    let half = Duration::from_nanos(DAY / 2);
    let day =
        Refusal { reason: Reason::Day, wanted: 6, limit: 100, settled: 35, reserved: 60, retry_after: Some(half) };
    assert_eq!(refused(3, 6), Some(day));
    assert_eq!(
        day.to_string(),
        "the call comes to 6; of the 100 that the budget allows for a day, 35 are spent and 60 are set aside"
    );
    assert_eq!(account.pressure(now), 0.95);
    drop((held, other));
    assert_eq!(account.pressure(now), 0.35);
    account.set_limits(Limits { day: 10, ..Limits::default() });
    assert_eq!((refused(1, 0).map(|refusal| refusal.reason), account.pressure(now)), (Some(Reason::Day), 1.0));
}

#[test]
fn what_came_to_more_than_predicted_is_charged_as_far_as_there_is_room() {
    let (account, clock) = account(day_of(100));
    let now = clock.now();
    let first = account.reserve(0, 30, now).expect("there is room");
    let second = account.reserve(0, 50, now).expect("there is room");
    assert_eq!(first.settle(1000), 50, "its own 30, and the 20 that nobody has");
    assert_eq!(second.settle(1000), 50);
    assert_eq!(account.describe(0, now).day_settled, 100);
    assert!(account.reserve(0, 1, now).is_err() && account.reserve(0, 0, now).is_ok());
}

#[test]
fn a_new_day_begins_with_what_is_set_aside_and_an_old_one_never_comes_back() {
    let (account, mut clock) = account(day_of(100));
    let spend = |amount, clock: &Clock| account.reserve(0, amount, clock.now()).map(|hold| hold.settle(amount));
    assert_eq!(spend(70, &clock), Ok(70));
    let held = account.reserve(0, 20, clock.now()).expect("there is room");
    clock.jump(86_400);
    assert!(spend(81, &clock).is_err());
    assert_eq!(spend(80, &clock), Ok(80));
    assert_eq!(held.settle(20), 20);
    for days in [-1, 1, -2, 2, -1, 1] {
        clock.jump(days * 86_400);
        assert!(spend(1, &clock).is_err(), "a clock that jumps gives nothing twice");
    }
    clock.jump(86_400);
    assert_eq!(spend(100, &clock), Ok(100));
}

#[test]
fn an_approval_is_settled_once_or_released_or_expires() {
    let (account, mut clock) = account(day_of(100));
    let approve = |amount, clock: &Clock| account.approve(1, amount, 9, Duration::from_secs(60), clock.now());
    let one = approve(40, &clock).expect("there is room");
    assert_eq!((one.amount, one.session, one.recipient), (40, 1, 9));
    assert_eq!(one.expires_unix_ns, START + 60_000_000_000);
    let now = clock.now();
    assert_eq!(account.settle(one.id, 41, now), Err(SettleError::TooMuch { wanted: 41, amount: 40 }));
    assert_eq!(account.settle(one.id, 30, now), Ok(one));
    assert_eq!(account.settle(one.id, 30, now), Err(SettleError::Settled { amount: 30 }));
    assert_eq!(account.release(one.id, now), Err(SettleError::Settled { amount: 30 }));
    let two = approve(70, &clock).expect("there is room");
    assert!(approve(1, &clock).is_err());
    assert_eq!(account.release(two.id, now), Ok(two));
    assert_eq!(account.settle(two.id, 1, now), Err(SettleError::Released));
    assert_eq!(account.settle(0, 1, now), Err(SettleError::Unknown { id: 0 }));
    let three = approve(70, &clock).expect("there is room");
    clock.jump(59);
    assert_eq!(account.describe(1, clock.now()).open_approvals, 1, "a clock that jumps ends nothing");
    clock.pass(Duration::from_secs(60));
    assert_eq!(account.settle(three.id, 1, clock.now()), Err(SettleError::Expired));
    let told = account.describe(1, clock.now());
    assert_eq!((told.day_settled, told.day_reserved, told.session_settled, told.open_approvals), (30, 0, 30, 0));
    let four = account.approve(1, 1, 9, Duration::MAX, clock.now()).expect("there is room");
    assert_eq!(four.lasts, MAX_LASTS);
    assert!([one, two, three].iter().all(|before| before.id < four.id));
}

#[test]
fn sessions_and_approvals_are_bounded() {
    let (account, clock) = account(Limits::default());
    let now = clock.now();
    for session in 0..1 << 16 {
        assert_eq!(account.reserve(session, 1, now).map(|hold| hold.settle(1)), Ok(1));
    }
    let refused = account.reserve(1 << 16, 1, now).map(drop).expect_err("too many");
    assert_eq!((refused.reason, refused.retry_after), (Reason::Sessions, Some(Duration::from_nanos(DAY / 2))));
    for _ in 0..1 << 16 {
        account.approve(0, 1, 0, Duration::from_secs(9), now).expect("there is room");
    }
    let refused = account.approve(0, 1, 0, Duration::from_secs(9), now).expect_err("too many");
    assert_eq!((refused.reason, refused.retry_after), (Reason::Approvals, Some(Duration::from_secs(9))));
}

/// What a history may do.
#[derive(Debug, Clone, Copy)]
enum Step {
    Reserve { session: u64, amount: u64 },
    SettleHold { which: usize, amount: u64 },
    DropHold { which: usize },
    Approve { session: u64, amount: u64, seconds: u64 },
    Settle { which: usize, amount: u64 },
    Release { which: usize },
    Pass { seconds: u64 },
    Jump { seconds: i64 },
}

/// Numbers that look like random ones, by xorshift (Marsaglia, "Xorshift RNGs").
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % bound
    }

    fn amount(&mut self) -> u64 {
        match self.below(9) {
            0 => 0,
            1 => u64::MAX,
            2 => u64::MAX - self.below(50),
            _ => self.below(40),
        }
    }

    fn limit(&mut self) -> u64 {
        match self.below(5) {
            0 => u64::MAX,
            1 => u64::MAX - 1,
            _ => self.below(120),
        }
    }

    fn limits(&mut self) -> Limits {
        Limits { call: self.limit(), session: self.limit(), day: self.limit() }
    }

    fn step(&mut self) -> Step {
        let (session, which, amount) = (self.below(3), self.below(64) as usize, self.amount());
        match self.below(16) {
            0..4 => Step::Reserve { session, amount },
            4..7 => Step::SettleHold { which, amount },
            7 => Step::DropHold { which },
            8..11 => Step::Approve { session, amount, seconds: self.below(5000) },
            11..13 => Step::Settle { which, amount },
            13 => Step::Release { which },
            14 => Step::Pass { seconds: self.below(3000) },
            _ => Step::Jump { seconds: self.below(400_000) as i64 - 200_000 },
        }
    }
}

/// The model: every amount by itself, in numbers that cannot overflow.
#[derive(Default)]
struct Model {
    day: u64,
    /// Day, session and amount of all that was ever charged.
    charged: Vec<(u64, u64, u64)>,
    holds: Vec<(u64, u64)>,
    /// With the moment at which each expires.
    approvals: Vec<(Approval, Instant)>,
}

impl Model {
    fn advance(&mut self, now: Moment) {
        self.day = self.day.max(now.unix_ns / DAY);
        self.approvals.retain(|(_, expires)| *expires > now.at);
    }

    fn settled(&self, session: Option<u64>) -> u128 {
        let counts = |(day, of, _): &&(u64, u64, u64)| *day == self.day && session.is_none_or(|session| *of == session);
        self.charged.iter().filter(counts).map(|(.., amount)| u128::from(*amount)).sum()
    }

    fn reserved(&self, session: Option<u64>) -> u128 {
        let holds = self.holds.iter().copied();
        let all = holds.chain(self.approvals.iter().map(|(approval, _)| (approval.session, approval.amount)));
        all.filter(|(of, _)| session.is_none_or(|session| *of == session)).map(|(_, amount)| u128::from(amount)).sum()
    }

    fn room(&self, limits: &Limits, session: u64) -> u128 {
        let left = |limit: u64, of| u128::from(limit).saturating_sub(self.settled(of) + self.reserved(of));
        left(limits.day, None).min(left(limits.session, Some(session)))
    }
}

/// Goes through a history, compares each step, and keeps what a server would have written down of it.
fn run(limits: Limits, steps: &[Step], told: &mut Vec<(Kind, Entry, u64)>) -> (Arc<Account>, Clock) {
    let (account, mut clock) = account(limits);
    let mut model = Model::default();
    let mut holds: Vec<Hold> = Vec::new();
    for step in steps.iter().copied() {
        let now = clock.now();
        model.advance(now);
        assert_eq!(account.describe(0, now).day, model.day);
        match step {
            Step::Reserve { session, amount } => {
                let fits = amount <= limits.call && u128::from(amount) <= model.room(&limits, session);
                let hold = account.reserve(session, amount, now);
                assert_eq!(hold.is_ok(), fits, "{hold:?}");
                if let Ok(hold) = hold {
                    holds.push(hold);
                    model.holds.push((session, amount));
                }
            }
            Step::SettleHold { which, amount } if !holds.is_empty() => {
                let which = which % holds.len();
                let (session, held) = model.holds.remove(which);
                let most = model.room(&limits, session).max(u128::from(held));
                let charged = holds.remove(which).settle(amount);
                assert_eq!(u128::from(charged), u128::from(amount).min(most));
                model.charged.push((model.day, session, charged));
                told.push((
                    Kind::ANSWERED,
                    Entry { settled: charged, count: session, ..Entry::default() },
                    clock.unix_ns,
                ));
            }
            Step::DropHold { which } if !holds.is_empty() => {
                let which = which % holds.len();
                model.holds.remove(which);
                drop(holds.remove(which));
            }
            Step::Approve { session, amount, seconds } => {
                let fits = amount <= limits.call && u128::from(amount) <= model.room(&limits, session);
                let lasts = Duration::from_secs(seconds);
                let approval = account.approve(session, amount, 9, lasts, now);
                assert_eq!(approval.is_ok(), fits, "{approval:?}");
                if let Ok(approval) = approval {
                    model.approvals.push((approval, clock.at + lasts.min(MAX_LASTS)));
                    told.push((Kind::RESERVED, entry(&approval, 0), clock.unix_ns));
                }
            }
            Step::Settle { which, amount } if !model.approvals.is_empty() => {
                let which = which % model.approvals.len();
                let approval = model.approvals[which].0;
                let settled = account.settle(approval.id, amount, now);
                assert_eq!(settled.is_ok(), amount <= approval.amount);
                if settled.is_ok() {
                    model.approvals.remove(which);
                    model.charged.push((model.day, approval.session, amount));
                    told.push((Kind::SETTLED, entry(&approval, amount), clock.unix_ns));
                    assert_eq!(account.settle(approval.id, amount, now), Err(SettleError::Settled { amount }));
                }
            }
            Step::Release { which } if !model.approvals.is_empty() => {
                let which = which % model.approvals.len();
                let (approval, _) = model.approvals.remove(which);
                assert_eq!(account.release(approval.id, now), Ok(approval));
                told.push((Kind::RELEASED, entry(&approval, 0), clock.unix_ns));
            }
            Step::Pass { seconds } => clock.pass(Duration::from_secs(seconds)),
            Step::Jump { seconds } => clock.jump(seconds),
            _ => {}
        }
        model.advance(clock.now());
        for session in 0..3 {
            let told = account.describe(session, clock.now());
            let is = [told.day_settled, told.day_reserved, told.session_settled, told.session_reserved].map(u128::from);
            let of = Some(session);
            assert_eq!(is, [model.settled(None), model.reserved(None), model.settled(of), model.reserved(of)]);
            assert!(told.day_settled <= limits.day && told.session_settled <= limits.session, "{told:?} {limits:?}");
            assert_eq!((told.open_approvals, told.day), (model.approvals.len(), model.day));
        }
    }
    drop(holds);
    (account, clock)
}

fn entry(approval: &Approval, settled: u64) -> Entry {
    let Approval { id, amount, session, recipient, lasts, .. } = *approval;
    Entry::of_reservation(&Reservation { id, amount, settled, session, recipient, lasts_ns: lasts.as_nanos() as u64 })
}

fn append(ledger: &mut Ledger, told: &[(Kind, Entry, u64)]) {
    let event =
        |(kind, entry, unix_ns): &(Kind, Entry, u64)| entry.event(*kind, TENANT, *unix_ns, 1.0).expect("an event");
    ledger.append(&told.iter().map(event).collect::<Vec<_>>()).expect("it is appended");
}

#[test]
fn no_history_charges_more_than_the_limits() {
    for seed in 1..=1_000_000_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let limits = random.limits();
        let steps: Vec<Step> = (0..random.below(16)).map(|_| random.step()).collect();
        run(limits, &steps, &mut Vec::new());
    }
}

#[test]
fn no_long_history_does_either() {
    for seed in 1..=1000_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let limits = random.limits();
        let steps: Vec<Step> = (0..300).map(|_| random.step()).collect();
        run(limits, &steps, &mut Vec::new());
    }
}

#[test]
fn a_ledger_tells_an_account_as_it_was() {
    for seed in 1..=200_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let limits = random.limits();
        // Clocks that do not jump back, since a record's time is all that a ledger has of how long ago it was.
        let forward = |step| match step {
            Step::Jump { seconds } => Step::Pass { seconds: seconds.unsigned_abs() },
            step => step,
        };
        let steps: Vec<Step> = (0..random.below(400)).map(|_| forward(random.step())).collect();
        let mut told = Vec::new();
        let (account, clock) = run(limits, &steps, &mut told);
        let folder = tempfile::tempdir().expect("a folder");
        let mut ledger = Ledger::open(folder.path(), Options { segment_levels: 4 }).expect("a ledger");
        append(&mut ledger, &told);
        let restored = Budgets::new(clock.now());
        let view = LedgerView::open(folder.path()).expect("a view");
        assert_eq!(restored.restore(&view, clock.now()).expect("it reads"), 0);
        let again = restored.account(TENANT);
        again.set_limits(limits);
        for session in 0..3 {
            assert_eq!(again.describe(session, clock.now()), account.describe(session, clock.now()), "seed {seed}");
        }
        // A number is not given twice, also where this clock is behind.
        let highest = told.iter().map(|(_, entry, _)| entry.reservation).max().unwrap_or(0);
        if let Ok(approval) = again.approve(0, 0, 0, Duration::from_secs(1), clock.now()) {
            assert!(approval.id > highest, "seed {seed}");
        }
    }
}

#[test]
fn of_a_long_ledger_only_what_counts_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = Ledger::open(folder.path(), Options { segment_levels: 4 }).expect("a ledger");
    let call = |settled, unix_ns| (Kind::ANSWERED, Entry { settled, ..Entry::default() }, unix_ns);
    let yesterday = START - DAY;
    append(&mut ledger, &(0..64).map(|_| call(1, yesterday)).collect::<Vec<_>>());
    append(&mut ledger, &(0..20).map(|_| call(2, START)).collect::<Vec<_>>());
    // What is not read does not matter, whatever it is.
    let old = folder.path().join("0000000000000001.seg");
    let mut bytes = std::fs::read(&old).expect("a segment");
    bytes[300] ^= 1;
    std::fs::write(&old, bytes).expect("it is written");
    let clock = Clock::new();
    let budgets = Budgets::new(clock.now());
    assert!(budgets.is_empty());
    let view = LedgerView::open(folder.path()).expect("a view");
    assert_eq!(budgets.restore(&view, clock.now()).expect("it reads"), 0);
    assert_eq!(budgets.account(TENANT).describe(0, clock.now()).day_settled, 40);
    // A record of today that is damaged is counted, and the others go on.
    let last = folder.path().join("0000000000000005.seg");
    let mut bytes = std::fs::read(&last).expect("a segment");
    bytes[128 + 60] ^= 1;
    std::fs::write(&last, bytes).expect("it is written");
    let budgets = Budgets::new(clock.now());
    let view = LedgerView::open(folder.path()).expect("a view");
    assert_eq!(budgets.restore(&view, clock.now()).expect("it reads"), 1);
    assert_eq!(budgets.account(TENANT).describe(0, clock.now()).day_settled, 38);
}

#[test]
fn two_accounts_have_nothing_in_common_but_their_numbers() {
    let clock = Clock::new();
    let budgets = Budgets::new(clock.now());
    let [one, two] = [1, 2].map(|tenant| budgets.account(tenant));
    assert!(Arc::ptr_eq(&one, &budgets.account(1)));
    one.set_limits(day_of(10));
    two.set_limits(day_of(100));
    let first = one.approve(0, 8, 0, MAX_LASTS, clock.now()).expect("there is room");
    let second = two.approve(0, 10, 0, MAX_LASTS, clock.now()).expect("there is room");
    assert!(first.id != second.id && one.settle(second.id, 1, clock.now()).is_err());
    assert_eq!(budgets.pressure(clock.now()), 0.8);
}
