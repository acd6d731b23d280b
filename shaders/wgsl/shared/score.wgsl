// What the stages of a score job share. A job's answer is a matrix, a row for each query; an *entry* is a row of the corpus that is asked for:
// row i itself where all are, else the i-th of a list in the input, which is sorted so that the entries of a part of a corpus are a run of it.

const LANES: u32 = 8u;  // of the definition
const METRIC_COSINE: u32 = 1u;

// Sums are worked out in tiles of four queries (in float64, eight) by 32 entries, or of the one query there is by 32: eight threads for the
// definition's eight lanes of four rows, whose elements they read 32 bytes at a time and take for all queries of the tile.
const THREADS: u32 = 64u;
const TILE_QUERIES: u32 = 4u;
const TILE_ENTRIES: u32 = 32u;
const THREAD_ENTRIES: u32 = 4u;

// What a dispatch works on: `queries` from `first_query` on and `entries` from `first_entry` on, all of them within one part of a corpus.
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

// Where in the part's rows those begin that a thread takes. Entries that fill up the last tile are taken to be its last.
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
