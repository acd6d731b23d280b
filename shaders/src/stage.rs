//! The stages: every compute shader with the constants it is compiled with. [`Stage`] is the only list of them.
//!
//! All stages bind the same two groups, so a bind group made for a workspace or a part of a corpus serves every stage:
//!
//! | group | binding | what |
//! |---|---|---|
//! | 0 | 0 | `params`, uniform, one of [`crate::script::PARAMS_STRIDE`] bytes for each dispatch |
//! | 0 | 1 | `input`, read only: what the host wrote for this job |
//! | 0 | 2 | `scratch`, read and write |
//! | 0 | 3 | `output`, read and write: what the host reads |
//! | 1 | 0 | `rows`, read only: of a part of a corpus, its codes, its rows or its coordinates; the automaton's transitions |
//! | 1 | 1 | `columns`, read only: what belongs to the rows, such as the screen's columns; the automaton's words |

/// The shaders of `wgsl/`, each as a function of its constants. One that no stage runs is not compiled.
#[deny(dead_code)]
mod wgsl {
    include!(concat!(env!("OUT_DIR"), "/shaders.rs"));
}

/// Features beyond WebGPU's core that stages are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traits {
    /// Subgroup operations, of whatever size.
    pub(crate) subgroups: bool,
    /// Arithmetic in float64.
    pub(crate) float64: bool,
}

/// What an adapter's limits leave to the shape of a stage's workgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Invocations of a workgroup.
    pub(crate) invocations: u32,
    /// Memory of a workgroup, in bytes.
    pub(crate) workgroup_bytes: u32,
}

impl Shape {
    /// The least that the stages need, which WebGPU promises of every adapter.
    pub(crate) const LEAST: Self = Self { invocations: 256, workgroup_bytes: 16 << 10 };

    /// That of an adapter.
    pub(crate) fn of(limits: &wgpu::Limits) -> Self {
        Self {
            invocations: limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x),
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
        }
    }

    /// Threads that find the k-th of a query's cells together: as many as there may be.
    fn selecting_threads(self) -> u32 {
        if self.invocations >= MOST_SELECTING { MOST_SELECTING } else { Self::LEAST.invocations }
    }

    /// Quads that lie in workgroup memory at a time, of a tile of so many fours of rows and of queries.
    fn tile_step(self, row_fours: u32, query_fours: u32) -> u32 {
        const LONG: u32 = 16;
        let bytes = LONG * (row_fours + query_fours) * size_of::<[u32; 4]>() as u32;
        if bytes <= self.workgroup_bytes { LONG } else { LONG / 2 }
    }
}

/// The larger of the two workgroups that `select.wgsl` is written for.
const MOST_SELECTING: u32 = 1024;
/// Fours of rows times fours of queries of a tile: one thread for each (`wgsl/search_many.wgsl`).
const TILE_THREADS: u32 = 256;

macro_rules! stages {
    ($traits:ident, $shape:ident; $($(#[$doc:meta])* $stage:ident $(if $has:expr)? => $shader:expr,)*) => {
        /// A compute shader with its constants.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum Stage {
            $($(#[$doc])* $stage,)*
        }

        impl Stage {
            /// Every stage.
            pub(crate) const ALL: &[Self] = &[$(Self::$stage),*];

            /// Its place in [`Self::ALL`].
            pub(crate) fn index(self) -> usize {
                self as usize
            }

            /// Whether an adapter with these traits can run it.
            pub(crate) fn runs_with(self, $traits: Traits) -> bool {
                match self { $(Self::$stage => true $(&& $has)?,)* }
            }

            /// The shader's text.
            pub(crate) fn source(self, $traits: Traits, $shape: Shape) -> String {
                match self { $(Self::$stage => $shader,)* }
            }
        }
    };
}

stages! { traits, shape;
    Checksum => wgsl::checksum(),
    Encode => wgsl::encode(),
    /// Raises thresholds.
    Select => wgsl::select(shape.selecting_threads()),
    /// For one query.
    SearchOne => search_by_teams(traits, 1),
    /// For queries by four.
    SearchFew => search_by_teams(traits, 4),
    /// In tiles of 16 queries.
    SearchSome => search_by_tiles(shape, 4),
    /// In tiles of 64 queries.
    SearchMany => search_by_tiles(shape, 16),
    SearchCollect => wgsl::search_collect(),
    Bits => wgsl::bits(),
    BitsCollect => wgsl::bits_collect(),
    Nearest => wgsl::nearest(),
    NearestCollect => wgsl::nearest_collect(),
    ScoreProductsFloat64 if traits.float64 => wgsl::score_sums_float64(0),
    ScoreSquaresFloat64 if traits.float64 => wgsl::score_sums_float64(1),
    ScoreProductsInteger => wgsl::score_sums_integer(0),
    ScoreSquaresInteger => wgsl::score_sums_integer(1),
    ScoreFinish => wgsl::score_finish(),
    ScoreBits => wgsl::score_bits(),
}

fn search_by_teams(traits: Traits, queries: u32) -> String {
    if traits.subgroups { wgsl::search_few_subgroups(queries) } else { wgsl::search_few(queries) }
}

fn search_by_tiles(shape: Shape, query_fours: u32) -> String {
    wgsl::search_many(query_fours, shape.tile_step(TILE_THREADS / query_fours, query_fours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workgroups_grow_with_the_limits() {
        let shapes = [(256, 16 << 10), (1023, 32 << 10), (1024, 48 << 10)];
        let shapes = shapes.map(|(invocations, workgroup_bytes)| Shape { invocations, workgroup_bytes });
        assert_eq!(shapes.map(Shape::selecting_threads), [256, 256, 1024]);
        assert_eq!(shapes.map(|shape| shape.tile_step(64, 4)), [8, 16, 16]);
        assert_eq!(shapes.map(|shape| shape.tile_step(16, 16)), [16; 3]);
    }

    #[test]
    fn every_stage_has_constants_that_were_validated() {
        let more = Shape { invocations: 1024, workgroup_bytes: 32 << 10 };
        for (place, stage) in Stage::ALL.iter().enumerate() {
            assert_eq!(stage.index(), place);
            for (has, shape) in [(false, Shape::LEAST), (true, Shape::LEAST), (false, more), (true, more)] {
                let source = stage.source(Traits { subgroups: has, float64: has }, shape);
                assert!(source.contains("fn main("), "{stage:?}");
            }
        }
        let tiles = Stage::SearchSome.source(Traits { subgroups: false, float64: false }, more);
        for declared in ["const QUERY_FOURS: u32 = 4u;", "const STEP: u32 = 16u;"] {
            assert!(tiles.lines().any(|line| line == declared), "{declared}");
        }
    }
}
