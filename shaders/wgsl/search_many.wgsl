// The cells of many queries. A workgroup fills those of a tile of queries and groups of 16 rows. STEP quads of the tile
// lie in workgroup memory at a time, and a thread keeps the sums of 4 queries and 4 rows.
//
// Dispatched as [groups / GROUPS, queries of the block / (4 QUERY_FOURS), 1].

// include: cells
// include: screen

const THREADS: u32 = 256u;
// Fours of queries of a tile: 4 for 16 queries and 256 rows, 16 for 64 queries and 64 rows.
const QUERY_FOURS: u32 = 16u; // one of 4, 16
const ROW_FOURS: u32 = THREADS / QUERY_FOURS;
const GROUPS: u32 = ROW_FOURS / 4u;
// Quads that lie in workgroup memory.
const STEP: u32 = 8u; // one of 8, 16
// Where the queries' codes begin there.
const QUERIES_AT: u32 = STEP * ROW_FOURS;

// First [quad][four rows], then [quad][four queries], so that neighbouring threads read neighbouring words. In the end
// [query][four rows], two by two, the bits of the four rows' bounds.
var<workgroup> tile: array<vec4<u32>, max(STEP * (ROW_FOURS + QUERY_FOURS), 2u * THREADS)>;

// Brings codes into workgroup memory. Beyond the last quad, row and query lie zeros.
fn load_tile(first_group: u32, first_four: u32, first_quad: u32, thread: u32) {
    for (var i = thread; i < STEP * ROW_FOURS; i += THREADS) {
        let quad = i / 4u % STEP;
        let group = i / (4u * STEP);
        var codes = vec4(0u);
        if first_quad + quad < params.quads && (first_group + group) * 16u < params.block.rows {
            codes = row_codes(first_group + group, first_quad + quad, i % 4u);
        }
        tile[quad * ROW_FOURS + group * 4u + i % 4u] = codes;
    }
    for (var i = thread; i < STEP * QUERY_FOURS; i += THREADS) {
        let quad = i % STEP;
        let four = i / STEP;
        var codes = vec4(0u);
        if first_quad + quad < params.quads && (first_four + four) * 4u < params.block.items {
            codes = query_codes(first_four + four, first_quad + quad);
        }
        tile[QUERIES_AT + quad * QUERY_FOURS + four] = codes;
    }
}

fn put_best(query: u32, row_four: u32, best: vec2<f32>) {
    let at = query * ROW_FOURS + row_four;
    tile[at / 2u][at % 2u * 2u] = bitcast<u32>(best.x);
    tile[at / 2u][at % 2u * 2u + 1u] = bitcast<u32>(best.y);
}

// Cells of 16 rows.
fn put_groups(first_group: u32, first_query: u32, thread: u32) {
    for (var i = thread; i < 4u * QUERY_FOURS * GROUPS; i += THREADS) {
        let query = first_query + i / GROUPS;
        let group = first_group + i % GROUPS;
        if query < params.block.queries && group * 16u < params.block.rows {
            let two = bitcast<vec4<f32>>(tile[2u * i]);
            let more = bitcast<vec4<f32>>(tile[2u * i + 1u]);
            scratch[place_of_cell(params.block, query, group)] = max(max(two.xy, two.zw), max(more.xy, more.zw));
        }
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let first_group = workgroup.x * GROUPS;
    let first_query = workgroup.y * 4u * QUERY_FOURS;
    let row_four = thread % ROW_FOURS;
    let query_four = thread / ROW_FOURS;
    var sums = array<vec4<i32>, 4>();
    for (var quad = 0u; quad < params.quads; quad += STEP) {
        load_tile(first_group, (params.block.first_query + first_query) / 4u, quad, thread);
        workgroupBarrier();
        for (var i = 0u; i < STEP; i++) {
            let codes = tile[i * ROW_FOURS + row_four];
            let queries = tile[QUERIES_AT + i * QUERY_FOURS + query_four];
            sums[0] = add_quad(sums[0], codes, queries.x);
            sums[1] = add_quad(sums[1], codes, queries.y);
            sums[2] = add_quad(sums[2], codes, queries.z);
            sums[3] = add_quad(sums[3], codes, queries.w);
        }
        workgroupBarrier();
    }
    let group = first_group + row_four / 4u;
    for (var i = 0u; i < 4u; i++) {
        let query = query_four * 4u + i;
        if group * 16u < params.block.rows && first_query + query < params.block.queries {
            let job_query = params.block.first_query + first_query + query;
            let bounds = bounds_of(sums[i], job_query, group, row_four % 4u);
            put_best(query, row_four, best_of(bounds));
            if params.block.cell_rows == 1u {
                put_rows(bounds, first_query + query, group, row_four % 4u);
            }
        }
    }
    workgroupBarrier();
    if params.block.cell_rows != 1u {
        put_groups(first_group, first_query, thread);
    }
}
