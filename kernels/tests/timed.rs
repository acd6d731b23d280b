//! What jobs would take on a GPU, by the twin in virtual time: predicted, not measured, and however fast
//! this machine is.

use std::io::Write;

use megaring_cuda::twin::{Hops, Twin};

/// Workers of an H100 or H200: a block on each multiprocessor but one.
const WORKERS: u32 = 131;
/// Jobs of a kind, and most that the median one may take from the moment when its slot is taken until the host has seen
/// its completion, in nanoseconds. What a change costs more than that is to be seen. Searches are much work for the
/// twin, and alike.
const BUDGETS: [(&str, u32, u64); 10] = [
    ("nop", 5, 1_750),
    ("search, 1 query", 3, 9_300),
    ("search, 1 query, float32", 3, 10_600),
    ("search, 8 queries", 3, 11_500),
    ("search, 64 queries", 1, 20_000),
    ("search, 64 rows", 1, 17_800),
    ("score", 5, 8_050),
    ("encode", 5, 8_600),
    ("nearest", 5, 11_400),
    ("checksum", 5, 8_900),
];
/// Most that it may take on average until a slot is taken: that depends on when in its polling it comes.
const TAKEN: u64 = 1_300;

/// Where each hop ends, and its name.
fn ends(of: &Hops) -> [(&'static str, u64); 8] {
    let Hops { taken, published, claimed, prepared, worked, finished, told, seen } = *of;
    [
        ("taken", taken),
        ("published", published),
        ("claimed", claimed),
        ("prepared", prepared),
        ("worked", worked),
        ("finished", finished),
        ("told", told),
        ("seen", seen),
    ]
}

fn time(kind: &str, workers: u32, jobs: u32) -> Option<Vec<Hops>> {
    let timed = Twin::time_jobs(kind, workers, jobs);
    timed.inspect_err(|why| _ = writeln!(std::io::stdout(), "\nskipped: {why}")).ok()
}

/// From the moment when the slot is taken.
fn worked(hops: &Hops) -> u64 {
    hops.seen - hops.taken
}

/// The job whose time is the median.
fn median(mut jobs: Vec<Hops>) -> Hops {
    jobs.sort_by_key(worked);
    jobs[jobs.len() / 2]
}

#[test]
fn each_kind_of_job_keeps_its_budget() {
    let mut over = Vec::new();
    println!("{:<20}{}", "ns, by hop", ends(&Hops::default()).map(|(name, _)| format!("{name:>11}")).concat());
    for (kind, jobs, budget) in BUDGETS {
        let Some(jobs) = time(kind, WORKERS, jobs) else { return };
        let median = median(jobs);
        let mut before = 0;
        let each = ends(&median).map(|(_, end)| {
            let took = end - before;
            before = end;
            format!("{took:>11}")
        });
        let took = worked(&median);
        println!("{kind:<20}{}{took:>11} of {budget} behind the first hop", each.concat());
        if took > budget {
            over.push(format!("{kind}: {took} ns, and the budget is {budget}"));
        }
    }
    assert!(over.is_empty(), "{over:?}");
}

#[test]
fn a_slot_is_soon_taken() {
    let Some(jobs) = time("nop", WORKERS, 48) else { return };
    let mean = jobs.iter().map(|hops| hops.taken).sum::<u64>() / 48;
    assert!(mean <= TAKEN, "{mean} ns, and the budget is {TAKEN}");
}

/// More queries than blocks: each block's lists are long, and a warp merges a query's.
#[test]
fn many_queries_on_few_blocks_keep_their_budget() {
    const MANY: u64 = 35_600;
    let Some(jobs) = time("search, 64 queries", 16, 1) else { return };
    let took = worked(&median(jobs));
    assert!(took <= MANY, "{took} ns, and the budget is {MANY}");
}

/// As many shares as a warp ever merges, but for one. The twin ends the process where an answer is wrong.
#[test]
fn a_warp_merges_the_most_shares_there_can_be() {
    let Some(jobs) = time("search, 64 queries", 63, 1) else { return };
    assert_eq!(jobs.len(), 1);
}

/// The twin ends the process where a byte of such a job's answer was written: a matter of who comes first, which is the
/// same each time where time is virtual.
#[test]
fn nobody_writes_to_regions_before_it_is_known_whose_they_are() {
    for kind in ["checksum, foreign", "score, foreign"] {
        let Some(jobs) = time(kind, 8, 2) else { return };
        assert_eq!(jobs.len(), 2);
    }
}

/// The dispatcher ends a kernel whose oldest job does not move. These move all the time, and each takes a third of the
/// budget, but a record is another job's by the time it is looked at.
#[test]
fn a_kernel_with_every_record_in_use_goes_on() {
    let Some(jobs) = time("encode, together", 2, 20) else { return };
    assert_eq!(jobs.len(), 20);
}

#[test]
fn the_two_hundredth_job_costs_what_the_second_does() {
    /// What grew with the jobs would grow on these too.
    const WORKERS: u32 = 24;
    for kind in ["nop", "search, every row"] {
        let Some(jobs) = time(kind, WORKERS, 200) else { return };
        let (early, late) = (worked(&median(jobs[1..9].to_vec())), worked(&median(jobs[191..].to_vec())));
        assert!(late <= early + early / 20, "{kind}: {early} ns at first and {late} in the end");
    }
}
