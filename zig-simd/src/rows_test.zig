//! The float32 row operations against float64, over every stored form, for dims around the register widths.
const std = @import("std");
const rows = @import("rows.zig");
const Element = @import("element.zig").Element;
const expect = std.testing.expect;

const count = 6;
const max_dim = 70;

test "dot, l2 and norm2 stay within the float32 bound of float64" {
    var random = std.Random.DefaultPrng.init(5);
    var query: [max_dim]f32 = undefined;
    for (&query) |*value| value.* = random.random().floatNorm(f32);
    inline for (comptime std.enums.values(Element)) |element| {
        var stored: [count * max_dim]element.Stored() = undefined;
        var values: [count * max_dim]f64 = undefined;
        for (&stored, &values) |*code, *value| {
            const number = random.random().floatNorm(f32);
            code.* = switch (element) {
                .float32 => number,
                .float16 => @bitCast(@as(f16, @floatCast(number))),
                .bfloat16 => @intCast(@as(u32, @bitCast(number)) >> 16),
                .int8 => random.random().int(i8),
            };
            value.* = switch (element) {
                .float32 => code.*,
                .float16 => @as(f16, @bitCast(code.*)),
                .bfloat16 => @as(f32, @bitCast(@as(u32, code.*) << 16)),
                .int8 => @floatFromInt(code.*),
            };
        }
        const scales = [count]f32{ 0.5, 0.01, 1, 0.002, 3, 0.125 };
        for (0..max_dim + 1) |dim| {
            try check(element, @import("dot.zig"), &query, &stored, &values, &scales, dim);
            try check(element, @import("l2.zig"), &query, &stored, &values, &scales, dim);
            try check(element, @import("norm.zig"), &query, &stored, &values, &scales, dim);
        }
    }
}

fn check(
    comptime element: Element,
    comptime operation: type,
    query: []const f32,
    stored: []const element.Stored(),
    values: []const f64,
    scales: *const [count]f32,
    dim: usize,
) !void {
    var out: [count]f32 = undefined;
    rows.reduce(operation, element, query.ptr, stored.ptr, scales, count, dim, &out);
    for (out, 0..) |actual, r| {
        const scale: f64 = if (element == .int8) scales[r] else 1;
        var expected: f64 = 0;
        var magnitude: f64 = 0;
        for (query[0..dim], values[r * dim ..][0..dim]) |q, value| {
            const term = switch (operation) {
                @import("dot.zig") => q * value * scale,
                @import("l2.zig") => (q - value * scale) * (q - value * scale),
                else => value * scale * value * scale,
            };
            expected += term;
            magnitude += if (operation.has_query) @abs(q * value * scale) + @as(f64, q) * q + value * scale * value * scale else term;
        }
        const unit = 0x1p-24;
        try expect(@abs(actual - expected) <= @as(f64, @floatFromInt(dim + 4)) * unit * magnitude * 2);
    }
}
