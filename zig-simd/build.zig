//! Builds the kernels once per instruction set of the target architecture, from one source.
//!
//! `zig build`               one static library per copy in PREFIX/lib, named megaring_simd_<copy>: an instruction set,
//!                           or avx512popcnt, avx512 for CPUs that also count the bits of whole registers
//! `zig build test`          the kernels' own tests, for every copy that this machine can run
//! `zig build test-aarch64`  the same tests compiled for aarch64 Linux and run under qemu-aarch64 (qemu-user)
//!
//! Each copy is its own compilation with its own CPU features, position independent, without libc and without
//! compiler-rt. It exports one symbol that carries the instruction set in its name; everything else is local, so a
//! linker cannot merge a helper compiled for AVX-512 into the baseline copy.
const std = @import("std");
const Isa = @import("src/isa.zig").Isa;

/// What the sources are compiled to.
const Copy = struct {
    name: []const u8,
    isa: Isa,
    /// Instructions beyond the set's.
    more: std.Target.Cpu.Feature.Set = .empty,
};

fn copies(b: *std.Build) []const Copy {
    const isas = std.enums.values(Isa);
    const all = b.allocator.alloc(Copy, isas.len + 1) catch @panic("out of memory");
    for (isas, all[0..isas.len]) |isa, *copy| copy.* = .{ .name = @tagName(isa), .isa = isa };
    const counting = std.Target.x86.featureSet(&.{.avx512vpopcntdq});
    all[isas.len] = .{ .name = "avx512popcnt", .isa = .avx512, .more = counting };
    return all;
}

pub fn build(b: *std.Build) void {
    const query = b.standardTargetOptionsQueryOnly(.{});
    const arch = query.cpu_arch orelse b.graph.host.result.cpu.arch;

    const test_step = b.step("test", "Run the kernels' tests for every instruction set this machine has");
    const qemu_step = b.step("test-aarch64", "Run the kernels' tests for aarch64 under qemu-aarch64");

    for (copies(b)) |copy| {
        if (copy.isa.arch() != arch) continue;
        b.installArtifact(kernelLibrary(b, query, copy));
        const tests = kernelTests(b, query, copy);
        if (!hostRuns(b, tests, copy)) continue;
        const run = b.addRunArtifact(tests);
        // Tests that have passed run again all the same: who asks for them wants to know what they say now.
        run.has_side_effects = true;
        test_step.dependOn(&run.step);
    }

    const qemu = b.addSystemCommand(&.{"qemu-aarch64"});
    qemu.addArtifactArg(kernelTests(b, .{ .cpu_arch = .aarch64, .os_tag = .linux, .abi = .none }, .{ .name = "neon", .isa = .neon }));
    qemu_step.dependOn(&qemu.step);
}

fn kernelLibrary(b: *std.Build, query: std.Target.Query, copy: Copy) *std.Build.Step.Compile {
    const library = b.addLibrary(.{
        .name = b.fmt("megaring_simd_{s}", .{copy.name}),
        .linkage = .static,
        .use_llvm = true,
        .root_module = kernelModule(b, query, copy, "src/exports.zig", .ReleaseFast),
    });
    library.bundle_compiler_rt = false;
    return library;
}

fn kernelTests(b: *std.Build, query: std.Target.Query, copy: Copy) *std.Build.Step.Compile {
    return b.addTest(.{
        .name = b.fmt("test_{s}", .{copy.name}),
        .use_llvm = true,
        .root_module = kernelModule(b, query, copy, "src/tests.zig", .ReleaseSafe),
    });
}

fn kernelModule(
    b: *std.Build,
    query: std.Target.Query,
    copy: Copy,
    root: []const u8,
    optimize: std.builtin.OptimizeMode,
) *std.Build.Module {
    const options = b.addOptions();
    const isa = copy.isa;
    options.addOption([]const u8, "isa", @tagName(isa));
    options.addOption([]const u8, "copy", copy.name);

    var isa_query = query;
    isa_query.cpu_arch = isa.arch();
    isa_query.cpu_model = .{ .explicit = isa.cpuModel() };
    isa_query.cpu_features_add = isa.addedFeatures();
    isa_query.cpu_features_add.addFeatureSet(copy.more);
    isa_query.cpu_features_sub = isa.removedFeatures();

    const module = b.createModule(.{
        .root_source_file = b.path(root),
        .target = b.resolveTargetQuery(isa_query),
        .optimize = optimize,
        .link_libc = false,
        // Or the gate's compare-and-swap would be one between the instructions of a single thread.
        .single_threaded = false,
        .pic = true,
        .stack_check = false,
        .stack_protector = false,
        .unwind_tables = .none,
    });
    module.addOptions("build_options", options);
    return module;
}

/// Whether this machine is of the tests' architecture and system and has every instruction they were compiled for.
fn hostRuns(b: *std.Build, tests: *std.Build.Step.Compile, copy: Copy) bool {
    const target = tests.root_module.resolved_target.?.result;
    const host = b.graph.host.result;
    return target.cpu.arch == host.cpu.arch and target.os.tag == host.os.tag and
        host.cpu.features.isSuperSetOf(copy.isa.instructions()) and host.cpu.features.isSuperSetOf(copy.more);
}
