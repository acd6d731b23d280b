//! A little of every operation, each answer compared with the reference and with the CPU backend's: small enough for
//! compute-sanitizer, under which a kernel takes a hundred times as long, and quick enough to see whether a backend
//! works at all.

use std::time::Instant;

use megaring_bench::Failure;
use megaring_bench::cases::search::truth;
use megaring_bench::cases::{self, Check, Scale, Subject};
use megaring_core::Metric;
use megaring_core::nop::Nop;
use megaring_core::search::Search;
use megaring_ring::RingConfig;
use serde_json::json;

use crate::corpora::{self, generated};
use crate::machine::{Machine, Wanted, Way, store};
use crate::{Done, Report};

/// Every operation's brief cases.
pub(crate) fn run(machine: Machine, way: Way) -> Done {
    let begun = Instant::now();
    let (_folder, store) = store()?;
    let usual = Wanted::usual(way);
    let wanted = Wanted { ring: RingConfig { arena_bytes: 64 << 20, ..usual.ring }, ..usual };
    let subject = machine.subject(&wanted, &store)?;
    let answers = cases::every_operation(&subject, Scale::Brief, |skipped| eprintln!("skipped: {skipped}"))?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Report::new(json!({ "mode": way.name(), "answers": answers, "seconds": seconds }), true))
}

/// What a backend is asked after each start: nothing, and one search.
pub(crate) fn few(subject: &Subject, nops: usize) -> Result<(), Failure> {
    for _ in 0..nops {
        subject.run(Nop)?;
    }
    let rows = generated(203, 37, 51);
    let corpus = corpora::corpus(subject.engine.store().table(), rows.clone(), &[90]);
    let queries = corpora::own_queries(&corpus, 100, 3);
    let want = truth(Metric::Cosine, &queries.values, &rows, 10, None);
    let job = Search { corpus, queries: queries.into(), metric: Metric::Cosine, k: 10, threshold: None };
    Check::new(subject, Scale::Brief).case("after a start", job, &want)
}
