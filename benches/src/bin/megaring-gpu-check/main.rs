//! What `ci/gpu-check` runs on a machine with an NVIDIA GPU: checks of the backends that can use it, CUDA and wgpu, and
//! measurements of them, in one program that needs nothing built there.
//!
//! Each subcommand writes JSON to its standard output, one object a line, and words for people to its standard error.
//! The last line tells how it went (`"ok"`), and so does the exit status: 0, or 1 where a check failed or could not be
//! made. With `--rehearse` the kernel's twin on the CPU stands in for the GPU (for wgpu any adapter, software too),
//! everything is tiny, and every object says `"rehearsal": true`: such figures measure nothing.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use megaring_bench::Failure;
use megaring_cuda::CudaMode;
use serde_json::{Map, Value, json};

use crate::machine::{Machine, Way};

mod conformance;
mod corpora;
mod cycles;
mod hold;
mod machine;
mod measure;
mod small;
mod stats;
mod torture;

#[derive(Parser)]
#[command(about = "Checks and measures megaring's backends on a GPU; ci/gpu-check runs it", long_about = None)]
struct Arguments {
    /// Try everything on the kernel's twin on the CPU, with tiny sizes
    #[arg(long, global = true)]
    rehearse: bool,
    /// Number of the GPU
    #[arg(long, global = true, default_value_t = 0)]
    device: usize,
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Says what this program was built from
    Version,
    /// Says which adapters wgpu shows
    Adapters,
    /// Compares every operation with the naive reference and with the CPU backend
    Conformance {
        /// How the GPU is brought to work: persistent, launch or graph (by CUDA), or wgpu
        #[arg(long, default_value_t = Way::Cuda(CudaMode::Persistent))]
        mode: Way,
        /// Fewer sizes
        #[arg(long)]
        quick: bool,
    },
    /// Sends mixed jobs from many threads through a tiny ring and checks every answer
    Torture {
        /// Jobs in all
        #[arg(long, default_value_t = 10_000_000)]
        slots: u64,
        /// Threads that send
        #[arg(long, default_value_t = 8)]
        threads: usize,
        /// How the kernel is brought to work
        #[arg(long, default_value_t = CudaMode::Persistent)]
        mode: CudaMode,
        /// What the jobs are drawn from
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Starts the backend, does a few jobs and stops it, again and again, in all modes in turn
    Cycles {
        /// How often
        #[arg(default_value_t = 200)]
        count: usize,
        /// Waits for a line on the standard input after the third cycle and after the last, so that others can look at
        /// this process
        #[arg(long)]
        checkpoints: bool,
    },
    /// Searches from many threads until it is killed; says when it is under load
    Hold,
    /// A little of everything: for compute-sanitizer, and for a first look
    Small {
        /// How the GPU is brought to work: persistent, launch or graph (by CUDA), or wgpu
        #[arg(long, default_value_t = Way::Cuda(CudaMode::Launch))]
        mode: Way,
    },
    /// Measures what lines on the standard input ask for, such as {"case": "nop", "mode": "persistent", "path": "ring",
    /// "repeat": 1000}
    Measure,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let machine = Machine { rehearsal: arguments.rehearse, device: arguments.device };
    let done = match arguments.task {
        Task::Version => Ok(version()),
        Task::Adapters => Ok(adapters()),
        Task::Conformance { mode, quick } => conformance::run(machine, mode, quick),
        Task::Torture { slots, threads, mode, seed } => {
            torture::run(machine, mode, &torture::Plan { slots, threads, seed })
        }
        Task::Cycles { count, checkpoints } => cycles::run(machine, count, checkpoints),
        Task::Hold => hold::run(machine),
        Task::Small { mode } => small::run(machine, mode),
        Task::Measure => measure::run(machine),
    };
    let (mut last, ok) = match done {
        Ok(Report { fields, ok }) => (fields, ok),
        Err(error) => {
            eprintln!("megaring-gpu-check: {error}");
            (object(json!({ "error": error.to_string() })), false)
        }
    };
    last.insert("ok".into(), ok.into());
    say(machine, last);
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a subcommand found.
pub(crate) struct Report {
    fields: Map<String, Value>,
    ok: bool,
}

impl Report {
    /// Of an object with all there is to say.
    pub(crate) fn new(fields: Value, ok: bool) -> Self {
        Self { fields: object(fields), ok }
    }
}

/// Answer of a subcommand.
pub(crate) type Done = Result<Report, Failure>;

/// Writes one object as a line. Whoever no longer reads it is not written for.
pub(crate) fn say(machine: Machine, mut fields: Map<String, Value>) {
    use std::io::Write as _;
    fields.insert("rehearsal".into(), machine.rehearsal.into());
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{}", Value::Object(fields)).and_then(|()| out.flush());
    if written.is_err() {
        std::process::exit(1);
    }
}

/// The members of a JSON object; those of anything else are none.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// Where there is no Vulkan at all, there are none.
fn adapters() -> Report {
    let told = megaring_wgpu::adapters().into_iter().map(|adapter| {
        json!({
            "name": adapter.name, "api": adapter.api, "kind": adapter.kind, "software": adapter.software, "driver": adapter.driver,
            "limits": adapter.limits, "features": adapter.features, "lacks": adapter.lacks,
        })
    });
    Report::new(json!({ "adapters": told.collect::<Vec<_>>() }), true)
}

fn version() -> Report {
    let commit = option_env!("MEGARING_COMMIT").filter(|commit| !commit.is_empty());
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let fields = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": commit,
        "profile": profile,
        "can_rehearse": cfg!(feature = "rehearsal"),
    });
    Report::new(fields, true)
}
