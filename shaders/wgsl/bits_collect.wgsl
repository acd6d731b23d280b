// The candidates of a search among rows of bits: see shared/collect.wgsl.

// include: cells
// include: bits
// include: collect

fn upper_of(query: u32, row: u32) -> f32 {
    let words = min(row, params.block.rows - 1u) * params.width;
    let at = params.queries + query * params.width;
    var found = Overlap();
    for (var word = 0u; word < params.width; word++) {
        found = add_words(found, input[at + word], rows[words + word]);
    }
    return bounds_of(found, row).y;
}

fn uppers_of(query: u32, four: u32) -> vec4<f32> {
    let row = 4u * four;
    return vec4(
        upper_of(query, row),
        upper_of(query, row + 1u),
        upper_of(query, row + 2u),
        upper_of(query, row + 3u),
    );
}
