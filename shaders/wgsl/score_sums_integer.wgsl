// Score, first stage, where the adapter has no float64 to rely on: the sums of score_sums_float64.wgsl, in integers.
// include: score
// include: float64

@group(0) @binding(0) var<uniform> params: ScoreParams;
@group(0) @binding(1) var<storage, read> input: array<u32>;
@group(0) @binding(2) var<storage, read_write> scratch: array<u32>;
@group(1) @binding(0) var<storage, read> rows: array<u32>;

const SLICE: u32 = 256u;
// Whether squared differences are added up, rather than products.
const SQUARES: u32 = 0u; // one of 0, 1

// A slice of the tile's queries, mantissas and then exponents, one element of all four together; later all sums.
var<workgroup> staged: array<vec4<i32>, 768>;

// One more element of four sums, in the definition's order.
fn add_elements(sums: Float64, a: Elements, b: Elements) -> Float64 {
    var term: Float64;
    if (SQUARES != 0u) {
        let apart = difference(a, b);
        term = multiply_magnitudes(apart, apart);
    } else {
        term = product(a, b);
    }
    return add(sums, term);
}

fn nothing() -> Float64 {
    return Float64(vec4<i32>(), vec4<u32>(), vec4<i32>(NOTHING));
}

fn one_of(elements: Elements, which: u32) -> Elements {
    return Elements(vec4<i32>(elements.mantissa[which]), vec4<i32>(elements.exponent[which]));
}

fn stage_queries(thread: u32, query: u32, begin: u32, length: u32) {
    let places = queries_of(query) + begin;
    for (var at = thread; at < length; at += THREADS) {
        let bits = vec4<u32>(input[places.x + at], input[places.y + at], input[places.z + at], input[places.w + at]);
        let elements = elements_of(bits);
        staged[at] = elements.mantissa;
        staged[SLICE + at] = elements.exponent;
    }
}

fn stage_sums(place: u32, sums: Float64) {
    staged[3u * place] = sums.high;
    staged[3u * place + 1u] = bitcast<vec4<i32>>(sums.low);
    staged[3u * place + 2u] = sums.exponent;
}

fn staged_sums(place: u32) -> Float64 {
    return Float64(staged[3u * place], bitcast<vec4<u32>>(staged[3u * place + 1u]), staged[3u * place + 2u]);
}

// The sum of lanes 0 and 4 and so on, of which the first is at `first`.
fn combined(first: u32) -> Words {
    var halves: array<Float64, 2>;
    for (var half = 0u; half < 2u; half++) {
        let place = first + half;
        let outer = add(staged_sums(place), staged_sums(place + 4u));
        halves[half] = add(outer, add(staged_sums(place + 2u), staged_sums(place + 6u)));
    }
    return bits_of(add(halves[0], halves[1]));
}

fn store(place: u32, low: u32, high: u32) {
    scratch[2u * place] = low;
    scratch[2u * place + 1u] = high;
}

fn score_four(thread: u32, query: u32, entry: u32) {
    let lane = thread % LANES;
    let places = places_of(entry + thread / LANES * THREAD_ENTRIES);
    var first = nothing();
    var second = nothing();
    var third = nothing();
    var fourth = nothing();
    for (var begin = 0u; begin < params.dim; begin += SLICE) {
        let length = min(params.dim - begin, SLICE);
        workgroupBarrier();
        stage_queries(thread, query, begin, length);
        workgroupBarrier();
        for (var at = lane; at < length; at += LANES) {
            let at_rows = places + begin + at;
            let elements = elements_of(vec4<u32>(rows[at_rows.x], rows[at_rows.y], rows[at_rows.z], rows[at_rows.w]));
            let values = Elements(staged[at], staged[SLICE + at]);
            first = add_elements(first, values, one_of(elements, 0u));
            second = add_elements(second, values, one_of(elements, 1u));
            third = add_elements(third, values, one_of(elements, 2u));
            fourth = add_elements(fourth, values, one_of(elements, 3u));
        }
    }
    workgroupBarrier();
    stage_sums(thread, first);
    stage_sums(THREADS + thread, second);
    stage_sums(2u * THREADS + thread, third);
    stage_sums(3u * THREADS + thread, fourth);
    workgroupBarrier();
    // Each of the first 32 threads has an entry.
    let mine = entry + thread;
    if (thread >= TILE_ENTRIES || mine >= params.entries) { return; }
    let sums = combined(thread % THREAD_ENTRIES * THREADS + thread / THREAD_ENTRIES * LANES);
    for (var q = 0u; q < min(params.queries - query, TILE_QUERIES); q++) {
        store((query + q) * params.entries + mine, sums.low[q], sums.high[q]);
    }
}

// As `score_four`, with four entries where that has four queries.
fn score_one(thread: u32, entry: u32) {
    let lane = thread % LANES;
    let query = params.first_query * params.dim;
    let places = places_of(entry + thread / LANES * THREAD_ENTRIES);
    var sums = nothing();
    for (var at = lane; at < params.dim; at += LANES) {
        let at_rows = places + at;
        let elements = elements_of(vec4<u32>(rows[at_rows.x], rows[at_rows.y], rows[at_rows.z], rows[at_rows.w]));
        sums = add_elements(sums, elements_of(vec4<u32>(input[query + at])), elements);
    }
    stage_sums(thread, sums);
    workgroupBarrier();
    if (thread >= TILE_ENTRIES / THREAD_ENTRIES) { return; }
    let mine = entry + thread * THREAD_ENTRIES;
    let whole = combined(thread * LANES);
    for (var e = 0u; e < THREAD_ENTRIES && mine + e < params.entries; e++) {
        store(mine + e, whole.low[e], whole.high[e]);
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    if (params.queries == 1u) {
        score_one(thread, tile.y * TILE_ENTRIES);
    } else {
        score_four(thread, tile.x * TILE_QUERIES, tile.y * TILE_ENTRIES);
    }
}
