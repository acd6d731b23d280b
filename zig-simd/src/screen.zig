//! The fused screen: int8 codes of many rows against int8 codes of several queries; only rows that may still matter are
//! kept.
//!
//! Rows lie in groups of 16, quads of 4 dimensions inside a group: codes[group][quad][16 rows][4 dims], each u8 = code
//! + 128. Four float32 columns belong to each group: mul x16, add x16, e1 x16, e2 x16. For query q and row r, with
//! every operation rounded by itself (no contraction, so that every instruction set keeps the same candidates):
//!
//!     sum   = sum over dimensions of code[r] * code[q]          exact
//!     g     = (f32(sum) * scale[q]) * mul[r] + add[r]
//!     error = a[q] * e1[r] + b[q] * e2[r]
//!     kept where g + error >= threshold[q], as { row, lower = g - error, upper = g + error }
//!
//! For the k best of few, `best[q]` holds the greatest lower bounds met so far in falling order. Each row that is kept
//! takes its place there, and the k-th raises the threshold for every row after it: k rows are surely better than what
//! it then turns away. Rows are decided one after the other, whatever the size of a tile, so what is kept does not
//! depend on the instruction set.
//!
//! Where the queries are rows themselves, a pair may matter to the other row as well. That one has a threshold of its
//! own, least[r], in units that both rows share:
//!
//!     noted where g + error + shift[q] >= least[r], as { query, row, lower = g - error, upper = g + error }
//!
//! No score matrix exists at any time. When a query's buffer might overflow, the function returns before the group it
//! could not hold; the caller makes room and calls again from there. A query's candidates are appended in rising row
//! order.
const std = @import("std");
const isa = @import("isa.zig");
const quads = @import("quads.zig");
const Step = quads.Step;

pub const group_rows = 16;
const group_columns = 4 * group_rows;

pub const QueryParams = extern struct {
    scale: f32,
    a: f32,
    b: f32,
    /// Raised by the screen where it holds the best lower bounds.
    threshold: f32,
    /// How far below the k-th best lower bound an upper bound must lie to be of no interest.
    slack: f32,

    comptime {
        std.debug.assert(@sizeOf(QueryParams) == 20 and @alignOf(QueryParams) == 4);
    }
};

pub const Candidate = extern struct {
    row: u32,
    lower: f32,
    upper: f32,

    comptime {
        std.debug.assert(@sizeOf(Candidate) == 12 and @alignOf(Candidate) == 4);
    }
};

/// A pair that may matter to its row.
pub const Pair = extern struct {
    query: u32,
    row: u32,
    lower: f32,
    upper: f32,

    comptime {
        std.debug.assert(@sizeOf(Pair) == 16 and @alignOf(Pair) == 4);
    }
};

/// The other rows' side of the pairs.
pub const Back = extern struct {
    /// By the row's number.
    least: [*]const f32,
    /// By the query's.
    shifts: [*]const f32,
    pairs: [*]Pair,
    count: usize,
    capacity: usize,

    comptime {
        std.debug.assert(@sizeOf(Back) == 5 * @sizeOf(usize));
    }
};

/// Pointers outlive the call; `params`, `best`, `counts`, `candidates` and `back` are written, the rest is read.
pub const Job = extern struct {
    /// From row group 0 on: [group][quad][16][4] and [group][4][16].
    codes: [*]const u8,
    columns: [*]const f32,
    group_begin: usize,
    group_end: usize,
    quads: usize,
    /// [query][quad][4], -127..=127.
    queries: [*]const i8,
    /// -128 * (sum of the query's codes).
    biases: [*]const i32,
    params: [*]QueryParams,
    query_count: usize,
    /// [query][best_registers][16], in falling order; -inf where nothing was met.
    best: [*]f32,
    /// 0 (thresholds stay as they are), 1 or 2; k is at most 16 times as many.
    best_registers: usize,
    k: usize,
    /// Query q's candidates are candidates[q * stride ..][0..counts[q]].
    candidates: [*]Candidate,
    counts: [*]u32,
    stride: usize,
    /// The most of them; at most `stride`.
    capacity: usize,
    /// Added to the row number within `codes`.
    row_base: u32,
    reserved: u32,
    back: ?*Back,

    comptime {
        std.debug.assert(@sizeOf(Job) == 17 * @sizeOf(usize) + 8);
    }
};

pub const Sums = @Vector(group_rows, i32);
pub const Floats = @Vector(group_rows, f32);
/// One bit for each row of a group.
pub const Lanes = u16;

/// The register tiles: many queries against few groups where they share the codes' loads; one query against a run of
/// quads, in several chains, where memory is the limit.
const Tile = struct {
    groups: comptime_int,
    queries: comptime_int,
    /// Independent sums a row and query, over quads taken in turn.
    chains: comptime_int = 1,
    /// Steps (of Step.rows rows) whose sums are in registers at once.
    steps: comptime_int,
};

const steps_a_group = group_rows / Step.rows;

/// 32 registers of 64 bytes hold 3 x 8 sums, 3 codes and a query; 16 of 32 bytes hold 2 x 4 sums, 2 x 2 codes and more.
const tile_groups = if (isa.current == .avx512) 3 else 1;
const tile_queries = if (isa.current == .avx512) 8 else 4;
const tile_steps = switch (isa.current) {
    .avx512 => tile_groups,
    .avx2 => steps_a_group,
    .neon => 2,
    .baseline => 1,
};
const single = switch (isa.current) {
    .avx512 => Tile{ .groups = 2, .queries = 1, .chains = 4, .steps = 2 },
    .avx2 => Tile{ .groups = 1, .queries = 1, .chains = 2, .steps = steps_a_group },
    .neon, .baseline => Tile{ .groups = 1, .queries = 1, .steps = tile_steps },
};

/// How far ahead of a single query's stream to ask for codes (beyond the end is harmless: a prefetch cannot fault).
/// Measured: a fifth faster with AVX2, from every cache; slower with AVX-512 where the codes are in L2.
const prefetch_bytes = if (isa.current == .avx2) 2048 else 0;

/// Screens groups `group_begin..group_end` and returns the group it reached: `group_end`, or the first one for which
/// some query has fewer than 16 free places, or there is no room for all of its pairs.
pub fn screen(job: *const Job) usize {
    if (job.query_count == 0) return job.group_end;
    return if (job.back == null) screenSides(.one, job) else screenSides(.both, job);
}

/// Whether pairs matter to their query alone, or to both rows.
const Sides = enum { one, both };

fn screenSides(comptime sides: Sides, job: *const Job) usize {
    var fullest: u32 = 0;
    for (job.counts[0..job.query_count]) |count| fullest = @max(fullest, count);

    var group = job.group_begin;
    const height: usize = if (job.query_count == 1) single.groups else tile_groups;
    while (group < job.group_end) {
        if (group + height <= job.group_end and hasRoom(sides, job, height, fullest)) {
            if (job.query_count == 1) {
                tile(single, sides, job, group, 0, &fullest);
            } else {
                allQueries(tile_groups, sides, job, group, &fullest);
            }
            group += height;
        } else if (hasRoom(sides, job, 1, fullest)) {
            allQueries(1, sides, job, group, &fullest);
            group += 1;
        } else break;
    }
    return group;
}

fn hasRoom(comptime sides: Sides, job: *const Job, groups: usize, fullest: u32) bool {
    if (fullest + groups * group_rows > job.capacity) return false;
    if (sides == .one) return true;
    const back = job.back.?;
    return back.count + groups * group_rows * job.query_count <= back.capacity;
}

fn allQueries(comptime groups: comptime_int, comptime sides: Sides, job: *const Job, group: usize, fullest: *u32) void {
    var query: usize = 0;
    while (query + tile_queries <= job.query_count) : (query += tile_queries) {
        tile(tileOf(groups, tile_queries), sides, job, group, query, fullest);
    }
    switch (job.query_count - query) {
        inline 1...tile_queries - 1 => |rest| tile(tileOf(groups, rest), sides, job, group, query, fullest),
        else => {},
    }
}

fn tileOf(comptime groups: comptime_int, comptime queries: comptime_int) Tile {
    return .{ .groups = groups, .queries = queries, .steps = @min(tile_steps, groups * steps_a_group) };
}

fn tile(comptime shape: Tile, comptime sides: Sides, job: *const Job, group: usize, query: usize, fullest: *u32) void {
    var sums: [shape.queries][shape.groups]Sums = undefined;
    inline for (0..shape.groups * steps_a_group / shape.steps) |pass| {
        accumulate(shape, job, group, query, pass * shape.steps, @ptrCast(&sums));
    }
    // One branch a tile: most tiles of many queries have a row that passes, and each test by itself is hard to predict.
    const pairs = shape.queries * shape.groups;
    var passes: [pairs]Lanes = undefined;
    var noted: [pairs]Lanes = @splat(0);
    inline for (0..shape.queries) |q| {
        const threshold = splat(job.params[query + q].threshold);
        inline for (0..shape.groups) |g| {
            const bounds = Bounds.of(&job.params[query + q], columnsOf(job.columns, group + g), sums[q][g]);
            passes[q * shape.groups + g] = @bitCast(bounds.upper >= threshold);
            if (sides == .both) {
                const back = job.back.?;
                const least: Floats = back.least[job.row_base + (group + g) * group_rows ..][0..group_rows].*;
                noted[q * shape.groups + g] = @bitCast(bounds.upper + splat(back.shifts[query + q]) >= least);
            }
        }
    }
    const met = @as(@Vector(pairs, Lanes), passes) | @as(@Vector(pairs, Lanes), noted);
    const any = met != @as(@Vector(pairs, Lanes), @splat(0));
    var rest: std.meta.Int(.unsigned, pairs) = @bitCast(any);
    while (rest != 0) : (rest &= rest - 1) {
        const pair: usize = @ctz(rest);
        const q, const g = .{ pair / shape.groups, pair % shape.groups };
        const bounds = Bounds.of(&job.params[query + q], columnsOf(job.columns, group + g), sums[q][g]);
        append(job, group + g, query + q, passes[pair], bounds, fullest);
        if (sides == .both) note(job, group + g, query + q, noted[pair], bounds);
    }
}

/// Notes the `lanes` whose rows a pair may matter to.
inline fn note(job: *const Job, group: usize, query: usize, lanes: Lanes, bounds: Bounds) void {
    const back = job.back.?;
    const first_row = job.row_base +% @as(u32, @truncate(group * group_rows));
    const lower: [group_rows]f32 = bounds.lower;
    const upper: [group_rows]f32 = bounds.upper;
    var rest = lanes;
    while (rest != 0) : (rest &= rest - 1) {
        const lane: u4 = @intCast(@ctz(rest));
        const row = first_row +% lane;
        back.pairs[back.count] = .{ .query = @truncate(query), .row = row, .lower = lower[lane], .upper = upper[lane] };
        back.count += 1;
    }
}

/// The integer sums of `shape.steps` steps from `first_step` on, over all quads, into `out`.
inline fn accumulate(
    comptime shape: Tile,
    job: *const Job,
    group: usize,
    query: usize,
    comptime first_step: comptime_int,
    out: *[shape.queries][shape.groups * group_rows]i32,
) void {
    const step_bytes = Step.rows * quads.dims;
    const quad_bytes = group_rows * quads.dims;
    const codes = job.codes + group * job.quads * quad_bytes;
    const queries = job.queries + query * job.quads * quads.dims;

    var sums: [shape.chains][shape.queries][shape.steps]Step.Sums = undefined;
    inline for (0..shape.queries) |q| {
        inline for (0..shape.chains) |chain| {
            sums[chain][q] = @splat(Step.start(if (chain == 0) job.biases[query + q] else 0));
        }
    }
    var quad: usize = 0;
    while (quad + shape.chains <= job.quads) : (quad += shape.chains) {
        inline for (0..shape.chains) |chain| {
            addQuad(shape, &sums[chain], codes, queries, job.quads, quad + chain, first_step);
        }
    }
    if (shape.chains > 1) while (quad < job.quads) : (quad += 1) {
        addQuad(shape, &sums[0], codes, queries, job.quads, quad, first_step);
    };

    comptime std.debug.assert(step_bytes * steps_a_group == quad_bytes);
    inline for (0..shape.queries) |q| {
        inline for (0..shape.steps) |s| {
            var total = Step.finish(sums[0][q][s]);
            inline for (1..shape.chains) |chain| total += Step.finish(sums[chain][q][s]);
            out[q][(first_step + s) * Step.rows ..][0..Step.rows].* = total;
        }
    }
}

inline fn addQuad(
    comptime shape: Tile,
    sums: *[shape.queries][shape.steps]Step.Sums,
    codes: [*]const u8,
    queries: [*]const i8,
    quad_count: usize,
    quad: usize,
    comptime first_step: comptime_int,
) void {
    const step_bytes = Step.rows * quads.dims;
    var prepared: [shape.steps]Step.Codes = undefined;
    inline for (0..shape.steps) |s| {
        const step = first_step + s;
        const from = ((step / steps_a_group) * quad_count + quad) * steps_a_group + step % steps_a_group;
        if (shape.chains > 1 and prefetch_bytes > 0) @prefetch(codes + from * step_bytes + prefetch_bytes, .{});
        prepared[s] = Step.prepare(codes[from * step_bytes ..][0..step_bytes].*);
    }
    inline for (0..shape.queries) |q| {
        const broadcast = Step.broadcast(queries[(q * quad_count + quad) * quads.dims ..][0..quads.dims]);
        inline for (0..shape.steps) |s| sums[q][s] = Step.add(sums[q][s], prepared[s], broadcast);
    }
}

/// What one group's sums mean for one query.
pub const Bounds = struct {
    lower: Floats,
    upper: Floats,

    pub inline fn of(params: *const QueryParams, columns: *const [group_columns]f32, sums: Sums) Bounds {
        const mul: Floats = columns[0..group_rows].*;
        const add: Floats = columns[group_rows..][0..group_rows].*;
        const e1: Floats = columns[2 * group_rows ..][0..group_rows].*;
        const e2: Floats = columns[3 * group_rows ..][0..group_rows].*;

        const score = (@as(Floats, @floatFromInt(sums)) * splat(params.scale)) * mul + add;
        const err = splat(params.a) * e1 + splat(params.b) * e2;
        return .{ .lower = score - err, .upper = score + err };
    }
};

/// The columns of one group.
pub inline fn columnsOf(columns: [*]const f32, group: usize) *const [group_columns]f32 {
    return columns[group * group_columns ..][0..group_columns];
}

inline fn splat(value: f32) Floats {
    return @splat(value);
}

/// Appends those of the `passes` that the query's threshold still lets through.
pub inline fn append(job: *const Job, group: usize, query: usize, passes: Lanes, bounds: Bounds, fullest: *u32) void {
    switch (job.best_registers) {
        inline 0, 1, 2 => |registers| appendRows(registers, job, group, query, passes, bounds),
        else => unreachable,
    }
    fullest.* = @max(fullest.*, job.counts[query]);
}

inline fn appendRows(
    comptime registers: comptime_int,
    job: *const Job,
    group: usize,
    query: usize,
    passes: Lanes,
    bounds: Bounds,
) void {
    const first_row = job.row_base +% @as(u32, @truncate(group * group_rows));
    const lower: [group_rows]f32 = bounds.lower;
    const upper: [group_rows]f32 = bounds.upper;
    const buffer = job.candidates + query * job.stride;
    const params = &job.params[query];
    const best: *[registers * group_rows]f32 = @ptrCast(job.best + query * registers * group_rows);
    var count = job.counts[query];
    var threshold = params.threshold;
    var rest = passes & @as(Lanes, @bitCast(bounds.upper >= splat(threshold)));
    while (rest != 0) : (rest &= rest - 1) {
        const lane: u4 = @intCast(@ctz(rest));
        // Written in any case and counted where it passes; one that does not is too low to change the k best.
        buffer[count] = .{ .row = first_row +% lane, .lower = lower[lane], .upper = upper[lane] };
        count += @intFromBool(upper[lane] >= threshold);
        if (registers == 0) continue;
        insert(registers, best, lower[lane]);
        threshold = @max(threshold, relaxed(best[job.k - 1], params.slack));
    }
    job.counts[query] = count;
    params.threshold = threshold;
}

/// Puts `value` in its place among values that fall.
inline fn insert(comptime registers: comptime_int, best: *[registers * group_rows]f32, value: f32) void {
    const before = comptime before: {
        var lanes: [group_rows]i32 = undefined;
        for (&lanes, 0..) |*lane, i| lane.* = if (i == 0) ~@as(i32, group_rows - 1) else i - 1;
        break :before lanes;
    };
    var left = splat(std.math.inf(f32));
    inline for (0..registers) |r| {
        const old: Floats = best[r * group_rows ..][0..group_rows].*;
        const shifted = @shuffle(f32, old, left, before);
        const capped = @select(f32, shifted < splat(value), shifted, splat(value));
        best[r * group_rows ..][0..group_rows].* = @select(f32, old > capped, old, capped);
        left = old;
    }
}

/// The threshold that a k-th best lower bound allows, not rounded up.
inline fn relaxed(kth: f32, slack: f32) f32 {
    if (slack == 0) return kth;
    const threshold: f32 = @floatCast(@as(f64, kth) - slack);
    return std.math.nextAfter(f32, threshold, -std.math.inf(f32));
}

test {
    _ = quads;
}
