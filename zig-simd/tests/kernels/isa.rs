//! Which instruction set is chosen, as tables over CPU features, and what `MEGARING_ISA` may say.

use std::process::Command;

use megaring_simd::{CpuFeatures, Isa, IsaError, KernelSet};

#[test]
fn the_fastest_supported_instruction_set_is_best() {
    let sse2 = CpuFeatures::SSE2;
    let avx2 = Isa::Avx2.required();
    let avx512 = Isa::Avx512.required();
    let cases = [
        (CpuFeatures::NONE, None),
        (sse2, Some(Isa::Baseline)),
        (sse2.with(CpuFeatures::AVX).with(CpuFeatures::SSE4_2), Some(Isa::Baseline)),
        (avx2, Some(Isa::Avx2)),
        (avx2.without(CpuFeatures::FMA), Some(Isa::Baseline)),
        (avx2.without(CpuFeatures::F16C), Some(Isa::Baseline)),
        (avx512, Some(Isa::Avx512)),
        (avx512.without(CpuFeatures::AVX512VNNI), Some(Isa::Avx2)),
        (avx512.without(CpuFeatures::AVX512VL), Some(Isa::Avx2)),
        (avx512.without(CpuFeatures::BMI2), Some(Isa::Baseline)),
        (CpuFeatures::NEON, Some(Isa::Neon)),
    ];
    for (features, expected) in cases {
        assert_eq!(Isa::best(features), expected, "{features:?}");
    }
}

#[test]
fn leaving_out_any_required_feature_makes_a_set_unsupported() {
    let mut omissions = 0;
    for isa in Isa::ALL {
        assert!(isa.is_supported(isa.required()));
        for feature in FEATURES.into_iter().filter(|feature| isa.required().contains(*feature)) {
            assert!(!isa.is_supported(isa.required().without(feature)), "{isa} without {feature:?}");
            omissions += 1;
        }
    }
    assert_eq!(omissions, 1 + 11 + 17 + 1);
}

const FEATURES: [CpuFeatures; 20] = [
    CpuFeatures::SSE2,
    CpuFeatures::SSE4_2,
    CpuFeatures::AVX,
    CpuFeatures::AVX2,
    CpuFeatures::BMI1,
    CpuFeatures::BMI2,
    CpuFeatures::F16C,
    CpuFeatures::FMA,
    CpuFeatures::LZCNT,
    CpuFeatures::MOVBE,
    CpuFeatures::POPCNT,
    CpuFeatures::AVX512F,
    CpuFeatures::AVX512BW,
    CpuFeatures::AVX512CD,
    CpuFeatures::AVX512DQ,
    CpuFeatures::AVX512VL,
    CpuFeatures::AVX512VNNI,
    CpuFeatures::AVX512VBMI,
    CpuFeatures::AVX512VBMI2,
    CpuFeatures::NEON,
];

#[test]
fn available_sets_rise_and_contain_the_detected_one() {
    let isas: Vec<Isa> = KernelSet::available().iter().map(|set| set.isa()).collect();
    assert!(isas.is_sorted() && !isas.is_empty());
    assert_eq!(isas.last(), Some(&Isa::detect()));
    for isa in Isa::ALL {
        assert_eq!(KernelSet::for_isa(isa).is_ok(), isas.contains(&isa), "{isa}");
    }
    for set in KernelSet::available() {
        set.nop();
        assert_eq!(KernelSet::named(set.isa().name()).map(KernelSet::isa), Ok(set.isa()));
    }
}

#[test]
fn an_unknown_name_lists_what_there_is() {
    let available: Vec<Isa> = KernelSet::available().iter().map(|set| set.isa()).collect();
    let error = KernelSet::named("avx1024").expect_err("no such instruction set");
    assert_eq!(error, IsaError::Unknown { name: "avx1024".into(), available: available.clone() });
    for isa in available {
        assert!(error.to_string().contains(isa.name()), "{error}");
    }
    assert!(KernelSet::named("").is_err() && KernelSet::named("AVX2").is_err());
}

#[test]
fn an_instruction_set_of_another_architecture_is_unavailable() {
    let foreign = if cfg!(target_arch = "aarch64") { Isa::Avx2 } else { Isa::Neon };
    let error = KernelSet::for_isa(foreign).expect_err("foreign");
    assert!(matches!(error, IsaError::Unavailable { isa, .. } if isa == foreign));
    assert!(error.to_string().contains(Isa::detect().name()), "{error}");
}

/// Prints what `from_env` chose; `the_environment_forces_a_choice` runs it in processes of their own.
#[test]
fn print_the_choice() {
    match KernelSet::from_env() {
        Ok(set) => println!("choice: {}", set.isa()),
        Err(error) => println!("refused: {error}"),
    }
}

#[test]
fn the_environment_forces_a_choice() {
    for set in KernelSet::available() {
        assert!(choice_under(Some(set.isa().name())).contains(&format!("choice: {}", set.isa())));
    }
    assert!(choice_under(None).contains(&format!("choice: {}", Isa::detect())));
    assert!(choice_under(Some("fastest")).contains("refused: unknown instruction set \"fastest\""));
    assert!(choice_under(Some("")).contains("refused: unknown instruction set"));
}

fn choice_under(name: Option<&str>) -> String {
    let mut child = Command::new(std::env::current_exe().expect("this test's binary"));
    child.args(["--exact", "isa::print_the_choice", "--nocapture"]).env_remove("MEGARING_ISA");
    if let Some(name) = name {
        child.env("MEGARING_ISA", name);
    }
    let output = child.output().expect("the child runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
