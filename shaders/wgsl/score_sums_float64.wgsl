// Score, first stage, where the adapter has float64: the dot product or squared distance of each query and entry, as
// host/core/src/exact.rs defines it, to the scratch: [query][entry], float64.
//
// Float64 rounds to nearest even on every adapter that passes the self-test. No sum or product here leaves its normal
// range: float32 values and their differences are 0 or from 2^-149 to 2^129.
// include: score

@group(0) @binding(0) var<uniform> params: ScoreParams;
@group(0) @binding(1) var<storage, read> input: array<u32>;
@group(0) @binding(2) var<storage, read_write> scratch: array<f64>;
@group(1) @binding(0) var<storage, read> rows: array<u32>;

const SLICE: u32 = 128u;
// Whether squared differences are added up, rather than products.
const SQUARES: u32 = 0u; // one of 0, 1

// A slice of the tile's queries, one element of four queries together, first four and then the others; later the sums
// of all threads for four queries.
var<workgroup> staged: array<vec4<f64>, 256>;

// Four float32 values by their bits. An adapter may take subnormal ones for zero, so these are made of their integers.
fn widen(bits: vec4<u32>) -> vec4<f64> {
    let magnitude = bits & vec4<u32>(0x7FFFFFFFu);
    let subnormal = magnitude < vec4<u32>(0x00800000u);
    let integers = vec4<f64>(select(vec4<u32>(0u), magnitude, subnormal)) * 1.401298464324817e-45lf;
    let signed = select(integers, -integers, (bits & vec4<u32>(0x80000000u)) != vec4<u32>(0u));
    return select(vec4<f64>(bitcast<vec4<f32>>(bits)), signed, subnormal);
}

// One more element of four sums; `bits` are those of `b`. A product is exact, so it may be fused with the addition. A
// square is not: a select between them keeps compilers from fusing. Its condition never holds, since elements are
// finite, but no compiler can know that.
fn add_elements(sums: vec4<f64>, a: vec4<f64>, b: vec4<f64>, bits: u32) -> vec4<f64> {
    if (SQUARES == 0u) { return sums + a * b; }
    let difference = a - b;
    return sums + select(difference * difference, sums, bits == 0x7FFFFFFFu);
}

fn stage_queries(thread: u32, place: u32, query: u32, begin: u32, length: u32) {
    let places = queries_of(query) + begin;
    for (var at = thread; at < length; at += THREADS) {
        let bits = vec4<u32>(input[places.x + at], input[places.y + at], input[places.z + at], input[places.w + at]);
        staged[place + at] = widen(bits);
    }
}

fn combined(first: u32) -> vec4<f64> {
    let even = (staged[first] + staged[first + 4u]) + (staged[first + 2u] + staged[first + 6u]);
    let odd = (staged[first + 1u] + staged[first + 5u]) + (staged[first + 3u] + staged[first + 7u]);
    return even + odd;
}

// Writes the sums of four queries.
fn store(
    thread: u32, query: u32, entry: u32,
    first: vec4<f64>, second: vec4<f64>, third: vec4<f64>, fourth: vec4<f64>,
) {
    workgroupBarrier();
    staged[thread] = first;
    staged[THREADS + thread] = second;
    staged[2u * THREADS + thread] = third;
    staged[3u * THREADS + thread] = fourth;
    workgroupBarrier();
    // Each of the first 32 threads has an entry.
    let mine = entry + thread;
    if (thread < TILE_ENTRIES && mine < params.entries) {
        let sums = combined(thread % THREAD_ENTRIES * THREADS + thread / THREAD_ENTRIES * LANES);
        let place = query * params.entries + mine;
        if (query < params.queries) { scratch[place] = sums.x; }
        if (query + 1u < params.queries) { scratch[place + params.entries] = sums.y; }
        if (query + 2u < params.queries) { scratch[place + 2u * params.entries] = sums.z; }
        if (query + 3u < params.queries) { scratch[place + 3u * params.entries] = sums.w; }
    }
}

// Two times four queries, for which elements of the rows are read once.
fn score_eight(thread: u32, query: u32, entry: u32) {
    let lane = thread % LANES;
    let places = places_of(entry + thread / LANES * THREAD_ENTRIES);
    let others = query + TILE_QUERIES;
    let all = others < params.queries;
    var first = vec4<f64>();
    var second = vec4<f64>();
    var third = vec4<f64>();
    var fourth = vec4<f64>();
    var other_first = vec4<f64>();
    var other_second = vec4<f64>();
    var other_third = vec4<f64>();
    var other_fourth = vec4<f64>();
    for (var begin = 0u; begin < params.dim; begin += SLICE) {
        let length = min(params.dim - begin, SLICE);
        workgroupBarrier();
        stage_queries(thread, 0u, query, begin, length);
        if (all) { stage_queries(thread, SLICE, others, begin, length); }
        workgroupBarrier();
        for (var at = lane; at < length; at += LANES) {
            let at_rows = places + begin + at;
            let bits = vec4<u32>(rows[at_rows.x], rows[at_rows.y], rows[at_rows.z], rows[at_rows.w]);
            let elements = widen(bits);
            let values = staged[at];
            first = add_elements(first, values, vec4<f64>(elements.x), bits.x);
            second = add_elements(second, values, vec4<f64>(elements.y), bits.y);
            third = add_elements(third, values, vec4<f64>(elements.z), bits.z);
            fourth = add_elements(fourth, values, vec4<f64>(elements.w), bits.w);
            if (all) {
                let more = staged[SLICE + at];
                other_first = add_elements(other_first, more, vec4<f64>(elements.x), bits.x);
                other_second = add_elements(other_second, more, vec4<f64>(elements.y), bits.y);
                other_third = add_elements(other_third, more, vec4<f64>(elements.z), bits.z);
                other_fourth = add_elements(other_fourth, more, vec4<f64>(elements.w), bits.w);
            }
        }
    }
    store(thread, query, entry, first, second, third, fourth);
    if (all) { store(thread, others, entry, other_first, other_second, other_third, other_fourth); }
}

// As `score_eight`, with four entries where that has four queries.
fn score_one(thread: u32, entry: u32) {
    let lane = thread % LANES;
    let query = params.first_query * params.dim;
    let places = places_of(entry + thread / LANES * THREAD_ENTRIES);
    var sums = vec4<f64>();
    for (var at = lane; at < params.dim; at += LANES) {
        let at_rows = places + at;
        let bits = vec4<u32>(rows[at_rows.x], rows[at_rows.y], rows[at_rows.z], rows[at_rows.w]);
        let value = input[query + at];
        sums = add_elements(sums, widen(vec4<u32>(value)), widen(bits), value);
    }
    staged[thread] = sums;
    workgroupBarrier();
    let mine = entry + thread * THREAD_ENTRIES;
    if (thread >= TILE_ENTRIES / THREAD_ENTRIES) { return; }
    let whole = combined(thread * LANES);
    if (mine < params.entries) { scratch[mine] = whole.x; }
    if (mine + 1u < params.entries) { scratch[mine + 1u] = whole.y; }
    if (mine + 2u < params.entries) { scratch[mine + 2u] = whole.z; }
    if (mine + 3u < params.entries) { scratch[mine + 3u] = whole.w; }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    if (params.queries == 1u) {
        score_one(thread, tile.y * TILE_ENTRIES);
    } else {
        score_eight(thread, 2u * TILE_QUERIES * tile.x, tile.y * TILE_ENTRIES);
    }
}
