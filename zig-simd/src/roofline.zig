//! The most that the processor gives: integer multiply-adds without loads, and reading with hardly any arithmetic.
//!
//! A search that reaches the first is limited by its instructions, one that reaches the second by memory. Both kernels
//! compute something that a test can check, the same on every instruction set, so neither can be optimised away.
const std = @import("std");
const isa = @import("isa.zig");
const quads = @import("quads.zig");
const vector = @import("vector.zig");
const Step = quads.Step;

pub const code_rows = 64;
pub const queries = 4;

/// The most iterations after which no sum of u8 * i8 products can have left an i32: 16,384 * 4 * 255 * 127 < 2^31.
pub const max_iterations = 1 << 14;

pub const Codes = [code_rows * quads.dims]u8;
pub const Queries = [queries * quads.dims]i8;
pub const Sums = [queries][code_rows]i32;

/// Sums in registers at once: enough that none waits for its own last addition, few enough that codes and queries fit
/// beside them. AVX-512 has 32 registers and adds in 5 cycles, NEON has 32 and needs two a sum, the others have 16.
const tile_steps = switch (isa.current) {
    .avx512 => 4,
    .avx2, .neon => 2,
    .baseline => 1,
};
const tile_queries = switch (isa.current) {
    .avx512, .baseline, .neon => 4,
    .avx2 => 2,
};

/// out[q][r] = `iterations` * (sum over 4 dimensions of (codes[r] - 128) * query[q]), by as many multiply-adds of the
/// screen's own kind. Codes are stored as in the screen (u8 = code + 128), queries are -127..=127, `iterations` at most
/// `max_iterations`.
pub fn multiplyAdds(codes: *const Codes, query_codes: *const Queries, iterations: usize, out: *Sums) void {
    std.debug.assert(iterations <= max_iterations);
    const height = tile_steps * Step.rows;
    inline for (0..queries / tile_queries) |pass| {
        var row: usize = 0;
        while (row < code_rows) : (row += height) {
            const rows = codes[row * quads.dims ..][0 .. height * quads.dims];
            tile(rows, query_codes, pass * tile_queries, iterations, row, out);
        }
    }
}

inline fn tile(
    codes: *const [tile_steps * Step.rows * quads.dims]u8,
    query_codes: *const Queries,
    comptime first_query: comptime_int,
    iterations: usize,
    row: usize,
    out: *Sums,
) void {
    var prepared: [tile_steps]Step.Codes = undefined;
    const step_bytes = Step.rows * quads.dims;
    inline for (0..tile_steps) |s| prepared[s] = Step.prepare(codes[s * step_bytes ..][0..step_bytes].*);
    var broadcast: [tile_queries]Step.Query = undefined;
    var sums: [tile_queries][tile_steps]Step.Sums = undefined;
    inline for (0..tile_queries) |q| {
        const query = query_codes[(first_query + q) * quads.dims ..][0..quads.dims];
        broadcast[q] = Step.broadcast(query);
        sums[q] = @splat(Step.start(bias(query) * @as(i32, @intCast(iterations))));
    }
    for (0..iterations) |_| {
        inline for (0..tile_queries) |q| {
            broadcast[q] = unknown(broadcast[q]);
            inline for (0..tile_steps) |s| sums[q][s] = Step.add(sums[q][s], prepared[s], broadcast[q]);
        }
    }
    inline for (0..tile_queries) |q| {
        inline for (0..tile_steps) |s| {
            out[first_query + q][row + s * Step.rows ..][0..Step.rows].* = Step.finish(sums[q][s]);
        }
    }
}

/// What the screen starts a sum with, for one quad.
inline fn bias(query: *const [quads.dims]i8) i32 {
    return -128 * @reduce(.Add, @as(@Vector(quads.dims, i32), @as(@Vector(quads.dims, i8), query.*)));
}

/// The same value, which the compiler now takes for another: so no product moves out of the loop. No instruction.
inline fn unknown(query: Step.Query) Step.Query {
    return if (isa.current == .neon)
        asm volatile (""
            : [same] "=w" (-> Step.Query),
            : [_] "0" (query),
        )
    else
        asm volatile (""
            : [same] "=v" (-> Step.Query),
            : [_] "0" (query),
        );
}

pub const Piece = [8]u64;

/// Pieces read in one turn, each into a sum of its own: eight registers (sixteen of NEON's).
const turn = switch (isa.current) {
    .avx512 => 8,
    .avx2, .neon => 4,
    .baseline => 2,
};

/// How many pieces ahead to ask for. It reaches over the page's end, where the hardware's own prefetching stops: a
/// tenth faster. (Beyond the end of the data is harmless: a prefetch cannot fault.)
const ahead = 64;

/// out[i] = the exclusive or of word i of all `count` pieces: one pass over memory with one instruction a load.
pub fn read(pieces: [*]const Piece, count: usize, out: *Piece) void {
    const Words = @Vector(8, u64);
    var sums: [turn]Words = @splat(@splat(0));
    var at: usize = 0;
    while (at + turn <= count) : (at += turn) {
        inline for (0..turn) |i| {
            @prefetch(pieces + at + ahead + i, .{});
            sums[i] ^= @as(Words, pieces[at + i]);
        }
    }
    while (at < count) : (at += 1) sums[0] ^= @as(Words, pieces[at]);
    inline for (1..turn) |i| sums[0] ^= sums[i];
    out.* = sums[0];
}

test "multiply-adds equal the formula, at the extremes and up to the last iteration" {
    var random = std.Random.DefaultPrng.init(23);
    var codes: Codes = undefined;
    for (&codes, 0..) |*code, i| code.* = if (i < 16) 255 else if (i < 32) 1 else random.random().int(u8);
    var query_codes: Queries = undefined;
    for (&query_codes, 0..) |*code, i| {
        code.* = if (i < 4) 127 else if (i < 8) -127 else random.random().intRangeAtMost(i8, -127, 127);
    }
    for ([_]usize{ 0, 1, 7, max_iterations }) |iterations| {
        var out: Sums = undefined;
        multiplyAdds(&codes, &query_codes, iterations, &out);
        for (out, 0..) |sums, q| for (sums, 0..) |sum, r| {
            var once: i32 = 0;
            for (0..quads.dims) |d| {
                once += (@as(i32, codes[r * quads.dims + d]) - 128) * query_codes[q * quads.dims + d];
            }
            try std.testing.expectEqual(once * @as(i32, @intCast(iterations)), sum);
        };
    }
}

test "a pass over memory reads every word of every piece" {
    var random = std.Random.DefaultPrng.init(29);
    var pieces: [3 * turn + 2]Piece = undefined;
    for (&pieces) |*piece| for (piece) |*word| {
        word.* = random.random().int(u64);
    };
    for (0..pieces.len + 1) |count| {
        var expected: Piece = @splat(0);
        for (pieces[0..count]) |piece| for (&expected, piece) |*word, other| {
            word.* ^= other;
        };
        var out: Piece = undefined;
        read(&pieces, count, &out);
        try std.testing.expectEqualSlices(u64, &expected, &out);
    }
}
