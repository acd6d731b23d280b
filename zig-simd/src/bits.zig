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

/// Words in a register.
const words_at_once = 2 * isa.f64_lanes;

/// out[c] = what `query` and row `ids[c]` of `rows` have in common.
pub fn gather(query: [*]const u32, rows: [*]const u32, words: usize, ids: [*]const u32, count: usize, out: [*]Overlap) void {
    for (ids[0..count], out[0..count]) |id, *place| {
        const row = rows + @as(usize, id) * words;
        const both = counted(.both, query, row, words);
        place.* = .{ .both = both, .either = both + counted(.differ, query, row, words) };
    }
}

/// Appends the rows from `begin` to `end` that exceed the threshold. Returns the row reached: `end`, or the first for
/// which there is no room.
pub fn sweep(comptime metric: Metric, job: *const Job) usize {
    const query: [*]const u32 = @ptrCast(job.query);
    const rows: [*]const u32 = @ptrCast(job.rows);
    const words: usize = job.dim;
    var count = job.count.*;
    var row = job.begin;
    while (row < job.end and count < job.capacity) : (row += 1) {
        const goodness = score(metric, query, rows + row * words, words);
        job.found[count] = .{ .score = goodness, .row = job.row_base + @as(u32, @intCast(row)) };
        count += @intFromBool(goodness > job.threshold);
    }
    job.count.* = count;
    return row;
}

/// Larger is better.
inline fn score(comptime metric: Metric, query: [*]const u32, row: [*]const u32, words: usize) f64 {
    switch (metric) {
        .hamming => return -@as(f64, @floatFromInt(counted(.differ, query, row, words))),
        .jaccard => {
            const both = counted(.both, query, row, words);
            const either = counted(.either, query, row, words);
            if (either == 0) return 1;
            return @as(f64, @floatFromInt(both)) / @as(f64, @floatFromInt(either));
        },
    }
}

const Which = enum { both, either, differ };

/// Bits of so many words that both have, that either has, or that one has alone.
inline fn counted(comptime which: Which, query: [*]const u32, row: [*]const u32, words: usize) u32 {
    var sums: @Vector(isa.f64_lanes, u64) = @splat(0);
    var at: usize = 0;
    while (at + words_at_once <= words) : (at += words_at_once) {
        sums += counts(which, words_at_once, query, row, at);
    }
    var total: u64 = vector.sumLanes(u64, isa.f64_lanes, sums);
    // What is left, by halves of a register.
    comptime var width = words_at_once / 2;
    inline while (width >= 2) : (width /= 2) {
        if ((words - at) & width != 0) {
            total += vector.sumLanes(u64, width / 2, counts(which, width, query, row, at));
            at += width;
        }
    }
    if (at < words) total += @popCount(joined(which, query[at], row[at]));
    return @intCast(total);
}

/// The counts of `width` words, by twos.
inline fn counts(
    comptime which: Which,
    comptime width: comptime_int,
    query: [*]const u32,
    row: [*]const u32,
    at: usize,
) @Vector(width / 2, u64) {
    const Pairs = @Vector(width / 2, u64);
    const a: Pairs = @bitCast(vector.load(u32, width, query, at));
    const b: Pairs = @bitCast(vector.load(u32, width, row, at));
    return @popCount(joined(which, a, b));
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
            var scored: [count]sweeping.Scored = undefined;
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
    const rows = [_]u32{7} ** 9;
    var found: [4]sweeping.Scored = undefined;
    var count: usize = 0;
    var job = Job{
        .rows = @ptrCast(&rows),
        .norms2 = undefined,
        .begin = 0,
        .end = 9,
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
    try std.testing.expectEqual(4, job.begin);
    try std.testing.expectEqual(4, count);
    job.threshold = 0;
    count = 0;
    try std.testing.expectEqual(9, sweep(.hamming, &job));
    try std.testing.expectEqual(0, count);
}
