// The candidates of a search: see shared/collect.wgsl. A thread scores four rows again: four of them read a group's
// codes.

// include: cells
// include: screen
// include: collect

fn uppers_of(query: u32, four: u32) -> vec4<f32> {
    let group = four / 4u;
    var sums = vec4(0);
    for (var quad = 0u; quad < params.quads; quad++) {
        sums = add_quad(sums, row_codes(group, quad, four % 4u), query_code(query, quad));
    }
    return bounds_of(sums, query, group, four % 4u).upper;
}
