// Cells: what search and nearest keep of a screen. A cell stands for `cell_rows` neighbouring rows of a part (16, or 1
// where k is large). It has their largest lower and their largest upper bound of goodness, of which larger is better.
//
// The scratch holds a pair for each query of the job, whose first number is its threshold; then, at `table`, the cells
// of the current block: [query of the block][cell of the round]. `Block` comes first in the parameters of every stage
// that uses cells.
//
// The twin of this is operation/lists.rs.

struct Block {
    // Queries in work: the first, and how many.
    first_query: u32,
    queries: u32,
    // Rows that a cell stands for.
    cell_rows: u32,
    // Cells of a round, all parts together: from a query's cells to the next one's.
    cells: u32,
    // This part's first cell among those of the round.
    first_cell: u32,
    // Rows of this part, and the number that its first one has in the corpus.
    rows: u32,
    first_row: u32,
    // Where the cells begin in the scratch, in pairs.
    table: u32,
    // Queries of the job, and room for each one's candidates.
    items: u32,
    capacity: u32,
    k: u32,
    // 1 in the first round of a job, where no threshold is known yet.
    fresh: u32,
}

@group(0) @binding(2) var<storage, read_write> scratch: array<vec2<f32>>;

// Lower than any bound, and finite: shaders may take it that there are no infinities.
const LEAST: f32 = -3.4028234e38;

// Where the cell of a query of the block lies; `cell` counts within this part.
fn place_of_cell(block: Block, query: u32, cell: u32) -> u32 {
    return block.table + query * block.cells + block.first_cell + cell;
}

// Cells of this part.
fn cells_of_part(block: Block) -> u32 {
    return (block.rows + block.cell_rows - 1u) / block.cell_rows;
}

// An integer of the same order as the number.
fn ordered(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

// The number of that integer.
fn number_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, (key & 0x80000000u) != 0u));
}
