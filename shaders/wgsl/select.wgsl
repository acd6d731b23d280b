// A query's threshold, from the cells that a round has filled: the k-th largest lower bound, since k rows are at least
// that good. One workgroup for each query of the block finds it digit by digit from the top: it counts the next digits
// of those cells whose upper digits are the ones found so far.

// include: cells

@group(0) @binding(0) var<uniform> block: Block;
// Begins with a pair for each query: a threshold that the caller knows, and what the k-th largest bound is lowered by.
@group(0) @binding(1) var<storage, read> input: array<vec2<f32>>;

const THREADS: u32 = 256u; // one of 256, 1024
const DIGIT_BITS: u32 = 8u;
const DIGITS: u32 = 256u;
// Digits are looked through by run: first sums of runs, then one run.
const RUN: u32 = 16u;

var<workgroup> counts: array<atomic<u32>, DIGITS>;
var<workgroup> run_counts: array<u32, DIGITS / RUN>;
// The upper digits of the k-th largest key, and how many of the keys that have them are not below it.
var<workgroup> upper_digits: u32;
var<workgroup> wanted: u32;

// The digit that as many keys as are still wanted reach, and how many of those are wanted among its own.
fn find_digit() {
    var rest = wanted;
    var run = DIGITS / RUN - 1u;
    while run > 0u && run_counts[run] < rest {
        rest -= run_counts[run];
        run -= 1u;
    }
    var digit = run * RUN + RUN - 1u;
    loop {
        let count = atomicLoad(&counts[digit]);
        if count >= rest || digit == run * RUN {
            break;
        }
        rest -= count;
        digit -= 1u;
    }
    upper_digits = (upper_digits << DIGIT_BITS) | digit;
    wanted = rest;
}

fn count_digits(query: u32, thread: u32, round: u32) {
    let shift = 32u - DIGIT_BITS * (round + 1u);
    let found = upper_digits;
    for (var cell = thread; cell < block.cells; cell += THREADS) {
        let key = ordered(scratch[block.table + query * block.cells + cell].x);
        // Two shifts: one by 32 is none.
        if ((key >> shift) >> DIGIT_BITS) == found {
            atomicAdd(&counts[(key >> shift) % DIGITS], 1u);
        }
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let enough = block.cells >= block.k;
    if enough {
        if thread == 0u {
            wanted = block.k;
            upper_digits = 0u;
        }
        for (var round = 0u; round < 32u / DIGIT_BITS; round++) {
            for (var digit = thread; digit < DIGITS; digit += THREADS) {
                atomicStore(&counts[digit], 0u);
            }
            workgroupBarrier();
            count_digits(group.x, thread, round);
            workgroupBarrier();
            if thread < DIGITS / RUN {
                var sum = 0u;
                for (var i = 0u; i < RUN; i++) {
                    sum += atomicLoad(&counts[thread * RUN + i]);
                }
                run_counts[thread] = sum;
            }
            workgroupBarrier();
            if thread == 0u {
                find_digit();
            }
            workgroupBarrier();
        }
    }
    if thread == 0u {
        let query = block.first_query + group.x;
        let given = input[query];
        var threshold = select(scratch[query].x, given.x, block.fresh == 1u);
        if enough {
            threshold = max(threshold, lowered(number_of(upper_digits), given.y));
        }
        scratch[query].x = threshold;
    }
}

// A number that is at most `bound - by`. The subtraction may be a unit in the last place too high, and zero may stand
// for a small number; the host makes `by` a little too large to cover both.
fn lowered(bound: f32, by: f32) -> f32 {
    if by == 0.0 {
        return bound;
    }
    let difference = bound - by;
    return difference - abs(difference) * 4.7683716e-7;
}
