//! Exact scores of rows of few elements, a register of rows at a time: where a row is narrower than what a screen would
//! read of it, its float64 score is sooner known than a bound.
//!
//! The scores are those of exact.zig, whose lanes have one element each here: (l0+l2)+l1. Cosine divides by the
//! root of both squared norms, and does so only for rows that `leastSquare` does not rule out.
const std = @import("std");
const isa = @import("isa.zig");
const vector = @import("vector.zig");
const sweeping = @import("sweep.zig");

const Job = sweeping.Job;
const Scored = sweeping.Scored;

/// The widest rows.
pub const max_dim = 3;

pub const Metric = enum { cosine, dot, l2 };

/// Rows in a register of float64.
const lanes = isa.f64_lanes;

/// Appends the rows from `begin` to `end` that exceed the threshold. Returns the row reached: `end`, or the first for
/// which there may be no room.
pub fn sweep(comptime metric: Metric, job: *const Job) usize {
    return switch (job.dim) {
        inline 1...max_dim => |dim| Sweep(metric, dim).run(job),
        else => unreachable,
    };
}

fn Sweep(comptime metric: Metric, comptime dim: usize) type {
    return struct {
        fn run(job: *const Job) usize {
            const query: [dim]f64 = @as(@Vector(dim, f64), @floatCast(vector.load(f32, dim, job.query, 0)));
            const least = leastSquare(job.threshold, job.norm2);
            var row = job.begin;
            while (row < job.end) {
                if (job.capacity - job.count.* < lanes) return row;
                if (row + lanes <= job.end) {
                    block(lanes, job, query, least, row);
                    row += lanes;
                } else {
                    block(1, job, query, least, row);
                    row += 1;
                }
            }
            return row;
        }

        inline fn block(comptime width: comptime_int, job: *const Job, query: [dim]f64, least: f64, row: usize) void {
            const Doubles = @Vector(width, f64);
            const scores = score(width, query, columns(width, job.rows + row * dim));
            var goodness = if (metric == .l2) -scores else scores;
            var passes: @Vector(width, bool) = undefined;
            if (metric == .cosine) {
                const norms2 = vector.load(f64, width, job.norms2, row);
                // scores · |scores| >= least · norms2, as a row must have whose cosine exceeds the threshold.
                passes = scores * @abs(scores) >= @as(Doubles, @splat(least)) * norms2;
                if (!@reduce(.Or, passes)) return;
                goodness = cosine(width, scores, job.norm2, norms2);
            }
            passes = goodness > @as(Doubles, @splat(job.threshold));
            if (!@reduce(.Or, passes)) return;
            const values: [width]f64 = goodness;
            var count = job.count.*;
            inline for (0..width) |lane| {
                job.found[count] = .{ .score = values[lane], .row = job.row_base + @as(u32, @intCast(row + lane)) };
                count += @intFromBool(passes[lane]);
            }
            job.count.* = count;
        }

        /// Element e of `width` rows, for each e.
        inline fn columns(comptime width: comptime_int, rows: [*]const f32) [dim]@Vector(width, f64) {
            const values = vector.load(f32, width * dim, rows, 0);
            var result: [dim]@Vector(width, f64) = undefined;
            inline for (0..dim) |element| {
                const places = comptime places: {
                    var places: [width]i32 = undefined;
                    for (&places, 0..) |*place, lane| place.* = lane * dim + element;
                    break :places places;
                };
                result[element] = @floatCast(@shuffle(f32, values, undefined, places));
            }
            return result;
        }

        inline fn score(
            comptime width: comptime_int,
            query: [dim]f64,
            row: [dim]@Vector(width, f64),
        ) @Vector(width, f64) {
            const Doubles = @Vector(width, f64);
            var pairs: [2]Doubles = undefined;
            inline for (0..dim) |element| {
                const pair = element % 2;
                const q: Doubles = @splat(query[element]);
                if (metric == .l2) {
                    const difference = q - row[element];
                    const square = difference * difference;
                    pairs[pair] = if (element == pair) square else pairs[pair] + square;
                } else {
                    // Products are exact, so that a sum of two is rounded once, fused or not.
                    pairs[pair] = if (element == pair) q * row[element] else //
                        vector.mulAdd(Doubles, q, row[element], pairs[pair]);
                }
            }
            // A lane of the contract starts at +0, and so is a sum of -0s.
            return (if (dim == 1) pairs[0] else pairs[0] + pairs[1]) + @as(Doubles, @splat(0));
        }
    };
}

/// With t the threshold and c = dot / √(n²·m²), a row exceeds t only if dot·|dot| >= (t·|t|)·n²·m², but for roundings:
/// some ten of 2^-53 each, which 1e-12 covers. Squares stay in range, since |dot|, n² and m² are 0 or between 2^-298, a
/// step of products of float32, and 2^259. Where n or m is 0, so are both sides, and the row passes. No cosine is below
/// -1, so t need not be below -2.
fn leastSquare(threshold: f64, norm2: f64) f64 {
    const t = @max(threshold, -2);
    // Not t² first, which may be below float64's range.
    const square = t * (@abs(t) * norm2);
    return square - @abs(square) * 1e-12;
}

inline fn cosine(
    comptime width: comptime_int,
    dots: @Vector(width, f64),
    norm2: f64,
    norms2: @Vector(width, f64),
) @Vector(width, f64) {
    const Doubles = @Vector(width, f64);
    const zero: Doubles = @splat(0);
    const one: Doubles = @splat(1);
    const both = @sqrt(@as(Doubles, @splat(norm2)) * norms2);
    const quotient = @min(@max(dots / both, -one), one);
    return @select(f64, both == zero, zero, quotient);
}

/// Scores as exact.zig's contract and core's cosine have them, one row at a time.
fn expected(metric: Metric, query: []const f32, row: []const f32) f64 {
    var l: [8]f64 = @splat(0);
    var norms: [2][8]f64 = @splat(@splat(0));
    for (query, row, 0..) |a, b, i| {
        const x: f64 = a;
        const y: f64 = b;
        l[i] += if (metric == .l2) (x - y) * (x - y) else x * y;
        norms[0][i] += x * x;
        norms[1][i] += y * y;
    }
    const sum = total(l);
    if (metric == .dot) return sum;
    if (metric == .l2) return -sum;
    const n2 = total(norms[0]);
    const m2 = total(norms[1]);
    if (n2 == 0 or m2 == 0) return 0;
    return std.math.clamp(sum / @sqrt(n2 * m2), -1, 1);
}

fn total(l: [8]f64) f64 {
    return ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]));
}

test "a sweep finds the rows that exceed the threshold, with their scores" {
    const count = 83;
    var random = std.Random.DefaultPrng.init(23);
    inline for (.{ .cosine, .dot, .l2 }) |metric| {
        inline for (1..max_dim + 1) |dim| {
            for (0..40) |round| {
                var rows: [count * dim]f32 = undefined;
                for (&rows, 0..) |*value, at| {
                    // Rows of zeros, rows that are equal, and rows of every length.
                    const lengths = [_]f32{ 1, 1e-38, 1e38, 1e-45, 0 };
                    const length = lengths[if (round % 2 == 0) 0 else (at / dim) % lengths.len];
                    value.* = if (at >= 3 * dim and (at / dim) % 7 == 0) rows[at - 3 * dim] else //
                        length * (random.random().float(f32) * 2 - 1);
                }
                var norms2: [count]f64 = undefined;
                for (&norms2, 0..) |*norm2, row| {
                    const values = rows[row * dim ..][0..dim];
                    norm2.* = expected(.dot, values, values);
                }
                const query = rows[(round % count) * dim ..][0..dim];
                const threshold = if (round % 5 == 0) -std.math.inf(f64) else //
                    expected(metric, query, rows[(round * 31 % count) * dim ..][0..dim]);
                var found: [count + lanes]Scored = undefined;
                var found_count: usize = 0;
                const job = Job{
                    .rows = &rows,
                    .norms2 = &norms2,
                    .begin = round % 4,
                    .end = count - round % 3,
                    .query = query,
                    .norm2 = norms2[round % count],
                    .threshold = threshold,
                    .found = &found,
                    .count = &found_count,
                    .capacity = found.len,
                    .dim = dim,
                    .row_base = 1000,
                };
                try std.testing.expectEqual(job.end, sweep(metric, &job));
                var at: usize = 0;
                for (job.begin..job.end) |row| {
                    const score = expected(metric, query, rows[row * dim ..][0..dim]);
                    if (!(score > threshold)) continue;
                    try std.testing.expectEqual(1000 + row, found[at].row);
                    try std.testing.expectEqual(@as(u64, @bitCast(score)), @as(u64, @bitCast(found[at].score)));
                    at += 1;
                }
                try std.testing.expectEqual(at, found_count);
            }
        }
    }
}

test "cosines whose squares are below float64's range pass" {
    const huge = std.math.floatMax(f32);
    const tiny = std.math.floatTrueMin(f32);
    const query = [_]f32{ huge, tiny, 0 };
    const rows = [_]f32{ 0, -tiny, huge } ** 8;
    const norm2 = expected(.dot, &query, &query);
    var found: [8 + lanes]Scored = undefined;
    var count: usize = 0;
    const score = expected(.cosine, &query, rows[0..3]);
    const job = Job{
        .rows = &rows,
        .norms2 = &([_]f64{norm2} ** 8),
        .begin = 0,
        .end = 8,
        .query = &query,
        .norm2 = norm2,
        .threshold = 2 * score,
        .found = &found,
        .count = &count,
        .capacity = found.len,
        .dim = 3,
        .row_base = 0,
    };
    try std.testing.expect(score < 0 and score > -1e-160);
    try std.testing.expectEqual(8, sweep(.cosine, &job));
    try std.testing.expectEqual(8, count);
}

test "a sweep stops before rows for which there is no room, and goes on from there" {
    const rows = [_]f32{1} ** 64;
    const norms2 = [_]f64{1} ** 64;
    var found: [2 * lanes - 1]Scored = undefined;
    var count: usize = 0;
    var job = Job{
        .rows = &rows,
        .norms2 = &norms2,
        .begin = 0,
        .end = 64,
        .query = &rows,
        .norm2 = 1,
        .threshold = 0,
        .found = &found,
        .count = &count,
        .capacity = found.len,
        .dim = 1,
        .row_base = 0,
    };
    job.begin = sweep(.dot, &job);
    try std.testing.expectEqual(lanes, job.begin);
    try std.testing.expectEqual(lanes, count);
    count = 0;
    job.threshold = 1;
    try std.testing.expectEqual(64, sweep(.dot, &job));
    try std.testing.expectEqual(0, count);
}
