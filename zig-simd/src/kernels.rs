//! The kernel sets: availability as a value.
//!
//! A `KernelSet` cannot be made outside this file, and this file hands one out only after the CPU's features were
//! checked. That one check is what every unsafe call in the wrappers rests on.

use std::fmt;

use crate::error::IsaError;
use crate::isa::{CpuFeatures, Isa};
use crate::table::{KernelTable, table_of};

/// The environment variable that forces an instruction set.
const FORCE: &str = "MEGARING_ISA";

/// The kernels of one instruction set, which this CPU has.
pub struct KernelSet {
    isa: Isa,
    /// What a CPU must have beyond the instruction set.
    more: CpuFeatures,
    pub(crate) table: &'static KernelTable,
}

impl KernelSet {
    /// The kernels of `isa`, or why this machine cannot run them.
    pub fn for_isa(isa: Isa) -> Result<&'static KernelSet, IsaError> {
        let features = CpuFeatures::of_this_cpu();
        let unavailable = |reason| IsaError::Unavailable { isa, reason, available: Self::available_isas() };
        if !isa.is_supported(features) {
            let missing = isa.required().without(features).names().join(", ");
            return Err(unavailable(format!("the CPU lacks {missing}")));
        }
        // The last copy of a set is the one that asks for most.
        COMPILED
            .iter()
            .rfind(|set| set.isa == isa && features.contains(set.more))
            .ok_or_else(|| unavailable("this build does not contain it".to_owned()))
    }

    /// The kernels of every instruction set that this machine has, slowest first. Never empty.
    pub fn available() -> Vec<&'static KernelSet> {
        Isa::ALL.into_iter().filter_map(|isa| Self::for_isa(isa).ok()).collect()
    }

    /// Every copy of the kernels that this machine can run: of an instruction set there may be two.
    pub fn copies() -> Vec<&'static KernelSet> {
        let features = CpuFeatures::of_this_cpu();
        COMPILED.iter().filter(|set| set.isa.is_supported(features) && features.contains(set.more)).collect()
    }

    /// The kernels of the fastest instruction set, or of the one that the environment variable `MEGARING_ISA` names.
    ///
    /// # Errors
    /// An unknown or unavailable name; the message lists what is available.
    pub fn from_env() -> Result<&'static KernelSet, IsaError> {
        match std::env::var_os(FORCE) {
            None => Self::for_isa(Isa::detect()),
            Some(name) => Self::named(&name.to_string_lossy()),
        }
    }

    /// The kernels of the instruction set with this name, as `MEGARING_ISA` would choose them.
    pub fn named(name: &str) -> Result<&'static KernelSet, IsaError> {
        Self::for_isa(name.parse()?)
    }

    /// The instruction set of these kernels.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Calls a kernel that does nothing: the cost of a call from Rust to Zig.
    #[inline]
    pub fn nop(&self) {
        // SAFETY: the function takes and touches nothing; a `KernelSet` exists only where the CPU has its instructions.
        unsafe { (self.table.nop)() }
    }

    pub(crate) fn available_isas() -> Vec<Isa> {
        let features = CpuFeatures::of_this_cpu();
        Isa::ALL.into_iter().filter(|isa| isa.is_supported(features)).collect()
    }
}

impl fmt::Debug for KernelSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KernelSet").field("isa", &self.isa).finish_non_exhaustive()
    }
}

/// The copies in this build, slowest first. Private: one is handed out only after the features were checked.
#[cfg(target_arch = "x86_64")]
static COMPILED: [KernelSet; 4] = [
    KernelSet { isa: Isa::Baseline, more: CpuFeatures::NONE, table: table_of!(baseline) },
    KernelSet { isa: Isa::Avx2, more: CpuFeatures::NONE, table: table_of!(avx2) },
    KernelSet { isa: Isa::Avx512, more: CpuFeatures::NONE, table: table_of!(avx512) },
    // The same, for CPUs that count the bits of whole registers: most of them, but not the first.
    KernelSet { isa: Isa::Avx512, more: CpuFeatures::AVX512VPOPCNTDQ, table: table_of!(avx512popcnt) },
];

#[cfg(target_arch = "aarch64")]
static COMPILED: [KernelSet; 1] = [KernelSet { isa: Isa::Neon, more: CpuFeatures::NONE, table: table_of!(neon) }];
