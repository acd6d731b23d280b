//! Instruction sets and what they need of a CPU. The decision is a pure function of [`CpuFeatures`].

use std::fmt;
use std::str::FromStr;

use crate::error::IsaError;
use crate::kernels::KernelSet;

/// An instruction set that the kernels are built for. Ordered from the slowest to the fastest within an architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// x86-64 with SSE2, which every x86-64 CPU has.
    Baseline,
    /// x86-64-v3: AVX2, FMA, F16C, BMI.
    Avx2,
    /// x86-64-v4 (AVX-512 F, BW, CD, DQ, VL) and AVX-512 VNNI.
    Avx512,
    /// aarch64 with Advanced SIMD, which every aarch64 CPU has.
    Neon,
}

impl Isa {
    /// Every instruction set, whether or not this machine has it.
    pub const ALL: [Isa; 4] = [Isa::Baseline, Isa::Avx2, Isa::Avx512, Isa::Neon];

    /// The name that `MEGARING_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Baseline => "baseline",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
        }
    }

    /// What a CPU must have to run this copy: the instructions that its compiler was allowed to use (src/isa.zig names
    /// the same).
    pub fn required(self) -> CpuFeatures {
        match self {
            Isa::Baseline => CpuFeatures::SSE2,
            Isa::Avx2 => Isa::Baseline
                .required()
                .with(CpuFeatures::SSE4_2)
                .with(CpuFeatures::AVX)
                .with(CpuFeatures::AVX2)
                .with(CpuFeatures::BMI1)
                .with(CpuFeatures::BMI2)
                .with(CpuFeatures::F16C)
                .with(CpuFeatures::FMA)
                .with(CpuFeatures::LZCNT)
                .with(CpuFeatures::MOVBE)
                .with(CpuFeatures::POPCNT),
            Isa::Avx512 => Isa::Avx2
                .required()
                .with(CpuFeatures::AVX512F)
                .with(CpuFeatures::AVX512BW)
                .with(CpuFeatures::AVX512CD)
                .with(CpuFeatures::AVX512DQ)
                .with(CpuFeatures::AVX512VL)
                .with(CpuFeatures::AVX512VNNI),
            Isa::Neon => CpuFeatures::NEON,
        }
    }

    /// Whether a CPU with `features` can run this copy.
    pub fn is_supported(self, features: CpuFeatures) -> bool {
        features.contains(self.required())
    }

    /// The fastest instruction set that a CPU with `features` can run, or `None` on another architecture.
    pub fn best(features: CpuFeatures) -> Option<Isa> {
        Isa::ALL.into_iter().rev().find(|isa| isa.is_supported(features))
    }

    /// The fastest instruction set of this CPU.
    pub fn detect() -> Isa {
        Isa::best(CpuFeatures::of_this_cpu()).unwrap_or(Isa::ANY_CPU)
    }

    /// What every CPU of the architecture compiled for has.
    #[cfg(target_arch = "aarch64")]
    const ANY_CPU: Isa = Isa::Neon;
    #[cfg(not(target_arch = "aarch64"))]
    const ANY_CPU: Isa = Isa::Baseline;
}

impl fmt::Display for Isa {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = IsaError;

    /// Takes the names of [`Isa::name`], exactly.
    fn from_str(name: &str) -> Result<Isa, IsaError> {
        Isa::ALL
            .into_iter()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| IsaError::Unknown { name: name.to_owned(), available: KernelSet::available_isas() })
    }
}

/// A set of CPU features, as far as the kernels ask for them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct CpuFeatures(u32);

macro_rules! features {
    ($($constant:ident = $bit:literal, $name:tt, $arch:tt;)*) => {
        impl CpuFeatures {
            $(
                #[doc = concat!("The feature `", $name, "` of ", $arch, ".")]
                pub const $constant: CpuFeatures = CpuFeatures(1 << $bit);
            )*

            const NAMES: &[(CpuFeatures, &str)] = &[$((CpuFeatures::$constant, $name)),*];

            /// What the CPU this runs on has, and the operating system lets it use.
            pub fn of_this_cpu() -> CpuFeatures {
                let mut found = CpuFeatures::NONE;
                $(
                    #[cfg(target_arch = $arch)]
                    if detected!($arch, $name) {
                        found = found.with(CpuFeatures::$constant);
                    }
                )*
                found
            }
        }
    };
}

macro_rules! detected {
    ("x86_64", $name:tt) => {
        std::arch::is_x86_feature_detected!($name)
    };
    ("aarch64", $name:tt) => {
        std::arch::is_aarch64_feature_detected!($name)
    };
}

features! {
    SSE2 = 0, "sse2", "x86_64";
    SSE4_2 = 1, "sse4.2", "x86_64";
    AVX = 2, "avx", "x86_64";
    AVX2 = 3, "avx2", "x86_64";
    BMI1 = 4, "bmi1", "x86_64";
    BMI2 = 5, "bmi2", "x86_64";
    F16C = 6, "f16c", "x86_64";
    FMA = 7, "fma", "x86_64";
    LZCNT = 8, "lzcnt", "x86_64";
    MOVBE = 9, "movbe", "x86_64";
    POPCNT = 10, "popcnt", "x86_64";
    AVX512F = 11, "avx512f", "x86_64";
    AVX512BW = 12, "avx512bw", "x86_64";
    AVX512CD = 13, "avx512cd", "x86_64";
    AVX512DQ = 14, "avx512dq", "x86_64";
    AVX512VL = 15, "avx512vl", "x86_64";
    AVX512VNNI = 16, "avx512vnni", "x86_64";
    AVX512VBMI = 17, "avx512vbmi", "x86_64";
    AVX512VBMI2 = 18, "avx512vbmi2", "x86_64";
    NEON = 19, "neon", "aarch64";
    AVX512VPOPCNTDQ = 20, "avx512vpopcntdq", "x86_64";
}

impl CpuFeatures {
    /// No feature at all.
    pub const NONE: CpuFeatures = CpuFeatures(0);

    /// Both sets together.
    pub const fn with(self, other: CpuFeatures) -> CpuFeatures {
        CpuFeatures(self.0 | other.0)
    }

    /// This set less the other.
    pub const fn without(self, other: CpuFeatures) -> CpuFeatures {
        CpuFeatures(self.0 & !other.0)
    }

    /// Whether every feature of `other` is in this set.
    pub const fn contains(self, other: CpuFeatures) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names of the features, as the compiler spells them.
    pub fn names(self) -> Vec<&'static str> {
        Self::NAMES.iter().filter(|(feature, _)| self.contains(*feature)).map(|(_, name)| *name).collect()
    }
}

impl fmt::Debug for CpuFeatures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.names()).finish()
    }
}
