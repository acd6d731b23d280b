//! The C interface of one copy: a table of functions under the only symbol that leaves it.
//!
//! The symbol spells out the version and the name of every function, so that a Rust side with another list
//! (src/table.rs) is not linked. Pointers are not null and cover what each kernel documents; lengths are counted in
//! elements.
const std = @import("std");
const options = @import("build_options");
const exact = @import("exact.zig");
const quantising = @import("quantise.zig");
const screen = @import("screen.zig");
const nibbles = @import("nibbles.zig");
const encode = @import("encode.zig");
const filter = @import("filter.zig");
const narrow = @import("narrow.zig");
const bits = @import("bits.zig");
const sweeping = @import("sweep.zig");
const nearest = @import("nearest.zig");
const gate = @import("gate.zig");
const roofline = @import("roofline.zig");

/// Raised with every change of a signature, here and in src/table.rs.
const abi_version = 12;

/// Every function, in the order of src/table.rs and by the names there.
const kernels = .{
    .nop = &nop,
    .exact_dot = exactGather(.dot),
    .exact_l2 = exactGather(.l2),
    .overlap = &overlap,
    .sweep_cosine = sweepNarrow(.cosine),
    .sweep_dot = sweepNarrow(.dot),
    .sweep_l2 = sweepNarrow(.l2),
    .sweep_hamming = sweepBits(.hamming),
    .sweep_jaccard = sweepBits(.jaccard),
    .quantise = &quantise,
    .screen_i8 = &screenI8,
    .screen_nibbles = &screenNibbles,
    .encode = &encodeTexts,
    .distances5 = &distances5,
    .check = &check,
    .multiply_adds = &multiplyAdds,
    .read_pieces = &readPieces,
};

const names = std.meta.fieldNames(@TypeOf(kernels));

const table: [names.len]*const anyopaque = addresses: {
    var addresses: [names.len]*const anyopaque = undefined;
    for (names, &addresses) |name, *address| address.* = @ptrCast(@field(kernels, name));
    break :addresses addresses;
};

comptime {
    var symbol: []const u8 = std.fmt.comptimePrint("megaring_simd_{s}_{d}", .{ options.copy, abi_version });
    for (names) |name| symbol = symbol ++ "_" ++ name;
    @export(&table, .{ .name = symbol });
}

/// query, rows, dim, ids, ids' count, out.
const GatherFn = fn ([*]const f32, [*]const f32, usize, [*]const u32, usize, [*]f64) callconv(.c) void;

fn exactGather(comptime operation: exact.Operation) *const GatherFn {
    return struct {
        fn kernel(
            query: [*]const f32,
            base: [*]const f32,
            dim: usize,
            ids: [*]const u32,
            count: usize,
            out: [*]f64,
        ) callconv(.c) void {
            exact.gather(operation, query, base, dim, ids, count, out);
        }
    }.kernel;
}

/// The same with words of bits.
fn overlap(
    query: [*]const u32,
    base: [*]const u32,
    words: usize,
    ids: [*]const u32,
    count: usize,
    out: [*]bits.Overlap,
) callconv(.c) void {
    bits.gather(query, base, words, ids, count, out);
}

const SweepFn = fn (*const sweeping.Job) callconv(.c) usize;

fn sweepNarrow(comptime metric: narrow.Metric) *const SweepFn {
    return struct {
        fn kernel(job: *const sweeping.Job) callconv(.c) usize {
            return narrow.sweep(metric, job);
        }
    }.kernel;
}

fn sweepBits(comptime metric: bits.Metric) *const SweepFn {
    return struct {
        fn kernel(job: *const sweeping.Job) callconv(.c) usize {
            return bits.sweep(metric, job);
        }
    }.kernel;
}

fn quantise(values: [*]const f32, dim: usize, codes: [*]i8, out: *quantising.Quantised) callconv(.c) void {
    out.* = quantising.quantise(values, dim, codes);
}

fn screenI8(job: *const screen.Job) callconv(.c) usize {
    return screen.screen(job);
}

fn screenNibbles(job: *nibbles.Job) callconv(.c) usize {
    return nibbles.screen(job);
}

fn encodeTexts(
    automaton: *const encode.Automaton,
    keywords: ?*const filter.Filter,
    text: [*]const u8,
    offsets: [*]const u64,
    count: usize,
    out: [*]encode.Mask,
) callconv(.c) void {
    if (filter.available) {
        if (keywords) |found| {
            @memset(out[0..count], .{ .low = 0, .high = 0 });
            return filter.encode(found, automaton, text, offsets, count, out);
        }
    }
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

fn check(entrance: *const gate.Gate, call: *const gate.Call, out: *gate.Decision) callconv(.c) void {
    out.* = gate.check(entrance, call);
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
