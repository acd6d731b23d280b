//! `rpc Nearest`.

use std::sync::Arc;

use bytes::Bytes;
use megaring_core::corpus::CorpusView;
use megaring_core::nearest::{AXES, DEFAULT_WEIGHTS, MAX_WEIGHT, Nearest, Neighbour, Points, is_weight};
use megaring_core::{Answered, Error};
use megaring_corpus::TextIds;
use megaring_engine::Outcome;
use megaring_proto::v1 as pb;
use megaring_proto::v1::nearest_request::Among;

use super::{Call, Named, Validated, check_columns, check_texts, columns_of, reply_bytes, text_ids};
use crate::reply::made;
use crate::reply_limit::ReplyLimit;
use crate::validate::{at_least_one_answer, points};

/// Bytes of a neighbour in a reply: a row and a distance.
const LEAST_NEIGHBOUR_BYTES: usize = 9;
impl Call for pb::NearestRequest {
    type Operation = Nearest;
    type Response = pb::NearestResponse;

    fn corpus(&self) -> Option<&str> {
        match &self.among {
            Some(Among::Corpus(name)) => Some(name),
            _ => None,
        }
    }

    fn backend(&self) -> i32 {
        self.backend
    }

    fn payload_bytes(&self) -> usize {
        let queries = self.queries.as_ref().map_or(0, |points| points.coordinates.len());
        let points = match &self.among {
            Some(Among::Points(points)) => points.coordinates.len(),
            _ => 0,
        };
        (queries + points) * size_of::<f64>()
    }

    fn take_filter(&mut self) -> Option<pb::Filter> {
        self.filter.take()
    }

    fn validate(self, corpus: Option<Named>, limit: ReplyLimit) -> Result<Validated<Self>, Error> {
        let corpus = corpus.map(|named| named.chosen);
        match &corpus {
            Some(corpus) => check_columns(corpus, &self.columns)?,
            None if self.columns.is_empty() => {}
            None => return Err(Error::field("columns", "points that are sent along have none")),
        }
        let k = at_least_one_answer(self.k)?;
        let weights = weights(&self.weights)?;
        let queries = points("queries.coordinates", &self.queries.unwrap_or_default().coordinates)?;
        let points = match (self.among, &corpus) {
            (Some(Among::Points(sent)), _) => sent_points(&sent)?,
            (Some(Among::Corpus(_)), Some(view)) => corpus_points(view)?,
            _ => return Err(Error::field("among", "name a corpus, or send points along")),
        };
        let found = k.min(corpus.as_ref().map_or(points.len(), |corpus| corpus.visible_rows()));
        limit.ensure(Nearest::ITEMS, queries.len(), found, LEAST_NEIGHBOUR_BYTES)?;
        let reply_bytes = reply_bytes(queries.len().saturating_mul(found), &self.columns, corpus.as_deref());
        let (job, titles, columns) = (Nearest { points, queries, weights, k }, self.with_titles, self.columns);
        let reply = move |outcome, _: &_| reply(outcome, corpus.as_deref(), titles, &columns, limit);
        Ok(Validated { job, reply_bytes, reply: Box::new(reply) })
    }
}

fn weights(weights: &[f64]) -> Result<[f64; AXES], Error> {
    if weights.is_empty() {
        return Ok(DEFAULT_WEIGHTS);
    }
    let fault =
        |at: usize| Error::row("weights", at as u64, format!("{:e}; from 0 to {MAX_WEIGHT:e} is legal", weights[at]));
    match <[f64; AXES]>::try_from(weights) {
        Err(_) => Err(Error::field("weights", format!("{} numbers; five or none are legal", weights.len()))),
        Ok(five) => five.iter().position(|weight| !is_weight(*weight)).map_or(Ok(five), |at| Err(fault(at))),
    }
}

fn sent_points(sent: &pb::Points) -> Result<Points, Error> {
    let points = points("points.coordinates", &sent.coordinates)?;
    let column = |axis: usize| points.iter().map(|point| point[axis]).collect();
    Ok(Points::Sent(Arc::new(std::array::from_fn(column))))
}

fn corpus_points(view: &Arc<CorpusView>) -> Result<Points, Error> {
    view.require_coordinates()?;
    // A corpus without rows has no columns either.
    Ok(if view.rows() == 0 { Points::Sent(Arc::default()) } else { Points::Corpus(view.clone()) })
}

fn reply(
    outcome: Outcome<Vec<Vec<Neighbour>>>,
    corpus: Option<&CorpusView>,
    titles: bool,
    columns: &[String],
    limit: ReplyLimit,
) -> Result<pb::NearestResponse, Error> {
    let rows = || outcome.answer.iter().flatten().map(|neighbour| neighbour.row);
    let columns = corpus.map_or_else(|| Ok(Bytes::new()), |corpus| columns_of(corpus, rows(), columns, limit))?;
    let ids = corpus.map_or_else(|| Ok(TextIds::default()), TextIds::of)?;
    if let Some(corpus) = corpus {
        check_texts(Nearest::ITEMS, rows(), corpus, (&ids, titles), limit)?;
    }
    let results = outcome.answer.iter().map(|found| neighbours(found, corpus, &ids, titles)).collect();
    let generation = corpus.map_or(0, |corpus| u64::from(corpus.generation()));
    Ok(pb::NearestResponse { results, made: Some(made(outcome.made)), generation, columns })
}

fn neighbours(found: &[Neighbour], corpus: Option<&CorpusView>, ids: &TextIds, titles: bool) -> pb::Neighbours {
    let labels = || corpus.into_iter().flat_map(|corpus| found.iter().map(|at| corpus.label(at.row)));
    pb::Neighbours {
        rows: found.iter().map(|at| at.row).collect(),
        memory_ids: labels().map(|(id, _)| id).collect(),
        distances: found.iter().map(|at| at.distance).collect(),
        titles: if titles { labels().map(|(_, title)| title.into()).collect() } else { Vec::new() },
        text_ids: text_ids(ids, found.iter().map(|at| at.row)),
    }
}
