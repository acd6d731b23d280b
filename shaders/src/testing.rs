//! What the operations' tests share: this machine's adapter in every way it can be driven, and a job run by itself.

use std::io::Write;
use std::sync::OnceLock;

use megaring_core::encode::keyword::Automaton;
use megaring_core::encode::profile::{DEFAULT, Profile};
use wgpu::Adapter;

use crate::gpu::{Gpu, GpuOptions};
use crate::operation::{Operation, Part};
use crate::stage::{Shape, Traits};
use crate::{adapter, open, trial};

/// The adapter that tests run on: the one that `MEGARING_WGPU_ADAPTER` names, or the first there is, software too.
/// Without one the test says so and has nothing to do. A test asks once, however much it has to do: what is said is
/// counted.
pub(crate) fn test_adapter() -> Option<Adapter> {
    let wish = std::env::var("MEGARING_WGPU_ADAPTER").ok();
    // Any name contains the empty one.
    let candidates = adapter::candidates(Some(wish.as_deref().unwrap_or("")));
    match candidates.and_then(|all| open::first(all, |adapter| adapter::suffices(&adapter).map(|()| adapter))) {
        Ok(adapter) => Some(adapter),
        Err(reason) => {
            // Past the capture of tests that pass: it is to be counted.
            _ = writeln!(std::io::stdout(), "\nskipped: {reason}");
            None
        }
    }
}

/// The test adapter with subgroups, float64, mapped buffers and large workgroups where it has them, and without. All
/// tests share them, since to open one takes longer than most of what they do with it: what one breaks fails the
/// others.
pub(crate) fn gpus() -> &'static [Gpu] {
    static SHARED: OnceLock<[Gpu; 2]> = OnceLock::new();
    let Some(adapter) = test_adapter() else { return &[] };
    SHARED.get_or_init(|| {
        let core = Traits { subgroups: false, float64: false };
        let least = GpuOptions { traits: core, mappable: false, shape: Some(Shape::LEAST), ..GpuOptions::default() };
        [GpuOptions::default(), least].map(|options| Gpu::open(&adapter, options).expect("the adapter opens"))
    })
}

/// The first of [`gpus`].
pub(crate) fn gpu() -> Option<&'static Gpu> {
    gpus().first()
}

/// One of its own, for a test that loses it.
pub(crate) fn own_gpu() -> Option<Gpu> {
    Some(Gpu::open(&test_adapter()?, GpuOptions::default()).expect("the adapter opens"))
}

/// The automaton of the default profile.
pub(crate) fn automaton() -> Automaton {
    Automaton::new(&Profile::parse(DEFAULT).expect("the default profile"))
}

/// Binds bytes as a part of a corpus that has these rows.
pub(crate) fn part(gpu: &Gpu, rows: &[u8], columns: &[u8], numbers: std::ops::Range<usize>) -> Part {
    Part { binding: trial::bind(gpu, rows, columns).expect("little memory"), rows: numbers }
}

/// Runs a job as the dispatcher would, and gives back its slot's result of `len` bytes. Each of `rounds` is one.
pub(crate) fn run(gpu: &Gpu, operation: &mut dyn Operation, rounds: &[Vec<Part>], len: usize) -> Vec<u8> {
    trial::run(gpu, operation, rounds, len).expect("an answer")
}
