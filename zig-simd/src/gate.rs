//! The gate, over the board and the table of calls: one call into Zig says whether a call may enter.
//!
//! [`Gate::check`] allocates nothing and waits for nobody. What a denial says is put together only where somebody is to
//! read it ([`Gate::denial`]).

use std::sync::Arc;
use std::time::Duration;

use megaring_board::{BREAKERS, Board, COUNTERS, FIELDS};
use megaring_core::gate::{self, BREAKERS_PER_KIND, Cost, Denial, Maturity, QUERY_BYTES, Reason, Role, Tool};

use crate::kernels::KernelSet;

/// How often calls may come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Calls in a second, in the long run: above 0, a thousand million at most.
    pub per_second: f64,
    /// Calls that may come at once, at least 1.
    pub burst: u32,
}

/// A rule of the governor: while a field of the board's health is beyond the limit, calls of these costs are refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// The place of the field in [`FIELDS`].
    pub field: usize,
    /// Above the limit, or below it.
    pub is_above: bool,
    /// A finite number.
    pub limit: f64,
    /// What is refused.
    pub costs: Vec<Cost>,
}

/// What a gate goes by.
#[derive(Debug, Clone, PartialEq)]
pub struct GateConfig {
    /// The table of calls, whose ids are its places.
    pub tools: &'static [Tool],
    /// Limits by the name of their counter in [`gate::COUNTERS`]; a counter without one has none.
    pub rates: Vec<(String, Rate)>,
    /// The governor's rules. The first that holds is the reason.
    pub rules: Vec<Rule>,
    /// The highest maturity that is let in.
    pub maturity: Maturity,
    /// Most bytes of any message, whatever the table says.
    pub max_bytes: u64,
}

impl Default for GateConfig {
    /// All calls of the API; no rates, no rules, nothing experimental, messages as the table has them.
    fn default() -> Self {
        let (rates, rules, maturity) = (Vec::new(), Vec::new(), Maturity::Stable);
        Self { tools: gate::TOOLS, rates, rules, maturity, max_bytes: u64::MAX }
    }
}

/// A call, as far as it is known before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Its id in the table.
    pub tool: u16,
    /// Its caller's role.
    pub role: Role,
    /// Bytes of its message, as announced.
    pub bytes: u64,
}

/// What the gate says of a call; laid out as `gate.zig` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Decision {
    /// When a new try is worthwhile, in nanoseconds; 0 where waiting does not help.
    retry_after_ns: u64,
    /// The breaker or the rule that refuses.
    which: u32,
    reason: u8,
    handler: u8,
    cost: u8,
    reserved: u8,
}

impl Decision {
    /// Whether the call may enter.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.reason == 0
    }

    /// Why it may not.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        Reason::from_number(self.reason)
    }

    /// What the call counts as.
    #[must_use]
    pub fn cost(&self) -> Cost {
        Cost::from_number(self.cost).unwrap_or(Cost::Batch)
    }

    /// How its messages come.
    #[must_use]
    pub fn handler(&self) -> Option<gate::Handler> {
        gate::Handler::from_number(self.handler)
    }

    /// When a new try is worthwhile, where waiting helps.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        (self.retry_after_ns != 0).then(|| Duration::from_nanos(self.retry_after_ns))
    }

    /// The breaker that refuses, where that is the reason.
    #[must_use]
    pub fn breaker(&self) -> Option<usize> {
        (self.reason() == Some(Reason::Breaker)).then_some(self.which as usize)
    }
}

#[repr(C)]
pub(crate) struct RawGate {
    board: *const std::ffi::c_void,
    tools: *const Tool,
    rates: *const [RawRate; COUNTERS],
    rules: *const RawRule,
    rule_count: usize,
    max_bytes: u64,
    query_bytes: u64,
    breakers_per_kind: u32,
    maturity: u32,
}

#[repr(C)]
pub(crate) struct RawCall {
    bytes: u64,
    now_ns: u64,
    tool: u32,
    role: u32,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct RawRate {
    interval_ns: u64,
    tolerance_ns: u64,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct RawRule {
    limit: f64,
    field: u32,
    is_above: bool,
    costs: u8,
    reserved: u16,
}

const _: () = {
    assert!(size_of::<RawGate>() == 8 * 8 && size_of::<RawCall>() == 24);
    assert!(size_of::<RawRate>() == 16 && size_of::<RawRule>() == 16 && size_of::<Decision>() == 16);
    assert!(Cost::Query as u8 == 1 && Cost::Batch as u8 == 2, "gate.zig knows them by these numbers");
    assert!(Reason::Size as u8 == 1 && Reason::Governor as u8 == 6, "and its own reasons are in this order");
};

/// The gate before a service.
pub struct Gate {
    kernels: &'static KernelSet,
    board: Arc<Board>,
    rates: Box<[RawRate; COUNTERS]>,
    rules: Vec<RawRule>,
    config: GateConfig,
}

impl Gate {
    /// A gate over a board.
    ///
    /// # Errors
    /// What of `config` cannot be, in words.
    pub fn new(board: Arc<Board>, config: GateConfig) -> Result<Self, String> {
        // It has no vectors: any copy does.
        let kernels = KernelSet::available().into_iter().next().ok_or("this processor runs no kernels")?;
        Self::over(kernels, board, config)
    }

    /// [`Self::new`] with one set of kernels.
    ///
    /// # Errors
    /// What of `config` cannot be, in words.
    pub fn over(kernels: &'static KernelSet, board: Arc<Board>, config: GateConfig) -> Result<Self, String> {
        let beyond = |(_, tool): &(usize, &Tool)| usize::from(tool.counter) >= COUNTERS;
        if let Some((at, tool)) = config.tools.iter().enumerate().find(beyond) {
            return Err(format!("tool {at} counts at {}, and a board has {COUNTERS} counters", tool.counter));
        }
        let mut rates = Box::new([RawRate::default(); COUNTERS]);
        for (name, rate) in &config.rates {
            let counter = gate::COUNTERS.iter().position(|counter| counter == name);
            let known = || gate::COUNTERS.join(", ");
            let counter = counter.ok_or_else(|| format!("no calls are counted as {name:?}; there are {}", known()))?;
            rates[counter] = rate.raw()?;
        }
        let rules = config.rules.iter().map(Rule::raw).collect::<Result<_, _>>()?;
        Ok(Self { kernels, board, rates, rules, config })
    }

    /// Whether a call may enter, by the first reason against it. A rate limiter counts it where its turn comes,
    /// whatever is asked after that.
    ///
    /// # Panics
    /// Where there is no such tool.
    #[inline]
    #[must_use]
    pub fn check(&self, call: Call) -> Decision {
        self.check_at(call, self.board.now_ns())
    }

    /// [`Self::check`] at a time on the board's clock.
    ///
    /// # Panics
    /// Where there is no such tool.
    #[inline]
    #[must_use]
    pub fn check_at(&self, Call { tool, role, bytes }: Call, now_ns: u64) -> Decision {
        assert!(usize::from(tool) < self.config.tools.len(), "there is no tool {tool}");
        let gate = RawGate {
            board: self.board.words().as_ptr().cast(),
            tools: self.config.tools.as_ptr(),
            rates: &raw const *self.rates,
            rules: self.rules.as_ptr(),
            rule_count: self.rules.len(),
            max_bytes: self.config.max_bytes,
            query_bytes: QUERY_BYTES,
            breakers_per_kind: BREAKERS_PER_KIND as u32,
            maturity: self.config.maturity as u32,
        };
        let call = RawCall { bytes, now_ns, tool: tool.into(), role: role as u32 };
        let mut decision = Decision::default();
        // SAFETY: a `KernelSet` exists only where the CPU has its instructions. `gate` and what it points to live
        // through the call: the board's page of 4,096 bytes, which this process may write since a `Board` is its writer
        // and whose words are atomic on both sides; the table, of which row `tool` is there; a rate for every counter
        // that a row can name, as `over` has checked; the rules, whose fields `Rule::raw` has checked.
        unsafe { (self.kernels.table.check)(&raw const gate, &raw const call, &raw mut decision) };
        decision
    }

    /// The board that it goes by.
    #[must_use]
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// What is to be said of a call that may not enter; `None` where it may.
    #[must_use]
    pub fn denial(&self, call: Call, decision: &Decision) -> Option<Denial> {
        let (reason, tool) = (decision.reason()?, self.config.tools.get(usize::from(call.tool))?);
        let description = match reason {
            Reason::Size => {
                let limit = tool.max_bytes.min(self.config.max_bytes);
                format!("the message has {} bytes, and {limit} are the most", call.bytes)
            }
            Reason::Breaker => self.describe_breaker(decision),
            Reason::Rate => {
                let name = gate::COUNTERS.get(usize::from(tool.counter)).copied().unwrap_or_default();
                let rate = self.config.rates.iter().rfind(|(counter, _)| counter == name);
                let rate = rate.map_or_else(String::new, |(_, rate)| format!(", and {rate} are let in"));
                format!("calls of the kind {name:?} come too often{rate}")
            }
            Reason::Role => {
                let needed = Role::from_number(tool.role).map_or("another", Role::name);
                format!("the caller has the role {}, and the call takes {needed}", call.role)
            }
            Reason::Maturity => "the call is experimental; `--maturity experimental` lets it in".to_owned(),
            Reason::Governor => {
                let rule = self.config.rules.get(decision.which as usize);
                let rule = rule.map_or_else(String::new, |rule| format!(" while {rule}"));
                format!("calls that count as {} are refused{rule}", decision.cost())
            }
            // None of the gate's own.
            Reason::Budget | Reason::Token | Reason::Recipient | Reason::Ledger => return None,
        };
        Some(Denial { reason, description, retry_after: decision.retry_after() })
    }

    fn describe_breaker(&self, decision: &Decision) -> String {
        let slot = decision.which as usize;
        let known = gate::breakers().find(|(at, ..)| *at == slot);
        let what = known.map_or_else(|| format!("breaker {slot}"), |(_, kind, opcode)| format!("{opcode} on {kind}"));
        let failures = if slot < BREAKERS { self.board.breaker(slot).failures() } else { 0 };
        format!(
            "every backend that could do it has been failing; {what}, the next to be tried, {failures} times in a row"
        )
    }
}

impl Rate {
    fn raw(&self) -> Result<RawRate, String> {
        const MOST: f64 = 1e9;
        if !(self.per_second > 0.0 && self.per_second <= MOST) || self.burst == 0 {
            return Err(format!("{self} is no rate: above 0 and up to {MOST:e} a second, bursts from 1"));
        }
        let interval_ns = ((1e9 / self.per_second) as u64).max(1);
        Ok(RawRate { interval_ns, tolerance_ns: interval_ns.saturating_mul(u64::from(self.burst) - 1) })
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} a second, {} at once", self.per_second, self.burst)
    }
}

impl std::str::FromStr for Rate {
    type Err = String;

    /// `100` is a hundred a second and at once, `100:20` twenty at once.
    fn from_str(text: &str) -> Result<Self, String> {
        let (per_second, burst) = text.split_once(':').map_or((text, None), |(rate, burst)| (rate, Some(burst)));
        let malformed = |_| format!("{text:?} is no rate, such as 100 (calls a second) or 100:20 (20 at once)");
        let per_second: f64 = per_second.trim().parse().map_err(|_| malformed(()))?;
        let burst = match burst {
            Some(burst) => burst.trim().parse().map_err(|_| malformed(()))?,
            None => per_second.ceil().max(1.0) as u32,
        };
        let rate = Self { per_second, burst };
        rate.raw().map(|_| rate)
    }
}

impl Rule {
    fn raw(&self) -> Result<RawRule, String> {
        if self.field >= FIELDS.len() || !self.limit.is_finite() || self.costs.is_empty() {
            return Err("a rule names a field of the board, a finite limit, and at least one cost".to_owned());
        }
        let costs = self.costs.iter().fold(0, |costs, cost| costs | 1 << *cost as u8);
        Ok(RawRule { limit: self.limit, field: self.field as u32, is_above: self.is_above, costs, reserved: 0 })
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let field = FIELDS.get(self.field).map_or("?", |field| field.name);
        write!(f, "{field} {} {}", if self.is_above { '>' } else { '<' }, self.limit)
    }
}

impl std::str::FromStr for Rule {
    type Err = String;

    /// Such as `memory_pressure > 0.95: batch, change`.
    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || format!("{text:?} is no rule, such as \"memory_pressure > 0.95: batch, change\"");
        let (condition, costs) = text.split_once(':').ok_or_else(malformed)?;
        let at = condition.find(['<', '>']).ok_or_else(malformed)?;
        let (name, limit) = (condition[..at].trim(), condition[at + 1..].trim());
        let known = || FIELDS.map(|field| field.name).join(", ");
        let field = FIELDS.iter().position(|field| field.name == name);
        let field = field.ok_or_else(|| format!("the board has no field {name:?}; there are {}", known()))?;
        let costs = costs.split(',').map(|cost| cost.trim().parse()).collect::<Result<Vec<Cost>, _>>()?;
        let rule = Self {
            field,
            is_above: condition.as_bytes()[at] == b'>',
            limit: limit.parse().map_err(|_| malformed())?,
            costs,
        };
        rule.raw().map(|_| rule).map_err(|_| malformed())
    }
}
