//! The stored forms of a row's elements and how each widens to float32 lanes.
//!
//! float16 and bfloat16 widen exactly; an int8 code widens exactly to its integer and its row's scale is applied by the operation.
const std = @import("std");
const isa = @import("isa.zig");
const vector = @import("vector.zig");

pub const Element = enum {
    float32,
    float16,
    bfloat16,
    int8,

    /// The type as it lies in memory: the two 16-bit floats as their bits.
    pub fn Stored(comptime element: Element) type {
        return switch (element) {
            .float32 => f32,
            .float16, .bfloat16 => u16,
            .int8 => i8,
        };
    }
};

pub inline fn widen(
    comptime element: Element,
    comptime lanes: comptime_int,
    stored: @Vector(lanes, element.Stored()),
) @Vector(lanes, f32) {
    const Bits = @Vector(lanes, u32);
    return switch (element) {
        .float32 => stored,
        .float16 => if (isa.has_f16)
            @floatCast(@as(@Vector(lanes, f16), @bitCast(stored)))
        else
            widenFloat16(lanes, stored),
        .bfloat16 => @bitCast(@as(Bits, stored) << @splat(16)),
        .int8 => @floatFromInt(stored),
    };
}

/// float16 to float32 in integer steps: the magnitude moved to float32's field is 2^-112 of its value, subnormals included.
inline fn widenFloat16(comptime lanes: comptime_int, stored: @Vector(lanes, u16)) @Vector(lanes, f32) {
    const Bits = @Vector(lanes, u32);
    const Floats = @Vector(lanes, f32);
    const bits: Bits = stored;
    const magnitude = bits & @as(Bits, @splat(0x7fff));
    const rescale: Floats = @splat(0x1p112);
    const scaled: Bits = @bitCast(@as(Floats, @bitCast(magnitude << @splat(13))) * rescale);
    const non_finite = magnitude >= @as(Bits, @splat(0x7c00));
    const exponent = @select(u32, non_finite, @as(Bits, @splat(0x7f80_0000)), @as(Bits, @splat(0)));
    const sign = (bits & @as(Bits, @splat(0x8000))) << @splat(16);
    return @bitCast(scaled | exponent | sign);
}

test "every finite float16 widens to its value" {
    var bits: u32 = 0;
    while (bits < 0x1_0000) : (bits += 4) {
        const stored: @Vector(4, u16) = .{ @intCast(bits), @intCast(bits + 1), @intCast(bits + 2), @intCast(bits + 3) };
        const widened: [4]f32 = widen(.float16, 4, stored);
        const soft: [4]f32 = widenFloat16(4, stored);
        for (0..4) |lane| {
            const half: f16 = @bitCast(@as(u16, @intCast(bits + lane)));
            if (std.math.isNan(half)) {
                try std.testing.expect(std.math.isNan(widened[lane]) and std.math.isNan(soft[lane]));
            } else {
                try std.testing.expectEqual(@as(u32, @bitCast(@as(f32, half))), @as(u32, @bitCast(widened[lane])));
                try std.testing.expectEqual(@as(u32, @bitCast(@as(f32, half))), @as(u32, @bitCast(soft[lane])));
            }
        }
    }
}

test "bfloat16 is the upper half of a float32" {
    const stored: @Vector(4, u16) = .{ 0x3f80, 0xc000, 0x0001, 0x8000 };
    const widened: [4]f32 = widen(.bfloat16, 4, stored);
    try std.testing.expectEqual(@as(f32, 1), widened[0]);
    try std.testing.expectEqual(@as(f32, -2), widened[1]);
    try std.testing.expectEqual(@as(u32, 0x0001_0000), @as(u32, @bitCast(widened[2])));
    try std.testing.expectEqual(@as(u32, 0x8000_0000), @as(u32, @bitCast(widened[3])));
}
