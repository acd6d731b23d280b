//! The program: command line, configuration, doctor, demo and bench, around the engine ([`megaring_engine`]) and the
//! server ([`megaring_server`]). [`Setup`] starts the backends of this build.
//!
//! All of it also works in process, without a server:
//!
//! ```
//! use megaring::Setup;
//! use megaring_core::encode::profile::{DEFAULT, Profile};
//! use megaring_core::{Metric, matrix::Matrix, search::Search};
//! use megaring_corpus::{Access, Rows, Store};
//! use megaring_engine::Terms;
//!
//! # let parent = tempfile::tempdir()?;
//! # let folder = parent.path().join("megaring-data");
//! let store = Store::open(&folder, Access::Exclusive)?;
//! let engine = Setup { cuda: None, wgpu: None, ..Setup::new(Profile::parse(DEFAULT)?) }.start(store)?;
//!
//! engine.store().create("notes", 2)?;
//! let mut appender = engine.store().append("notes")?;
//! let embeddings = Matrix { rows: 3, dim: 2, values: vec![1.0, 0.0, 0.0, 1.0, 0.6, 0.8] };
//! appender.push(Rows { embeddings, ..Rows::default() })?;
//! appender.commit()?;
//!
//! let corpus = engine.store().view("notes")?;
//! let queries = Matrix { rows: 1, dim: 2, values: vec![3.0, 4.0] };
//! let search = Search { corpus, queries: queries.into(), metric: Metric::Dot, k: 2, threshold: None };
//! let outcome = engine.run_blocking(search, Terms::default())?;
//! let rows: Vec<u32> = outcome.answer[0].hits.iter().map(|hit| hit.row).collect();
//! assert_eq!(rows, [2, 1]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backends;
pub mod bench;
pub mod cli;
pub mod config;
pub mod console;
mod corpora;
pub mod demo;
pub mod doctor;
mod remote;

pub use backends::{CudaConfig, Setup, WgpuConfig};
