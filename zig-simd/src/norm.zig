//! Squared Euclidean norms in float32: sum of (scale * row[i])^2.
const rows = @import("rows.zig");
const vector = @import("vector.zig");

pub const has_query = false;

pub inline fn step(sum: rows.Floats, query: void, values: rows.Floats, scale: rows.Floats) rows.Floats {
    _ = query;
    _ = scale;
    return vector.mulAdd(rows.Floats, values, values, sum);
}

/// Applied once to the sum; the product is formed as (sum * scale) * scale, in which a small scale does not underflow first.
pub inline fn finish(sum: f32, scale: f32) f32 {
    return (sum * scale) * scale;
}
