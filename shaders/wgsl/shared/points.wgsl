// Points in 5-D, as columns, and float32's bounds on how near they are. `Block` is in cells.wgsl.
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

// Four points, by axis.
struct Four {
    x: vec4<f32>,
    y: vec4<f32>,
    z: vec4<f32>,
    w: vec4<f32>,
    v: vec4<f32>,
}

// Points 4 * place .. 4 * place + 4.
fn four_of_points(place: u32) -> Four {
    let y = place + params.stride;
    let z = y + params.stride;
    let w = z + params.stride;
    return Four(points[place], points[y], points[z], points[w], points[w + params.stride]);
}

// Their squared distances.
fn squared(four: Four, query: Query) -> vec4<f32> {
    let x = params.weights.x * (four.x - query.xyzw.x);
    let y = params.weights.y * (four.y - query.xyzw.y);
    let z = params.weights.z * (four.z - query.xyzw.z);
    let w = params.weights.w * (four.w - query.xyzw.w);
    let v = params.weight_v * (four.v - query.v);
    return x * x + y * y + z * z + w * w + v * v + FLOOR;
}

// The goodness is minus the distance.
fn lower_bound(squared: f32, error: f32) -> f32 {
    return -(sqrt(squared) * (1.0 + RELATIVE) + error);
}

fn upper_bound(squared: f32, error: f32) -> f32 {
    return error - sqrt(squared) * (1.0 - RELATIVE);
}
