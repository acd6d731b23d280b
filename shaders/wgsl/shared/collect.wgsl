// Collecting: every row of this part whose upper bound reaches its query's threshold goes into the query's list. A
// stage that includes this after cells.wgsl declares `params` with a member `block`, and
//
//     fn uppers_of(query: u32, four: u32) -> vec4<f32>      // query of the job, four of the part's rows
//
// which gives the upper bounds of four rows' goodness, asked for where cells stand for 16 rows. Dispatched as [queries
// of the block, cells of the part / COLLECT_CELLS, 1].

const COLLECT_THREADS: u32 = 128u;
const COLLECT_CELLS: u32 = 1024u;

// The lists as a slot's result has them: for each query its count and 0; then, for each query, `capacity` pairs of a
// row and its upper bound. A count beyond the capacity means that the list did not fit.
@group(0) @binding(3) var<storage, read_write> output: array<atomic<u32>>;

var<workgroup> found: array<u32, COLLECT_CELLS>;
var<workgroup> found_count: atomic<u32>;

fn put_into_list(query: u32, row: u32, upper: f32) {
    let place = atomicAdd(&output[2u * query], 1u);
    if place < params.block.capacity {
        let at = 2u * (params.block.items + query * params.block.capacity + place);
        atomicStore(&output[at], params.block.first_row + row);
        atomicStore(&output[at + 1u], bitcast<u32>(upper));
    }
}

@compute @workgroup_size(COLLECT_THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    if thread == 0u {
        atomicStore(&found_count, 0u);
    }
    workgroupBarrier();
    let query = params.block.first_query + group.x;
    let threshold = scratch[query].x;
    let first = group.y * COLLECT_CELLS;
    let end = min(first + COLLECT_CELLS, cells_of_part(params.block));
    for (var cell = first + thread; cell < end; cell += COLLECT_THREADS) {
        let upper = scratch[place_of_cell(params.block, group.x, cell)].y;
        if upper < threshold {
            continue;
        }
        if params.block.cell_rows == 1u {
            put_into_list(query, cell, upper);
        } else {
            found[atomicAdd(&found_count, 1u)] = cell;
        }
    }
    workgroupBarrier();
    let fours = atomicLoad(&found_count) * 4u;
    for (var i = thread; i < fours; i += COLLECT_THREADS) {
        let four = found[i / 4u] * 4u + i % 4u;
        let uppers = uppers_of(query, four);
        for (var place = 0u; place < 4u; place++) {
            let row = four * 4u + place;
            if row < params.block.rows && uppers[place] >= threshold {
                put_into_list(query, row, uppers[place]);
            }
        }
    }
}
