//! The gate against its rules written out in plain Rust, from many threads at once, and without an allocation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use megaring_board::{Board, BreakerRule, FIELDS, Health};
use megaring_core::gate::{
    self, BREAKERS_PER_KIND, COUNTERS, Cost, Handler, Maturity, QUERY_BYTES, Reason, Role, Tool,
};
use megaring_core::{BackendKind, Opcode};
use megaring_simd::KernelSet;
use megaring_simd::gate::{Call, Gate, GateConfig, Rate, Rule};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

/// The state of the world, as the reference has it.
#[derive(Debug, Clone)]
struct World {
    tool: Tool,
    call: Call,
    now_ns: u64,
    /// By kind and operation: when it may be tried; `None` where there is none.
    breakers: Vec<Option<u64>>,
    rate: Option<Rate>,
    health: [f64; FIELDS.len()],
    rules: Vec<Rule>,
    max_bytes: u64,
    experimental: bool,
}

impl World {
    /// The reason, the retry delay, the cost. `due_ns` is the rate limiter's theoretical arrival time.
    fn check(&self, due_ns: &mut u64) -> (Option<Reason>, u64, Cost) {
        let cost = match Cost::from_number(self.tool.cost).unwrap() {
            Cost::Query if self.call.bytes > QUERY_BYTES => Cost::Batch,
            cost => cost,
        };
        if self.call.bytes > self.tool.max_bytes || self.call.bytes > self.max_bytes {
            return (Some(Reason::Size), 0, cost);
        }
        if self.tool.opcode > 0 {
            let first = usize::from(self.tool.opcode) - 1;
            let of_it: Vec<u64> =
                [0, 1, 2].iter().filter_map(|kind| self.breakers[first + kind * BREAKERS_PER_KIND]).collect();
            if let Some(soonest) = of_it.iter().min().filter(|soonest| **soonest > self.now_ns) {
                return (Some(Reason::Breaker), soonest - self.now_ns, cost);
            }
        }
        if let Some(Rate { per_second, burst }) = self.rate {
            let interval_ns = (1e9 / per_second) as u64;
            let tolerance_ns = interval_ns * (u64::from(burst) - 1);
            let early_ns = due_ns.saturating_sub(tolerance_ns);
            if early_ns > self.now_ns {
                return (Some(Reason::Rate), early_ns - self.now_ns, cost);
            }
            *due_ns = self.now_ns.max(*due_ns) + interval_ns;
        }
        if self.call.role < Role::from_number(self.tool.role).unwrap() {
            return (Some(Reason::Role), 0, cost);
        }
        if self.tool.maturity == Maturity::Experimental as u8 && !self.experimental {
            return (Some(Reason::Maturity), 0, cost);
        }
        let holds = |rule: &Rule| {
            let value = self.health[rule.field];
            rule.costs.contains(&cost) && if rule.is_above { value > rule.limit } else { value < rule.limit }
        };
        if self.rules.iter().any(holds) {
            return (Some(Reason::Governor), SECOND, cost);
        }
        (None, 0, cost)
    }
}

fn one_of<T: Copy + std::fmt::Debug + 'static>(all: &[T]) -> impl Strategy<Value = T> + use<T> {
    prop::sample::select(all.to_vec())
}

fn costs() -> impl Strategy<Value = Vec<Cost>> {
    prop::collection::vec(one_of(Cost::ALL), 1..4)
}

fn world() -> impl Strategy<Value = World> {
    let bytes = || prop_oneof![0..40_u64, QUERY_BYTES - 1..QUERY_BYTES + 2, Just(u64::MAX)];
    let tool = (
        bytes(),
        0..=6_u16,
        one_of(Handler::ALL),
        0..64_u8,
        one_of(Role::ALL),
        one_of(Maturity::ALL),
        one_of(Cost::ALL),
    );
    let tool = tool.prop_map(|(max_bytes, opcode, handler, counter, role, maturity, cost)| Tool {
        max_bytes,
        opcode,
        handler: handler as u8,
        counter,
        role: role as u8,
        maturity: maturity as u8,
        cost: cost as u8,
        reserved: 0,
    });
    let call = (one_of(Role::ALL), bytes()).prop_map(|(role, bytes)| Call { tool: 0, role, bytes });
    let rule = (0..FIELDS.len(), any::<bool>(), 0..4_u8, costs());
    let rule =
        rule.prop_map(|(field, is_above, limit, costs)| Rule { field, is_above, limit: f64::from(limit), costs });
    let rate = (prop::sample::select(vec![1.0, 1000.0, 1e9]), 1..5_u32)
        .prop_map(|(per_second, burst)| Rate { per_second, burst });
    let breaker = prop_oneof![2 => Just(None), 1 => Just(Some(0)), 3 => (1..100_u64).prop_map(Some)];
    (
        tool,
        call,
        1..50_u64,
        prop::collection::vec(breaker, 64),
        prop::option::of(rate),
        prop::array::uniform7((0..4_u8).prop_map(f64::from)),
        prop::collection::vec(rule, 0..3),
        bytes(),
        any::<bool>(),
    )
        .prop_map(|(tool, call, now_ns, breakers, rate, health, rules, max_bytes, experimental)| World {
            tool,
            call,
            now_ns,
            breakers,
            rate,
            health,
            rules,
            max_bytes,
            experimental,
        })
}

/// A gate before this world. The table is the test's own for as long as the program runs, which is not long.
fn gate(world: &World, kernels: &'static KernelSet) -> Gate {
    let board = Board::in_memory().unwrap();
    board.publisher().unwrap().publish(Health::from(world.health));
    for (slot, retry_ns) in world.breakers.iter().enumerate() {
        let Some(retry_ns) = *retry_ns else { continue };
        let breaker = board.breaker(slot);
        breaker.install();
        if retry_ns > 0 {
            let rule = BreakerRule { failures: 1, first: Duration::from_nanos(retry_ns), ..BreakerRule::default() };
            breaker.failed(&rule, 0, 0);
        }
    }
    let name = gate::COUNTERS.get(usize::from(world.tool.counter));
    let rates = world.rate.iter().filter_map(|rate| Some(((*name?).to_owned(), *rate))).collect();
    let maturity = if world.experimental { Maturity::Experimental } else { Maturity::Stable };
    let (tools, rules) = (Box::leak(Box::new([world.tool])), world.rules.clone());
    let config = GateConfig { tools, rates, rules, maturity, max_bytes: world.max_bytes };
    Gate::over(kernels, board, config).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_copy_answers_as_the_rules_say(world in world(), later in prop::collection::vec(0..3 * SECOND / 2, 1..8)) {
        let mut world = world;
        if usize::from(world.tool.counter) >= gate::COUNTERS.len() {
            world.rate = None;
        }
        for kernels in KernelSet::copies() {
            let (gate, mut due_ns, mut world) = (gate(&world, kernels), 0, world.clone());
            for wait in &later {
                let expected = world.check(&mut due_ns);
                let decision = gate.check_at(world.call, world.now_ns);
                let retry_ns = decision.retry_after().map_or(0, |delay| delay.as_nanos() as u64);
                prop_assert_eq!((decision.reason(), retry_ns, decision.cost()), expected);
                prop_assert_eq!(decision.handler().unwrap() as u8, world.tool.handler);
                prop_assert_eq!(decision.is_allowed(), expected.0.is_none());
                prop_assert_eq!(gate.board().counter_ns(world.tool.counter.into()), due_ns);
                let denial = gate.denial(world.call, &decision);
                prop_assert_eq!(denial.map(|denial| denial.reason), expected.0);
                world.now_ns += wait;
            }
        }
    }
}

fn of_all_calls(config: GateConfig) -> Gate {
    Gate::new(Board::in_memory().unwrap(), config).unwrap()
}

fn call(name: &str) -> Call {
    Call { tool: gate::tool_id(name).unwrap(), role: Role::Admin, bytes: 100 }
}

#[test]
fn a_rate_is_kept_from_many_threads_at_once() {
    const BURST: u32 = 20_000;
    const THREADS: usize = 4;
    let rate = Rate { per_second: 1000.0, burst: BURST };
    let gate = of_all_calls(GateConfig { rates: vec![("search".into(), rate)], ..GateConfig::default() });
    let (search, allowed) = (call("megaring.v1.Compute/Search"), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mine = (0..BURST).filter(|_| gate.check_at(search, SECOND).is_allowed()).count();
                allowed.fetch_add(mine as u64, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(allowed.into_inner(), u64::from(BURST), "as many as may come at once, and not one more");
    assert!(gate.check_at(call("megaring.v1.Compute/Encode"), SECOND).is_allowed(), "others are counted by themselves");
    assert!(gate.check_at(search, SECOND + SECOND / 1000).is_allowed(), "one more when its turn has come");
    assert!(!gate.check_at(search, SECOND + SECOND / 1000).is_allowed());
}

#[test]
fn breakers_of_the_board_are_those_that_the_gate_heeds() {
    let gate = of_all_calls(GateConfig::default());
    let rule = BreakerRule { failures: 1, ..BreakerRule::default() };
    let search = call("megaring.v1.Compute/Search");
    for kind in [BackendKind::Cpu, BackendKind::Wgpu] {
        gate.board().breaker(gate::breaker_slot(kind, Opcode::Search)).install();
    }
    gate.board().breaker(gate::breaker_slot(BackendKind::Cpu, Opcode::Search)).failed(&rule, 0, SECOND);
    assert!(gate.check_at(search, SECOND).is_allowed(), "the other backend may do it");
    let wgpu = gate::breaker_slot(BackendKind::Wgpu, Opcode::Search);
    gate.board().breaker(wgpu).failed(&rule, 0, SECOND / 2);
    let decision = gate.check_at(search, SECOND);
    assert_eq!((decision.reason(), decision.breaker()), (Some(Reason::Breaker), Some(wgpu)));
    assert_eq!(decision.retry_after(), Some(Duration::from_millis(500)));
    let denial = gate.denial(search, &decision).unwrap();
    assert!(denial.to_string().contains("search on wgpu"), "{denial}");
    assert!(gate.check_at(call("megaring.v1.Compute/Encode"), SECOND).is_allowed());
    assert!(gate.check_at(search, SECOND + SECOND / 2).is_allowed(), "it may be tried");
}

#[test]
fn what_a_gate_cannot_go_by_is_refused() {
    let refused = |config: GateConfig| Gate::new(Board::in_memory().unwrap(), config).map(drop).unwrap_err();
    let rate = |per_second, burst| GateConfig {
        rates: vec![("search".into(), Rate { per_second, burst })],
        ..GateConfig::default()
    };
    for config in [rate(0.0, 1), rate(-1.0, 1), rate(f64::NAN, 1), rate(1e10, 1), rate(1.0, 0)] {
        assert!(refused(config).contains("no rate"));
    }
    let rates = vec![("seek".to_owned(), Rate { per_second: 1.0, burst: 1 })];
    assert!(refused(GateConfig { rates, ..GateConfig::default() }).contains("search"), "those there are are named");
    let rule = |field, limit, costs| GateConfig {
        rules: vec![Rule { field, is_above: true, limit, costs }],
        ..GateConfig::default()
    };
    for config in [rule(FIELDS.len(), 1.0, vec![Cost::Read]), rule(0, f64::NAN, vec![Cost::Read]), rule(0, 1.0, vec![])]
    {
        assert!(refused(config).contains("a rule names"));
    }
    let tool = Tool { counter: COUNTERS.len().max(64) as u8, ..gate::TOOLS[0] };
    let tools = Box::leak(Box::new([tool]));
    let gate = Gate::new(Board::in_memory().unwrap(), GateConfig { tools, ..GateConfig::default() });
    assert!(gate.map(drop).unwrap_err().contains("64 counters"));
}

#[test]
fn rates_and_rules_are_read_as_they_are_written() {
    assert_eq!("100".parse(), Ok(Rate { per_second: 100.0, burst: 100 }));
    assert_eq!("0.5 : 3".parse(), Ok(Rate { per_second: 0.5, burst: 3 }));
    assert_eq!("0.25".parse(), Ok(Rate { per_second: 0.25, burst: 1 }));
    for text in ["", "fast", "0", "-1", "1:0", "1:-1", "1:2:3", "nan", "inf", "1e10"] {
        assert!(text.parse::<Rate>().is_err(), "{text}");
    }
    let rule: Rule = "memory_pressure > 0.95: batch, change".parse().unwrap();
    assert_eq!(rule, Rule { field: 4, is_above: true, limit: 0.95, costs: vec![Cost::Batch, Cost::Change] });
    assert_eq!(rule.to_string(), "memory_pressure > 0.95");
    assert!(matches!("jobs_per_second<10:admin".parse(), Ok(Rule { field: 1, is_above: false, .. })));
    for text in
        ["", "backlog", "backlog > 1", "backlog > 1:", "backlog = 1: read", "backlog > x: read", "backlog > inf: read"]
    {
        assert!(text.parse::<Rule>().is_err(), "{text}");
    }
    let reason = "mood > 1: read".parse::<Rule>().unwrap_err();
    assert!(reason.contains("utilisation") && reason.contains("mood"), "{reason}");
}

#[test]
fn a_denied_call_costs_no_allocation() {
    let rates = vec![("search".to_owned(), Rate { per_second: 1.0, burst: 1 })];
    let rules = vec!["utilisation < 1: read".parse().unwrap()];
    let gate = Arc::new(of_all_calls(GateConfig { rates, rules, ..GateConfig::default() }));
    let calls = ["megaring.v1.Compute/Search", "megaring.v1.Corpora/List", "megaring.v1.Corpora/Create"].map(call);
    let mut reasons = [None; 3];
    let counted = allocation_counter::measure(|| {
        assert!(gate.check(calls[0]).is_allowed());
        let calls = [calls[0], calls[1], Call { role: Role::Reader, ..calls[2] }];
        reasons = calls.map(|call| gate.check(call).reason());
    });
    assert_eq!(reasons, [Some(Reason::Rate), Some(Reason::Governor), Some(Reason::Role)]);
    assert_eq!(counted.count_total, 0);
}
