//! The account as loom sees it: whatever two threads do, in whatever order, no more is charged than the limit allows.
#![cfg(loom)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use loom::thread;
use megaring_budget::{Account, Budgets, Limits, Moment};

const DAY: u64 = 86_400 * 1_000_000_000;

fn account(day: u64) -> Arc<Account> {
    let account = Budgets::new(moment(0)).account(1);
    account.set_limits(Limits { day, ..Limits::default() });
    account
}

fn moment(day: u64) -> Moment {
    Moment { unix_ns: (20_000 + day) * DAY, at: Instant::now() }
}

fn together<A: Send + 'static, B: Send + 'static>(
    account: &Arc<Account>,
    one: impl FnOnce(Arc<Account>) -> A + Send + 'static,
    other: impl FnOnce(Arc<Account>) -> B + Send + 'static,
) -> (A, B) {
    let theirs = account.clone();
    let thread = thread::spawn(move || one(theirs));
    let other = other(account.clone());
    (thread.join().expect("it ends"), other)
}

#[test]
fn of_two_calls_for_which_there_is_room_once_no_more_is_charged_than_there_is() {
    loom::model(|| {
        let account = account(10);
        let call = |account: Arc<Account>| account.reserve(0, 7, moment(0)).map_or(0, |hold| hold.settle(9));
        let (one, other) = together(&account, call, call);
        let told = account.describe(0, moment(0));
        assert_eq!((told.day_settled, told.day_reserved), (one + other, 0));
        assert!(one + other <= 10 && one.max(other) == 9, "{one} {other}");
    });
}

#[test]
fn what_one_gives_back_another_may_have() {
    loom::model(|| {
        let account = account(10);
        let gives_back = |account: Arc<Account>| account.reserve(0, 10, moment(0)).map(drop).is_ok();
        let charges = |account: Arc<Account>| account.reserve(0, 10, moment(0)).map(|hold| hold.settle(10));
        let (first, second) = together(&account, gives_back, charges);
        let told = account.describe(0, moment(0));
        assert!(first || second.is_ok(), "one of them had it");
        assert_eq!((told.day_settled, told.day_reserved), (second.unwrap_or(0), 0));
    });
}

#[test]
fn an_approval_is_settled_by_one_of_two_that_try() {
    loom::model(|| {
        let account = account(10);
        let approval = account.approve(0, 10, 0, Duration::from_secs(60), moment(0)).expect("there is room");
        let settles = move |account: Arc<Account>| account.settle(approval.id, 6, moment(0)).is_ok();
        let releases = move |account: Arc<Account>| account.release(approval.id, moment(0)).is_ok();
        let (settled, released) = together(&account, settles, releases);
        let told = account.describe(0, moment(0));
        assert!(settled != released);
        assert_eq!((told.day_settled, told.day_reserved), (if settled { 6 } else { 0 }, 0));
    });
}

#[test]
fn a_day_that_turns_between_gives_nothing_twice() {
    loom::model(|| {
        let account = account(10);
        let call =
            |day| move |account: Arc<Account>| account.reserve(0, 6, moment(day)).map_or(0, |hold| hold.settle(6));
        let (today, tomorrow) = together(&account, call(0), call(1));
        let told = account.describe(0, moment(0));
        assert_eq!((told.day, tomorrow + today <= 12), (20_001, true));
        assert!(told.day_settled <= 10 && told.day_settled >= tomorrow, "{told:?}");
        assert!(account.reserve(0, 11 - told.day_settled, moment(0)).is_err(), "the day before does not come back");
    });
}
