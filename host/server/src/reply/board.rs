//! What `megaring.v1.Admin` says of the state board, and the command line of a board in a file.

use std::time::Duration;

use megaring_board::{BreakerState, Health, Page};
use megaring_core::gate::{self, COUNTERS};
use megaring_proto::v1 as pb;

use super::{backend, nanoseconds};

/// The board, at a time on its writer's clock.
#[must_use]
pub fn board(page: &Page, now_ns: u64) -> pb::BoardResponse {
    pb::BoardResponse {
        pid: page.pid(),
        started_unix_ns: nanoseconds(page.started()),
        silent_ns: page.silent_for().map(nanoseconds),
        alive: page.is_alive(),
        health: page.health().map(health),
        breakers: gate::breakers().filter_map(|of| breaker(page, of, now_ns)).collect(),
        rate_limiters: COUNTERS.iter().enumerate().filter_map(|(at, name)| limiter(page, at, name, now_ns)).collect(),
    }
}

/// A board's moment, as far as one can tell who does not write it: that of the last heartbeat, and the time since then.
#[must_use]
pub fn board_of_another(page: &Page) -> pb::BoardResponse {
    let since = if page.is_alive() { page.silent_for().unwrap_or_default() } else { Duration::ZERO };
    board(page, page.clock_ns().saturating_add(nanoseconds(since)))
}

fn health(health: Health) -> pb::Health {
    let Health { utilisation, jobs_per_second, p99_seconds, error_rate, memory_pressure, backlog, budget_pressure } =
        health;
    pb::Health { utilisation, jobs_per_second, p99_seconds, error_rate, memory_pressure, backlog, budget_pressure }
}

fn breaker(
    page: &Page,
    (slot, kind, opcode): (usize, megaring_core::BackendKind, megaring_core::Opcode),
    now_ns: u64,
) -> Option<pb::Breaker> {
    let breaker = page.breaker(slot);
    let state = match breaker.state(now_ns) {
        BreakerState::Absent => return None,
        BreakerState::Closed => pb::BreakerState::Closed,
        BreakerState::Open => pb::BreakerState::Open,
        BreakerState::HalfOpen => pb::BreakerState::HalfOpen,
    };
    Some(pb::Breaker {
        backend: backend(kind).into(),
        operation: opcode.name().into(),
        state: state.into(),
        failures: breaker.failures(),
        opens_for_ns: nanoseconds(breaker.opens_for(now_ns)),
    })
}

fn limiter(page: &Page, at: usize, name: &str, now_ns: u64) -> Option<pb::RateLimiter> {
    let due_ns = page.counter_ns(at);
    (due_ns != 0).then(|| pb::RateLimiter { name: name.into(), due_in_ns: due_ns.saturating_sub(now_ns) })
}
