//! Step 8, rescore: what a backend found becomes the one exact answer. The definitions are in `megaring_core`; this file reads the
//! result regions and shares the work out.

use std::ops::Range;

use megaring_core::Error;
use megaring_core::lists::{CandidateLists, Candidates};
use megaring_core::encode::{self, Encoded};
use megaring_core::exact::ExactKernel;
use megaring_core::job::{EncodeJob, Job, NearestJob, SearchJob};
use megaring_core::nearest::{self, Neighbour};
use megaring_core::encode::profile::Profile;
use megaring_core::rescore::{Ask, Ranked, rank};
use rayon::prelude::*;

use crate::outcome::Answer;
use crate::submit::score_width;

/// Queries of a piece from which on rescoring is worth sharing out; about 5 µs each.
const PARALLEL_QUERIES: usize = 16;
/// Memories that one task encodes.
const PARALLEL_MEMORIES: usize = 512;

/// What rescoring needs beside the result itself.
pub struct Rescorer<'a> {
    /// Exact scores, by the best kernels of this machine.
    pub kernel: &'a dyn ExactKernel,
    /// The encoder's profile.
    pub profile: &'a Profile,
}

impl Rescorer<'_> {
    /// The exact answer for a piece's items, and the number of rows that were scored for it.
    ///
    /// # Errors
    /// [`Error::Internal`] where a backend's result is not of the agreed form.
    pub fn finish(&self, job: &Job, items: &Range<usize>, result: &[u8]) -> Result<(Answer, u64), Error> {
        match job {
            Job::Nop => Ok((Answer::Nothing, 0)),
            Job::Search(job) => self.search(job, items, result),
            Job::Score(job) => {
                let values: Vec<f32> = bytemuck::allocation::pod_collect_to_vec(result);
                let scored = values.len() as u64;
                Ok((Answer::Scores { rows: score_width(job), values }, scored))
            }
            Job::Encode(job) => self.encode(job, items, result),
            Job::Nearest(job) => nearest_points(job, items, result),
        }
    }

    fn search(&self, job: &SearchJob, items: &Range<usize>, result: &[u8]) -> Result<(Answer, u64), Error> {
        let lists = read_lists(result, items.len(), job.corpus.rows())?;
        let ask = Ask { metric: job.metric, k: job.k, threshold: job.threshold };
        let one =
            |query: usize| rank(&job.corpus, job.queries.row(items.start + query), ask, &lists.of(query), self.kernel);
        let ranked: Vec<Ranked> = if items.len() < PARALLEL_QUERIES {
            (0..items.len()).map(one).collect()
        } else {
            (0..items.len()).into_par_iter().with_min_len(PARALLEL_QUERIES / 2).map(one).collect()
        };
        let rescored = ranked.iter().map(|ranked| ranked.rescored).sum();
        Ok((Answer::Hits(ranked), rescored))
    }

    fn encode(&self, job: &EncodeJob, items: &Range<usize>, result: &[u8]) -> Result<(Answer, u64), Error> {
        let masks: &[[u64; 2]] = bytemuck::try_cast_slice(result).map_err(|_| misshapen())?;
        let masks = masks.get(..items.len()).ok_or_else(misshapen)?;
        let one = |(item, [low, high]): (usize, &[u64; 2])| {
            let mask = u128::from(*high) << 64 | u128::from(*low);
            let memory = items.start + item;
            let bytes = job.texts.byte_len(memory);
            encode::encode(self.profile, mask, bytes, &job.features[memory], &job.gardens[memory])
        };
        let encoded: Vec<Encoded> = masks.par_iter().enumerate().with_min_len(PARALLEL_MEMORIES).map(one).collect();
        Ok((Answer::Encoded(encoded), 0))
    }
}

fn nearest_points(job: &NearestJob, items: &Range<usize>, result: &[u8]) -> Result<(Answer, u64), Error> {
    let lists = read_lists(result, items.len(), job.points.len())?;
    let point = |row: u32| job.points.point(row);
    let rank = |rows: &mut dyn Iterator<Item = u32>, query: usize| -> Vec<Neighbour> {
        nearest::rank(rows, point, job.queries[items.start + query], job.weights, job.k)
    };
    let mut ranked = 0;
    let mut neighbours = Vec::with_capacity(items.len());
    for query in 0..items.len() {
        neighbours.push(match lists.of(query) {
            Candidates::Listed(listed) => {
                ranked += listed.len() as u64;
                rank(&mut listed.iter().map(|candidate| candidate.row), query)
            }
            Candidates::EveryRow => {
                ranked += job.points.len() as u64;
                rank(&mut (0..job.points.len() as u32), query)
            }
        });
    }
    Ok((Answer::Neighbours(neighbours), ranked))
}

/// A backend's lists, all of whose rows there are: a device's memory is not to be trusted with an index.
fn read_lists(result: &[u8], items: usize, rows: usize) -> Result<CandidateLists<'_>, Error> {
    let lists = CandidateLists::read(result, items).ok_or_else(misshapen)?;
    let is_there = |query: usize| match lists.of(query) {
        Candidates::Listed(listed) => listed.iter().all(|candidate| (candidate.row as usize) < rows),
        Candidates::EveryRow => true,
    };
    (0..items).all(is_there).then_some(lists).ok_or_else(misshapen)
}

fn misshapen() -> Error {
    Error::Internal("a backend's result is not of the agreed form".into())
}
