// The cells of rows of bits. A thread takes a row and QUERIES queries, so that a row's words are read once for all of
// them; neighbours put the best of 16 rows together.
//
// Dispatched as [rows of the part / THREADS, queries of the block / QUERIES, 1].

// include: cells
// include: bits

const THREADS: u32 = 64u;
const QUERIES: u32 = 4u;

// [query][thread]
var<workgroup> best: array<vec2<f32>, QUERIES * THREADS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = workgroup.x * THREADS + thread;
    let first = workgroup.y * QUERIES;
    // Rows that fill up the last workgroup repeat its last one, and queries likewise.
    let words = min(row, params.block.rows - 1u) * params.width;
    var starts: array<u32, QUERIES>;
    var found: array<Overlap, QUERIES>;
    for (var i = 0u; i < QUERIES; i++) {
        let query = params.block.first_query + min(first + i, params.block.queries - 1u);
        starts[i] = params.queries + query * params.width;
    }
    for (var word = 0u; word < params.width; word++) {
        let bits = rows[words + word];
        for (var i = 0u; i < QUERIES; i++) {
            found[i] = add_words(found[i], input[starts[i] + word], bits);
        }
    }
    for (var i = 0u; i < QUERIES; i++) {
        let bounds = bounds_of(found[i], row);
        best[i * THREADS + thread] = bounds;
        if params.block.cell_rows == 1u && row < params.block.rows && first + i < params.block.queries {
            scratch[place_of_cell(params.block, first + i, row)] = bounds;
        }
    }
    workgroupBarrier();
    let cells = THREADS / 16u;
    if params.block.cell_rows == 1u || thread >= QUERIES * cells {
        return;
    }
    let query = first + thread / cells;
    let cell = workgroup.x * cells + thread % cells;
    if query < params.block.queries && cell < cells_of_part(params.block) {
        var bounds = vec2(LEAST);
        for (var i = 0u; i < 16u; i++) {
            bounds = max(bounds, best[thread / cells * THREADS + thread % cells * 16u + i]);
        }
        scratch[place_of_cell(params.block, query, cell)] = bounds;
    }
}
