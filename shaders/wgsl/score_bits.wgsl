// Scores of rows of bits, to the last bit: a count, or a quotient of two, rounded in integers. A thread has one entry
// of one query.

// include: score

@group(0) @binding(0) var<uniform> params: ScoreParams;
@group(0) @binding(1) var<storage, read> input: array<u32>;
@group(0) @binding(3) var<storage, read_write> output: array<u32>;
@group(1) @binding(0) var<storage, read> rows: array<u32>;

const METRIC_JACCARD: u32 = 5u;
const ONE: u32 = 0x3F800000u;

// The float32 nearest to both / either, of counts of at most 2^15: the quotient bit by bit, as by hand.
fn share_of(both: u32, either: u32) -> u32 {
    if both == either { return ONE; }
    if both == 0u { return 0u; }
    // The quotient's first bit stands for 2^-shift.
    var shift = countLeadingZeros(both) - countLeadingZeros(either);
    if (both << shift) < either { shift++; }
    var rest = (both << shift) - either;
    var bits = 1u;
    for (var i = 0u; i < 23u; i++) {
        rest <<= 1u;
        bits <<= 1u;
        if rest >= either {
            rest -= either;
            bits |= 1u;
        }
    }
    // To the nearest, and to the even one half way. A carry goes into the exponent, where it belongs.
    let up = 2u * rest > either || (2u * rest == either && (bits & 1u) == 1u);
    return ONE - (shift << 23u) + (bits & 0x7FFFFFu) + u32(up);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let query = id.y;
    let entry = id.x;
    if entry >= params.entries { return; }
    let at = (params.first_query + query) * params.dim;
    let words = row_of(entry) * params.dim;
    var both = 0u;
    var either = 0u;
    for (var word = 0u; word < params.dim; word++) {
        both += countOneBits(input[at + word] & rows[words + word]);
        either += countOneBits(input[at + word] | rows[words + word]);
    }
    var column = params.first_entry + entry;
    if params.named != 0u { column = input[params.columns_at + column]; }
    var score = bitcast<u32>(f32(either - both));
    if params.metric == METRIC_JACCARD { score = share_of(both, either); }
    output[(params.first_query + query) * params.width + column] = score;
}
