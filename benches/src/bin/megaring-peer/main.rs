//! megaring's side of `cargo xtask bench peers`: does what lines on the standard input ask for and times its own calls,
//! so that whoever asks can let other programs have the processors in between.
//!
//! Each line is a JSON object whose member `do` names the work, and is answered by one object on a line; where the work
//! could not be done, the answer has `error` alone, and the next line is read. Times are in microseconds, one for each
//! repetition. Searches are from the validated job to the exact answer, in process; encoding is of the whole text of a
//! set. The CPU backend alone is used unless `--gpu` is given.

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use megaring::{CudaConfig, Setup, WgpuConfig};
use megaring_bench::Failure;
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_corpus::{Access, Store};
use megaring_engine::Engine;
use serde::Deserialize;
use serde_json::{Value, json};

mod search;
mod texts;

#[derive(Parser)]
#[command(about = "megaring's side of `cargo xtask bench peers`, asked in lines of JSON", long_about = None)]
struct Arguments {
    /// Where corpora are stored while this runs
    #[arg(long)]
    folder: PathBuf,
    /// Use the GPU, too, where there is one
    #[arg(long)]
    gpu: bool,
}

/// One line of the input.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
enum Request {
    /// Writes rows and queries of one kind as .npy files.
    Make(search::Make),
    /// Stores such files' rows as a corpus and keeps the queries.
    Load { rows: PathBuf, queries: PathBuf },
    /// Searches the corpus.
    Search(search::Ask),
    /// Searches the corpus for its own rows, which are the queries.
    Join(search::Ask),
    /// Scores pairs of a query and a row by the naive reference.
    Scores { pairs: Vec<(usize, usize)> },
    /// Makes sets of memories, keeps them and writes their texts.
    Memories { sets: u64, count: usize, folder: PathBuf },
    /// Finds the keywords of a set.
    Masks(texts::Ask),
}

/// All that is kept between lines.
struct Peer {
    engine: Arc<Engine>,
    search: Option<search::Loaded>,
    texts: Option<texts::Loaded>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("megaring-peer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    // Removed at the end; the store must not outlive it.
    let folder = tempfile::tempdir_in(&arguments.folder)?;
    let mut peer = Peer { engine: engine(folder.path(), arguments.gpu)?, search: None, texts: None };
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let answer = match serde_json::from_str(&line) {
            Ok(request) => peer.answer(request),
            Err(error) => Err(error.into()),
        };
        let answer = answer.unwrap_or_else(|error| json!({ "error": error.to_string() }));
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}").and_then(|()| out.flush())?;
    }
    Ok(())
}

fn engine(folder: &Path, gpu: bool) -> Result<Arc<Engine>, Failure> {
    let config = Setup {
        cuda: gpu.then(CudaConfig::default),
        wgpu: gpu.then(WgpuConfig::default),
        ..Setup::new(Profile::parse(DEFAULT)?)
    };
    Ok(config.start(Store::open(folder, Access::Exclusive)?)?)
}

impl Peer {
    fn answer(&mut self, request: Request) -> Result<Value, Failure> {
        match request {
            Request::Make(make) => make.write(),
            Request::Load { rows, queries } => {
                // The corpus before makes room first.
                self.search = None;
                let loaded = search::Loaded::new(&self.engine, &rows, &queries)?;
                let told = json!({ "rows": loaded.rows(), "version": version(), "threads": threads() });
                self.search = Some(loaded);
                Ok(told)
            }
            Request::Search(ask) => self.search.as_ref().ok_or("nothing is loaded")?.search(&self.engine, &ask),
            Request::Join(ask) => self.search.as_ref().ok_or("nothing is loaded")?.join(&self.engine, &ask),
            Request::Scores { pairs } => self.search.as_ref().ok_or("nothing is loaded")?.scores(&pairs),
            Request::Memories { sets, count, folder } => {
                let loaded = texts::Loaded::new(sets, count, &folder)?;
                let mut told = loaded.about();
                told["version"] = version().into();
                told["threads"] = threads().into();
                self.texts = Some(loaded);
                Ok(told)
            }
            Request::Masks(ask) => self.texts.as_ref().ok_or("there are no memories")?.masks(&self.engine, &ask),
        }
    }
}

fn version() -> &'static str {
    concat!("megaring ", env!("CARGO_PKG_VERSION"))
}

/// Processors that this process may use: as many workers has the CPU backend, and threads the other side.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Microseconds since then.
fn micros(begun: Instant) -> f64 {
    begun.elapsed().as_nanos() as f64 / 1e3
}
