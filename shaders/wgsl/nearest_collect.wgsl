// Nearest: lists the points that may be among the nearest.

// include: cells
// include: points
// include: collect

fn upper_of(query: u32, row: u32) -> f32 {
    let query_point = query_of(query);
    return upper_bound(squared(four_of_points(row / 4u), query_point)[row % 4u], query_point.error);
}
