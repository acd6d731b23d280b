//! Measures what is asked for on the standard input, a line each, so that whoever asks can let other programs have the
//! device in between.
//!
//! `{"case": "query-1", "mode": "persistent", "path": "ring", "repeat": 200}` is answered by one object with summaries
//! in nanoseconds. `{"stop": true}` ends the backend that runs, as another mode or path does; so does the end of the
//! input. Data is made once, when it is first needed, and each repetition asks with other queries.
//!
//! Paths:
//! - `ring`: one thread, the ring and the backend alone. `seen` is from before the payload is written (`nop`: from
//!   before publishing; `encode`: from publishing, the text lying in the ring's memory) until the completions were seen
//!   by a thread that spins; `exact` is until the exact answer was made from them; `device` is what the device says it
//!   took, summed over slots.
//! - `engine`: `exact` is all of `Engine::run_blocking`; `device` and `rescore` are the engine's own account. Mode
//!   `cpu` is the CPU backend.
//!
//! Mode `wgpu` is the wgpu backend, which takes its slots from a ring as well; the other modes are CUDA's.

use std::io::BufRead as _;
use std::sync::Arc;

use megaring::Setup;
use megaring_bench::Failure;
use megaring_bench::cases::Subject;
use megaring_core::{Backend, BackendKind};
use megaring_corpus::Store;
use megaring_ring::JobRing;
use serde::Deserialize;
use serde_json::{Value, json};

use self::cases::{Case, Data};
use crate::machine::{Machine, Wanted, Way, profile, store};
use crate::{Done, Report, object, say};

mod cases;
mod engine_path;
mod ring_path;

/// One line of the input.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(default)]
    stop: bool,
    #[serde(default)]
    case: String,
    #[serde(default)]
    mode: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    repeat: usize,
}

/// What runs now.
enum Session {
    Ring { backend: Box<dyn Backend>, ring: Arc<JobRing> },
    Engine(Subject),
}

struct Measurer {
    machine: Machine,
    store: Arc<Store>,
    data: Data,
    /// Mode and path, and what runs for them.
    session: Option<((String, String), Session)>,
}

pub(crate) fn run(machine: Machine) -> Done {
    let (_folder, store) = store()?;
    let data = Data::new(machine, store.table().clone());
    let mut measurer = Measurer { machine, store, data, session: None };
    let mut measured = 0;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let request: Request = serde_json::from_str(&line)?;
        if request.stop {
            measurer.session = None;
            say(machine, object(json!({ "stopped": true })));
            continue;
        }
        let told =
            json!({ "case": request.case, "mode": request.mode, "path": request.path, "repeat": request.repeat });
        let mut told = object(told);
        match measurer.measure(&request) {
            Ok(summaries) => told.extend(object(summaries)),
            Err(error) => {
                measurer.session = None;
                told.extend(object(json!({ "error": error.to_string() })));
            }
        }
        measured += 1;
        say(machine, told);
    }
    Ok(Report::new(json!({ "measured": measured }), true))
}

impl Measurer {
    fn measure(&mut self, request: &Request) -> Result<Value, Failure> {
        let case: Case = request.case.parse()?;
        let wanted = (request.mode.clone(), request.path.clone());
        if self.session.as_ref().is_none_or(|(running, _)| *running != wanted) {
            // The one before makes room first.
            self.session = None;
            self.session = Some((wanted, self.start(request)?));
        }
        let Some((_, session)) = &self.session else { return Err("nothing runs".into()) };
        let repeat = self.machine.sized(request.repeat, request.repeat.min(3)).max(1);
        match session {
            Session::Ring { backend, ring } => ring_path::measure(case, repeat, &**backend, ring, &mut self.data),
            Session::Engine(subject) => engine_path::measure(case, repeat, subject, &mut self.data),
        }
    }

    fn start(&self, request: &Request) -> Result<Session, Failure> {
        match (request.mode.as_str(), request.path.as_str()) {
            ("cpu", "engine") => {
                let config = Setup { cuda: None, wgpu: None, ..Setup::new(profile()?) };
                let engine = config.start(self.store.clone())?;
                Ok(Session::Engine(Subject::new(engine, BackendKind::Cpu, "cpu")))
            }
            (way, "engine") => {
                Ok(Session::Engine(self.machine.subject(&Wanted::usual(way.parse::<Way>()?), &self.store)?))
            }
            (way, "ring") => {
                let (backend, ring) = self.machine.start(&Wanted::spinning(way.parse::<Way>()?), self.store.table())?;
                Ok(Session::Ring { backend, ring })
            }
            (_, path) => Err(format!("unknown path {path:?}: ring and engine are known").into()),
        }
    }
}

impl Drop for Session {
    /// A ring outlives its consumer nowhere else; here it must end before the next backend begins.
    fn drop(&mut self) {
        if let Self::Ring { backend, .. } = self {
            backend.shutdown();
        }
    }
}
