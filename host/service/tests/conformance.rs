//! One answer, whatever did the work: the cases of every operation through the whole engine on the CPU, equal to the
//! naive float64 reference in ids, order and scores. Run once per instruction set by `cargo xtask test`, with
//! `MEGARING_ISA` set; each test here also goes through all of them by itself.

use megaring_bench::cases::{Scale, Subject};
use megaring_core::BackendKind;
use megaring_simd::KernelSet;

#[path = "support/checks.rs"]
mod checks;

/// How much is asked of every operation.
const SCALE: Scale = Scale::Usual;

/// An engine for each instruction set to test: the forced one, or all that this machine has.
fn subjects() -> impl Iterator<Item = Subject> {
    let sets = match std::env::var_os("MEGARING_ISA") {
        Some(_) => vec![KernelSet::from_env().expect("MEGARING_ISA names an available instruction set")],
        None => KernelSet::available(),
    };
    let names = sets.into_iter().map(|set| set.isa().name());
    names.map(|name| Subject::start(BackendKind::Cpu, name, Some(name), |_| Vec::new()).expect("an engine"))
}
