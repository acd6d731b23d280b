//! Every operation's cases on the device, through the whole engine: equal to the naive reference in ids, order and
//! scores, and equal to the CPU backend in every bit.
//!
//! A check that fails does not stop those behind it; each is reported on a line of its own.

use std::time::Instant;

use megaring_bench::Failure;
use megaring_bench::cases::{self, Scale, Subject, residency};
use megaring_core::Error;
use megaring_core::nop::Nop;
use megaring_engine::Terms;
use serde_json::{Map, Value, json};

use crate::machine::{Machine, Wanted, Way, store};
use crate::{Done, Report, object, say};

/// What the checks share.
struct Bench {
    machine: Machine,
    scale: Scale,
    subject: Subject,
}

/// A check's name, and the check: how many answers were compared, or the first difference.
type Check = (String, fn(&Subject, Scale) -> Result<usize, Failure>);

/// The checks that a subject is to pass.
type Checks = fn(&Subject) -> Result<Vec<Check>, Failure>;

/// With as much device memory as the backend likes. An operation that it does not serve is left out, with a word why.
fn checks(subject: &Subject) -> Result<Vec<Check>, Failure> {
    let mut checks: Vec<Check> = Vec::new();
    for (opcode, check) in cases::CHECKS {
        match subject.refusal(opcode)? {
            None => checks.push((opcode.name().to_owned(), check)),
            Some(reason) => eprintln!("{opcode}: left out: {reason}"),
        }
    }
    let others: [Check; 2] = [
        ("a corpus that grows".into(), residency::a_corpus_that_grows_is_searched_as_it_is),
        ("jobs past their deadline".into(), late_jobs),
    ];
    checks.extend(others);
    Ok(checks)
}

/// With little of it.
fn crowded(_: &Subject) -> Result<Vec<Check>, Failure> {
    Ok(vec![("corpora that do not fit".into(), corpora_that_do_not_fit)])
}

/// Device memory that holds one of the four small corpora at a time, and not the large one.
const LITTLE_MEMORY: usize = 24 << 20;
/// Likewise for the twin.
const LITTLE_MEMORY_REHEARSED: usize = 1 << 20;

fn corpora_that_do_not_fit(subject: &Subject, scale: Scale) -> Result<usize, Failure> {
    let (small, large) = if scale == Scale::Brief { (1_500, 6_000) } else { (40_000, 200_000) };
    let shapes = [small, small, small, small, large].map(|rows| (rows, 384));
    residency::corpora_beyond_the_memory_are_searched(subject, &shapes, scale.of([2, 5, 5, 9]))
}

/// Jobs whose time is over before they begin; the backend goes on afterwards.
fn late_jobs(subject: &Subject, scale: Scale) -> Result<usize, Failure> {
    let count = scale.of([5, 20, 200, 200]);
    for _ in 0..count {
        let terms = Terms { deadline: Some(Instant::now()), ..subject.terms() };
        match subject.engine.run_blocking(Nop, terms) {
            Err(Error::DeadlineExceeded { .. }) => {}
            other => {
                let ended = other.map(|outcome| outcome.answer);
                return Err(format!("a job past its deadline ended with {ended:?}").into());
            }
        }
    }
    subject.run(Nop)?;
    Ok(count + 1)
}

/// Runs all checks.
pub(crate) fn run(machine: Machine, way: Way, quick: bool) -> Done {
    let usual = Wanted::usual(way);
    let little = Wanted { memory_bytes: machine.sized(LITTLE_MEMORY, LITTLE_MEMORY_REHEARSED), ..usual };
    let scale = machine.sized(if quick { Scale::Usual } else { Scale::Thorough }, Scale::Brief);
    let mut tally = Tally::default();
    // One after the other: a kernel that stays leaves no room for another.
    let stages: [(Wanted, Checks); 2] = [(usual, checks), (little, crowded)];
    for (wanted, checks) in stages {
        let (_folder, store) = store()?;
        let subject = machine.subject(&wanted, &store)?;
        let checks = checks(&subject)?;
        tally.add(&Bench { machine, scale, subject }, checks);
    }
    let Tally { checks, compared, failed, counters } = tally;
    let ok = failed.is_empty();
    let fields =
        json!({ "mode": way.name(), "checks": checks, "failed": failed, "answers": compared, "counters": counters });
    Ok(Report::new(fields, ok))
}

/// What came out.
#[derive(Default)]
struct Tally {
    checks: usize,
    compared: usize,
    failed: Vec<String>,
    /// The backend's, of each engine.
    counters: Vec<Map<String, Value>>,
}

impl Tally {
    fn add(&mut self, bench: &Bench, checks: Vec<Check>) {
        self.checks += checks.len();
        for (name, check) in checks {
            let begun = Instant::now();
            let (answers, difference) = match check(&bench.subject, bench.scale) {
                Ok(answers) => (answers, None),
                Err(difference) => (0, Some(difference.to_string())),
            };
            let seconds = begun.elapsed().as_secs_f64();
            match &difference {
                None => eprintln!("{name}: {answers} answers are equal ({seconds:.1} s)"),
                Some(difference) => eprintln!("{name}: FAILED: {difference}"),
            }
            let told = json!({ "check": name, "answers": answers, "difference": difference, "seconds": seconds });
            say(bench.machine, object(told));
            self.compared += answers;
            self.failed.extend(difference.map(|_| name));
        }
        let counters = bench.subject.engine.counters().into_iter().flat_map(|(_, counters)| counters);
        self.counters.push(counters.map(|(name, value)| (name.to_owned(), value.into())).collect());
    }
}
