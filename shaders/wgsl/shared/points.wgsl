// Points of five coordinates, in columns, and the bounds that float32 gives of how near they are. `Block` is that of cells.wgsl.
//
// The twin of this is operation/nearest.rs, which argues the bounds.

struct NearestParams {
    block: Block,
    // Weights of x, y, z, w; that of v.
    weights: vec4<f32>,
    weight_v: f32,
    // From a column of the part to the next, in fours of points.
    stride: u32,
    // Where the first query lies in the input, in fours.
    queries: u32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> params: NearestParams;
// What the lists take; then for each query x, y, z, w, and v, its error, 0, 0.
@group(0) @binding(1) var<storage, read> input: array<vec4<f32>>;
// Columns x, y, z, w, v.
@group(1) @binding(0) var<storage, read> points: array<vec4<f32>>;

struct Query {
    xyzw: vec4<f32>,
    v: f32,
    // What roundings that go with coordinates' size may add to a distance or take from it.
    error: f32,
}

// What goes with the distance's size.
const RELATIVE: f32 = 3.8146973e-6;
// Added to squares, so that there is no root of nothing.
const FLOOR: f32 = 7.52316385e-37;

fn query_of(query: u32) -> Query {
    let place = params.queries + 2u * query;
    let rest = input[place + 1u];
    return Query(input[place], rest.x, rest.y);
}

// Squared distances of points 4 * four .. 4 * four + 4.
fn squared_of_four(four: u32, query: Query) -> vec4<f32> {
    let x = params.weights.x * (points[four] - query.xyzw.x);
    let y = params.weights.y * (points[four + params.stride] - query.xyzw.y);
    let z = params.weights.z * (points[four + 2u * params.stride] - query.xyzw.z);
    let w = params.weights.w * (points[four + 3u * params.stride] - query.xyzw.w);
    let v = params.weight_v * (points[four + 4u * params.stride] - query.v);
    return x * x + y * y + z * z + w * w + v * v + FLOOR;
}

// The goodness is minus the distance.
fn lower_bound(squared: f32, error: f32) -> f32 {
    return -(sqrt(squared) * (1.0 + RELATIVE) + error);
}

fn upper_bound(squared: f32, error: f32) -> f32 {
    return error - sqrt(squared) * (1.0 - RELATIVE);
}
