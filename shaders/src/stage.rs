//! The stages: every compute shader with the constants it is compiled with.
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

include!(concat!(env!("OUT_DIR"), "/sources.rs"));

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

/// A compute shader with its constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// See `wgsl/masks.wgsl`.
    Masks,
    /// See `wgsl/select.wgsl`.
    Select,
    /// See `wgsl/search_few.wgsl` and `wgsl/search_few_subgroups.wgsl`; for one query.
    SearchOne,
    /// The same for queries by four.
    SearchFew,
    /// See `wgsl/search_many.wgsl`; in tiles of 16 queries.
    SearchSome,
    /// The same in tiles of 64 queries.
    SearchMany,
    /// See `wgsl/search_collect.wgsl`.
    SearchCollect,
    /// See `wgsl/nearest.wgsl`.
    Nearest,
    /// See `wgsl/nearest_collect.wgsl`.
    NearestCollect,
    /// See `wgsl/score_sums_float64.wgsl`; for products.
    ScoreProductsFloat64,
    /// The same for squared differences.
    ScoreSquaresFloat64,
    /// See `wgsl/score_sums_integer.wgsl`; for products.
    ScoreProductsInteger,
    /// The same for squared differences.
    ScoreSquaresInteger,
    /// See `wgsl/score_finish.wgsl`.
    ScoreFinish,
}

impl Stage {
    /// Every stage.
    pub(crate) const ALL: &[Self] = &[
        Self::Masks,
        Self::Select,
        Self::SearchOne,
        Self::SearchFew,
        Self::SearchSome,
        Self::SearchMany,
        Self::SearchCollect,
        Self::Nearest,
        Self::NearestCollect,
        Self::ScoreProductsFloat64,
        Self::ScoreSquaresFloat64,
        Self::ScoreProductsInteger,
        Self::ScoreSquaresInteger,
        Self::ScoreFinish,
    ];

    /// Its place in [`Self::ALL`].
    pub(crate) fn index(self) -> usize {
        Self::ALL.iter().position(|stage| *stage == self).unwrap_or(0)
    }

    /// Whether an adapter with these traits can run it.
    pub(crate) fn runs_with(self, traits: Traits) -> bool {
        match self {
            Self::Masks
            | Self::Select
            | Self::SearchOne
            | Self::SearchFew
            | Self::SearchSome
            | Self::SearchMany
            | Self::SearchCollect
            | Self::Nearest
            | Self::NearestCollect
            | Self::ScoreProductsInteger
            | Self::ScoreSquaresInteger
            | Self::ScoreFinish => true,
            Self::ScoreProductsFloat64 | Self::ScoreSquaresFloat64 => traits.float64,
        }
    }

    /// The file's name, and the constants that differ from those in the file.
    fn definition(self, traits: Traits, shape: Shape) -> (&'static str, Vec<(&'static str, u32)>) {
        let team = if traits.subgroups { "search_few_subgroups" } else { "search_few" };
        let tile = |query_fours: u32| {
            let step = shape.tile_step(TILE_THREADS / query_fours, query_fours);
            ("search_many", vec![("QUERY_FOURS", query_fours), ("STEP", step)])
        };
        match self {
            Self::Masks => ("masks", vec![]),
            Self::Select => ("select", vec![("THREADS", shape.selecting_threads())]),
            Self::SearchOne => (team, vec![("QUERIES", 1)]),
            Self::SearchFew => (team, vec![("QUERIES", 4)]),
            Self::SearchSome => tile(4),
            Self::SearchMany => tile(16),
            Self::SearchCollect => ("search_collect", vec![]),
            Self::Nearest => ("nearest", vec![]),
            Self::NearestCollect => ("nearest_collect", vec![]),
            Self::ScoreProductsFloat64 => ("score_sums_float64", vec![("SQUARES", 0)]),
            Self::ScoreSquaresFloat64 => ("score_sums_float64", vec![("SQUARES", 1)]),
            Self::ScoreProductsInteger => ("score_sums_integer", vec![("SQUARES", 0)]),
            Self::ScoreSquaresInteger => ("score_sums_integer", vec![("SQUARES", 1)]),
            Self::ScoreFinish => ("score_finish", vec![]),
        }
    }

    /// The shader's text.
    pub(crate) fn source(self, traits: Traits, shape: Shape) -> String {
        let (name, constants) = self.definition(traits, shape);
        let (_, text) = SOURCES.iter().find(|(known, _)| *known == name).copied().unwrap_or_default();
        constants.into_iter().fold(text.to_owned(), |text, (constant, value)| set_constant(&text, constant, value))
    }
}

/// Gives a constant another value; `text` declares it on a line of its own.
fn set_constant(text: &str, constant: &str, value: u32) -> String {
    let declaration = format!("const {constant}: u32 = ");
    let set =
        |line: &str| if line.starts_with(&declaration) { format!("{declaration}{value}u;") } else { line.to_owned() };
    text.lines().map(|line| set(line) + "\n").collect()
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
    fn every_stage_has_a_file_and_its_constants_are_declared_there() {
        for stage in Stage::ALL {
            let more = Shape { invocations: 1024, workgroup_bytes: 32 << 10 };
            for (traits, shape) in [(false, Shape::LEAST), (true, Shape::LEAST), (false, more), (true, more)] {
                let traits = Traits { subgroups: traits, float64: traits };
                let (_, constants) = stage.definition(traits, shape);
                let source = stage.source(traits, shape);
                assert!(source.contains("fn main("), "{stage:?}");
                for (constant, value) in constants {
                    let line = format!("const {constant}: u32 = {value}u;");
                    assert!(source.lines().any(|found| found == line), "{stage:?} should declare {constant}");
                }
            }
        }
    }
}
