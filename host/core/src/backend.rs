//! What a backend is: a consumer of one ring, with capabilities and a state of health. The CPU backend lives in
//! zig-simd; CUDA and wgpu are further consumers of the same slots.

use std::any::Any;
use std::fmt;
use std::str::FromStr;

use crate::corpus::Columns;
use crate::error::Error;
use crate::operation::{Reads, Served};

/// The kinds of hardware that can do the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum BackendKind {
    /// Zig SIMD kernels on this machine's processor. Always there.
    Cpu = 1,
    /// The persistent kernel on an NVIDIA GPU.
    Cuda = 2,
    /// Compute shaders through Vulkan, Metal or DX12.
    Wgpu = 3,
}

impl BackendKind {
    /// Every kind, in the order of preference among equals.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Cuda, Self::Wgpu];

    /// The name used in replies, configuration and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Wgpu => "wgpu",
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BackendKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| format!("unknown backend {name:?}: cpu, cuda and wgpu are known"))
    }
}

/// What a running backend can do.
#[derive(Debug, Clone)]
pub struct Capabilities {
    /// The device as a person knows it, such as the processor's or the adapter's name.
    pub device: String,
    /// Instruction set or device architecture the kernels run on, such as `avx512`.
    pub instruction_set: String,
    /// The driver with its version; empty where there is none.
    pub driver: String,
    /// Threads or resident blocks that share a job.
    pub lanes: usize,
    /// Operations served, and why not the others.
    pub operations: Served,
    /// Largest number of queries in one slot; a larger batch is split before it is submitted.
    pub max_queries: usize,
    /// Payload and result of a slot of several items take an eighth of these bytes together, at most.
    pub max_bytes: usize,
    /// Payload and result of a slot of one item take these bytes together, at most.
    pub max_item_bytes: usize,
    /// A program on the processor stands in for the device. The CPU backend is faster, so this one works only for those
    /// who ask for it.
    pub emulated: bool,
}

/// Whether a backend can be used now, and if not, why and what would help.
#[derive(Debug, Clone)]
pub enum BackendStatus {
    /// Running.
    Available(Capabilities),
    /// Not usable.
    Unavailable {
        /// Plain words, such as "this build has no CUDA backend".
        reason: String,
    },
}

/// What [`Backend::prepare`] brought for a job.
#[derive(Default)]
pub struct Residency {
    /// Keeps it where the backend finds it for as long as this lives; `None` where nothing had to be brought.
    pub guard: Option<Box<dyn Any + Send + Sync>>,
    /// Whether it is the job's corpus as a whole, so that slots may name rows of it in the place of their values.
    pub finds_rows: bool,
}

/// What a backend would have to bring to its device before a job's slots can be worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lacking {
    /// Bytes that are not there; 0 where all is.
    pub bytes: u64,
    /// They stay, for the jobs that come after; otherwise they are streamed through, and each job brings them anew.
    pub stays: bool,
}

/// A running consumer of a ring.
pub trait Backend: Send + Sync {
    /// Which kind of hardware does the work.
    fn kind(&self) -> BackendKind;

    /// What it can do. Fixed while it runs.
    fn capabilities(&self) -> &Capabilities;

    /// Brings what a job reads to where the backend works, such as a corpus into a device's memory, and keeps it there
    /// until the answer is dropped. Called before the first slot of a job is submitted; may block for as long as an
    /// upload takes where the job reads a corpus, and never where it does not.
    ///
    /// A caller that goes away drops the answer while its slots are still in the ring. A backend that frees memory
    /// therefore waits for those slots to be settled, and does not take the drop for their end.
    ///
    /// # Errors
    /// [`Error::BackendUnavailable`] where this backend cannot do the job, [`Error::Exhausted`] where it cannot now:
    /// another one may. Anything else is the job's answer.
    fn prepare(&self, reads: Option<Reads<'_>>) -> Result<Residency, Error> {
        let _ = reads;
        Ok(Residency::default())
    }

    /// What [`Self::prepare`] would have to bring now: the router weighs it. Quick, and may be outdated as soon as it
    /// is told.
    fn lacking(&self, reads: Reads<'_>) -> Lacking {
        let _ = reads;
        Lacking::default()
    }

    /// Bytes that it would have to bring of a corpus that it has nothing of.
    fn upload_bytes(&self, columns: Columns, rows: u64, dim: u64) -> u64 {
        let _ = (columns, rows, dim);
        0
    }

    /// What lets a thread that waits for an answer take part in the work. `None` where it would be of no use, as with a
    /// device.
    fn helper(&self) -> Option<&dyn Helper> {
        None
    }

    /// Whether it works. It does not recover: once it fails it is out of service until the process is started again.
    ///
    /// # Errors
    /// The reason, in plain words.
    fn health(&self) -> Result<(), String> {
        Ok(())
    }

    /// What it has counted since its start beside what the ring counts, by name, such as `evictions`.
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Stops consuming: jobs already taken are finished, then the workers end. Blocks until they have.
    fn shutdown(&self);
}

/// A backend's side of a thread that waits: see [`Backend::helper`].
pub trait Helper: Sync {
    /// Does what nobody has begun with of the job that `ticket` is for. Whatever else it finds in the ring it leaves to
    /// the backend's own threads, which it wakes where they do not know of it. Returns at once where there is nothing
    /// to do.
    fn help(&self, ticket: u64);

    /// Whether there is a part of the job that nobody has begun with. Quick, and may be outdated as soon as it is told.
    fn can_help(&self, ticket: u64) -> bool;
}
