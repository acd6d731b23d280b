// A team of `search_few` where there are no subgroups: 32 threads of a workgroup, which add up in its memory.

// include: cells
// include: screen
// include: few

const THREADS: u32 = 128u;
// Threads of a team that have the same four rows, and teams of a workgroup.
const SPLITS: u32 = 8u;
const TEAMS: u32 = THREADS / (4u * SPLITS);

// [query][team][split][four]
var<workgroup> parts: array<vec4<i32>, QUERIES * THREADS>;
// [query][team][four]
var<workgroup> best: array<vec2<f32>, QUERIES * TEAMS * 4u>;

// Adds up the sums of four rows and a query. One-row cells are then done.
fn finish_four(first_group: u32, first_query: u32, thread: u32) {
    let four = thread % 4u;
    let group = first_group + thread / 4u % TEAMS;
    let query = thread / (4u * TEAMS);
    let query_of_block = first_query - params.block.first_query + query;
    if group * 16u >= params.block.rows || query_of_block >= params.block.queries {
        return;
    }
    var total = vec4(0);
    for (var split = 0u; split < SPLITS; split++) {
        total += parts[query * THREADS + (thread / 4u % TEAMS * SPLITS + split) * 4u + four];
    }
    let bounds = bounds_of(total, first_query + query, group, four);
    best[thread] = best_of(bounds);
    if params.block.cell_rows == 1u {
        put_rows(bounds, query_of_block, group, four);
    }
}

// Cells of 16 rows.
fn finish_group(first_group: u32, first_query: u32, thread: u32) {
    let group = first_group + thread % TEAMS;
    let query = first_query - params.block.first_query + thread / TEAMS;
    if params.block.cell_rows == 1u || group * 16u >= params.block.rows || query >= params.block.queries {
        return;
    }
    let at = thread * 4u;
    let cell = max(max(best[at], best[at + 1u]), max(best[at + 2u], best[at + 3u]));
    scratch[place_of_cell(params.block, query, group)] = cell;
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let first_query = first_query_of_team(workgroup);
    let groups = (params.block.rows + 15u) / 16u;
    for (var first_group = workgroup.x * TEAMS; first_group < groups; first_group += workgroups.x * TEAMS) {
        let group = first_group + thread / (4u * SPLITS);
        if group < groups {
            let sums = sums_of(group, thread % 4u, first_query, thread / 4u % SPLITS, SPLITS);
            for (var i = 0u; i < QUERIES; i++) {
                parts[i * THREADS + thread] = sums[i];
            }
        }
        workgroupBarrier();
        if thread < QUERIES * TEAMS * 4u {
            finish_four(first_group, first_query, thread);
        }
        workgroupBarrier();
        if thread < QUERIES * TEAMS {
            finish_group(first_group, first_query, thread);
        }
    }
}
