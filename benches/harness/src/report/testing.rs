//! Points for the tests of this module.

use crate::record::{Point, Residence, Sizes, Times};

/// A search of one query over 100 x 384 that took `p50_ns`, with the confidence interval `ci_ns`.
pub(super) fn search(backend: &str, p50_ns: f64, ci_ns: [f64; 2]) -> Point {
    Point {
        suite: "search".into(),
        case: "search".into(),
        backend: backend.into(),
        residence: Residence::Resident,
        sizes: Sizes { rows: 100, dim: 384, k: 10, items: 1 },
        times: Times {
            samples: 100,
            p50_ns,
            p95_ns: p50_ns,
            p99_ns: p50_ns,
            min_ns: p50_ns,
            max_ns: p50_ns,
            ci_ns,
            outliers: 0,
            doubts: Vec::new(),
        },
        multiply_adds: 38_400.0,
        bytes: 38_400.0,
    }
}
