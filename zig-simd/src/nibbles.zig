//! The screen of src/screen.zig over codes in two halves: the high four bits of every row, the low ones of few.
//!
//! A stored code is 16 * h + l. High halves lie in groups like codes, two quads in a byte: high[group][pair][16][4],
//! the pair's first quad in the low four bits. Low halves lie row by row: low[row][2 * quads], dimension j in the low
//! four bits of byte j and dimension j + 2 * quads in the others. For query q and row r, every operation rounded by
//! itself:
//!
//!     high  = sum over dimensions of h[r] * code[q]             exact
//!     sum   = 16 * high + sum of l[r] * code[q] - 128 * sum of code[q]     exact: the sum of src/screen.zig
//!     upper = the upper bound by the columns `job.columns` of 16 * high - 120 * sum of code[q], which takes l for 8
//!     both  = the bounds by the columns `fine_columns` of `sum`
//!     kept where upper >= threshold[q] and both.upper >= threshold[q], with the lesser upper bound
//!
//! Rows are decided one after the other as in src/screen.zig. Rows that may pass wait in a queue while what they need
//! of the low halves is on its way from memory; that changes nothing, as thresholds only rise and are looked at again
//! when it is a row's turn.
const std = @import("std");
const isa = @import("isa.zig");
const quads = @import("quads.zig");
const screening = @import("screen.zig");
const Step = quads.Step;
const Sums = screening.Sums;
const Floats = screening.Floats;
const Lanes = screening.Lanes;
const Bounds = screening.Bounds;
const group_rows = screening.group_rows;

/// `job.codes` are the high halves, `job.columns` those of their bound.
pub const Job = extern struct {
    job: screening.Job,
    /// From row group 0 on: [row][2 * quads] and [group][4][16].
    low: [*]const u8,
    fine_columns: [*]const f32,
    /// Rows, counted once for each query, whose low halves were needed; added to.
    refined: usize,

    comptime {
        std.debug.assert(@sizeOf(Job) == @sizeOf(screening.Job) + 3 * @sizeOf(usize));
    }
};

const steps_a_group = group_rows / Step.rows;
/// Queries that share the unpacking of a group's halves.
const tile_queries = 4;
/// Groups of rows that wait, once for each query, at most.
const places = 32;

/// A group of which some rows may pass for a query.
const Waiting = struct {
    group: usize,
    query: usize,
    passes: Lanes,
    high: Sums,
};

const Queue = struct {
    waiting: [places]Waiting = undefined,
    count: usize = 0,
    fullest: u32,

    /// Candidates that a query has or may get of what waits.
    inline fn most(queue: *const Queue) usize {
        return queue.fullest + queue.count * group_rows;
    }
};

/// As `screening.screen`.
pub fn screen(nibbles: *Job) usize {
    const job = &nibbles.job;
    if (job.query_count == 0) return job.group_end;
    var queue: Queue = .{ .fullest = 0 };
    for (job.counts[0..job.query_count]) |count| queue.fullest = @max(queue.fullest, count);

    var group = job.group_begin;
    while (group < job.group_end) : (group += 1) {
        if (queue.most() + group_rows > job.capacity) {
            drain(nibbles, &queue);
            if (queue.fullest + group_rows > job.capacity) break;
        }
        var query: usize = 0;
        while (query + tile_queries <= job.query_count) : (query += tile_queries) {
            tile(tile_queries, nibbles, group, query, &queue);
        }
        switch (job.query_count - query) {
            inline 1...tile_queries - 1 => |rest| tile(rest, nibbles, group, query, &queue),
            else => {},
        }
    }
    drain(nibbles, &queue);
    return group;
}

fn tile(comptime queries: comptime_int, nibbles: *Job, group: usize, query: usize, queue: *Queue) void {
    @setEvalBranchQuota(4000);
    const job = &nibbles.job;
    if (queue.count + queries > places) drain(nibbles, queue);
    const sums = highSums(queries, job, group, query);
    inline for (0..queries) |q| {
        const passes = reaching(job, query + q, coarseUpper(job, group, query + q, sums[q]));
        if (passes != 0) {
            queue.waiting[queue.count] = .{ .group = group, .query = query + q, .passes = passes, .high = sums[q] };
            queue.count += 1;
            ask(nibbles, group, passes);
        }
    }
}

/// Which rows of these upper bounds reach the query's threshold.
inline fn reaching(job: *const screening.Job, query: usize, upper: Floats) Lanes {
    return @bitCast(upper >= @as(Floats, @splat(job.params[query].threshold)));
}

/// The upper bounds by the high halves.
inline fn coarseUpper(job: *const screening.Job, group: usize, query: usize, high: Sums) Floats {
    // The bias is -128 times the sum of the query's codes.
    const bias: Sums = @splat(job.biases[query] - (job.biases[query] >> 4));
    const sums = (high << @splat(4)) + bias;
    return Bounds.of(&job.params[query], screening.columnsOf(job.columns, group), sums).upper;
}

/// Bytes of the low halves of one row.
inline fn halfRow(job: *const screening.Job) usize {
    return job.quads * quads.dims / 2;
}

/// Asks memory for what it takes to decide about these rows.
inline fn ask(nibbles: *const Job, group: usize, passes: Lanes) void {
    const half = halfRow(&nibbles.job);
    inline for (0..4) |column| @prefetch(screening.columnsOf(nibbles.fine_columns, group)[column * group_rows ..], .{});
    var rest = passes;
    while (rest != 0) : (rest &= rest - 1) {
        const row = nibbles.low + (group * group_rows + @ctz(rest)) * half;
        var at: usize = 0;
        while (at < half) : (at += 64) @prefetch(row + at, .{});
    }
}

/// Decides about all that waits.
fn drain(nibbles: *Job, queue: *Queue) void {
    const job = &nibbles.job;
    for (queue.waiting[0..queue.count]) |*waiting| {
        const query = waiting.query;
        const upper = coarseUpper(job, waiting.group, query, waiting.high);
        const passes = waiting.passes & reaching(job, query, upper);
        if (passes == 0) continue;
        const half = halfRow(job);
        const codes = job.queries + query * job.quads * quads.dims;
        var low: [group_rows]i32 = @splat(0);
        var rest = passes;
        while (rest != 0) : (rest &= rest - 1) {
            const lane: u4 = @intCast(@ctz(rest));
            low[lane] = lowSum(nibbles.low + (waiting.group * group_rows + lane) * half, codes, half);
            nibbles.refined += 1;
        }
        const sums = (waiting.high << @splat(4)) + @as(Sums, low) + @as(Sums, @splat(job.biases[query]));
        var bounds = Bounds.of(&job.params[query], screening.columnsOf(nibbles.fine_columns, waiting.group), sums);
        bounds.upper = @min(bounds.upper, upper);
        screening.append(job, waiting.group, query, passes, bounds, &queue.fullest);
    }
    queue.count = 0;
}

/// The sums of one group's high halves with the codes of some queries.
inline fn highSums(comptime queries: comptime_int, job: *const screening.Job, group: usize, query: usize) [queries]Sums {
    const step_bytes = Step.rows * quads.dims;
    const pairs = job.quads / 2;
    const pair_bytes = group_rows * quads.dims;
    const high = job.codes + group * ((job.quads + 1) / 2) * pair_bytes;
    const codes = job.queries + query * job.quads * quads.dims;

    var out: [queries]Sums = undefined;
    inline for (0..steps_a_group) |step| {
        // Two chains, one for each half of a byte.
        var sums: [2][queries]Step.Sums = @splat(@splat(Step.start(0)));
        const from = high + step * step_bytes;
        for (0..pairs) |pair| {
            const bytes: @Vector(step_bytes, u8) = from[pair * pair_bytes ..][0..step_bytes].*;
            addHalves(queries, &sums, bytes, codes, job.quads, 2 * pair, 2);
        }
        if (job.quads % 2 != 0) {
            const bytes: @Vector(step_bytes, u8) = from[pairs * pair_bytes ..][0..step_bytes].*;
            addHalves(queries, &sums, bytes, codes, job.quads, 2 * pairs, 1);
        }
        inline for (0..queries) |q| {
            const total: [Step.rows]i32 = Step.finish(sums[0][q]) + Step.finish(sums[1][q]);
            const lanes: *[group_rows]i32 = @ptrCast(&out[q]);
            lanes[step * Step.rows ..][0..Step.rows].* = total;
        }
    }
    return out;
}

inline fn addHalves(
    comptime queries: comptime_int,
    sums: *[2][queries]Step.Sums,
    bytes: @Vector(Step.rows * quads.dims, u8),
    codes: [*]const i8,
    quad_count: usize,
    quad: usize,
    comptime count: comptime_int,
) void {
    const four: @TypeOf(bytes) = @splat(4);
    const mask: @TypeOf(bytes) = @splat(15);
    inline for (0..count) |half| {
        const prepared = Step.halves(if (half == 0) bytes & mask else bytes >> four);
        inline for (0..queries) |q| {
            const broadcast = Step.broadcast(codes[(q * quad_count + quad + half) * quads.dims ..][0..quads.dims]);
            sums[half][q] = Step.add(sums[half][q], prepared, broadcast);
        }
    }
}

/// The sum of one row's low halves with a query's codes.
inline fn lowSum(low: [*]const u8, codes: [*]const i8, half: usize) i32 {
    const Bytes = @Vector(low_width, u8);
    var sums: Products.Sums = Products.start;
    var at: usize = 0;
    while (at + low_width <= half) : (at += low_width) {
        const bytes: Bytes = low[at..][0..low_width].*;
        sums = Products.add(sums, bytes & @as(Bytes, @splat(15)), codes[at..][0..low_width].*);
        sums = Products.add(sums, bytes >> @splat(4), codes[half + at ..][0..low_width].*);
    }
    var sum = @reduce(.Add, sums);
    while (at < half) : (at += 1) {
        sum += @as(i32, low[at] & 15) * codes[at] + @as(i32, low[at] >> 4) * codes[half + at];
    }
    return sum;
}

/// Bytes of one row taken at once.
const low_width = if (Products == StepProducts) Step.rows * quads.dims else 16;

/// Where a step takes a whole register of codes, it takes one of a single row as well.
const Products = switch (isa.current) {
    .avx512, .avx2 => StepProducts,
    .baseline, .neon => struct {
        const Sums = @Vector(16, i32);
        const start: @This().Sums = @splat(0);

        /// Products are at most 15 * 127, which 16 bits hold.
        inline fn add(sums: @This().Sums, halves: @Vector(16, u8), codes: @Vector(16, i8)) @This().Sums {
            return sums + @as(@Vector(16, i16), halves) * @as(@Vector(16, i16), codes);
        }
    },
};

const StepProducts = struct {
    const Sums = Step.Sums;
    const start: @This().Sums = @splat(0);

    inline fn add(sums: @This().Sums, halves: @Vector(low_width, u8), codes: @Vector(low_width, i8)) @This().Sums {
        return Step.add(sums, Step.halves(halves), @bitCast(codes));
    }
};

test "where high halves rule nothing out, the candidates are those of the codes" {
    const groups = 5;
    const query_count = 5;
    const capacity = groups * group_rows;
    var random = std.Random.DefaultPrng.init(3);
    inline for ([_]usize{ 1, 2, 9, 32, 33 }) |quad_count| {
        const half = quad_count * quads.dims / 2;
        const pairs = (quad_count + 1) / 2;
        const quad_bytes = group_rows * quads.dims;
        var codes: [groups * quad_count * quad_bytes]u8 = undefined;
        for (&codes) |*code| code.* = random.random().intRangeAtMost(u8, 1, 255);
        var high: [groups * pairs * quad_bytes]u8 = @splat(0);
        var low: [groups * group_rows * half]u8 = @splat(0);
        for (codes, 0..) |code, i| {
            const element, const row = .{ i % quads.dims, i / quads.dims % group_rows };
            const quad, const group = .{ i / quad_bytes % quad_count, i / quad_bytes / quad_count };
            const high_at = ((group * pairs + quad / 2) * group_rows + row) * quads.dims + element;
            high[high_at] |= if (quad % 2 == 0) code >> 4 else code & 0xf0;
            const dim = quad * quads.dims + element;
            low[(group * group_rows + row) * half + dim % half] |= (code & 15) << if (dim < half) 0 else 4;
        }
        var fine: [groups * 64]f32 = undefined;
        for (&fine) |*column| column.* = random.random().float(f32);
        var coarse = fine;
        for (0..groups) |group| @memset(coarse[group * 64 + 32 ..][0..16], 1e30);
        var queries: [query_count * quad_count * quads.dims]i8 = undefined;
        var biases: [query_count]i32 = @splat(0);
        for (&queries, 0..) |*code, i| {
            code.* = random.random().intRangeAtMost(i8, -127, 127);
            biases[i / (quad_count * quads.dims)] -= 128 * @as(i32, code.*);
        }
        var found: [2][query_count * capacity]screening.Candidate = undefined;
        var counts: [2][query_count]u32 = @splat(@splat(0));
        for (0..2) |way| {
            var params: [query_count]screening.QueryParams = @splat(
                .{ .scale = 1e-4, .a = 1e-2, .b = 1e-2, .threshold = -100, .slack = 0 },
            );
            var best: [query_count * group_rows]f32 = @splat(-std.math.inf(f32));
            const job: screening.Job = .{
                .codes = if (way == 0) &codes else &high,
                .columns = if (way == 0) &fine else &coarse,
                .group_begin = 0,
                .group_end = groups,
                .quads = quad_count,
                .queries = &queries,
                .biases = &biases,
                .params = &params,
                .query_count = query_count,
                .best = &best,
                .best_registers = 1,
                .k = 4,
                .candidates = &found[way],
                .counts = &counts[way],
                .stride = capacity,
                .capacity = capacity,
                .row_base = 0,
                .reserved = 0,
                .back = null,
            };
            if (way == 0) {
                try std.testing.expectEqual(groups, screening.screen(&job));
            } else {
                var nibbles: Job = .{ .job = job, .low = &low, .fine_columns = &fine, .refined = 0 };
                try std.testing.expectEqual(groups, screen(&nibbles));
                try std.testing.expectEqual(query_count * groups * group_rows, nibbles.refined);
            }
        }
        try std.testing.expectEqual(counts[0], counts[1]);
        for (0..query_count) |q| {
            const by_codes = found[0][q * capacity ..][0..counts[0][q]];
            const by_halves = found[1][q * capacity ..][0..counts[1][q]];
            try std.testing.expectEqualSlices(screening.Candidate, by_codes, by_halves);
        }
    }
}
