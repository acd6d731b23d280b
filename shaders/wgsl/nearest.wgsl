// Nearest: the bounds of the nearest point of every cell. A root does not change the order, so the nearest point by the
// squares found here has the largest bounds.

// include: cells
// include: points

// Queries that an invocation looks at while it has points at hand.
const QUERIES: u32 = 4u;
// Larger than any squared distance of tame points, and finite.
const FAR: f32 = 3e38;
const THREADS: u32 = 64u;

// An invocation takes one cell of many points, or four cells of one point each. Dispatched as [invocations / THREADS,
// queries of the block / QUERIES, 1].
@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let rows = params.block.rows;
    let first = id.y * QUERIES;
    var queries: array<Query, QUERIES>;
    for (var i = 0u; i < QUERIES; i++) {
        queries[i] = query_of(params.block.first_query + min(first + i, params.block.queries - 1u));
    }
    if params.block.cell_rows == 1u {
        let four = four_of_points(min(id.x, params.stride - 1u));
        for (var i = 0u; i < QUERIES; i++) {
            let found = squared(four, queries[i]);
            put_cell(first + i, 4u * id.x, found.x, queries[i].error);
            put_cell(first + i, 4u * id.x + 1u, found.y, queries[i].error);
            put_cell(first + i, 4u * id.x + 2u, found.z, queries[i].error);
            put_cell(first + i, 4u * id.x + 3u, found.w, queries[i].error);
        }
        return;
    }
    var nearest: array<f32, QUERIES>;
    for (var i = 0u; i < QUERIES; i++) {
        nearest[i] = FAR;
    }
    let first_row = id.x * params.block.cell_rows;
    for (var row = first_row; row < min(first_row + params.block.cell_rows, rows); row += 4u) {
        let four = four_of_points(row / 4u);
        // Those behind the last point are none.
        let there = vec4<u32>(row, row + 1u, row + 2u, row + 3u) < vec4<u32>(rows);
        for (var i = 0u; i < QUERIES; i++) {
            let found = select(vec4<f32>(FAR), squared(four, queries[i]), there);
            nearest[i] = min(nearest[i], min(min(found.x, found.y), min(found.z, found.w)));
        }
    }
    for (var i = 0u; i < QUERIES; i++) {
        put_cell(first + i, id.x, nearest[i], queries[i].error);
    }
}

fn put_cell(query: u32, cell: u32, squared: f32, error: f32) {
    if query < params.block.queries && cell < cells_of_part(params.block) {
        let bounds = vec2<f32>(lower_bound(squared, error), upper_bound(squared, error));
        scratch[place_of_cell(params.block, query, cell)] = bounds;
    }
}
