// Nearest: the bounds of the nearest point of every cell. The nearest point by the squares found here is the one with the largest bounds of all,
// since a root does not change their order.

// include: cells
// include: points

// Larger than any squared distance of tame points, and finite.
const FAR: f32 = 3e38;
const THREADS: u32 = 64u;

// An invocation takes a cell of many points, or four cells of one point each. Dispatched as [invocations / THREADS, queries of the block, 1].
@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let query = query_of(params.block.first_query + id.y);
    let rows = params.block.rows;
    if params.block.cell_rows == 1u {
        let squared = squared_of_four(min(id.x, params.stride - 1u), query);
        for (var i = 0u; i < 4u; i++) {
            put_cell(id.y, 4u * id.x + i, squared[i], query.error);
        }
        return;
    }
    var nearest = FAR;
    let first = id.x * params.block.cell_rows;
    for (var row = first; row < min(first + params.block.cell_rows, rows); row += 4u) {
        let squared = squared_of_four(row / 4u, query);
        // Those behind the last point are none.
        let there = vec4<u32>(row, row + 1u, row + 2u, row + 3u) < vec4<u32>(rows);
        let found = select(vec4<f32>(FAR), squared, there);
        nearest = min(nearest, min(min(found.x, found.y), min(found.z, found.w)));
    }
    put_cell(id.y, id.x, nearest, query.error);
}

fn put_cell(query: u32, cell: u32, squared: f32, error: f32) {
    if cell < cells_of_part(params.block) {
        scratch[place_of_cell(params.block, query, cell)] = vec2<f32>(lower_bound(squared, error), upper_bound(squared, error));
    }
}
