//! What benches and conformance tests share: an engine over stored, mapped corpora, as the service has it, and the
//! cases of every operation.

use std::sync::Arc;

use megaring::Setup;
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_core::encode::{Encode, Features};
use megaring_core::matrix::Matrix;
use megaring_core::texts::Texts;
use megaring_corpus::{Access, Rows, Store};
use megaring_datasets::{Embeddings, reference};
use megaring_engine::Engine;

pub mod any;
pub mod cases;

/// An engine whose corpora last as long as it.
pub struct Bench {
    /// The engine, with the defaults of the service.
    pub engine: Arc<Engine>,
    _folder: tempfile::TempDir,
}

/// Errors of setting up; benches stop at the first.
pub type Failure = Box<dyn std::error::Error>;

impl Bench {
    /// An engine over a new, empty folder.
    ///
    /// # Errors
    /// No room for a folder, or no threads to be had.
    pub fn new() -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let store = Store::open(folder.path(), Access::Exclusive)?;
        // Its figures are the CPU's, also where there is a GPU; that one is measured by `megaring-gpu-check`.
        let config = Setup { cuda: None, wgpu: None, ..Setup::new(Profile::parse(DEFAULT)?) };
        let engine = config.start(store)?;
        Ok(Self { engine, _folder: folder })
    }

    /// Stores a generated corpus (unit vectors in clusters, never zeros) and gives its rows back, to query with.
    ///
    /// # Errors
    /// No room on disk.
    pub fn corpus(&self, name: &str, rows: usize, dim: usize) -> Result<Matrix, Failure> {
        let generated = Embeddings { rows, dim, ..Embeddings::default() }.generate();
        let embeddings = Matrix { rows, dim, values: generated.values };
        self.engine.store().create(name, dim)?;
        let mut appender = self.engine.store().append(name)?;
        appender.push(Rows { embeddings: embeddings.clone(), ..Rows::default() })?;
        appender.commit()?;
        Ok(embeddings)
    }
}

/// A run of rows as queries.
#[must_use]
pub fn queries(rows: &Matrix, start: usize, count: usize) -> Matrix {
    Matrix { rows: count, dim: rows.dim, values: rows.values[start * rows.dim..(start + count) * rows.dim].to_vec() }
}

/// Memories as one job.
#[must_use]
pub fn encode_job<'a>(memories: impl Iterator<Item = reference::Memory<'a>>) -> Encode {
    let mut job = Encode { texts: Texts::default(), features: Vec::new(), gardens: Vec::new() };
    for memory in memories {
        job.texts.push(memory.content);
        job.gardens.push(memory.garden.to_owned());
        job.features.push(Features {
            importance: memory.importance,
            access_count: memory.access_count,
            age_days: memory.age_days,
            galactic_distance: memory.galactic_distance,
        });
    }
    job
}
