//! Conformance: what every operation is asked on every backend, and what it has to answer by the naive reference.
//!
//! An operation implements [`Cases`] in one file here; one without does not compile where the list is gone through
//! ([`every_operation`]). The same cases are asked of the CPU in each instruction set, of the CUDA kernel's twin, of
//! wgpu, and by `ci/gpu-check` of real GPUs. What each is measured with stands beside them ([`Cases::workloads`]).

use std::fmt::{Debug, Display};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use megaring::Setup;
use megaring_core::corpus::CorpusView;
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_core::matrix::Matrix;
use megaring_core::{Answered, BackendKind, BackendStatus, Opcode, RowType};
use megaring_corpus::{Access, Rows, Store};
use megaring_engine::{Engine, Outcome, Running, Terms};

use crate::{Bench, Failure};

mod bits;
mod checksum;
mod encode;
mod hidden;
mod nearest;
mod nop;
mod prefix;
pub mod residency;
mod score;
pub mod search;

/// An operation's cases.
pub trait Cases: Answered + Clone {
    /// What is compared of an answer: floating-point numbers as their bits.
    type Part: Debug + PartialEq;

    /// Has each case checked.
    ///
    /// # Errors
    /// The first difference, or why a case cannot be made.
    fn cases(check: &mut Check<'_, Self>) -> Result<(), Failure>;

    /// An answer as its parts.
    fn parts(answer: &Self::Answer) -> Vec<Self::Part>;

    /// Whether a part is what the reference says. The same bits, unless the reference's arithmetic is not the same on
    /// every platform.
    fn is(found: &Self::Part, reference: &Self::Part) -> bool {
        found == reference
    }

    /// What it is measured with, by `benches/small.rs`.
    ///
    /// # Errors
    /// The data cannot be made or stored.
    fn workloads(bench: &Bench) -> Result<Vec<Workload<Self>>, Failure>;
}

/// Jobs of one size, each of which asks something else, so that no answer is in a cache.
pub struct Workload<O> {
    /// What it is called beside the operation.
    pub name: String,
    /// What a job has of the thing that its throughput is counted in.
    pub elements: u64,
    /// The job with a number.
    pub job: Box<dyn Fn(usize) -> O>,
}

/// How much is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// A little of everything, within a second.
    Brief,
    /// For a processor that plays a GPU.
    Emulated,
    /// For a processor, and quick on a GPU.
    Usual,
    /// For a GPU.
    Thorough,
}

impl Scale {
    /// What belongs to this scale, of one for each in rising order.
    pub fn of<T>(self, each: [T; 4]) -> T {
        let [brief, emulated, usual, thorough] = each;
        match self {
            Self::Brief => brief,
            Self::Emulated => emulated,
            Self::Usual => usual,
            Self::Thorough => thorough,
        }
    }
}

/// An engine of which one backend is looked at.
pub struct Subject {
    /// The engine.
    pub engine: Arc<Engine>,
    /// Its backend.
    pub backend: BackendKind,
    /// What it is called in failures.
    pub name: String,
    corpora: AtomicUsize,
    _folder: Option<tempfile::TempDir>,
}

impl Subject {
    /// A subject, whose corpora are stored in the engine's store.
    #[must_use]
    pub fn new(engine: Arc<Engine>, backend: BackendKind, name: &str) -> Self {
        Self { engine, backend, name: name.to_owned(), corpora: AtomicUsize::new(0), _folder: None }
    }

    /// A subject over a folder of its own, whose CPU works with one instruction set (`None` for the best) and stands
    /// alone but for `extra`, which may look at the store.
    ///
    /// # Errors
    /// No room for a folder, no threads to be had, or no such instruction set.
    pub fn start(
        backend: BackendKind,
        name: &str,
        isa: Option<&str>,
        extra: impl FnOnce(&Store) -> Vec<Running>,
    ) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let store = Store::open(folder.path(), Access::Exclusive)?;
        let profile = Profile::parse(DEFAULT)?;
        let setup = Setup { isa: isa.map(str::to_owned), cuda: None, wgpu: None, ..Setup::new(profile) };
        let extra = extra(&store);
        let engine = setup.start_with(store, extra)?;
        Ok(Self { _folder: Some(folder), ..Self::new(engine, backend, name) })
    }

    /// Stores a corpus under a name of its own, appended to in parts that end at these rows and at the last.
    ///
    /// # Errors
    /// No room on disk.
    pub fn store(&self, rows: &megaring_datasets::Matrix, cuts: &[usize]) -> Result<Arc<CorpusView>, Failure> {
        self.store_as(rows.dim.into(), rows, cuts)
    }

    fn store_as(
        &self,
        row_type: RowType,
        rows: &megaring_datasets::Matrix,
        cuts: &[usize],
    ) -> Result<Arc<CorpusView>, Failure> {
        let name = self.create(row_type)?;
        let mut corpus = self.engine.store().view(&name)?;
        for end in cuts.iter().copied().chain([rows.rows]).map(|end| end.min(rows.rows)) {
            if end > corpus.rows() {
                corpus = self.append(&name, &rows.values[corpus.rows() * rows.dim..end * rows.dim], None)?;
            }
        }
        Ok(corpus)
    }

    /// Stores rows of so many bits, as words, in segments that end at `cuts`.
    ///
    /// # Errors
    /// No room on disk.
    pub fn store_bits(
        &self,
        bits: usize,
        rows: &megaring_datasets::Matrix,
        cuts: &[usize],
    ) -> Result<Arc<CorpusView>, Failure> {
        self.store_as(RowType::bits(bits), rows, cuts)
    }

    /// Stores points as the coordinates of a corpus.
    ///
    /// # Errors
    /// No room on disk.
    pub fn store_points(&self, columns: [Vec<f64>; 5]) -> Result<Arc<CorpusView>, Failure> {
        let name = self.create(1.into())?;
        self.append(&name, &vec![1.0; columns[0].len()], Some(columns))
    }

    fn create(&self, row_type: RowType) -> Result<String, Failure> {
        let name = format!("c{}", self.corpora.fetch_add(1, Ordering::Relaxed));
        self.engine.store().create(&name, row_type)?;
        Ok(name)
    }

    /// Appends rows to a stored corpus, of which `values` are the elements; its new version.
    ///
    /// # Errors
    /// No such corpus, or no room on disk.
    pub fn append(
        &self,
        name: &str,
        values: &[f32],
        coordinates: Option<[Vec<f64>; 5]>,
    ) -> Result<Arc<CorpusView>, Failure> {
        let store = self.engine.store();
        let view = store.view(name)?;
        let (embeddings, element) = (matrix(view.dim(), values), view.row_type().element);
        let mut appender = store.append(name)?;
        appender.push(Rows { embeddings, element, coordinates, ..Rows::default() })?;
        appender.commit()?;
        Ok(store.view(name)?)
    }

    /// Terms on which this backend alone does a job.
    #[must_use]
    pub fn terms(&self) -> Terms {
        Terms { backend: Some(self.backend), ..Terms::default() }
    }

    /// What this backend makes of a job.
    ///
    /// # Errors
    /// What the engine answers; another backend's work, or an answer that is not exact.
    pub fn run<O: Answered>(&self, job: O) -> Result<Outcome<O::Answer>, Failure> {
        run_on(&self.engine, self.backend, job)
    }

    /// What the backend has counted under a name, where it counts such a thing.
    #[must_use]
    pub fn counted(&self, name: &str) -> Option<u64> {
        let mut counters = self.engine.counters().into_iter().flat_map(|(_, counters)| counters);
        counters.find(|(counted, _)| *counted == name).map(|(_, count)| count)
    }

    /// All cases of an operation; how many answers were compared.
    ///
    /// # Errors
    /// The first difference.
    pub fn check<O: Cases>(&self, scale: Scale) -> Result<usize, Failure> {
        let mut check = Check::new(self, scale);
        O::cases(&mut check)?;
        if check.compared == 0 {
            return Err(format!("{} has no cases that compare anything", O::OPCODE).into());
        }
        Ok(check.compared)
    }

    /// Why the backend does not serve an operation, where it does not.
    ///
    /// # Errors
    /// The backend is not there.
    pub fn refusal(&self, opcode: Opcode) -> Result<Option<String>, Failure> {
        let backends = self.engine.backends();
        match backends.iter().find(|(kind, _)| *kind == self.backend) {
            Some((_, BackendStatus::Available(capabilities))) => Ok(capabilities.operations.refusal(opcode)),
            other => Err(format!("{}: {other:?}", self.name).into()),
        }
    }
}

fn run_on<O: Answered>(engine: &Arc<Engine>, kind: BackendKind, job: O) -> Result<Outcome<O::Answer>, Failure> {
    let outcome = engine.run_blocking(job, Terms { backend: Some(kind), ..Terms::default() })?;
    let made = &outcome.made;
    if made.backend != kind || !made.exact {
        return Err(format!("{} did it, exact: {}", made.backend, made.exact).into());
    }
    Ok(outcome)
}

/// Checks the cases of an operation on a subject.
pub struct Check<'a, O> {
    /// The subject.
    pub subject: &'a Subject,
    /// How much is asked of it.
    pub scale: Scale,
    compared: usize,
    operation: std::marker::PhantomData<O>,
}

impl<'a, O: Cases> Check<'a, O> {
    /// Nothing is checked yet.
    #[must_use]
    pub fn new(subject: &'a Subject, scale: Scale) -> Self {
        Self { subject, scale, compared: 0, operation: std::marker::PhantomData }
    }

    /// Has a job done, and compares the answer with the reference's, and bit for bit with the CPU backend's.
    ///
    /// # Errors
    /// The first difference, with the case's name.
    pub fn case(&mut self, name: impl Display, job: O, reference: &[O::Part]) -> Result<(), Failure> {
        let subject = self.subject;
        let told = |error: &dyn Display| format!("{} on {}: {name}: {error}", O::OPCODE, subject.name);
        let answers = |kind| {
            let outcome = run_on(&subject.engine, kind, job.clone()).map_err(|error| told(&error))?;
            Ok::<_, Failure>(O::parts(&outcome.answer))
        };
        let found = answers(subject.backend)?;
        if let Some(difference) = difference(&found, reference, O::is) {
            return Err(told(&format!("{difference} of the reference")).into());
        }
        if subject.backend != BackendKind::Cpu
            && let Some(difference) = difference(&found, &answers(BackendKind::Cpu)?, |one, other| one == other)
        {
            return Err(told(&format!("{difference} of the CPU backend")).into());
        }
        self.compared += found.len();
        Ok(())
    }
}

/// Where two answers differ first, in words that end with what stands on the other side.
fn difference<T: Debug>(found: &[T], other: &[T], is: impl Fn(&T, &T) -> bool) -> Option<String> {
    if found.len() != other.len() {
        return Some(format!("{} parts, not the {}", found.len(), other.len()));
    }
    let at = found.iter().zip(other).position(|(found, other)| !is(found, other))?;
    Some(format!("part {at}: {} is not the {}", brief(&found[at]), brief(&other[at])))
}

fn brief(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

/// An operation's check, by its name.
pub type Named = (Opcode, fn(&Subject, Scale) -> Result<usize, Failure>);

macro_rules! checks {
    ($($number:literal $module:ident::$operation:ident,)*) => {
        /// The check of every operation on the list.
        pub const CHECKS: [Named; Opcode::COUNT] =
            [$((Opcode::$operation, |subject, scale| subject.check::<megaring_core::$module::$operation>(scale))),*];
    };
}

megaring_core::operations!(checks);

/// Every operation that a subject's backend serves; `skipped` hears of the others. How many answers were compared.
///
/// # Errors
/// The first difference.
pub fn every_operation(subject: &Subject, scale: Scale, mut skipped: impl FnMut(String)) -> Result<usize, Failure> {
    let mut compared = 0;
    for (opcode, check) in CHECKS {
        match subject.refusal(opcode)? {
            None => compared += check(subject, scale)?,
            Some(reason) => skipped(format!("{}: {reason}", subject.name)),
        }
    }
    Ok(compared)
}

/// Rows of `dim` elements.
#[must_use]
pub fn matrix(dim: usize, values: &[f32]) -> Matrix {
    Matrix { rows: values.len() / dim, dim, values: values.to_vec() }
}

#[cfg(test)]
mod tests {
    use megaring_core::encode::{Encode, Encoded, Zone};
    use megaring_core::rescore::{Hit, Ranked};
    use megaring_core::score::Score;
    use megaring_core::search::Search;

    use super::*;

    fn differ<O: Cases>(one: &O::Answer, other: &O::Answer) -> Option<String> {
        difference(&O::parts(one), &O::parts(other), |one, other| one == other)
    }

    #[test]
    fn a_difference_in_one_bit_is_seen() {
        let hits = |row, score| vec![Ranked::default(), Ranked { hits: vec![Hit { row, score }], rescored: 7 }];
        let differs = |one: Vec<Ranked>, other: Vec<Ranked>| differ::<Search>(&one, &other);
        assert_eq!(differs(hits(3, 0.5), hits(3, 0.5)), None);
        assert!(differs(hits(3, 0.5), hits(3, 0.5_f64.next_up())).is_some_and(|text| text.starts_with("part 1:")));
        assert!(differs(hits(3, 0.0), hits(3, -0.0)).is_some());
        assert!(differs(hits(3, 0.5), hits(4, 0.5)).is_some());
        assert!(differs(hits(3, 0.5), Vec::new()).is_some());
        assert_eq!(differ::<Score>(&vec![1.0, f32::NAN], &vec![1.0, f32::NAN]), None);
        assert!(differ::<Score>(&vec![1.0, 0.0], &vec![1.0, -0.0]).is_some());
    }

    #[test]
    fn coordinates_are_the_references_within_its_error_and_the_cpus_bit_for_bit() {
        let encoded = |x| vec![Encoded { mask: 1, coordinates: [x, 0.0, 0.0, 1.0, 0.5], zone: Zone::Core }];
        let parts = |x| Encode::parts(&encoded(x));
        assert_eq!(difference(&parts(0.5), &parts(0.5_f64.next_up()), Encode::is), None);
        assert!(difference(&parts(0.5), &parts(0.5 + 1e-11), Encode::is).is_some());
        assert!(differ::<Encode>(&encoded(0.5), &encoded(0.5_f64.next_up())).is_some());
    }

    #[test]
    fn words_about_a_difference_stay_short() {
        assert_eq!(brief(&[1, 2]), "[1, 2]");
        assert!(brief(&vec![7; 1000]).len() < 220);
    }
}
