//! `megaring bench`: how fast each backend of this machine is, and from where on which one wins.
//!
//! Everything is measured through the engine, each backend forced in turn and all of them in alternation
//! ([`megaring_engine::measure::sampler`]), on generated vectors and texts of which each call takes others. A case says
//! how long one job took of the one who asked: submission, the device, rescoring, the answer. *Resident* finds its
//! corpus where the backend works; *cold* brings it there within the time. The processor uploads nothing, so it has no
//! cold times.
//!
//! What would take too long is left out and said to be; a backend that fails is left out from then on, and the others
//! go on. Files are begun before anything is measured, so that a path that cannot be written is refused before the
//! wait, and appear whole or not at all.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use megaring_core::BackendKind;
use megaring_engine::Engine;
use megaring_harness::crossover::crossovers;
use megaring_harness::record::{Axis, Record};
use megaring_harness::report;

use self::budget::Budget;
use self::files::Draft;
use self::machine::Rig;
use self::search::Block;
use self::session::Session;
use crate::config::Settings;
use crate::console::{Failure, Output};

mod budget;
mod corpora;
mod encode;
mod files;
mod grpc;
mod machine;
mod ring;
mod search;
mod session;
mod summary;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Suite {
    /// Searches over sizes of corpus and batch: where each backend begins to win
    Crossover,
    /// Searches as people ask for them, of corpora that are uploaded and of ones that are not yet
    Search,
    /// Memories to coordinates, in batches of several sizes
    Encode,
    /// A job that does nothing, and the rings alone
    Ring,
    /// Searches over gRPC on loopback
    Grpc,
    /// All of these
    All,
}

impl Suite {
    /// What [`Self::All`] measures before its searches, which can use any amount of time.
    const BRIEF: [Self; 3] = [Self::Ring, Self::Grpc, Self::Encode];

    /// The searches that it has. However they are asked for, their points are those of the suite `search`.
    fn searches(self, quick: bool) -> Vec<Block> {
        match self {
            Self::Crossover => search::crossover(quick),
            Self::Search => search::usual(quick),
            Self::All => search::all(quick),
            Self::Encode | Self::Ring | Self::Grpc => Vec::new(),
        }
    }

    /// Cases that it has for these backends, so many that share the time.
    fn cases(self, quick: bool, kinds: &[BackendKind]) -> usize {
        let others = match self {
            Self::Crossover | Self::Search => 0,
            Self::Encode => encode::BATCHES.len(),
            Self::Ring => ring::CASES,
            Self::Grpc => grpc::BATCHES.len(),
            Self::All => Self::BRIEF.iter().map(|part| part.cases(quick, kinds)).sum(),
        };
        others + search::cells(&self.searches(quick), kinds).count()
    }

    fn run(self, session: &mut Session, quick: bool) -> Result<(), Failure> {
        if self == Self::All {
            Self::BRIEF.iter().try_for_each(|part| part.run(session, quick))?;
        }
        session.begin();
        match self {
            Self::Crossover | Self::Search | Self::All => search::run(session, &self.searches(quick)),
            Self::Encode => encode::run(session)?,
            Self::Ring => ring::run(session)?,
            Self::Grpc => grpc::run(session)?,
        }
        Ok(())
    }
}

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to measure.
    pub suite: Suite,
    /// Fewer sizes.
    pub quick: bool,
    /// About how long it may take.
    pub time_limit: Duration,
    /// Where the record goes as JSON.
    pub json: Option<PathBuf>,
    /// Where the report goes.
    pub html: Option<PathBuf>,
    /// Where the one picture goes that stands for the run, as SVG.
    pub svg: Option<PathBuf>,
}

/// Measures, tells, and writes the files.
///
/// # Errors
/// A file that cannot be written, or a picture of a suite that has none, before anything is measured; an engine that
/// does not start; a closed output.
pub fn run(options: &Options, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    if options.svg.is_some() && options.suite.searches(true).is_empty() {
        return Err(Failure::Usage(
            "the picture shows searches, and this suite has none: bench crossover, search or all".into(),
        ));
    }
    let draft = |path: &Option<PathBuf>| path.as_deref().map(Draft::begin).transpose();
    let (json, html, svg) = (draft(&options.json)?, draft(&options.html)?, draft(&options.svg)?);
    let record = measure(options, Rig::start(settings)?)?;
    summary::print(&record, output)?;
    if let Some(draft) = json {
        let text = serde_json::to_string_pretty(&record).map_err(Failure::work)?;
        draft.finish(&format!("{text}\n"))?;
    }
    if let Some(draft) = html {
        draft.finish(&report::html(&record))?;
    }
    if let Some(draft) = svg {
        let nothing = || Failure::work("no search was measured, so there is nothing to draw");
        draft.finish(&report::svg_latency(&record).ok_or_else(nothing)?)?;
    }
    Ok(())
}

/// Measures the backends of an engine that runs already, and writes nothing.
///
/// # Errors
/// What cannot be begun at all, such as a server on loopback. A backend that fails is none: the record's notes tell of
/// it.
pub fn of_engine(options: &Options, engine: Arc<Engine>) -> Result<Record, Failure> {
    measure(options, Rig::over(engine))
}

fn measure(options: &Options, rig: Rig) -> Result<Record, Failure> {
    let cases = options.suite.cases(options.quick, &rig.kinds());
    let mut session = Session::new(rig, Budget::new(options.time_limit, cases));
    session.measure_peaks();
    options.suite.run(&mut session, options.quick)?;
    let mut record = session.finish();
    let against = BackendKind::Cpu.name();
    record.crossovers = [Axis::Items, Axis::Rows]
        .into_iter()
        .flat_map(|axis| {
            // What is crossed: work that grows; an empty job and a call's way do not.
            let grows = record.points.iter().filter(|point| matches!(&*point.suite, "search" | "encode"));
            crossovers(&grows.cloned().collect::<Vec<_>>(), against, axis)
        })
        .collect();
    Ok(record)
}
