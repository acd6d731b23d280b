//! Rows of bits: how many a query and a row both have, and how many either has. Integers, so exact in any order.
//!
//! Rows are words of 32 bits, as wide as the query. What a CPU has no instruction for is counted by halving: LLVM makes
//! the best of `@popCount` that each instruction set has (a look-up by bytes with AVX2, NEON's `cnt`).
const std = @import("std");
const isa = @import("isa.zig");
const vector = @import("vector.zig");
const sweeping = @import("sweep.zig");

const Job = sweeping.Job;

pub const Metric = enum { hamming, jaccard };

/// The same as `Overlap` in host/core/src/exact.rs.
pub const Overlap = extern struct { both: u32, either: u32 };

/// Counts in a register, each of two words.
const lanes: comptime_int = isa.f64_lanes;
const Counts = @Vector(lanes, u64);
const words_at_once = 2 * lanes;

/// out[c] = what `query` and row `ids[c]` of `rows` have in common.
pub fn gather(query: [*]const u32, rows: [*]const u32, words: usize, ids: [*]const u32, count: usize, out: [*]Overlap) void {
    for (ids[0..count], out[0..count]) |id, *place| {
        const row = rows + @as(usize, id) * words;
        const both = counted(.both, 1, query, row, words)[0];
        const either = counted(.either, 1, query, row, words)[0];
        place.* = .{ .both = @intFromFloat(both), .either = @intFromFloat(either) };
    }
}

/// Appends the rows from `begin` to `end` that exceed the threshold. Returns the row reached: `end`, or the first for
/// which there may be no room.
pub fn sweep(comptime metric: Metric, job: *const Job) usize {
    // For the places that shuffles name.
    @setEvalBranchQuota(10_000);
    var row = job.begin;
    while (row < job.end) {
        if (job.capacity - job.count.* < lanes) return row;
        if (row + lanes <= job.end) {
            block(metric, lanes, job, row);
            row += lanes;
        } else {
            block(metric, 1, job, row);
            row += 1;
        }
    }
    return row;
}

/// So many rows, one for each lane of a register. Most of them are not good enough, and seen off together.
inline fn block(comptime metric: Metric, comptime height: comptime_int, job: *const Job, first: usize) void {
    const words: usize = job.dim;
    const query: [*]const u32 = @ptrCast(job.query);
    const rows = @as([*]const u32, @ptrCast(job.rows)) + first * words;
    const goodness = switch (metric) {
        .hamming => -counted(.differ, height, query, rows, words),
        .jaccard => share: {
            const both = counted(.both, height, query, rows, words);
            const either = counted(.either, height, query, rows, words);
            const none = either == @as(@TypeOf(either), @splat(0));
            break :share @select(f64, none, @as(@TypeOf(both), @splat(1)), both / either);
        },
    };
    const passes = goodness > @as(@TypeOf(goodness), @splat(job.threshold));
    if (!@reduce(.Or, passes)) return;
    const values: [height]f64 = goodness;
    var count = job.count.*;
    inline for (0..height) |lane| {
        job.found[count] = .{ .score = values[lane], .row = job.row_base + @as(u32, @intCast(first + lane)) };
        count += @intFromBool(passes[lane]);
    }
    job.count.* = count;
}

const Which = enum { both, either, differ };

/// Bits that both have, that either has, or that one has alone, of the query and each of `height` rows that follow one
/// another.
inline fn counted(
    comptime which: Which,
    comptime height: comptime_int,
    query: [*]const u32,
    rows: [*]const u32,
    words: usize,
) @Vector(height, f64) {
    var sums: [height]Counts = @splat(@splat(0));
    var at: usize = 0;
    while (at + words_at_once <= words) : (at += words_at_once) {
        inline for (&sums, 0..) |*sum, row| sum.* += counts(which, words_at_once, query + at, rows + row * words + at);
    }
    // What is left, by halves of a register, then a word.
    comptime var width = words_at_once / 2;
    inline while (width >= 1) : (width /= 2) {
        if ((words - at) & width != 0) {
            inline for (&sums, 0..) |*sum, row| sum.* += counts(which, width, query + at, rows + row * words + at);
            at += width;
        }
    }
    // A count has at most 20 bits: the way by 32 is the one that every instruction set has.
    const narrowed: @Vector(height, i32) = @intCast(totals(height, sums));
    return @floatFromInt(narrowed);
}

/// The counts of `width` words, by twos.
inline fn counts(comptime which: Which, comptime width: comptime_int, query: [*]const u32, row: [*]const u32) Counts {
    const a = vector.load(u32, width, query, 0);
    const b = vector.load(u32, width, row, 0);
    return @popCount(joined(which, widened(width, a), widened(width, b)));
}

/// Words as a whole register, with zeros behind them.
inline fn widened(comptime width: comptime_int, words: @Vector(width, u32)) Counts {
    if (width == words_at_once) return @bitCast(words);
    const places = comptime places: {
        var places: [words_at_once]i32 = @splat(-1);
        for (places[0..width], 0..) |*place, at| place.* = at;
        break :places places;
    };
    return @bitCast(@shuffle(u32, words, @as(@Vector(1, u32), @splat(0)), places));
}

/// The sum of each row's lanes, in the lane of its number; of one row, its sum.
inline fn totals(comptime height: comptime_int, sums: [height]Counts) @Vector(height, u64) {
    if (height == 1) return .{vector.sumLanes(u64, lanes, sums[0])};
    comptime std.debug.assert(height == lanes);
    return transposed(1, height, sums);
}

/// Registers that have sums of rows in units of so many lanes become half as many with units twice as long: of two, the
/// first unit of both is added to the second of both.
inline fn transposed(comptime unit: comptime_int, comptime count: comptime_int, sums: [count]Counts) Counts {
    if (count == 1) return sums[0];
    var halves: [count / 2]Counts = undefined;
    inline for (&halves, 0..) |*half, pair| {
        half.* = beside(unit, 0, sums[2 * pair], sums[2 * pair + 1]) + beside(unit, unit, sums[2 * pair], sums[2 * pair + 1]);
    }
    return transposed(2 * unit, count / 2, halves);
}

/// Of every two units of `a` and of `b` the one that is `offset` lanes on, beside one another.
inline fn beside(comptime unit: comptime_int, comptime offset: comptime_int, a: Counts, b: Counts) Counts {
    const places = comptime places: {
        var places: [lanes]i32 = undefined;
        for (&places, 0..) |*place, lane| {
            const start = lane / (2 * unit) * (2 * unit) + offset;
            const within = lane % (2 * unit);
            place.* = if (within < unit) start + within else ~@as(i32, start + within - unit);
        }
        break :places places;
    };
    return @shuffle(u64, a, b, places);
}

inline fn joined(comptime which: Which, a: anytype, b: @TypeOf(a)) @TypeOf(a) {
    return switch (which) {
        .both => a & b,
        .either => a | b,
        .differ => a ^ b,
    };
}

/// The definition, a bit at a time.
fn expected(query: []const u32, row: []const u32) Overlap {
    var overlap = Overlap{ .both = 0, .either = 0 };
    for (query, row) |a, b| {
        for (0..32) |bit| {
            const place = @as(u32, 1) << @intCast(bit);
            overlap.both += @intFromBool(a & place != 0 and b & place != 0);
            overlap.either += @intFromBool(a & place != 0 or b & place != 0);
        }
    }
    return overlap;
}

test "rows of every width have in common with a query what a look at each bit finds" {
    const count = 23;
    const widest = 3 * words_at_once - 1;
    var random = std.Random.DefaultPrng.init(31);
    var query: [widest]u32 = undefined;
    var rows: [count * widest]u32 = undefined;
    for (&query) |*word| word.* = random.random().int(u32);
    for (&rows) |*word| word.* = random.random().int(u32) & random.random().int(u32);
    for (1..widest + 1) |words| {
        // One row is the query, one has no bit.
        @memcpy(rows[2 * words ..][0..words], query[0..words]);
        @memset(rows[5 * words ..][0..words], 0);
        var ids: [count]u32 = undefined;
        for (&ids, 0..) |*id, at| id.* = @intCast(count - 1 - at);
        var found: [count]Overlap = undefined;
        gather(&query, &rows, words, &ids, count, &found);
        for (ids, found) |id, overlap| {
            try std.testing.expectEqual(expected(query[0..words], rows[id * words ..][0..words]), overlap);
        }
        inline for (.{ .hamming, .jaccard }) |metric| {
            var scored: [count + lanes]sweeping.Scored = undefined;
            var places: usize = 0;
            // As good as the half of them, about.
            const threshold: f64 = if (metric == .hamming) -16.0 * @as(f64, @floatFromInt(words)) else 0.3;
            const job = Job{
                .rows = @ptrCast(&rows),
                .norms2 = undefined,
                .begin = 1,
                .end = count,
                .query = @ptrCast(&query),
                .norm2 = 0,
                .threshold = threshold,
                .found = &scored,
                .count = &places,
                .capacity = scored.len,
                .dim = @intCast(words),
                .row_base = 100,
            };
            try std.testing.expectEqual(count, sweep(metric, &job));
            var at: usize = 0;
            for (1..count) |row| {
                const overlap = expected(query[0..words], rows[row * words ..][0..words]);
                const both: f64 = @floatFromInt(overlap.both);
                const either: f64 = @floatFromInt(overlap.either);
                const want = if (metric == .hamming) both - either else if (either == 0) 1 else both / either;
                if (!(want > threshold)) continue;
                try std.testing.expectEqual(100 + row, scored[at].row);
                try std.testing.expectEqual(want, scored[at].score);
                at += 1;
            }
            try std.testing.expectEqual(at, places);
        }
    }
}

test "a sweep of bits stops before a row for which there is no room, and goes on from there" {
    const rows = [_]u32{7} ** (2 * lanes + 1);
    var found: [2 * lanes - 1]sweeping.Scored = undefined;
    var count: usize = 0;
    var job = Job{
        .rows = @ptrCast(&rows),
        .norms2 = undefined,
        .begin = 0,
        .end = rows.len,
        .query = @ptrCast(&rows),
        .norm2 = 0,
        .threshold = -1,
        .found = &found,
        .count = &count,
        .capacity = found.len,
        .dim = 1,
        .row_base = 0,
    };
    job.begin = sweep(.hamming, &job);
    try std.testing.expectEqual(lanes, job.begin);
    try std.testing.expectEqual(lanes, count);
    job.threshold = 0;
    count = 0;
    try std.testing.expectEqual(rows.len, sweep(.hamming, &job));
    try std.testing.expectEqual(0, count);
}
