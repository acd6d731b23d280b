//! The canonical float64 scores (the numeric contract): the same bits on every instruction set.
//!
//! Lane j of eight sums the elements i with i mod 8 = j, in rising order, and the lanes are combined as
//! ((l0+l4)+(l2+l6))+((l1+l5)+(l3+l7)). The product of two float32 values is exact in float64, so `dot` may fuse; the
//! square of a rounded difference is not, so `l2` must not. Missing elements count as +0, which changes no lane: a lane
//! starts at +0 and so never is -0.
//!
//! Not here: order of rows, rounding to float32, cosine. They belong to the caller, once, in Rust.
const std = @import("std");
const isa = @import("isa.zig");
const vector = @import("vector.zig");

const lanes = 8;
const Lanes = @Vector(lanes, f64);

/// Rows in flight: enough chains to hide an addition's latency within the registers there are.
const rows_at_once = switch (isa.current) {
    .avx512 => 8,
    .avx2, .neon => 4,
    .baseline => 2,
};

pub const Operation = enum { dot, l2 };

/// out[c] = score of `query` and row `ids[c]` of `rows`, which is row-major with `dim` columns.
pub fn gather(
    comptime operation: Operation,
    query: [*]const f32,
    rows: [*]const f32,
    dim: usize,
    ids: [*]const u32,
    count: usize,
    out: [*]f64,
) void {
    var c: usize = 0;
    while (c + rows_at_once <= count) : (c += rows_at_once) {
        block(operation, rows_at_once, query, rows, dim, ids + c, out + c);
    }
    while (c < count) : (c += 1) block(operation, 1, query, rows, dim, ids + c, out + c);
}

inline fn block(
    comptime operation: Operation,
    comptime height: comptime_int,
    query: [*]const f32,
    rows: [*]const f32,
    dim: usize,
    ids: [*]const u32,
    out: [*]f64,
) void {
    var row: [height][*]const f32 = undefined;
    inline for (0..height) |r| row[r] = rows + @as(usize, ids[r]) * dim;
    var sums: [height]Lanes = @splat(@splat(0));

    var at: usize = 0;
    while (at + lanes <= dim) : (at += lanes) {
        const q = widen(vector.load(f32, lanes, query, at));
        inline for (0..height) |r| sums[r] = step(operation, sums[r], q, widen(vector.load(f32, lanes, row[r], at)));
    }
    if (at < dim) {
        const rest = dim - at;
        const q = widen(vector.loadPadded(f32, lanes, query + at, rest));
        inline for (0..height) |r| {
            sums[r] = step(operation, sums[r], q, widen(vector.loadPadded(f32, lanes, row[r] + at, rest)));
        }
    }
    // Halving pairs lane j with j+4, then j+2, then j+1: the contract's order.
    inline for (0..height) |r| out[r] = vector.sumLanes(f64, lanes, sums[r]);
}

inline fn widen(values: @Vector(lanes, f32)) Lanes {
    return @floatCast(values);
}

inline fn step(comptime operation: Operation, sum: Lanes, query: Lanes, values: Lanes) Lanes {
    switch (operation) {
        .dot => return vector.mulAdd(Lanes, query, values, sum),
        .l2 => {
            const difference = query - values;
            return sum + difference * difference;
        },
    }
}

/// The contract written out one element at a time.
fn reference(comptime operation: Operation, query: []const f32, row: []const f32) f64 {
    var l: [lanes]f64 = @splat(0);
    for (query, row, 0..) |a, b, i| {
        const x: f64 = a;
        const y: f64 = b;
        l[i % lanes] += switch (operation) {
            .dot => x * y,
            .l2 => (x - y) * (x - y),
        };
    }
    return ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]));
}

test "gathered scores equal the contract bit for bit" {
    var random = std.Random.DefaultPrng.init(7);
    var query: [41]f32 = undefined;
    var rows: [11 * 41]f32 = undefined;
    for (&query) |*value| value.* = random.random().floatNorm(f32);
    for (&rows) |*value| value.* = random.random().floatNorm(f32) * 1e3;
    const ids = [_]u32{ 10, 0, 3, 3, 7, 1, 9, 2, 4 };
    inline for (.{ .dot, .l2 }) |operation| {
        for (0..42) |dim| {
            var out: [ids.len]f64 = undefined;
            gather(operation, &query, &rows, dim, &ids, ids.len, &out);
            for (ids, out) |id, score| {
                const expected = reference(operation, query[0..dim], rows[id * dim ..][0..dim]);
                try std.testing.expectEqual(@as(u64, @bitCast(expected)), @as(u64, @bitCast(score)));
            }
        }
    }
}
