// Score, last stage: from sums to scores, in integers: the cosine and the rounding to float32. A thread has four
// entries of one query.
// include: score
// include: float64

@group(0) @binding(0) var<uniform> params: ScoreParams;
@group(0) @binding(1) var<storage, read> input: array<u32>;
@group(0) @binding(2) var<storage, read_write> scratch: array<u32>;
@group(0) @binding(3) var<storage, read_write> output: array<u32>;
@group(1) @binding(1) var<storage, read> columns: array<u32>;

const ONE: u32 = 0x3F800000u;
const SIGN: u32 = 0x80000000u;

// A float64 of the rows' squared norms.
fn row_norm(entry: u32) -> vec2<u32> {
    let at = 2u * row_of(entry);
    return vec2<u32>(columns[at], columns[at + 1u]);
}

// 0 where a norm is 0, else the quotient by the root of both squared norms. Rounding is monotonic, so it can be clamped
// to 1 afterwards.
fn cosines(sums: Float64, query: u32, entries: vec4<u32>) -> vec4<u32> {
    let at = params.norms_at + 2u * (params.first_query + query);
    let norm = Words(vec4<u32>(input[at + 1u]), vec4<u32>(input[at]));
    let a = row_norm(entries.x);
    let b = row_norm(entries.y);
    let c = row_norm(entries.z);
    let d = row_norm(entries.w);
    let norms = Words(vec4<u32>(a.y, b.y, c.y, d.y), vec4<u32>(a.x, b.x, c.x, d.x));
    let divisor = root_of_magnitude(multiply_magnitudes(number_of_bits(norm), number_of_bits(norms)));
    let quotient = divide_magnitudes(sums, divisor);
    let bits = float32_of(negated(quotient, sums.high < vec4<i32>(0)));
    let bounded = min(bits & vec4<u32>(~SIGN), vec4<u32>(ONE)) | (bits & vec4<u32>(SIGN));
    return select(bounded, vec4<u32>(0u), divisor.high == vec4<i32>(0));
}

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) thread: vec3<u32>) {
    let query = thread.y;
    let first = thread.x * 4u;
    if (first >= params.entries) { return; }
    let entries = min(first + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.entries - 1u));
    let place = 2u * (query * params.entries + entries);
    let low = vec4<u32>(scratch[place.x], scratch[place.y], scratch[place.z], scratch[place.w]);
    let high = vec4<u32>(scratch[place.x + 1u], scratch[place.y + 1u], scratch[place.z + 1u], scratch[place.w + 1u]);
    let sums = number_of_bits(Words(high, low));
    var scores: vec4<u32>;
    if (params.metric == METRIC_COSINE) {
        scores = cosines(sums, query, entries);
    } else {
        scores = float32_of(sums);
    }
    let row = (params.first_query + query) * params.width;
    for (var e = 0u; e < 4u && first + e < params.entries; e++) {
        var column = params.first_entry + first + e;
        if (params.named != 0u) { column = input[params.columns_at + column]; }
        output[row + column] = scores[e];
    }
}
