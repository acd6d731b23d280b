//! A question to the router by somebody who has no job at hand, only its size.

use std::sync::Arc;

use megaring_core::corpus::CorpusView;
use megaring_core::job::{Job, Matrix, NearestJob, Points, ScoreJob, SearchJob, Shape};
use megaring_core::{BackendKind, Lacking, Metric, Opcode};

use super::{Forecast, Router};

/// What is asked.
#[derive(Clone)]
pub struct Question {
    /// The job's size.
    pub shape: Shape,
    /// The backend that would be forced.
    pub wish: Option<BackendKind>,
    /// The corpus that it would read; none where only its size is known.
    pub corpus: Option<Arc<CorpusView>>,
    /// Whether what devices lack counts: of a corpus by name what they lack now, otherwise all of it. A corpus that no device can keep is
    /// brought for each job, so that always counts.
    pub cold: bool,
}

impl Router {
    /// What would do the job, and why.
    #[must_use]
    pub fn answer(&self, question: &Question) -> Forecast {
        let Question { shape, wish, corpus, cold } = question;
        if corpus.is_none() && *cold {
            return self.explain(shape, *wish, None);
        }
        let job = corpus.as_ref().map(|corpus| smallest(shape.opcode, corpus));
        let lacking = |lane: usize| {
            let lacking = job.as_ref().map_or_else(Lacking::default, |job| self.lanes[lane].backend().lacking(job));
            if *cold || !lacking.stays { lacking } else { Lacking::default() }
        };
        self.explain(shape, *wish, Some(&lacking))
    }
}

/// A job that reads what any job of the operation does: devices tell by it what they lack.
fn smallest(opcode: Opcode, corpus: &Arc<CorpusView>) -> Job {
    let (corpus, metric) = (corpus.clone(), Metric::Cosine);
    let queries = Matrix { rows: 1, dim: corpus.dim(), values: vec![0.0; corpus.dim()] };
    match opcode {
        Opcode::Search => Job::Search(SearchJob { corpus, queries, metric, k: 1, threshold: None }),
        Opcode::Score => Job::Score(ScoreJob { corpus, queries, metric, rows: None }),
        Opcode::Nearest => {
            let (points, queries) = (Points::Corpus(corpus), vec![[0.0; 5]]);
            Job::Nearest(NearestJob { points, queries, weights: [1.0; 5], k: 1 })
        }
        Opcode::Nop | Opcode::Encode => Job::Nop,
    }
}
