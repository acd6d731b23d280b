//! What jobs would take on a GPU, by the twin in virtual time: predicted, not measured, and the same on every machine.

use std::io::Write;

use megaring_cuda::twin::{Hops, Twin};

/// Workers of an H100 or H200: a block on each multiprocessor but one.
const WORKERS: u32 = 131;
/// Most that the median job of a kind may take, in nanoseconds. What a change costs more than that is to be seen.
const BUDGETS: [(&str, u64); 8] = [
    ("nop", 4_400),
    ("search, 1 query", 16_100),
    ("search, 8 queries", 14_600),
    ("search, 64 queries", 18_700),
    ("score", 10_800),
    ("encode", 13_000),
    ("nearest", 13_700),
    ("checksum", 12_400),
];

/// Where each hop ends, and its name.
fn hops(of: &Hops) -> [(&'static str, u64); 8] {
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

fn time(kind: &str, jobs: u32) -> Option<Vec<Hops>> {
    let timed = Twin::time_jobs(kind, WORKERS, jobs);
    timed.inspect_err(|why| _ = writeln!(std::io::stdout(), "\nskipped: {why}")).ok()
}

/// The job whose time is the median.
fn median(mut jobs: Vec<Hops>) -> Hops {
    jobs.sort_by_key(|hops| hops.seen);
    jobs[jobs.len() / 2]
}

#[test]
fn each_kind_of_job_keeps_its_budget() {
    let mut over = Vec::new();
    println!("{:<20}{}", "ns, by hop", hops(&Hops::default()).map(|(name, _)| format!("{name:>11}")).concat());
    for (kind, budget) in BUDGETS {
        let Some(jobs) = time(kind, 5) else { return };
        let median = median(jobs);
        let mut before = 0;
        let each = hops(&median).map(|(_, end)| {
            let took = end - before;
            before = end;
            format!("{took:>11}")
        });
        println!("{kind:<20}{}{:>11} of {budget}", each.concat(), median.seen);
        if median.seen > budget {
            over.push(format!("{kind}: {} ns, and the budget is {budget}", median.seen));
        }
    }
    assert!(over.is_empty(), "{over:?}");
}

#[test]
fn the_two_hundredth_job_costs_what_the_second_does() {
    for kind in ["nop", "search, every row"] {
        let Some(jobs) = time(kind, 200) else { return };
        let (early, late) = (median(jobs[1..9].to_vec()).seen, median(jobs[191..].to_vec()).seen);
        assert!(late <= early + early / 20, "{kind}: {early} ns at first and {late} in the end");
    }
}
