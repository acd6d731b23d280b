//! From the settings to a device that has proved itself.

use std::panic::{AssertUnwindSafe, catch_unwind};

use megaring_core::encode::keyword::Automaton;
use wgpu::{Adapter, Features};

use crate::backend::WgpuOptions;
use crate::gpu::{Gpu, GpuOptions};
use crate::stage::{Shape, Traits};
use crate::{Unavailable, adapter, self_test};

/// Opens the best of the adapters that the options allow, with as much of what it offers as passes the self-test.
///
/// # Errors
/// Why no adapter can be used, each by its name.
pub(crate) fn open(options: &WgpuOptions, automaton: &Automaton) -> Result<Gpu, Unavailable> {
    let traits = Traits { subgroups: options.subgroups, float64: options.float64 };
    let WgpuOptions { mappable, part_bytes, patience, .. } = *options;
    let all = GpuOptions { traits, mappable, part_bytes, patience, ..GpuOptions::default() };
    first(adapter::candidates(options.adapter.as_deref())?, |adapter| {
        adapter::suffices(&adapter)?;
        open_best(&adapter, all, automaton)
    })
}

/// What becomes of the first candidate of which something does.
///
/// # Errors
/// Why nothing becomes of any.
pub(crate) fn first<T, U>(
    candidates: impl IntoIterator<Item = T>,
    open: impl Fn(T) -> Result<U, Unavailable>,
) -> Result<U, Unavailable> {
    let mut reasons = Vec::new();
    for candidate in candidates {
        match open(candidate) {
            Ok(opened) => return Ok(opened),
            Err(refused) => reasons.push(refused.reason),
        }
    }
    Err(Unavailable::new(reasons.join("; ")))
}

/// Opens an adapter with all that the options allow, or with less where that fails.
fn open_best(adapter: &Adapter, all: GpuOptions, automaton: &Automaton) -> Result<Gpu, Unavailable> {
    let name = adapter.get_info().name;
    let mut refused = None;
    for way in fallbacks(offered(adapter, all)) {
        let tried = || Gpu::open(adapter, way).and_then(|gpu| self_test::run_all(&gpu, automaton).map(|()| gpu));
        // A panic of wgpu or of a driver's compiler is a reason to try another way, or another adapter.
        let opened = catch_unwind(AssertUnwindSafe(tried));
        match opened.unwrap_or_else(|_| Err(Unavailable::new("wgpu panicked on it"))) {
            Ok(gpu) => return Ok(gpu),
            Err(reason) => {
                let GpuOptions { traits, shape, mappable, .. } = way;
                tracing::warn!(adapter = name, ?traits, ?shape, mappable, %reason, "an adapter is not used so");
                refused.get_or_insert(reason);
            }
        }
    }
    let reason = refused.map_or_else(|| "it was not tried".to_owned(), |refused| refused.reason);
    Err(Unavailable::new(if reason.contains(&name) { reason } else { format!("the adapter {name}: {reason}") }))
}

/// What is left of the options on this adapter, so that ways which differ do so in what is done.
fn offered(adapter: &Adapter, options: GpuOptions) -> GpuOptions {
    let has = adapter.features();
    let Traits { subgroups, float64 } = options.traits;
    let traits = Traits {
        subgroups: subgroups && has.contains(Features::SUBGROUP),
        float64: float64 && has.contains(Features::SHADER_F64),
    };
    let mappable = has.contains(Features::MAPPABLE_PRIMARY_BUFFERS) && adapter::shares_memory(&adapter.get_info());
    // A program on the CPU takes the threads of a workgroup in turn, and pays for each.
    let software = adapter::is_software(&adapter.get_info());
    let largest = || if software { Shape::LEAST } else { Shape::of(&adapter.limits()) };
    let shape = Some(options.shape.unwrap_or_else(largest));
    GpuOptions { traits, shape, mappable: options.mappable && mappable, ..options }
}

/// The ways to try, best first, each once: with everything, then without one thing, then with what every adapter has.
fn fallbacks(all: GpuOptions) -> Vec<GpuOptions> {
    let least = Some(Shape::LEAST);
    let core = Traits { subgroups: false, float64: false };
    let ways = [
        all,
        GpuOptions { shape: least, ..all },
        GpuOptions { traits: Traits { float64: false, ..all.traits }, ..all },
        GpuOptions { traits: Traits { subgroups: false, ..all.traits }, ..all },
        GpuOptions { traits: core, shape: least, mappable: false, ..all },
    ];
    let mut distinct: Vec<GpuOptions> = Vec::new();
    for way in ways {
        let differs =
            |other: &GpuOptions| (other.traits, other.shape, other.mappable) != (way.traits, way.shape, way.mappable);
        if distinct.iter().all(differs) {
            distinct.push(way);
        }
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Stage;
    use crate::testing::{automaton, test_adapter};

    const ALL: Traits = Traits { subgroups: true, float64: true };

    fn opened(sources: fn(Stage, Traits, Shape) -> String) -> Option<Result<Gpu, Unavailable>> {
        let adapter = test_adapter()?;
        Some(open_best(&adapter, GpuOptions { traits: ALL, sources, ..GpuOptions::default() }, &automaton()))
    }

    /// A stage's text with something changed, which must be there.
    fn changed((stage, traits, shape): (Stage, Traits, Shape), of: Stage, from: &str, to: &str) -> String {
        let source = stage.source(traits, shape);
        assert!(stage != of || source.contains(from), "{from:?} should be in {stage:?}");
        if stage == of { source.replace(from, to) } else { source }
    }

    #[test]
    fn fallbacks_begin_with_all_and_end_with_the_core() {
        let large = Some(Shape { invocations: 1024, workgroup_bytes: 32 << 10 });
        let all = GpuOptions { traits: ALL, shape: large, ..GpuOptions::default() };
        let told = |ways: Vec<GpuOptions>| {
            ways.iter()
                .map(|way| [way.traits.subgroups, way.traits.float64, way.shape == large, way.mappable])
                .collect::<Vec<_>>()
        };
        let without = |place| std::array::from_fn(|each| each != place);
        let core = [false; 4];
        assert_eq!(told(fallbacks(all)), [[true; 4], without(2), without(1), without(0), core]);
        let least = fallbacks(all).pop().expect("a way");
        assert_eq!(told(fallbacks(least)), [core]);
    }

    #[test]
    fn the_next_candidate_is_tried_where_one_fails_and_all_reasons_are_told() {
        let large = |number: u32| {
            if number > 2 { Ok(number) } else { Err(Unavailable::new(format_args!("{number} is small"))) }
        };
        assert_eq!(first([1, 2, 3, 4], large), Ok(3));
        assert_eq!(first([1, 2], large).map_err(|refused| refused.reason), Err("1 is small; 2 is small".into()));
    }

    #[test]
    fn a_driver_that_cannot_run_large_workgroups_is_given_small_ones() {
        fn large_alone(to: (Stage, Traits, Shape), of: Stage, from: &str, with: &str) -> String {
            let (stage, traits, shape) = to;
            if shape == Shape::LEAST { stage.source(traits, shape) } else { changed(to, of, from, with) }
        }
        let breaks: [fn(Stage, Traits, Shape) -> String; 2] = [
            |stage, traits, shape| large_alone((stage, traits, shape), Stage::Select, "fn main(", "fn main(nonsense"),
            |stage, traits, shape| {
                let (from, with) = ("dot4I8Packed(codes.x", "dot4I8Packed(codes.y");
                large_alone((stage, traits, shape), Stage::SearchSome, from, with)
            },
        ];
        let Some(adapter) = test_adapter() else { return };
        let whole = Gpu::open(&adapter, GpuOptions::default()).expect("the adapter opens");
        for sources in breaks {
            let gpu = opened(sources).expect("it is there").expect("small ones run");
            assert_eq!((gpu.traits, gpu.mappable), (whole.traits, whole.mappable));
        }
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
    fn a_compiler_that_panics_is_a_reason() {
        let Some(opened) = opened(|_, _, _| panic!("as naga might")) else { return };
        let refused = opened.map(|_| ()).expect_err("nothing was compiled");
        assert!(refused.reason.contains("panicked"), "{refused}");
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
