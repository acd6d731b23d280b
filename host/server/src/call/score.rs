//! `rpc Score`.

use std::sync::Arc;

use megaring_core::score::Score;
use megaring_core::{Answered, Error};
use megaring_engine::Outcome;
use megaring_proto::v1 as pb;

use super::{Call, Named, Validated, named};
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

    fn take_filter(&mut self) -> Option<pb::Filter> {
        self.filter.take()
    }

    fn prefix_dim(&self) -> Option<u32> {
        self.prefix_dim
    }

    fn validate(self, corpus: Option<Named>, limit: ReplyLimit) -> Result<Validated<Self>, Error> {
        let Named { whole: corpus, chosen, searched, .. } = named(corpus)?;
        let is_cut = !Arc::ptr_eq(&searched, &chosen);
        let metric = metric(self.metric, &corpus)?;
        if self.rows.is_some() && !Arc::ptr_eq(&corpus, &chosen) {
            return Err(Error::field("filter", "rows are named too; send one of the two"));
        }
        let named = self.rows.map(|rows| row_numbers("rows", rows, &corpus)).transpose()?;
        let visible = || chosen.visible_runs(0..chosen.rows()).flatten().map(|row| row as u32).collect();
        let chosen: Option<Vec<u32>> = (named.is_none() && !chosen.is_whole()).then(visible);
        let told = chosen.clone().map(|numbers| pb::RowNumbers { numbers });
        // Rows that are named are scored whether they are visible or not.
        let corpus = if is_cut { searched } else { corpus };
        let queries = vectors(Score::ITEMS, self.queries, corpus.row_type())?;
        let (count, generation) = (queries.rows, u64::from(corpus.generation()));
        let job = Score { corpus, queries, metric, rows: named.or(chosen) };
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
            Ok(pb::ScoreResponse { scores: Some(scores), made: Some(made(outcome.made)), generation, rows: told })
        };
        Ok(Validated { job, reply_bytes: count * width * size_of::<f32>(), reply: Box::new(reply) })
    }
}
