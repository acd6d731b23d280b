// Nearest: lists the points that may be among the nearest.

// include: cells
// include: points
// include: collect

fn uppers_of(query: u32, four: u32) -> vec4<f32> {
    let point = query_of(query);
    let squares = squared(four_of_points(four), point);
    return vec4(
        upper_bound(squares.x, point.error),
        upper_bound(squares.y, point.error),
        upper_bound(squares.z, point.error),
        upper_bound(squares.w, point.error),
    );
}
