//! The instruction sets the kernels are built for, and what follows from each at compile time.
//!
//! `build.zig` compiles the same sources once per `Isa`; inside a copy `current` is the one it is compiled for. A
//! kernel asks this file for widths and for what the hardware has; it never asks `builtin` for CPU features, so a copy
//! is what its name says.
const std = @import("std");

pub const Isa = enum {
    /// x86-64 as of 2003: SSE2.
    baseline,
    /// x86-64-v3: AVX2, FMA, F16C, BMI.
    avx2,
    /// x86-64-v4 (AVX-512 F, BW, CD, DQ, VL) and AVX-512 VNNI.
    avx512,
    /// Armv8-A with Advanced SIMD, which every aarch64 CPU has.
    neon,

    pub fn arch(isa: Isa) std.Target.Cpu.Arch {
        return if (isa == .neon) .aarch64 else .x86_64;
    }

    pub fn cpuModel(isa: Isa) *const std.Target.Cpu.Model {
        return switch (isa) {
            .baseline => &std.Target.x86.cpu.x86_64,
            .avx2 => &std.Target.x86.cpu.x86_64_v3,
            .avx512 => &std.Target.x86.cpu.x86_64_v4,
            .neon => &std.Target.aarch64.cpu.generic,
        };
    }

    pub fn addedFeatures(isa: Isa) std.Target.Cpu.Feature.Set {
        return if (isa == .avx512) std.Target.x86.featureSet(&.{.avx512vnni}) else .empty;
    }

    /// The v4 model asks LLVM to avoid 512-bit registers, for the first CPUs that had them.
    pub fn removedFeatures(isa: Isa) std.Target.Cpu.Feature.Set {
        return if (isa == .avx512) std.Target.x86.featureSet(&.{.prefer_256_bit}) else .empty;
    }

    /// What a CPU must have to run the copy, beyond what every CPU of the architecture has. The Rust side checks the
    /// same list.
    pub fn instructions(isa: Isa) std.Target.Cpu.Feature.Set {
        const x86 = std.Target.x86;
        return switch (isa) {
            .baseline, .neon => .empty,
            .avx2 => x86.featureSet(&.{ .avx, .avx2, .bmi, .bmi2, .f16c, .fma, .lzcnt, .movbe, .popcnt }),
            .avx512 => instructions: {
                var set = x86.featureSet(&.{ .avx512f, .avx512bw, .avx512cd, .avx512dq, .avx512vl, .avx512vnni });
                set.addFeatureSet(Isa.avx2.instructions());
                break :instructions set;
            },
        };
    }
};

/// The instruction set this copy is compiled for.
pub const current: Isa = std.meta.stringToEnum(Isa, @import("build_options").isa).?;

/// float64 values in one register.
pub const f64_lanes: comptime_int = switch (current) {
    .baseline, .neon => 2,
    .avx2 => 4,
    .avx512 => 8,
};

/// Without a fused multiply-add in hardware `@mulAdd` would be a call into libm.
pub const has_fma = current != .baseline;
