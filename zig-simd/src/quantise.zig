//! The int8 codes of a query, and what they lose.
//!
//! With s = max|x| / 127 every element becomes c = x / s to the nearest integer, -127..=127, as in the host's
//! `core::screen`. The sums run in 8 strided lanes as the canonical scores do, without contraction: the same bits on
//! every instruction set.
const std = @import("std");
const vector = @import("vector.zig");

const lanes = 8;
const Floats = @Vector(lanes, f32);
const Doubles = @Vector(lanes, f64);
const Integers = @Vector(lanes, i32);

pub const Quantised = extern struct {
    /// Canonical squared norm.
    norm2: f64,
    /// Sum of (x - s * c) squared.
    lost: f64,
    /// Sum of (s * c) squared.
    kept: f64,
    /// s; 0 where every element is.
    scale: f32,
    /// Sum of the codes.
    sum: i32,

    comptime {
        std.debug.assert(@sizeOf(Quantised) == 32 and @alignOf(Quantised) == 8);
    }
};

/// Codes of `dim` values into `codes`, which has room for as many.
pub fn quantise(values: [*]const f32, dim: usize, codes: [*]i8) Quantised {
    var norm2: Doubles = @splat(0);
    var most: Floats = @splat(0);
    var at: usize = 0;
    while (at < dim) : (at += lanes) {
        const x = part(values, dim, at);
        const wide: Doubles = @floatCast(x);
        norm2 += wide * wide;
        most = @select(f32, @abs(x) > most, @abs(x), most);
    }
    const largest = @reduce(.Max, most);
    const scale: f32 = if (largest == 0) 0 else largest / 127;
    const inverse: f32 = if (largest == 0) 0 else 127 / largest;

    var lost: Doubles = @splat(0);
    var kept: Doubles = @splat(0);
    var sums: Integers = @splat(0);
    at = 0;
    while (at < dim) : (at += lanes) {
        const x = part(values, dim, at);
        const code = nearest(x * @as(Floats, @splat(inverse)));
        const coded = @as(Doubles, @splat(scale)) * @as(Doubles, @floatFromInt(code));
        const rest = @as(Doubles, @floatCast(x)) - coded;
        lost += rest * rest;
        kept += coded * coded;
        sums += code;
        const bytes: [lanes]i8 = @as(@Vector(lanes, i8), @truncate(code));
        const count = @min(lanes, dim - at);
        if (count == lanes) codes[at..][0..lanes].* = bytes else @memcpy(codes[at..][0..count], bytes[0..count]);
    }
    return .{
        .norm2 = vector.sumLanes(f64, lanes, norm2),
        .lost = vector.sumLanes(f64, lanes, lost),
        .kept = vector.sumLanes(f64, lanes, kept),
        .scale = scale,
        .sum = @reduce(.Add, sums),
    };
}

/// The values from `at` on, and zeros from `dim` on.
inline fn part(values: [*]const f32, dim: usize, at: usize) Floats {
    if (at + lanes <= dim) return vector.load(f32, lanes, values, at);
    return vector.loadPadded(f32, lanes, values + at, dim - at);
}

/// Nearest integers of values within 127.5 of 0, through the mantissa: adding 1.5 * 2^23 makes the unit in the last
/// place 1. Anything else gives some code.
inline fn nearest(values: Floats) Integers {
    const magic: Floats = @splat(12_582_912);
    const most: Integers = @splat(127);
    const rounded = @as(Integers, @bitCast(values + magic)) -% @as(Integers, @bitCast(magic));
    return @max(-most, @min(most, rounded));
}

test "codes are the nearest integers, and the sums say what they lose" {
    var random = std.Random.DefaultPrng.init(11);
    var values: [41]f32 = undefined;
    for (&values) |*value| value.* = random.random().floatNorm(f32) * 3;
    for (0..values.len + 1) |dim| {
        var codes: [values.len]i8 = @splat(99);
        const found = quantise(&values, dim, &codes);
        var largest: f32 = 0;
        for (values[0..dim]) |value| largest = @max(largest, @abs(value));
        var lost: f64 = 0;
        var sum: i32 = 0;
        for (values[0..dim], codes[0..dim]) |value, code| {
            const step = @as(f64, found.scale);
            const rest = @as(f64, value) - step * @as(f64, @floatFromInt(code));
            try std.testing.expect(@abs(rest) <= step * 0.500001);
            lost += rest * rest;
            sum += code;
        }
        for (codes[dim..]) |untouched| try std.testing.expectEqual(99, untouched);
        try std.testing.expectEqual(if (dim == 0) 0 else largest / 127, found.scale);
        try std.testing.expectEqual(sum, found.sum);
        try std.testing.expectApproxEqRel(lost, found.lost, 1e-12);
    }
}

test "zeros and extremes have codes too" {
    var codes: [3]i8 = undefined;
    try std.testing.expectEqual(Quantised{ .norm2 = 0, .lost = 0, .kept = 0, .scale = 0, .sum = 0 }, quantise(&.{ 0, -0.0, 0 }, 3, &codes));
    try std.testing.expectEqualSlices(i8, &.{ 0, 0, 0 }, &codes);
    for ([_]f32{ std.math.floatTrueMin(f32), std.math.floatMin(f32), std.math.floatMax(f32) }) |value| {
        _ = quantise(&.{ value, -value, 0 }, 3, &codes);
        for (codes) |code| try std.testing.expect(code != -128);
    }
}
