//! Small vector helpers that every kernel file shares: loads, multiply-add, the sum of a register's lanes.
const std = @import("std");
const isa = @import("isa.zig");

/// Lanes of `T` from `source[at..]`, which needs no more alignment than `T` has.
pub inline fn load(comptime T: type, comptime lanes: comptime_int, source: [*]const T, at: usize) @Vector(lanes, T) {
    return source[at..][0..lanes].*;
}

/// The first `count` (< `lanes`) values of `source`; the other lanes are zero.
pub inline fn loadPadded(
    comptime T: type,
    comptime lanes: comptime_int,
    source: [*]const T,
    count: usize,
) @Vector(lanes, T) {
    var padded: [lanes]T = @splat(0);
    for (0..count) |index| padded[index] = source[index];
    return padded;
}

/// a * b + c: fused where the hardware can, else with two roundings.
pub inline fn mulAdd(comptime V: type, a: V, b: V, c: V) V {
    return if (isa.has_fma) @mulAdd(V, a, b, c) else a * b + c;
}

/// The sum of the lanes by halving: few roundings meet one another. (`@reduce` would add lane by lane.)
pub inline fn sumLanes(comptime T: type, comptime lanes: comptime_int, vector: @Vector(lanes, T)) T {
    if (lanes == 1) return vector[0];
    const half = lanes / 2;
    const halves: [2]@Vector(half, T) = @bitCast(vector);
    return sumLanes(T, half, halves[0] + halves[1]);
}

test "sumLanes adds every lane once" {
    const vector: @Vector(8, f32) = .{ 1, 2, 4, 8, 16, 32, 64, 128 };
    try std.testing.expectEqual(@as(f32, 255), sumLanes(f32, 8, vector));
}

test "loadPadded fills with zeros" {
    const source = [_]f32{ 3, 5, 7 };
    const loaded: [4]f32 = loadPadded(f32, 4, &source, 2);
    try std.testing.expectEqualSlices(f32, &.{ 3, 5, 0, 0 }, &loaded);
}
