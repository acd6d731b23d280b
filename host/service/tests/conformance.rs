//! One answer, whatever did the work: the cases of every operation through the whole engine on the CPU, equal to the
//! naive float64 reference in ids, order and scores, with each instruction set that this machine has.

use megaring_bench::cases::{Scale, Subject};
use megaring_core::BackendKind;
use megaring_simd::KernelSet;

#[path = "support/checks.rs"]
mod checks;

/// How much is asked of every operation.
const SCALE: Scale = Scale::Usual;

/// An engine for each instruction set.
fn subjects() -> impl Iterator<Item = Subject> {
    let names = KernelSet::available().into_iter().map(|set| set.isa().name());
    names.map(|name| Subject::start(BackendKind::Cpu, name, Some(name), |_| Vec::new()).expect("an engine"))
}
