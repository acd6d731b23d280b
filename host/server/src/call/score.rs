//! `rpc Score`.

use std::sync::Arc;

use megaring_core::corpus::CorpusView;
use megaring_core::score::Score;
use megaring_core::{Answered, Error};
use megaring_engine::Outcome;
use megaring_proto::v1 as pb;

use super::{Call, Validated, named};
use crate::reply::made;
use crate::reply_limit::ReplyLimit;
use crate::validate::{metric, row_bytes, row_numbers, vector_bytes, vectors};

impl Call for pb::ScoreRequest {
    type Operation = Score;
    type Response = pb::ScoreResponse;

    fn corpus(&self) -> Option<&str> {
        Some(&self.corpus)
    }

    fn backend(&self) -> i32 {
        self.backend
    }

    fn payload_bytes(&self) -> usize {
        vector_bytes(self.queries.as_ref()) + row_bytes(self.rows.as_ref())
    }

    fn validate(self, corpus: Option<Arc<CorpusView>>, limit: ReplyLimit) -> Result<Validated<Self>, Error> {
        let corpus = named(corpus)?;
        let metric = metric(self.metric)?;
        let rows = self.rows.map(|rows| row_numbers("rows", rows, &corpus)).transpose()?;
        let queries = vectors(Score::ITEMS, self.queries, corpus.dim())?;
        let (count, generation) = (queries.rows, u64::from(corpus.generation()));
        let job = Score { corpus, queries, metric, rows };
        let width = job.width();
        limit.ensure(Score::ITEMS, count, width, size_of::<f32>())?;
        let reply = move |outcome: Outcome<Vec<f32>>, _: &_| {
            let data: Vec<u8> = outcome.answer.iter().flat_map(|score| score.to_le_bytes()).collect();
            let scores = pb::Vectors {
                data: data.into(),
                dtype: pb::Dtype::Float32.into(),
                rows: count as u32,
                dim: width as u32,
                int8_scale: None,
            };
            pb::ScoreResponse { scores: Some(scores), made: Some(made(outcome.made)), generation }
        };
        Ok(Validated { job, reply_bytes: count * width * size_of::<f32>(), reply: Box::new(reply) })
    }
}
