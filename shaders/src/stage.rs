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
    fn definition(self, traits: Traits) -> (&'static str, Vec<(&'static str, u32)>) {
        let team = if traits.subgroups { "search_few_subgroups" } else { "search_few" };
        match self {
            Self::Masks => ("masks", vec![]),
            Self::Select => ("select", vec![]),
            Self::SearchOne => (team, vec![("QUERIES", 1)]),
            Self::SearchFew => (team, vec![("QUERIES", 4)]),
            Self::SearchSome => ("search_many", vec![("QUERY_FOURS", 4)]),
            Self::SearchMany => ("search_many", vec![("QUERY_FOURS", 16)]),
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
    pub(crate) fn source(self, traits: Traits) -> String {
        let (name, constants) = self.definition(traits);
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
    fn every_stage_has_a_file_and_its_constants_are_declared_there() {
        for stage in Stage::ALL {
            for traits in [(false, false), (true, false), (false, true), (true, true)] {
                let traits = Traits { subgroups: traits.0, float64: traits.1 };
                let (_, constants) = stage.definition(traits);
                let source = stage.source(traits);
                assert!(source.contains("fn main("), "{stage:?}");
                for (constant, value) in constants {
                    let line = format!("const {constant}: u32 = {value}u;");
                    assert!(source.lines().any(|found| found == line), "{stage:?} should declare {constant}");
                }
            }
        }
    }
}
