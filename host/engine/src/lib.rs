//! Steps 3 to 8 of a request: from a validated job to its exact answer.
//!
//! | step | module | |
//! |---|---|---|
//! | 3 | [`charge`] | sets aside what the job is predicted to come to, where its tenant has a budget |
//! | | [`admission`] | grants a permit, or says when to try again |
//! | | `batching` | small concurrent searches of one kind become one batch, where that pays |
//! | 4 | [`router`] | picks a backend by what it costs ([`cost`], [`calibration`]), and can say why |
//! | 5 | [`submit`] | cuts the job, copies payloads into the arena, publishes slots |
//! | 6 | a backend | consumes the slots; it arrives here as a [`Running`] |
//! | 7 | [`reaper`] | sees completions and wakes the tickets' owners |
//! | 8 | [`megaring_core::Answered::finish`] | makes what the backend found exact |
//!
//! [`Engine::run`] calls them in order; one job's way through them is in `execution.rs`. What would be too much for one
//! job, such as a join, [`long_search`] makes a series of.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use megaring_core::{Metric, matrix::Matrix, search::Search};
//! # use megaring_engine::{Engine, Terms};
//! # async fn top_ten(engine: Arc<Engine>, query: Vec<f32>) -> Result<(), megaring_core::Error> {
//! let corpus = engine.store().view("memories")?;
//! let queries = Matrix { rows: 1, dim: corpus.dim(), values: query };
//! let search = Search { corpus, queries: queries.into(), metric: Metric::Cosine, k: 10, threshold: None };
//! let outcome = engine.run(search, Terms::default()).await?;
//! for hit in &outcome.answer[0].hits {
//!     println!("row {} scores {}", hit.row, hit.score);
//! }
//! # Ok(())
//! # }
//! ```

pub mod admission;
mod batching;
pub mod calibration;
pub mod charge;
pub mod cost;
mod engine;
mod execution;
pub mod health;
pub mod lane;
pub mod long_search;
pub mod machine;
pub mod measure;
pub mod metrics;
mod outcome;
pub mod reaper;
pub mod recorder;
pub mod router;
pub mod submit;
pub mod telemetry;
mod terms;

pub use engine::{Backends, Engine, EngineConfig, Running};
pub use outcome::{Made, Outcome};
pub use terms::Terms;
