//! What the sweeps have in common: kernels that score every row of a run and keep those that are good enough.

/// The same as `RankedRow` in host/core/src/lists.rs.
pub const Scored = extern struct { score: f64, row: u32, reserved: u32 = 0 };

/// The same as `SweepJob` in sweep.rs.
pub const Job = extern struct {
    /// Row-major, `dim` values of four bytes a row.
    rows: [*]const f32,
    /// dot(x, x) of each row; read for cosine alone.
    norms2: [*]const f64,
    begin: usize,
    end: usize,
    query: [*]const f32,
    /// dot(x, x) of the query; read for cosine alone.
    norm2: f64,
    /// What a goodness must exceed.
    threshold: f64,
    /// Rows that exceed it, `count` of them so far, with their goodness.
    found: [*]Scored,
    count: *usize,
    capacity: usize,
    dim: u32,
    /// Number of row 0.
    row_base: u32,
};
