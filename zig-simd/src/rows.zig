//! The driver of the float32 row operations: one query against many rows, one float32 out per row.
//!
//! An operation gives `step`, which folds one register of the query and of the row into an accumulator, and `finish`, which
//! applies the row's scale to the sum (only int8 rows have one; for the others it is 1). Each row has `accumulators` registers,
//! whose lanes are added at the end, so the order of additions differs between instruction sets: callers bound the error, they
//! do not expect bits. Several rows share each load of the query.
const std = @import("std");
const isa = @import("isa.zig");
const vector = @import("vector.zig");
const widen = @import("element.zig").widen;
const Element = @import("element.zig").Element;

const lanes = isa.f32_lanes;
pub const Floats = @Vector(lanes, f32);
const rows_at_once = 4;
const accumulators = 2;

/// `rows` is `count` x `dim`, row-major; `scales` is read for int8 rows only. Any `dim` and `count`, zero included.
pub fn reduce(
    comptime operation: type,
    comptime element: Element,
    query: [*]const f32,
    rows: [*]const element.Stored(),
    scales: [*]const f32,
    count: usize,
    dim: usize,
    out: [*]f32,
) void {
    var row: usize = 0;
    while (row + rows_at_once <= count) : (row += rows_at_once) {
        block(operation, element, rows_at_once, query, rows + row * dim, scales + row, dim, out + row);
    }
    while (row < count) : (row += 1) {
        block(operation, element, 1, query, rows + row * dim, scales + row, dim, out + row);
    }
}

inline fn block(
    comptime operation: type,
    comptime element: Element,
    comptime height: comptime_int,
    query: [*]const f32,
    rows: [*]const element.Stored(),
    scales: [*]const f32,
    dim: usize,
    out: [*]f32,
) void {
    const Stored = element.Stored();
    var sums: [height][accumulators]Floats = @splat(@splat(@splat(0)));
    var scale: [height]Floats = @splat(@splat(1));
    if (element == .int8) inline for (0..height) |r| {
        scale[r] = @splat(scales[r]);
    };

    var at: usize = 0;
    while (at + lanes * accumulators <= dim) : (at += lanes * accumulators) {
        inline for (0..accumulators) |a| {
            const from = at + a * lanes;
            const q = if (operation.has_query) vector.load(f32, lanes, query, from) else {};
            inline for (0..height) |r| {
                const values = widen(element, lanes, vector.load(Stored, lanes, rows + r * dim, from));
                sums[r][a] = operation.step(sums[r][a], q, values, scale[r]);
            }
        }
    }
    while (at < dim) : (at += lanes) {
        const q = if (operation.has_query) tail(f32, query, at, dim) else {};
        inline for (0..height) |r| {
            const values = widen(element, lanes, tail(Stored, rows + r * dim, at, dim));
            sums[r][0] = operation.step(sums[r][0], q, values, scale[r]);
        }
    }
    inline for (0..height) |r| {
        var total = sums[r][0];
        inline for (1..accumulators) |a| total += sums[r][a];
        out[r] = operation.finish(vector.sumLanes(f32, lanes, total), scale[r][0]);
    }
}

/// The register at `at`, with zeros for what lies at or beyond `dim`: a load that overlaps elements already counted, which are
/// then zeroed, or, where the whole row is shorter than a register, a copy.
inline fn tail(comptime T: type, source: [*]const T, at: usize, dim: usize) @Vector(lanes, T) {
    if (at + lanes <= dim) return vector.load(T, lanes, source, at);
    if (dim < lanes) return vector.loadPadded(T, lanes, source, dim);
    const overlapping = vector.load(T, lanes, source, dim - lanes);
    return @select(T, vector.lanesFrom(lanes, at - (dim - lanes)), overlapping, @as(@Vector(lanes, T), @splat(0)));
}
