//! What a run of `megaring bench` measured, as it is written to JSON and drawn. Times are nanoseconds unless a name
//! says otherwise.

pub use megaring_engine::measure::stats::Times;
use serde::{Deserialize, Serialize};

/// Raised when a field changes its meaning.
pub const SCHEMA: u32 = 1;

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Where and when.
    pub machine: Machine,
    /// The backends that were measured.
    pub backends: Vec<Device>,
    /// What each backend can do at most, as measured in this run.
    pub peaks: Vec<Peak>,
    /// All measurements.
    pub points: Vec<Point>,
    /// Where a backend begins to win.
    pub crossovers: Vec<Crossover>,
    /// What a reader should know, such as a backend that is missing and why.
    pub notes: Vec<String>,
}

/// Where and when a run was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Threads that this process may use.
    pub threads: usize,
    /// Operating system and architecture, such as `linux x86_64`.
    pub system: String,
    /// Bytes of main memory, where the system tells.
    pub memory_bytes: Option<u64>,
    /// Version of megaring, and the commit where the build knew it.
    pub version: String,
    /// The command that gives this again.
    pub command: String,
    /// Seconds since 1970 at the start.
    pub started_unix_s: u64,
    /// Seconds that the run took.
    pub took_s: f64,
}

/// A backend that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// `cpu`, `cuda` or `wgpu`.
    pub backend: String,
    /// The device as a person knows it.
    pub device: String,
    /// Instruction set or architecture.
    pub instruction_set: String,
    /// A program on the processor stands in for the device.
    pub emulated: bool,
}

/// What a backend can do at most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peak {
    /// The backend.
    pub backend: String,
    /// Multiply-adds of int8 numbers a second, where it was measured.
    pub multiply_adds_per_s: Option<f64>,
    /// Bytes read from memory a second, where it was measured.
    pub bytes_per_s: Option<f64>,
    /// How it was measured, in a few words.
    pub how: String,
}

/// Whether what a job reads lies where the backend works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Residence {
    /// It does.
    Resident,
    /// It is uploaded within the time that is told.
    Cold,
}

/// Sizes of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sizes {
    /// Rows searched; 0 where there is no corpus.
    pub rows: u64,
    /// Elements of a row.
    pub dim: u64,
    /// Answers wanted of each query.
    pub k: u64,
    /// Queries or memories in the batch.
    pub items: u64,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// What was asked for: `search`, `encode`, `ring` or `grpc`.
    pub suite: String,
    /// What was done, in a few words, such as `search` or `empty job`.
    pub case: String,
    /// The backend.
    pub backend: String,
    /// Where the corpus lay.
    pub residence: Residence,
    /// Sizes of the job.
    pub sizes: Sizes,
    /// The times.
    pub times: Times,
    /// Multiply-adds of one job by its definition; 0 where it has none.
    pub multiply_adds: f64,
    /// Bytes that one job has to read at least.
    pub bytes: f64,
}

/// From where on a backend always wins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Crossover {
    /// What was done: the `case` of the points.
    pub case: String,
    /// Where the corpus lay.
    pub residence: Residence,
    /// The backend that may win.
    pub backend: String,
    /// The one that it stands beside: `cpu`.
    pub against: String,
    /// What grows.
    pub axis: Axis,
    /// The sizes that stay; the one that grows is 0.
    pub at: Sizes,
    /// The smallest measured value of the axis from which on the backend always wins; none where it never does.
    pub from: Option<u64>,
    /// The largest value measured.
    pub up_to: u64,
}

/// The size that grows along a crossover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Axis {
    /// The batch: [`Sizes::items`].
    Items,
    /// The corpus: [`Sizes::rows`].
    Rows,
}
