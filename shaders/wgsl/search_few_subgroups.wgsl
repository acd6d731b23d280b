// A team of `search_few` is a subgroup, of whatever size.

// include: cells
// include: screen
// include: few

// The sum over the threads that have the same four rows.
fn sum_of_team(sums: vec4<i32>, team_size: u32) -> vec4<i32> {
    var total = sums;
    for (var mask = 4u; mask < team_size; mask *= 2u) {
        total += subgroupShuffleXor(total, mask);
    }
    return total;
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_size) team_size: u32,
    // A thread's place in its subgroup; how threads of a workgroup come to be in one is not defined.
    @builtin(subgroup_invocation_id) thread: u32,
) {
    let first_query = first_query_of_team(workgroup);
    let groups = (params.block.rows + 15u) / 16u;
    let four = thread % 4u;
    for (var group = workgroup.x * subgroups + subgroup; group < groups; group += workgroups.x * subgroups) {
        let sums = sums_of(group, four, first_query, thread / 4u, team_size / 4u);
        for (var i = 0u; i < QUERIES; i++) {
            let query = first_query - params.block.first_query + i;
            let total = sum_of_team(sums[i], team_size);
            if query >= params.block.queries {
                break;
            }
            let bounds = bounds_of(total, first_query + i, group, four);
            var best = best_of(bounds);
            best = max(best, subgroupShuffleXor(best, 1u));
            best = max(best, subgroupShuffleXor(best, 2u));
            if params.block.cell_rows == 1u {
                if thread < 4u {
                    put_rows(bounds, query, group, four);
                }
            } else if thread == 0u {
                scratch[place_of_cell(params.block, query, group)] = best;
            }
        }
    }
}
