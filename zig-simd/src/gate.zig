//! The gate: whether a call may enter, by the page of the state board and the table of calls, before it costs anything.
//!
//! Six questions in a fixed order: size, breakers, rate, role, maturity, the governor's rules. The first that is
//! answered by no is the reason. It allocates nothing, waits for nobody, and writes one word of the board at most: a
//! rate limiter's theoretical arrival time, by compare-and-swap. Any number of threads may ask at once.
//!
//! It does not know who calls, nor what a budget is: that is asked behind it, of those who get so far.
const std = @import("std");

/// One breaker; see host/board/src/breaker.rs.
pub const Breaker = extern struct {
    /// 0 where there is nothing that it stands for.
    state: u64,
    failures: u64,
    opened_ns: u64,
    /// Nothing passes before this time.
    retry_ns: u64,
};

pub const breaker_count = 64;
pub const counter_count = 64;
pub const field_count = 7;

/// The page; host/board/src/lib.rs has the table of it. Every word is written by others meanwhile, and read atomically.
pub const Board = extern struct {
    header: [16]u64,
    sequence: u64,
    health: [field_count]u64,
    health_rest: [8]u64,
    breakers: [breaker_count]Breaker,
    counters: [counter_count]u64,
    rest: [160]u64,
};

/// A row of the table of calls: `Tool` in host/core/src/gate.rs.
pub const Tool = extern struct {
    max_bytes: u64,
    opcode: u16,
    handler: u8,
    counter: u8,
    role: u8,
    maturity: u8,
    cost: u8,
    reserved: u8,
};

/// What `Tool.cost` says of a single query, and of many.
const cost_query = 1;
const cost_batch = 2;

/// A rate limiter's setting. An interval of 0 is no limit.
pub const Rate = extern struct {
    /// Between two calls of a caller that keeps to the rate.
    interval_ns: u64,
    /// How far ahead of its rate it may be.
    tolerance_ns: u64,
};

/// A rule of the governor: calls of these costs are refused while the field is beyond the limit.
pub const Rule = extern struct {
    limit: f64,
    /// Its place in the health.
    field: u32,
    /// Above the limit, or below it.
    is_above: bool,
    /// Costs, one a bit.
    costs: u8,
    reserved: u16,
};

/// What the gate goes by.
pub const Gate = extern struct {
    board: *Board,
    tools: [*]const Tool,
    rates: *const [counter_count]Rate,
    rules: [*]const Rule,
    rule_count: usize,
    /// Most bytes of any message, whatever the table says.
    max_bytes: u64,
    /// Most bytes of a message that is a single query.
    query_bytes: u64,
    /// The breakers of one operation lie so far apart.
    breakers_per_kind: u32,
    /// The highest maturity number that is let in.
    maturity: u32,
};

/// A call, as far as it is known before it is read.
pub const Call = extern struct {
    /// Of its message, as announced.
    bytes: u64,
    /// On the board's clock.
    now_ns: u64,
    tool: u32,
    role: u32,
};

pub const Reason = enum(u8) { none, size, breaker, rate, role, maturity, governor };

/// What the answer is about where it is about nothing.
pub const nothing = std.math.maxInt(u32);

pub const Decision = extern struct {
    /// When a new try is worthwhile; 0 where waiting does not help.
    retry_after_ns: u64,
    /// The breaker or the rule that refuses; `nothing` where it is neither.
    which: u32,
    reason: Reason,
    handler: u8,
    /// What the call counts as.
    cost: u8,
    reserved: u8,
};

comptime {
    std.debug.assert(@sizeOf(Board) == 4096);
    std.debug.assert(@offsetOf(Board, "sequence") == 128 and @offsetOf(Board, "health") == 136);
    std.debug.assert(@offsetOf(Board, "breakers") == 256 and @offsetOf(Board, "counters") == 2304);
    std.debug.assert(@sizeOf(Breaker) == 32 and @offsetOf(Breaker, "retry_ns") == 24);
    std.debug.assert(@sizeOf(Tool) == 16 and @offsetOf(Tool, "opcode") == 8 and @offsetOf(Tool, "counter") == 11);
    std.debug.assert(@offsetOf(Tool, "role") == 12 and @offsetOf(Tool, "maturity") == 13 and @offsetOf(Tool, "cost") == 14);
    std.debug.assert(@sizeOf(Rate) == 16 and @sizeOf(Rule) == 16 and @sizeOf(Call) == 24 and @sizeOf(Decision) == 16);
}

/// The first reason to refuse the call, if there is one. `call.tool` is the number of a row.
pub fn check(gate: *const Gate, call: *const Call) Decision {
    const tool = &gate.tools[call.tool];
    const is_long = tool.cost == cost_query and call.bytes > gate.query_bytes;
    var decision = Decision{
        .retry_after_ns = 0,
        .which = nothing,
        .reason = .none,
        .handler = tool.handler,
        .cost = if (is_long) cost_batch else tool.cost,
        .reserved = 0,
    };
    decision.reason = reason: {
        if (call.bytes > @min(tool.max_bytes, gate.max_bytes)) break :reason .size;
        if (tool.opcode != 0 and allAreOpen(gate, tool.opcode, call.now_ns, &decision)) break :reason .breaker;
        if (comesTooSoon(gate, tool.counter, call.now_ns, &decision)) break :reason .rate;
        if (call.role < tool.role) break :reason .role;
        if (tool.maturity > gate.maturity) break :reason .maturity;
        if (aRuleHolds(gate, &decision)) break :reason .governor;
        break :reason .none;
    };
    return decision;
}

fn load(word: *const u64) u64 {
    return @atomicLoad(u64, word, .monotonic);
}

/// Whether every breaker of an operation is open. Where there is none, nothing is known to fail.
fn allAreOpen(gate: *const Gate, opcode: u16, now_ns: u64, decision: *Decision) bool {
    var soonest_ns: u64 = std.math.maxInt(u64);
    var soonest: u32 = nothing;
    var slot: u32 = opcode - 1;
    // Behind the last kind's there may be some that belong to none.
    const end = breaker_count - breaker_count % gate.breakers_per_kind;
    while (slot < end) : (slot += gate.breakers_per_kind) {
        const breaker = &gate.board.breakers[slot];
        if (load(&breaker.state) == 0) continue;
        const retry_ns = load(&breaker.retry_ns);
        if (retry_ns <= now_ns) return false;
        if (retry_ns < soonest_ns or soonest == nothing) {
            soonest_ns = retry_ns;
            soonest = slot;
        }
    }
    if (soonest == nothing) return false;
    decision.retry_after_ns = soonest_ns - now_ns;
    decision.which = soonest;
    return true;
}

/// The generic cell rate algorithm, as a virtual schedule (ITU-T I.371, annex A): a call may come when it is due or up
/// to the tolerance before, and puts off the next one by an interval. One that is refused changes nothing.
fn comesTooSoon(gate: *const Gate, counter: u8, now_ns: u64, decision: *Decision) bool {
    const rate = gate.rates[counter];
    if (rate.interval_ns == 0) return false;
    const arrival = &gate.board.counters[counter];
    var due_ns = load(arrival);
    while (true) {
        const earliest_ns = due_ns -| rate.tolerance_ns;
        if (earliest_ns > now_ns) {
            decision.retry_after_ns = earliest_ns - now_ns;
            return true;
        }
        const next_ns = @max(due_ns, now_ns) +| rate.interval_ns;
        due_ns = @cmpxchgWeak(u64, arrival, due_ns, next_ns, .monotonic, .monotonic) orelse return false;
    }
}

/// Whether the health is such that a rule refuses calls of this cost.
fn aRuleHolds(gate: *const Gate, decision: *Decision) bool {
    if (gate.rule_count == 0) return false;
    const health = readHealth(gate.board) orelse return false;
    const cost = @as(u8, 1) << @intCast(decision.cost & 7);
    for (gate.rules[0..gate.rule_count], 0..) |*rule, number| {
        if (rule.costs & cost == 0) continue;
        const value = health[rule.field];
        if (if (rule.is_above) value > rule.limit else value < rule.limit) {
            decision.which = @intCast(number);
            // The health is told anew some times a second.
            decision.retry_after_ns = std.time.ns_per_s;
            return true;
        }
    }
    return false;
}

/// The health, whole; see host/board/src/seqlock.rs. `null` where it has been in the middle of being written all along:
/// a thread that writes it has lost its processor, and what it has to say is not worth waiting for.
fn readHealth(board: *const Board) ?[field_count]f64 {
    for (0..100) |_| {
        const before = @atomicLoad(u64, &board.sequence, .acquire);
        var health: [field_count]f64 = undefined;
        // Each with acquire, since Zig has no fence of its own: the second look comes after all of them.
        for (&health, &board.health) |*value, *word| value.* = @bitCast(@atomicLoad(u64, word, .acquire));
        if (before & 1 == 0 and load(&board.sequence) == before) return health;
        std.atomic.spinLoopHint();
    }
    return null;
}

const testing = std.testing;

const Fixture = struct {
    board: Board = std.mem.zeroes(Board),
    tools: [2]Tool = .{
        .{ .max_bytes = 100, .opcode = 2, .handler = 1, .counter = 3, .role = 2, .maturity = 1, .cost = cost_query, .reserved = 0 },
        .{ .max_bytes = 100, .opcode = 0, .handler = 0, .counter = 0, .role = 1, .maturity = 0, .cost = 0, .reserved = 0 },
    },
    rates: [counter_count]Rate = @splat(.{ .interval_ns = 0, .tolerance_ns = 0 }),
    rules: [1]Rule = .{.{ .limit = 0.5, .field = 4, .is_above = true, .costs = 1 << cost_query, .reserved = 0 }},

    fn gate(self: *Fixture) Gate {
        return .{
            .board = &self.board,
            .tools = &self.tools,
            .rates = &self.rates,
            .rules = &self.rules,
            .rule_count = self.rules.len,
            .max_bytes = 1000,
            .query_bytes = 50,
            .breakers_per_kind = 21,
            .maturity = 1,
        };
    }
};

test "the first reason in the order counts, and what is asked later stays as it is" {
    var fixture = Fixture{};
    var gate = fixture.gate();
    var call = Call{ .bytes = 101, .now_ns = 1000, .tool = 0, .role = 1 };
    fixture.board.health[4] = @bitCast(@as(f64, 0.75));
    fixture.board.breakers[1] = .{ .state = 2, .failures = 1, .opened_ns = 0, .retry_ns = 1500 };
    fixture.board.counters[3] = 3000;
    fixture.rates[3] = .{ .interval_ns = 500, .tolerance_ns = 1000 };
    gate.maturity = 0;
    try testing.expectEqual(Reason.size, check(&gate, &call).reason);
    call.bytes = 50;
    var decision = check(&gate, &call);
    try testing.expectEqual(Reason.breaker, decision.reason);
    try testing.expectEqual(@as(u64, 500), decision.retry_after_ns);
    try testing.expectEqual(@as(u32, 1), decision.which);
    call.now_ns = 1500;
    decision = check(&gate, &call);
    try testing.expectEqual(Reason.rate, decision.reason);
    try testing.expectEqual(@as(u64, 500), decision.retry_after_ns);
    try testing.expectEqual(@as(u64, 3000), fixture.board.counters[3]);
    call.now_ns = 2000;
    try testing.expectEqual(Reason.role, check(&gate, &call).reason);
    try testing.expectEqual(@as(u64, 3500), fixture.board.counters[3]);
    call.role = 2;
    call.now_ns = 9000;
    try testing.expectEqual(Reason.maturity, check(&gate, &call).reason);
    gate.maturity = 1;
    decision = check(&gate, &call);
    try testing.expectEqual(Reason.governor, decision.reason);
    try testing.expectEqual(@as(u32, 0), decision.which);
    fixture.board.health[4] = @bitCast(@as(f64, 0.5));
    decision = check(&gate, &call);
    try testing.expectEqual(Reason.none, decision.reason);
    try testing.expectEqual(@as(u8, 1), decision.handler);
}

test "a breaker refuses only where every backend's is open" {
    var fixture = Fixture{};
    const gate = fixture.gate();
    const call = Call{ .bytes = 1, .now_ns = 10, .tool = 0, .role = 3 };
    for ([_]usize{ 1, 22, 43 }) |slot| fixture.board.breakers[slot] = .{ .state = 2, .failures = 1, .opened_ns = 0, .retry_ns = 20 + slot };
    try testing.expectEqual(@as(u64, 11), check(&gate, &call).retry_after_ns);
    fixture.board.breakers[22] = .{ .state = 1, .failures = 0, .opened_ns = 0, .retry_ns = 0 };
    try testing.expectEqual(Reason.none, check(&gate, &call).reason);
    fixture.board.breakers[22].state = 0;
    try testing.expectEqual(Reason.breaker, check(&gate, &call).reason);
    // One that belongs to no kind of backend.
    fixture.tools[0].opcode = 1;
    fixture.board.breakers[0] = .{ .state = 2, .failures = 1, .opened_ns = 0, .retry_ns = 20 };
    fixture.board.breakers[63] = .{ .state = 1, .failures = 0, .opened_ns = 0, .retry_ns = 0 };
    try testing.expectEqual(Reason.breaker, check(&gate, &call).reason);
    // Another operation's.
    fixture.tools[0].opcode = 3;
    try testing.expectEqual(Reason.none, check(&gate, &call).reason);
}

test "a long query is a batch, and a health that is being written refuses nobody" {
    var fixture = Fixture{};
    const gate = fixture.gate();
    var call = Call{ .bytes = 51, .now_ns = 10, .tool = 0, .role = 3 };
    fixture.board.health[4] = @bitCast(@as(f64, 0.75));
    try testing.expectEqual(Reason.none, check(&gate, &call).reason);
    try testing.expectEqual(@as(u8, cost_batch), check(&gate, &call).cost);
    call.bytes = 50;
    try testing.expectEqual(Reason.governor, check(&gate, &call).reason);
    fixture.board.sequence = 3;
    try testing.expectEqual(Reason.none, check(&gate, &call).reason);
}
