//! The integer heart of the int8 screen: four dimensions of several rows against the same four dimensions of one query.
//!
//! Codes are stored as u8 = code + 128; query codes are i8 in -127..=127. Every instruction set gives the exact
//! integer. What differs is the instruction that exists:
//!
//! - AVX-512 VNNI multiplies u8 by i8 and adds four products to an i32 in one instruction. Every code carries 128 too
//!   much, which is paid back by starting at the query's bias, -128 * (sum of its codes).
//! - AVX2's `vpmaddubsw` saturates at 16 bits for such operands (255 * 127 * 2), but not for |code| times the query
//!   with the code's sign moved onto it (128 * 127 * 2 = 32512 at most), which is the same product. No bias.
//! - SSE2 has neither, so both sides are widened to 16 bits for `pmaddwd`; NEON multiplies 8 by 8 to 16 bits, where two
//!   products still fit, and adds pairs. Both leave two sums a row, folded at the end. No bias either.
//!
//! Halves of codes, 0 to 15, are multiplied as they are (`halves` in place of `prepare`, a start of 0).
const std = @import("std");
const isa = @import("isa.zig");

/// Dimensions in a quad.
pub const dims = 4;

/// What the tile loops need, for the instruction set of this copy: `rows` (in one step), `Codes` (prepared once, used
/// for every query), `Query`, `Sums`, and the functions on them.
pub const Step = switch (isa.current) {
    .avx512 => Avx512Vnni,
    .avx2 => Avx2,
    .baseline => Sse2,
    .neon => Neon,
};

const Avx512Vnni = struct {
    pub const rows = 16;
    pub const Codes = @Vector(64, u8);
    pub const Query = @Vector(16, i32);
    pub const Sums = @Vector(16, i32);

    pub inline fn prepare(stored: @Vector(64, u8)) Codes {
        return stored;
    }

    pub inline fn halves(values: @Vector(64, u8)) Codes {
        return values;
    }

    pub inline fn broadcast(query: *const [dims]i8) Query {
        return @splat(@as(i32, @bitCast(query.*)));
    }

    pub inline fn start(bias: i32) Sums {
        return @splat(bias);
    }

    pub inline fn add(sums: Sums, codes: Codes, query: Query) Sums {
        return asm ("vpdpbusd %[query], %[codes], %[sums]"
            : [sums] "=v" (-> Sums),
            : [_] "0" (sums),
              [codes] "v" (codes),
              [query] "v" (query),
        );
    }

    pub inline fn finish(sums: Sums) @Vector(rows, i32) {
        return sums;
    }
};

const Avx2 = struct {
    pub const rows = 8;
    pub const Codes = struct { signed: @Vector(32, i8), magnitude: @Vector(32, u8) };
    pub const Query = @Vector(8, i32);
    pub const Sums = @Vector(8, i32);

    pub inline fn prepare(stored: @Vector(32, u8)) Codes {
        const signed: @Vector(32, i8) = @bitCast(stored ^ @as(@Vector(32, u8), @splat(0x80)));
        return .{ .signed = signed, .magnitude = @abs(signed) };
    }

    pub inline fn halves(values: @Vector(32, u8)) Codes {
        return .{ .signed = @bitCast(values), .magnitude = values };
    }

    pub inline fn broadcast(query: *const [dims]i8) Query {
        return @splat(@as(i32, @bitCast(query.*)));
    }

    pub inline fn start(bias: i32) Sums {
        _ = bias;
        return @splat(0);
    }

    pub inline fn add(sums: Sums, codes: Codes, query: Query) Sums {
        const Words = @Vector(16, i16);
        const signed_query = asm ("vpsignb %[codes], %[query], %[result]"
            : [result] "=x" (-> @Vector(32, i8)),
            : [query] "x" (query),
              [codes] "x" (codes.signed),
        );
        const pairs = asm ("vpmaddubsw %[query], %[codes], %[result]"
            : [result] "=x" (-> Words),
            : [codes] "x" (codes.magnitude),
              [query] "x" (signed_query),
        );
        return sums + asm ("vpmaddwd %[ones], %[pairs], %[result]"
            : [result] "=x" (-> Sums),
            : [pairs] "x" (pairs),
              [ones] "x" (@as(Words, @splat(1))),
        );
    }

    pub inline fn finish(sums: Sums) @Vector(rows, i32) {
        return sums;
    }
};

const Sse2 = struct {
    pub const rows = 4;
    pub const Codes = [2]@Vector(8, i16);
    pub const Query = @Vector(8, i16);
    pub const Sums = [2]@Vector(4, i32);

    pub inline fn prepare(stored: @Vector(16, u8)) Codes {
        const signed = @as(@Vector(16, i16), stored) - @as(@Vector(16, i16), @splat(128));
        return .{ std.simd.extract(signed, 0, 8), std.simd.extract(signed, 8, 8) };
    }

    pub inline fn halves(values: @Vector(16, u8)) Codes {
        const wide: @Vector(16, i16) = values;
        return .{ std.simd.extract(wide, 0, 8), std.simd.extract(wide, 8, 8) };
    }

    pub inline fn broadcast(query: *const [dims]i8) Query {
        const wide: @Vector(dims, i16) = @as(@Vector(dims, i8), query.*);
        return std.simd.join(wide, wide);
    }

    pub inline fn start(bias: i32) Sums {
        _ = bias;
        return @splat(@splat(0));
    }

    pub inline fn add(sums: Sums, codes: Codes, query: Query) Sums {
        var result: Sums = undefined;
        inline for (0..2) |half| {
            result[half] = sums[half] + asm ("pmaddwd %[query], %[result]"
                : [result] "=x" (-> @Vector(4, i32)),
                : [_] "0" (codes[half]),
                  [query] "x" (query),
            );
        }
        return result;
    }

    pub inline fn finish(sums: Sums) @Vector(rows, i32) {
        return foldPairs(sums);
    }
};

const Neon = struct {
    pub const rows = 4;
    pub const Codes = [2]@Vector(8, i8);
    pub const Query = @Vector(8, i8);
    pub const Sums = [2]@Vector(4, i32);

    pub inline fn prepare(stored: @Vector(16, u8)) Codes {
        const signed: @Vector(16, i8) = @bitCast(stored ^ @as(@Vector(16, u8), @splat(0x80)));
        return .{ std.simd.extract(signed, 0, 8), std.simd.extract(signed, 8, 8) };
    }

    pub inline fn halves(values: @Vector(16, u8)) Codes {
        const signed: @Vector(16, i8) = @bitCast(values);
        return .{ std.simd.extract(signed, 0, 8), std.simd.extract(signed, 8, 8) };
    }

    pub inline fn broadcast(query: *const [dims]i8) Query {
        const quad: @Vector(dims, i8) = query.*;
        return std.simd.join(quad, quad);
    }

    pub inline fn start(bias: i32) Sums {
        _ = bias;
        return @splat(@splat(0));
    }

    pub inline fn add(sums: Sums, codes: Codes, query: Query) Sums {
        var result: Sums = undefined;
        inline for (0..2) |half| {
            const products = @as(@Vector(8, i16), codes[half]) * @as(@Vector(8, i16), query);
            result[half] = asm ("sadalp %[result].4s, %[products].8h"
                : [result] "=w" (-> @Vector(4, i32)),
                : [_] "0" (sums[half]),
                  [products] "w" (products),
            );
        }
        return result;
    }

    pub inline fn finish(sums: Sums) @Vector(rows, i32) {
        return foldPairs(sums);
    }
};

/// Two sums a row, side by side, to one.
inline fn foldPairs(sums: [2]@Vector(4, i32)) @Vector(4, i32) {
    const even = @shuffle(i32, sums[0], sums[1], [4]i32{ 0, 2, ~@as(i32, 0), ~@as(i32, 2) });
    const odd = @shuffle(i32, sums[0], sums[1], [4]i32{ 1, 3, ~@as(i32, 1), ~@as(i32, 3) });
    return even + odd;
}

test "a step is exact at the extremes of both operands" {
    const extremes = [_]i32{ -128, -127, -1, 0, 1, 126, 127 };
    for (extremes) |code| for (extremes[1..]) |query_code| {
        const stored: @Vector(Step.rows * dims, u8) = @splat(@intCast(code + 128));
        const query: [dims]i8 = @splat(@intCast(query_code));
        const begin = Step.start(-128 * dims * query_code);
        const sums: [Step.rows]i32 = Step.finish(Step.add(begin, Step.prepare(stored), Step.broadcast(&query)));
        for (sums) |sum| try std.testing.expectEqual(code * query_code * dims, sum);
    };
    for ([_]i32{ 0, 1, 15 }) |half| for (extremes[1..]) |query_code| {
        const halves = Step.halves(@splat(@intCast(half)));
        const query: [dims]i8 = @splat(@intCast(query_code));
        const sums: [Step.rows]i32 = Step.finish(Step.add(Step.start(0), halves, Step.broadcast(&query)));
        for (sums) |sum| try std.testing.expectEqual(half * query_code * dims, sum);
    };
}
