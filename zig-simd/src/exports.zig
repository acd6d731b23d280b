//! The C interface of one copy: a table of functions under the only symbol that leaves it, megaring_simd_<isa>.
//!
//! The Rust side declares the same table (src/table.rs); both check its size. Pointers are not null and cover what each kernel
//! documents; lengths are counted in elements.
const std = @import("std");
const isa = @import("isa.zig");
const exact = @import("exact.zig");
const screen = @import("screen.zig");
const encode = @import("encode.zig");
const nearest = @import("nearest.zig");
const roofline = @import("roofline.zig");

/// Raised with every change of a signature or of the order below.
const abi_version = 4;

const Table = extern struct {
    abi_version: u64 = abi_version,
    nop: *const @TypeOf(nop) = nop,
    exact_dot: *const GatherFn = exactGather(.dot),
    exact_l2: *const GatherFn = exactGather(.l2),
    screen_i8: *const @TypeOf(screenI8) = screenI8,
    encode: *const @TypeOf(encodeTexts) = encodeTexts,
    distances5: *const @TypeOf(distances5) = distances5,
    multiply_adds: *const @TypeOf(multiplyAdds) = multiplyAdds,
    read_pieces: *const @TypeOf(readPieces) = readPieces,

    comptime {
        std.debug.assert(@sizeOf(Table) == 8 + 8 * @sizeOf(usize));
    }
};

const table: Table = .{};

comptime {
    @export(&table, .{ .name = "megaring_simd_" ++ @tagName(isa.current) });
}

/// query, rows, dim, ids, ids' count, out.
const GatherFn = fn ([*]const f32, [*]const f32, usize, [*]const u32, usize, [*]f64) callconv(.c) void;

fn exactGather(comptime operation: exact.Operation) *const GatherFn {
    return struct {
        fn kernel(query: [*]const f32, base: [*]const f32, dim: usize, ids: [*]const u32, count: usize, out: [*]f64) callconv(.c) void {
            exact.gather(operation, query, base, dim, ids, count, out);
        }
    }.kernel;
}

fn screenI8(job: *const screen.Job) callconv(.c) usize {
    return screen.screen(job);
}

fn encodeTexts(
    automaton: *const encode.Automaton,
    text: [*]const u8,
    offsets: [*]const u64,
    count: usize,
    out: [*]encode.Mask,
) callconv(.c) void {
    encode.encode(automaton, text, offsets, count, out);
}

fn distances5(
    columns: *const [nearest.axes][*]const f64,
    query: *const [nearest.axes]f64,
    weights: *const [nearest.axes]f64,
    count: usize,
    out: [*]f64,
) callconv(.c) void {
    nearest.distances(columns, query, weights, count, out);
}

fn multiplyAdds(
    codes: *const roofline.Codes,
    query_codes: *const roofline.Queries,
    iterations: usize,
    out: *roofline.Sums,
) callconv(.c) void {
    roofline.multiplyAdds(codes, query_codes, iterations, out);
}

fn readPieces(pieces: [*]const roofline.Piece, count: usize, out: *roofline.Piece) callconv(.c) void {
    roofline.read(pieces, count, out);
}

/// Does nothing: what a call costs.
fn nop() callconv(.c) void {}
