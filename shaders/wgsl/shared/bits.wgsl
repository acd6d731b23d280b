// Rows of bits of a part, as words of 32, and what they have in common with the queries. `Block` is in cells.wgsl.
//
// Counts are exact, and so is a Hamming distance as float32. A Jaccard index is a quotient, of which WGSL promises all
// but 2.5 units in the last place: the bounds leave it ten times as much.

struct BitsParams {
    block: Block,
    // Words of a row.
    width: u32,
    // Where the queries' words begin in the input.
    queries: u32,
    metric: u32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> params: BitsParams;
// What the lists take; then the queries, one after the other.
@group(0) @binding(1) var<storage, read> input: array<u32>;
@group(1) @binding(0) var<storage, read> rows: array<u32>;
// [group of 16 rows][mul, add, e1, e2][row], of which add alone says something: whether the row is hidden.
@group(1) @binding(1) var<storage, read> columns: array<f32>;

const METRIC_JACCARD: u32 = 5u;
const ERROR: f32 = 3.0e-6;
// The bits of the add of a row that is hidden: minus infinity, of which a shader need not know.
const HIDDEN: u32 = 0xff800000u;

// Of the words of a row and a query.
struct Overlap {
    both: u32,
    either: u32,
}

fn add_words(overlap: Overlap, a: u32, b: u32) -> Overlap {
    return Overlap(overlap.both + countOneBits(a & b), overlap.either + countOneBits(a | b));
}

// The lower and the upper bound of a row's goodness; of one that is not there, or hidden, the least number.
fn bounds_of(overlap: Overlap, row: u32) -> vec2<f32> {
    if row >= params.block.rows || bitcast<u32>(columns[row / 16u * 64u + 16u + row % 16u]) == HIDDEN {
        return vec2(LEAST);
    }
    if params.metric == METRIC_JACCARD {
        let share = select(f32(overlap.both) / f32(max(overlap.either, 1u)), 1.0, overlap.either == 0u);
        return vec2(share - ERROR, share + ERROR);
    }
    return vec2(-f32(overlap.either - overlap.both));
}
