// What the stages of a score job share. The answer is a matrix with a row for each query and a column for each *entry*,
// which is a row of the corpus that is asked for: row i itself where all are, else the i-th of a list in the input.
// That list is sorted, so that the entries of a part of the corpus are a run of it.

const LANES: u32 = 8u;  // of the definition
const METRIC_COSINE: u32 = 1u;

// A tile of sums has 32 entries and four queries (eight in float64), or one query where there is no more. Eight threads
// have the eight lanes of four rows; they read 32 bytes of the rows at a time, for all queries of the tile.
const THREADS: u32 = 64u;
const TILE_QUERIES: u32 = 4u;
const TILE_ENTRIES: u32 = 32u;
const THREAD_ENTRIES: u32 = 4u;

// What a dispatch works on: `queries` from `first_query` on, and `entries` from `first_entry` on, all within one part.
struct ScoreParams {
    dim: u32,
    metric: u32,
    first_query: u32,
    queries: u32,
    first_entry: u32,
    entries: u32,
    first_row: u32,     // of the part, in the corpus
    named: u32,         // whether rows are named
    rows_at: u32,       // where in the input the entries' rows are
    columns_at: u32,    // where in the input the entries' columns in the answer are
    norms_at: u32,      // where in the input the queries' norms are, as float64
    width: u32,         // columns of the answer
}

// The row of the part that an entry asks for.
fn row_of(entry: u32) -> u32 {
    if (params.named != 0u) { return input[params.rows_at + params.first_entry + entry] - params.first_row; }
    return params.first_entry + entry - params.first_row;
}

// Where the rows that a thread takes begin in the part. Entries that fill up the last tile repeat its last one.
fn places_of(entry: u32) -> vec4<u32> {
    let last = params.entries - 1u;
    let entries = min(entry + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(last));
    return params.dim * vec4<u32>(row_of(entries.x), row_of(entries.y), row_of(entries.z), row_of(entries.w));
}

// Where in the input the tile's queries begin. Those that fill up the last tile are its last.
fn queries_of(query: u32) -> vec4<u32> {
    let queries = min(query + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.queries - 1u));
    return params.dim * (params.first_query + queries);
}
