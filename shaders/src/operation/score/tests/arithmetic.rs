//! `wgsl/shared/float64.wgsl` against the processor's float64, a function at a time, in a stage made for it.

use wgpu::util::DeviceExt as _;
use wgpu::{BindGroupDescriptor, BindGroupEntry, BufferUsages, MapMode, PollType, ShaderSource};

use super::Draws;
use crate::gpu::Gpu;
use crate::testing::gpu;

/// Pairs of numbers that a function is tried with.
const CASES: usize = 1 << 17;

/// The shader: `result` is worked out of `a` and `b`, and of the low words of their bits, `x` and `y`.
fn source(result: &str) -> String {
    let shared = include_str!("../../../../wgsl/shared/float64.wgsl");
    format!(
        "{shared}
@group(0) @binding(0) var<storage, read> cases: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> results: array<vec2<u32>>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) thread: vec3<u32>) {{
    let at = 4u * thread.x;
    let p = cases[at];
    let q = cases[at + 1u];
    let r = cases[at + 2u];
    let s = cases[at + 3u];
    let x = vec4<u32>(p.x, q.x, r.x, s.x);
    let y = vec4<u32>(p.z, q.z, r.z, s.z);
    let a = number_of_bits(Words(vec4<u32>(p.y, q.y, r.y, s.y), x));
    let b = number_of_bits(Words(vec4<u32>(p.w, q.w, r.w, s.w), y));
    let found = {result};
    for (var e = 0u; e < 4u; e++) {{ results[at + e] = vec2<u32>(found.low[e], found.high[e]); }}
}}
"
    )
}

fn run(gpu: &Gpu, source: String, cases: &[[u64; 2]]) -> Vec<u64> {
    let device = &gpu.device;
    let module = device
        .create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source: ShaderSource::Wgsl(source.into()) });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    let contents = bytemuck::cast_slice(cases);
    let usage = BufferUsages::STORAGE;
    let input = device.create_buffer_init(&wgpu::util::BufferInitDescriptor { label: None, contents, usage });
    let buffer = |usage| gpu.buffer("results", cases.len() * 8, usage).expect("little memory");
    let output = buffer(BufferUsages::STORAGE | BufferUsages::COPY_SRC);
    let host = buffer(BufferUsages::MAP_READ | BufferUsages::COPY_DST);
    let entries = [&input, &output].map(|buffer| buffer.as_entire_binding());
    let mut binding = 0..;
    let entries = entries.map(|resource| BindGroupEntry { binding: binding.next().unwrap_or(0), resource });
    let layout = &pipeline.get_bind_group_layout(0);
    let group = device.create_bind_group(&BindGroupDescriptor { label: None, layout, entries: &entries });
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &group, &[]);
    pass.dispatch_workgroups((cases.len() / 256) as u32, 1, 1);
    drop(pass);
    encoder.copy_buffer_to_buffer(&output, 0, &host, 0, cases.len() as u64 * 8);
    gpu.queue.submit([encoder.finish()]);
    host.map_async(MapMode::Read, .., |_| ());
    device.poll(PollType::wait_indefinitely()).expect("the device answers");
    gpu.health().expect("nothing went wrong");
    bytemuck::cast_slice(&host.get_mapped_range(..).expect("it is mapped")).to_vec()
}

/// Tries `result` with pairs that `draw` gives, against the bits of `expected`.
fn check(gpu: &Gpu, result: &str, mut draw: impl FnMut(&mut Draws) -> [u64; 2], expected: impl Fn(u64, u64) -> u64) {
    let mut draws = Draws(result.len() as u64);
    let cases: Vec<[u64; 2]> = std::iter::repeat_with(|| draw(&mut draws)).take(CASES).collect();
    let found = run(gpu, source(result), &cases);
    for ([a, b], found) in cases.into_iter().zip(found) {
        let expected = expected(a, b);
        assert!(found == expected, "{result} of {a:#018x} and {b:#018x}: {found:#018x}, not {expected:#018x}");
    }
}

/// The digits of a number: all kinds, and those where carries and ties happen.
fn digits(draws: &mut Draws) -> u64 {
    let any = draws.next() >> 12;
    let near = draws.below(5).wrapping_sub(2);
    let cut = draws.below(53);
    let digits = match draws.below(8) {
        0 => near,
        1 => near.wrapping_add(1 << cut),
        2 => any & (u64::MAX << cut),
        3 => any | ((1 << cut) - 1),
        // A tie of float32, a tie but for the last bit, and the boundary of the words.
        4 => near.wrapping_add(any & (u64::MAX << 29) | (1 << 28)),
        5 => near.wrapping_add(any & (u64::MAX << 32)),
        _ => any,
    };
    digits & (u64::MAX >> 12)
}

/// A number of an exponent, or zero.
fn number(draws: &mut Draws, exponent: i64) -> u64 {
    let sign = draws.next() & (1 << 63);
    if draws.below(64) == 0 { 0 } else { sign | ((exponent + 1023) as u64) << 52 | digits(draws) }
}

fn any(draws: &mut Draws, within: i64) -> u64 {
    let exponent = draws.below(2 * within as u64 + 1) as i64 - within;
    number(draws, exponent)
}

/// Two numbers whose sum makes use of every alignment, with digits in common often.
fn neighbours(draws: &mut Draws) -> [u64; 2] {
    let exponent = draws.below(1801) as i64 - 900;
    let apart = if draws.below(2) == 0 { draws.below(3) } else { draws.below(70) } as i64;
    let a = number(draws, exponent);
    let b = match draws.below(4) {
        0 => a ^ (1 << 63) ^ (draws.next() >> draws.below(52).max(12)) & (u64::MAX >> 12),
        _ => number(draws, exponent - apart),
    };
    let b = if b << 1 >> 53 == 0 { 0 } else { b };
    if draws.below(2) == 0 { [a, b] } else { [b, a] }
}

const MAGNITUDE: u64 = u64::MAX >> 1;

fn of(bits: u64) -> f64 {
    f64::from_bits(bits)
}

/// A float32's bits: of every exponent, subnormal ones and zeros too.
fn float32(draws: &mut Draws) -> u64 {
    let exponent = if draws.below(8) == 0 { 0 } else { draws.below(255) };
    let digits = if draws.below(16) == 0 { 0 } else { digits(draws) >> draws.below(30) & 0x007F_FFFF };
    (draws.next() & 1) << 31 | exponent << 23 | digits
}

fn wide(bits: u64) -> f64 {
    f64::from(f32::from_bits(bits as u32))
}

#[test]
fn sums_are_rounded_as_float64s() {
    let Some(gpu) = gpu() else { return };
    let sum = |a, b| of(a) + of(b);
    check(gpu, "bits_of(add(a, b))", neighbours, move |a, b| sum(a, b).to_bits());
    check(gpu, "bits_of(add(b, a))", |draws| [any(draws, 900), any(draws, 900)], move |a, b| sum(a, b).to_bits());
}

#[test]
fn products_and_quotients_are_rounded_as_float64s() {
    let Some(gpu) = gpu() else { return };
    let normal = |draws: &mut Draws| [any(draws, 500), any(draws, 500)];
    check(gpu, "bits_of(multiply_magnitudes(a, b))", normal, |a, b| (of(a) * of(b)).to_bits() & MAGNITUDE);
    let not_zero = |bits: u64| if bits == 0 { 3.0_f64.to_bits() } else { bits };
    let divisible = move |draws: &mut Draws| [any(draws, 500), not_zero(any(draws, 500))];
    check(gpu, "bits_of(divide_magnitudes(a, b))", divisible, |a, b| (of(a) / of(b)).to_bits() & MAGNITUDE);
    let signed = "bits_of(negated(divide_magnitudes(a, b), a.high < vec4<i32>(0)))";
    let alike = move |draws: &mut Draws| [any(draws, 1), not_zero(any(draws, 1)) & MAGNITUDE];
    check(gpu, signed, alike, |a, b| (of(a) / of(b)).to_bits());
}

#[test]
fn numbers_are_rounded_to_float32_as_the_processor_does() {
    let Some(gpu) = gpu() else { return };
    let rounded = |a, _| u64::from(megaring_core::exact::reported(of(a)).to_bits());
    // Its whole range, with what lies beyond it; the subnormal numbers; and numbers far below and above.
    for (least, exponents) in [(-155, 290), (-152, 30), (-900, 1800)] {
        let draw = |draws: &mut Draws| {
            let exponent = least + draws.below(exponents) as i64;
            [number(draws, exponent), 0]
        };
        check(gpu, "Words(vec4<u32>(), float32_of(a))", draw, rounded);
    }
}

#[test]
fn float32s_are_widened_multiplied_and_subtracted_as_float64s() {
    let Some(gpu) = gpu() else { return };
    let pair = |draws: &mut Draws| [float32(draws), float32(draws)];
    // Zero has no sign there.
    let bits = |value: f64| if value == 0.0 { 0 } else { value.to_bits() };
    check(gpu, "bits_of(number_of(elements_of(x)))", pair, move |a, _| bits(wide(a)));
    check(gpu, "bits_of(difference(elements_of(x), elements_of(y)))", pair, move |a, b| bits(wide(a) - wide(b)));
    // A product need not be in place to be added.
    let zero = "number_of(elements_of(vec4<u32>()))";
    let product = format!("bits_of(add({zero}, product(elements_of(x), elements_of(y))))");
    check(gpu, &product, pair, move |a, b| bits(wide(a) * wide(b)));
    let sum = "bits_of(add(number_of(elements_of(x)), product(elements_of(x), elements_of(y))))";
    check(gpu, sum, pair, move |a, b| bits(wide(a) * wide(b) + wide(a)));
}
