//! Squared weighted distances of one 5-D point to many, in float64: the same bits on every instruction set.
//!
//! d_a = weight_a * (p_a - q_a) for each axis a; the result is ((((d_0^2 + d_1^2) + d_2^2) + d_3^2) + d_4^2), each
//! operation rounded by itself. The points are five columns (structure of arrays).
const std = @import("std");
const isa = @import("isa.zig");
const vector = @import("vector.zig");

pub const axes = 5;
const lanes = isa.f64_lanes;

pub fn distances(
    columns: *const [axes][*]const f64,
    query: *const [axes]f64,
    weights: *const [axes]f64,
    count: usize,
    out: [*]f64,
) void {
    var at: usize = 0;
    while (at + lanes <= count) : (at += lanes) out[at..][0..lanes].* = chunk(lanes, columns, query, weights, at);
    while (at < count) : (at += 1) out[at] = chunk(1, columns, query, weights, at)[0];
}

inline fn chunk(
    comptime width: comptime_int,
    columns: *const [axes][*]const f64,
    query: *const [axes]f64,
    weights: *const [axes]f64,
    at: usize,
) [width]f64 {
    const Doubles = @Vector(width, f64);
    var sum: Doubles = undefined;
    inline for (0..axes) |axis| {
        const points = vector.load(f64, width, columns[axis], at);
        const difference = @as(Doubles, @splat(weights[axis])) * (points - @as(Doubles, @splat(query[axis])));
        const square = difference * difference;
        sum = if (axis == 0) square else sum + square;
    }
    return sum;
}

test "distances equal the formula bit for bit" {
    var random = std.Random.DefaultPrng.init(11);
    var storage: [axes][19]f64 = undefined;
    for (&storage) |*column| for (column) |*value| {
        value.* = random.random().floatNorm(f64);
    };
    var columns: [axes][*]const f64 = undefined;
    for (&columns, &storage) |*column, *values| column.* = values;
    const query = [axes]f64{ 0.1, -0.7, 0.3, 1.1, 0.9 };
    const weights = [axes]f64{ 1, 1, 0.8, 1.5, 2 };
    var out: [19]f64 = undefined;
    distances(&columns, &query, &weights, out.len, &out);
    for (out, 0..) |actual, i| {
        var d: [axes]f64 = undefined;
        for (&d, 0..) |*difference, axis| difference.* = weights[axis] * (storage[axis][i] - query[axis]);
        const expected = (((d[0] * d[0] + d[1] * d[1]) + d[2] * d[2]) + d[3] * d[3]) + d[4] * d[4];
        try std.testing.expectEqual(@as(u64, @bitCast(expected)), @as(u64, @bitCast(actual)));
    }
}
