//! From the settings to a device that has proved itself.

use megaring_core::keyword::Automaton;
use wgpu::Adapter;

use crate::backend::WgpuOptions;
use crate::gpu::{Gpu, GpuOptions};
use crate::stage::Traits;
use crate::{Unavailable, adapter, self_test};

/// Opens the adapter that the options ask for, with as much of what it offers as passes the self-test.
///
/// # Errors
/// Why no adapter can be used.
pub(crate) fn open(options: &WgpuOptions, automaton: &Automaton) -> Result<Gpu, Unavailable> {
    let adapter = adapter::choose(options.adapter.as_deref())?;
    let traits = Traits { subgroups: options.subgroups, float64: options.float64 };
    let all =
        GpuOptions { traits, mappable: options.mappable, part_bytes: options.part_bytes, ..GpuOptions::default() };
    open_best(&adapter, all, automaton)
}

/// Opens an adapter with all that the options allow, or with less where that fails.
fn open_best(adapter: &Adapter, all: GpuOptions, automaton: &Automaton) -> Result<Gpu, Unavailable> {
    let mut refused = None;
    for traits in fallbacks(all.traits) {
        let opened = Gpu::open(adapter, GpuOptions { traits, ..all });
        match opened.and_then(|gpu| self_test::run_all(&gpu, automaton).map(|()| gpu)) {
            Ok(gpu) => return Ok(gpu),
            Err(reason) => {
                tracing::warn!(adapter = adapter.get_info().name, ?traits, %reason, "an adapter is not used so");
                refused.get_or_insert(reason);
            }
        }
    }
    Err(refused.unwrap_or_else(|| Unavailable::new("no adapter was tried")))
}

/// The traits to try, best first, each only once.
fn fallbacks(all: Traits) -> Vec<Traits> {
    let ways = [
        all,
        Traits { float64: false, ..all },
        Traits { subgroups: false, ..all },
        Traits { subgroups: false, float64: false },
    ];
    let mut distinct = Vec::new();
    for way in ways {
        if !distinct.contains(&way) {
            distinct.push(way);
        }
    }
    distinct
}

#[cfg(test)]
mod tests {
    use megaring_core::profile::{DEFAULT, Profile};

    use super::*;
    use crate::stage::{Shape, Stage};
    use crate::testing::test_adapter;

    const ALL: Traits = Traits { subgroups: true, float64: true };

    fn opened(sources: fn(Stage, Traits, Shape) -> String) -> Option<Result<Gpu, Unavailable>> {
        let automaton = Automaton::new(&Profile::parse(DEFAULT).expect("the default profile"));
        let adapter = test_adapter()?;
        Some(open_best(&adapter, GpuOptions { traits: ALL, sources, ..GpuOptions::default() }, &automaton))
    }

    /// A stage's text with something changed, which must be there.
    fn changed((stage, traits, shape): (Stage, Traits, Shape), of: Stage, from: &str, to: &str) -> String {
        let source = stage.source(traits, shape);
        assert!(stage != of || source.contains(from), "{from:?} should be in {stage:?}");
        if stage == of { source.replace(from, to) } else { source }
    }

    #[test]
    fn fallbacks_begin_with_all_and_end_with_the_core() {
        let core = Traits { subgroups: false, float64: false };
        let ways = fallbacks(ALL);
        assert_eq!((ways.first(), ways.last(), ways.len()), (Some(&ALL), Some(&core), 4));
        assert_eq!(fallbacks(core), [core]);
    }

    #[test]
    fn a_shader_that_does_not_compile_is_a_reason() {
        let broken =
            |stage, traits, shape| changed((stage, traits, shape), Stage::Select, "fn main(", "fn main(nonsense");
        let Some(opened) = opened(broken) else { return };
        let refused = opened.map(|_| ()).expect_err("nothing runs without it");
        assert!(refused.reason.contains("the shader Select"), "{refused}");
    }

    #[test]
    fn a_shader_that_needs_what_only_some_adapters_have_is_done_without() {
        let broken = |stage, traits, shape| {
            changed((stage, traits, shape), Stage::ScoreProductsFloat64, "fn main(", "fn main(nonsense")
        };
        let Some(opened) = opened(broken) else { return };
        assert!(!opened.expect("there is another way").traits.float64);
    }

    #[test]
    fn an_adapter_whose_sums_are_wrong_is_refused() {
        let broken = |stage, traits, shape| {
            changed((stage, traits, shape), Stage::SearchMany, "dot4I8Packed(codes.x", "dot4I8Packed(codes.y")
        };
        let Some(opened) = opened(broken) else { return };
        let refused = opened.map(|_| ()).expect_err("its answers are not to be trusted");
        assert!(refused.reason.contains("self-test of search"), "{refused}");
    }

    #[test]
    fn float64_that_is_not_exact_is_done_without() {
        let broken = |stage, traits, shape| {
            changed((stage, traits, shape), Stage::ScoreProductsFloat64, "even + odd;", "even + odd * 1.0000001lf;")
        };
        let Some(opened) = opened(broken) else { return };
        assert!(!opened.expect("integers are exact").traits.float64);
    }
}
