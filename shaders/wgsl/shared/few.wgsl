// The cells of few queries: a team of threads takes a group of 16 rows and QUERIES queries. Four neighbouring threads
// take 4 rows each of one quad, the next four threads the next quad, so that a team reads one run of memory.
//
// Dispatched as [any number, queries of the block / QUERIES, 1]: teams go on to further groups until all are done.

// Queries of a team: 1 for a query by itself, 4 for those that lie together in the input.
const QUERIES: u32 = 4u; // one of 1, 4

alias Sums = array<vec4<i32>, QUERIES>;

// The first query of the job that this team screens.
fn first_query_of_team(workgroup: vec3<u32>) -> u32 {
    return params.block.first_query + workgroup.y * QUERIES;
}

// The sums of every `splits`-th quad, from `split` on, for four rows of a group.
fn sums_of(group: u32, four: u32, first_query: u32, split: u32, splits: u32) -> Sums {
    var sums = Sums();
    for (var quad = split; quad < params.quads; quad += splits) {
        let codes = row_codes(group, quad, four);
        if QUERIES == 1u {
            sums[0] = add_quad(sums[0], codes, query_code(first_query, quad));
        } else {
            let queries = query_codes(first_query / 4u, quad);
            for (var i = 0u; i < QUERIES; i++) {
                sums[i] = add_quad(sums[i], codes, queries[i]);
            }
        }
    }
    return sums;
}
