//! `megaring bench`: how fast each backend of this machine is, and from where on which one wins.
//!
//! Everything is measured through the engine, each backend forced in turn and all of them in alternation
//! ([`megaring_harness::sampler`]), on generated vectors and texts of which each call takes others. A case says how long one job took of the
//! one who asked: submission, the device, rescoring, the answer. *Resident* finds its corpus where the backend works; *cold* brings it there
//! within the time. The processor uploads nothing, so it has no cold times.
//!
//! What would take too long is left out and said to be; a backend that fails is left out from then on, and the others go on. Files are
//! begun before anything is measured, so that a path that cannot be written is refused before the wait, and appear whole or not at all.

use std::path::PathBuf;
use std::time::Duration;

use megaring_core::BackendKind;
use megaring_harness::crossover::crossovers;
use megaring_harness::record::{Axis, Record};
use megaring_harness::report;

use self::budget::Budget;
use self::files::Draft;
use self::machine::Rig;
use self::session::Session;
use crate::cli::{Failure, Output};
use crate::config::Settings;

mod budget;
mod corpora;
mod encode;
mod files;
mod grpc;
mod machine;
mod ring;
mod search;
mod session;
mod told;

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
    /// The suites that this one stands for.
    fn parts(self) -> &'static [Self] {
        // Crossover, which can use any amount of time, comes last.
        const ALL: [Suite; 5] = [Suite::Ring, Suite::Grpc, Suite::Encode, Suite::Search, Suite::Crossover];
        match self {
            Self::Ring => &ALL[..1],
            Self::Grpc => &ALL[1..2],
            Self::Encode => &ALL[2..3],
            Self::Search => &ALL[3..4],
            Self::Crossover => &ALL[4..],
            Self::All => &ALL,
        }
    }

    /// Cases that it has for these backends, so many that share the time.
    fn cases(self, quick: bool, kinds: &[BackendKind]) -> usize {
        match self {
            Self::Crossover => search::cells(&search::crossover(quick), kinds).count(),
            Self::Search => search::cells(&search::usual(quick), kinds).count(),
            Self::Encode => encode::BATCHES.len(),
            Self::Ring => ring::CASES,
            Self::Grpc => grpc::BATCHES.len(),
            Self::All => self.parts().iter().map(|part| part.cases(quick, kinds)).sum(),
        }
    }

    fn run(self, session: &mut Session, quick: bool) -> Result<(), Failure> {
        session.begin();
        match self {
            Self::Crossover => search::run(session, "crossover", &search::crossover(quick)),
            Self::Search => search::run(session, "search", &search::usual(quick)),
            Self::Encode => encode::run(session)?,
            Self::Ring => ring::run(session)?,
            Self::Grpc => grpc::run(session)?,
            Self::All => self.parts().iter().try_for_each(|part| part.run(session, quick))?,
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
}

/// Measures, tells, and writes the files.
///
/// # Errors
/// A file that cannot be written, before anything is measured; an engine that does not start; a closed output.
pub fn run(options: &Options, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    let draft = |path: &Option<PathBuf>| path.as_deref().map(Draft::begin).transpose();
    let (json, html) = (draft(&options.json)?, draft(&options.html)?);
    let record = measure(options, settings)?;
    told::tell(&record, output)?;
    if let Some(draft) = json {
        let text = serde_json::to_string_pretty(&record).map_err(Failure::work)?;
        draft.finish(&format!("{text}\n"))?;
    }
    if let Some(draft) = html {
        draft.finish(&report::html(&record))?;
    }
    Ok(())
}

fn measure(options: &Options, settings: &Settings) -> Result<Record, Failure> {
    let rig = Rig::start(settings)?;
    let cases = options.suite.cases(options.quick, &rig.kinds());
    let mut session = Session::new(rig, Budget::new(options.time_limit, cases));
    session.measure_peaks(settings);
    options.suite.run(&mut session, options.quick)?;
    let mut record = session.finish();
    let against = BackendKind::Cpu.name();
    record.crossovers = [Axis::Items, Axis::Rows]
        .into_iter()
        .flat_map(|axis| {
            // What is crossed: work that grows; an empty job and a call's way do not.
            let grows = record.points.iter().filter(|point| matches!(&*point.suite, "crossover" | "search" | "encode"));
            crossovers(&grows.cloned().collect::<Vec<_>>(), against, axis)
        })
        .collect();
    Ok(record)
}
