//! Dot products in float32: sum of query[i] * row[i].
const rows = @import("rows.zig");
const vector = @import("vector.zig");

pub const has_query = true;

pub inline fn step(sum: rows.Floats, query: rows.Floats, values: rows.Floats, scale: rows.Floats) rows.Floats {
    _ = scale;
    return vector.mulAdd(rows.Floats, query, values, sum);
}

/// The scale is a factor of every term, so it is applied once.
pub inline fn finish(sum: f32, scale: f32) f32 {
    return sum * scale;
}
