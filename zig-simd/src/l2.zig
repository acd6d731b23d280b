//! Squared Euclidean distances in float32: sum of (query[i] - scale * row[i])^2.
const rows = @import("rows.zig");
const vector = @import("vector.zig");

pub const has_query = true;

pub inline fn step(sum: rows.Floats, query: rows.Floats, values: rows.Floats, scale: rows.Floats) rows.Floats {
    const difference = query - values * scale;
    return vector.mulAdd(rows.Floats, difference, difference, sum);
}

pub inline fn finish(sum: f32, scale: f32) f32 {
    _ = scale;
    return sum;
}
