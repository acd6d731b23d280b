// The candidates of a search: see shared/collect.wgsl. A thread scores a row again, so 16 of them read a group's codes.

// include: cells
// include: screen
// include: collect

fn upper_of(query: u32, row: u32) -> f32 {
    let group = row / 16u;
    let four = row % 16u / 4u;
    let place = row % 4u;
    var sum = 0;
    for (var quad = 0u; quad < params.quads; quad++) {
        let at = (group * params.quads + quad) * 4u + four;
        sum += dot4I8Packed(rows[at][place] ^ BIAS, query_code(query, quad));
    }
    var sums = vec4(0);
    sums[place] = sum;
    return bounds_of(sums, query, group, four).upper[place];
}
