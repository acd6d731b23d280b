//! Every operation on the device, through the whole engine, equal to the naive reference in ids, order and scores, and
//! equal to the CPU backend in every bit.
//!
//! A check that fails does not stop those behind it; each is reported on a line of its own.

use std::sync::Arc;
use std::time::Instant;

use megaring_bench::Failure;
use megaring_bench::any::{Answer, Job};
use megaring_core::{BackendKind, Metric};
use megaring_corpus::Store;
use megaring_datasets::reference;
use serde_json::{Map, Value, json};

use crate::machine::{Machine, Rig, Wanted, Way, run_on, store};
use crate::{Done, Report, object, say};

mod other;
mod search;

pub(crate) use self::other::encode_job;

/// What the checks share.
pub(crate) struct Bench {
    machine: Machine,
    quick: bool,
    store: Arc<Store>,
    rig: Rig,
}

/// A check: how many answers were compared, or the first difference.
type Check = fn(&Bench) -> Result<usize, Failure>;

/// With as much device memory as the backend likes.
const CHECKS: [(&str, Check); 13] = [
    ("nop", other::nop),
    ("search, the real sample", search::sample),
    ("search, sizes", search::sizes),
    ("search, dimensions", search::dimensions),
    ("search, rows that break careless code", search::poisoned),
    ("search, thresholds", search::thresholds),
    ("search, 5,562 rows against themselves", search::itself),
    ("search, a corpus that grows", search::appended),
    ("score", other::score),
    ("encode, golden file", other::golden_masks),
    ("encode, generated memories", other::memories),
    ("nearest", other::nearest),
    ("bad jobs", other::bad_jobs),
];

/// With little of it.
const CROWDED: [(&str, Check); 1] = [("search, corpora that do not fit", search::crowded)];

/// Runs all checks.
pub(crate) fn run(machine: Machine, way: Way, quick: bool) -> Done {
    let usual = Wanted::usual(way);
    let little =
        Wanted { memory_bytes: machine.sized(search::LITTLE_MEMORY, search::LITTLE_MEMORY_REHEARSED), ..usual };
    let mut tally = Tally::default();
    // One after the other: a kernel that stays leaves no room for another.
    for (wanted, checks) in [(usual, &CHECKS[..]), (little, &CROWDED[..])] {
        let (_folder, store) = store()?;
        let rig = machine.engine(&wanted, &store)?;
        tally.add(&Bench { machine, quick, store, rig }, checks);
    }
    let Tally { compared, failed, counters } = tally;
    let ok = failed.is_empty();
    let checks = CHECKS.len() + CROWDED.len();
    let fields =
        json!({ "mode": way.name(), "checks": checks, "failed": failed, "answers": compared, "counters": counters });
    Ok(Report::new(fields, ok))
}

/// What came out.
#[derive(Default)]
struct Tally {
    compared: usize,
    failed: Vec<&'static str>,
    /// The backend's, of each engine.
    counters: Vec<Map<String, Value>>,
}

impl Tally {
    fn add(&mut self, bench: &Bench, checks: &[(&'static str, Check)]) {
        for (name, check) in checks {
            let begun = Instant::now();
            let (answers, difference) = match check(bench) {
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
            self.failed.extend(difference.map(|_| *name));
        }
        let counters = bench.rig.engine.counters().into_iter().flat_map(|(_, counters)| counters);
        self.counters.push(counters.map(|(name, value)| (name.to_owned(), value.into())).collect());
    }
}

impl Bench {
    /// The size for a thorough check, a quick one, or a rehearsal.
    fn sized<T>(&self, thorough: T, quick: T, rehearsed: T) -> T {
        if self.machine.rehearsal {
            rehearsed
        } else if self.quick {
            quick
        } else {
            thorough
        }
    }

    /// What the device answers, after seeing that the CPU answers the same bits.
    fn agreed(&self, job: Job) -> Result<Answer, Failure> {
        agreed(&self.rig, job)
    }
}

/// What the device answers, after seeing that the CPU answers the same bits.
pub(crate) fn agreed(rig: &Rig, job: Job) -> Result<Answer, Failure> {
    let device = rig.answer(job.clone()).map_err(|error| format!("{}: {error}", rig.kind))?;
    let cpu = run_on(&rig.engine, BackendKind::Cpu, job).map_err(|error| format!("cpu: {error}"))?.answer;
    match difference(&device, &cpu) {
        None => Ok(device),
        Some(difference) => Err(format!("{difference} of the CPU backend").into()),
    }
}

/// The first difference in a bit, in words that end with what stands on the other side.
fn difference(device: &Answer, other: &Answer) -> Option<String> {
    match (device, other) {
        (Answer::Nop(()), Answer::Nop(())) => None,
        (Answer::Search(a), Answer::Search(b)) => {
            let hits =
                |all: &[megaring_core::rescore::Ranked]| all.iter().map(|r| bits_of(&r.hits)).collect::<Vec<_>>();
            first("query", &hits(a), &hits(b))
        }
        (Answer::Score(a), Answer::Score(b)) => {
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            first("score", &bits(a), &bits(b))
        }
        (Answer::Encode(a), Answer::Encode(b)) => {
            let bits = |all: &[megaring_core::encode::Encoded]| {
                all.iter().map(|e| (e.mask, e.zone as u8, e.coordinates.map(f64::to_bits))).collect::<Vec<_>>()
            };
            first("memory", &bits(a), &bits(b))
        }
        (Answer::Nearest(a), Answer::Nearest(b)) => {
            let bits = |all: &[Vec<megaring_core::nearest::Neighbour>]| {
                all.iter().map(|f| f.iter().map(|n| (n.row, n.distance.to_bits())).collect()).collect::<Vec<Vec<_>>>()
            };
            first("query", &bits(a), &bits(b))
        }
        _ => Some("the answer is not of the kind".into()),
    }
}

/// Rows and the bits of their scores.
fn bits_of(hits: &[megaring_core::rescore::Hit]) -> Vec<(u32, u64)> {
    hits.iter().map(|hit| (hit.row, hit.score.to_bits())).collect()
}

/// Where two lists differ first.
fn first<T: PartialEq + std::fmt::Debug>(what: &str, device: &[T], other: &[T]) -> Option<String> {
    if device.len() != other.len() {
        return Some(format!("{} answers by {what}, not the {}", device.len(), other.len()));
    }
    let (at, (a, b)) = device.iter().zip(other).enumerate().find(|(_, (a, b))| a != b)?;
    Some(format!("{what} {at}: {} is not the {}", brief(a), brief(b)))
}

fn brief(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

/// The reference's name of a metric.
fn by_reference(metric: Metric) -> reference::Metric {
    match metric {
        Metric::Cosine => reference::Metric::Cosine,
        Metric::Dot => reference::Metric::Dot,
        Metric::L2 => reference::Metric::L2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use megaring_core::nearest::Neighbour;
    use megaring_core::rescore::{Hit, Ranked};

    fn hits(row: u32, score: f64) -> Answer {
        Answer::Search(vec![Ranked::default(), Ranked { hits: vec![Hit { row, score }], rescored: 7 }])
    }

    #[test]
    fn a_difference_in_one_bit_is_seen() {
        let last = f64::from_bits(0.5_f64.to_bits() + 1);
        assert_eq!(difference(&hits(3, 0.5), &hits(3, 0.5)), None);
        assert!(difference(&hits(3, 0.5), &hits(3, last)).is_some_and(|text| text.starts_with("query 1:")));
        assert!(difference(&hits(3, 0.0), &hits(3, -0.0)).is_some());
        assert!(difference(&hits(3, 0.5), &hits(4, 0.5)).is_some());
        assert!(difference(&hits(3, 0.5), &Answer::Search(Vec::new())).is_some());
        assert!(difference(&hits(3, 0.5), &Answer::Nop(())).is_some());
        let scores = |value| Answer::Score(vec![1.0, value]);
        assert_eq!(difference(&scores(f32::NAN), &scores(f32::NAN)), None);
        assert!(difference(&scores(0.0), &scores(-0.0)).is_some_and(|text| text.starts_with("score 1:")));
        assert!(difference(&scores(0.0), &Answer::Score(vec![1.0])).is_some());
        let near = |distance| Answer::Nearest(vec![vec![Neighbour { row: 0, distance }]]);
        assert_eq!(difference(&near(1.0), &near(1.0)), None);
        assert!(difference(&near(1.0), &near(1.0_f64.next_up())).is_some());
    }

    #[test]
    fn words_about_a_difference_stay_short() {
        assert_eq!(brief(&[1, 2]), "[1, 2]");
        assert!(brief(&vec![7; 1000]).len() < 220);
    }
}
