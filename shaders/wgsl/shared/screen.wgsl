// The int8 screen of a part: what host/core's screen.rs packs, and the bound that it proves.

struct SearchParams {
    block: Block,
    // Quads of a row.
    quads: u32,
    // Where the queries' coefficients (scale, a, b, 0) and their codes begin in the input, in vec4.
    screens: u32,
    codes: u32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> params: SearchParams;
// The codes of the queries: [query of the job / 4][quad], a word of four codes for each of the 4 queries.
@group(0) @binding(1) var<storage, read> input: array<vec4<u32>>;
// The rows' codes, with a bias of 128: [group of 16 rows][quad][row / 4], one word of four codes for each of 4 rows.
@group(1) @binding(0) var<storage, read> rows: array<vec4<u32>>;
// [group of 16 rows][mul, add, e1, e2][row / 4]
@group(1) @binding(1) var<storage, read> columns: array<vec4<f32>>;

// Words of codes that have no bias, of words that have one.
const BIAS: u32 = 0x80808080u;

// A word of four codes for each of four rows.
fn row_codes(group: u32, quad: u32, four: u32) -> vec4<u32> {
    return rows[(group * params.quads + quad) * 4u + four] ^ vec4(BIAS);
}

// A word of four codes for each of four queries of the job; `four` counts fours.
fn query_codes(four: u32, quad: u32) -> vec4<u32> {
    return input[params.codes + four * params.quads + quad];
}

// A word of four codes of one query of the job.
fn query_code(query: u32, quad: u32) -> u32 {
    return input[params.codes + query / 4u * params.quads + quad][query % 4u];
}

// Four rows' sums with a quad of a query added.
fn add_quad(sums: vec4<i32>, codes: vec4<u32>, query: u32) -> vec4<i32> {
    return sums + vec4(
        dot4I8Packed(codes.x, query),
        dot4I8Packed(codes.y, query),
        dot4I8Packed(codes.z, query),
        dot4I8Packed(codes.w, query),
    );
}

struct Bounds {
    lower: vec4<f32>,
    upper: vec4<f32>,
}

// The bits of the add of a row that is hidden: minus infinity, of which a shader need not know.
const HIDDEN: u32 = 0xff800000u;

// Bounds of four rows' goodness, of their exact sums; of rows that are not there, or hidden, the least number.
fn bounds_of(sums: vec4<i32>, query: u32, group: u32, four: u32) -> Bounds {
    let screen = bitcast<vec4<f32>>(input[params.screens + query]);
    let at = group * 16u + four;
    let goodness = vec4<f32>(sums) * (screen.x * columns[at]) + columns[at + 4u];
    let width = screen.y * columns[at + 8u] + screen.z * columns[at + 12u];
    let row = group * 16u + four * 4u;
    let is_shown = bitcast<vec4<u32>>(columns[at + 4u]) != vec4(HIDDEN);
    let is_there = (vec4(row, row + 1u, row + 2u, row + 3u) < vec4(params.block.rows)) & is_shown;
    return Bounds(select(vec4(LEAST), goodness - width, is_there), select(vec4(LEAST), goodness + width, is_there));
}

// Cells of one row each, for four rows.
fn put_rows(bounds: Bounds, query: u32, group: u32, four: u32) {
    for (var i = 0u; i < 4u; i++) {
        let row = group * 16u + four * 4u + i;
        if row < params.block.rows {
            scratch[place_of_cell(params.block, query, row)] = vec2(bounds.lower[i], bounds.upper[i]);
        }
    }
}

// The largest lower and the largest upper bound of four rows.
fn best_of(bounds: Bounds) -> vec2<f32> {
    let lower = max(bounds.lower.xy, bounds.lower.zw);
    let upper = max(bounds.upper.xy, bounds.upper.zw);
    return max(vec2(lower.x, upper.x), vec2(lower.y, upper.y));
}
