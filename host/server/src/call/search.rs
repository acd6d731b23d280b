//! `rpc Search`.

use std::sync::Arc;

use megaring_core::corpus::CorpusView;
use megaring_core::exact::reported;
use megaring_core::rescore::{Hit, Ranked};
use megaring_core::search::{Queries, Search};
use megaring_core::{Answered, Error, RowType};
use megaring_corpus::{TextIds, find_each};
use megaring_engine::{Engine, Outcome, Terms};
use megaring_proto::v1 as pb;

use super::{AnswerOf, Call, Named, Validated, check_columns, check_texts, columns_of, named, reply_bytes, text_ids};
use crate::reply::made;
use crate::reply_limit::ReplyLimit;
use crate::service::LIGHT_BYTES;
use crate::validate::{
    at_least_one_answer, id_lists, metric, not_finite_field, row_bytes, row_numbers, vector_bytes, vectors,
};

/// A hit is a row, an id and a score: six bytes where all numbers are small.
const LEAST_HIT_BYTES: usize = 6;

/// A query without a hit, in a reply.
const LEAST_QUERY_BYTES: usize = 2;
/// The field with queries that are rows of the corpus.
const ROWS: &str = "query_rows";
/// The field with their ids.
const IDS: &str = "query_ids";

impl Call for pb::SearchRequest {
    type Operation = Search;
    type Response = pb::SearchResponse;

    fn corpus(&self) -> Option<&str> {
        Some(&self.corpus)
    }

    fn backend(&self) -> i32 {
        self.backend
    }

    fn payload_bytes(&self) -> usize {
        // Ids are looked for among those of all rows.
        let by_ids = self.query_ids.as_ref().map_or(0, |_| LIGHT_BYTES + 1);
        vector_bytes(self.queries.as_ref()) + row_bytes(self.query_rows.as_ref()) + by_ids
    }

    fn take_filter(&mut self) -> Option<pb::Filter> {
        self.filter.take()
    }

    fn prefix_dim(&self) -> Option<u32> {
        self.prefix_dim
    }

    fn validate(self, corpus: Option<Named>, limit: ReplyLimit) -> Result<Validated<Self>, Error> {
        let Named { whole, chosen: view, searched, gathered } = named(corpus)?;
        check_columns(&view, &self.columns)?;
        let metric = metric(self.metric, &view)?;
        let k = at_least_one_answer(self.k)?;
        let threshold = self.threshold.map(finite_threshold).transpose()?;
        let named = (self.query_rows, self.query_ids);
        let (field, queries) = queries(self.queries, named, (&whole, searched.row_type()), limit)?;
        let hits = k.min(view.visible_rows());
        let (hits_each, bytes) = if threshold.is_none() { (hits, LEAST_HIT_BYTES) } else { (1, LEAST_QUERY_BYTES) };
        limit.ensure(field, queries.len(), hits_each, bytes)?;
        let reply_bytes = reply_bytes(queries.len().saturating_mul(hits), &self.columns, Some(&view));
        let (titles, columns) = (self.with_titles, self.columns);
        let sent = matches!(queries, Queries::Sent(_));
        let corpus = gathered.filter(|_| sent).unwrap_or(searched);
        let job = Search { corpus, queries, metric, k, threshold };
        let reply = move |outcome, _: &_| reply(outcome, &view, titles, &columns, limit);
        Ok(Validated { job, reply_bytes, reply: Box::new(reply) })
    }

    /// How many hits pass a threshold shows only as they are found: the search ends with the first that no reply could
    /// carry.
    fn max_answers(limit: ReplyLimit) -> Option<usize> {
        Some(limit.answers(LEAST_HIT_BYTES))
    }

    /// Small searches of several callers may be done as one batch.
    fn run(
        engine: &Arc<Engine>,
        job: Search,
        terms: Terms,
    ) -> impl Future<Output = Result<AnswerOf<Self>, Error>> + Send {
        engine.run_batched(job, terms)
    }
}

/// The queries, sent or named, and the field that has them. Those that are sent are of a type, those that are named
/// rows of a corpus.
pub(super) fn queries(
    sent: Option<pb::Vectors>,
    (rows, ids): (Option<pb::RowNumbers>, Option<pb::Ids>),
    (corpus, row_type): (&CorpusView, RowType),
    limit: ReplyLimit,
) -> Result<(&'static str, Queries), Error> {
    let is_sent = sent.as_ref().is_some_and(|sent| sent.rows > 0 || !sent.data.is_empty());
    let field = if rows.is_some() { ROWS } else { IDS };
    if is_sent && (rows.is_some() || ids.is_some()) {
        return Err(Error::field(field, "queries are given too; send one of the two"));
    }
    // As many as could be sent: by their numbers alone a small request could ask for hours of work.
    let most = limit.answers(corpus.dim() * size_of::<f32>());
    let check = |named: usize| match named > most {
        true => {
            Err(Error::field(field, format!("{named} rows are named, and {most} is the most at a time; send fewer")))
        }
        false => Ok(()),
    };
    match (rows, ids) {
        (None, None) => Ok((Search::ITEMS, Queries::Sent(vectors(Search::ITEMS, sent, row_type)?))),
        (Some(_), Some(_)) => Err(Error::field(IDS, "rows are named by their numbers too; send one of the two")),
        (Some(rows), None) => {
            check(rows.numbers.len())?;
            Ok((ROWS, Queries::Rows(row_numbers(ROWS, rows, corpus)?)))
        }
        (None, Some(ids)) => {
            let (numbers, texts) = id_lists(IDS, ids, most)?;
            check(numbers.len() + texts.len())?;
            Ok((IDS, Queries::Rows(find_each(corpus, &numbers, &texts, IDS)?)))
        }
    }
}

/// What scores are compared with.
pub(super) fn finite_threshold(threshold: f64) -> Result<f64, Error> {
    if threshold.is_finite() { Ok(threshold) } else { Err(not_finite_field("threshold", threshold)) }
}

fn reply(
    outcome: Outcome<Vec<Ranked>>,
    corpus: &CorpusView,
    titles: bool,
    columns: &[String],
    limit: ReplyLimit,
) -> Result<pb::SearchResponse, Error> {
    let rows = || outcome.answer.iter().flat_map(|ranked| ranked.hits.iter().map(|hit| hit.row));
    let columns = columns_of(corpus, rows(), columns, limit)?;
    let ids = TextIds::of(corpus)?;
    check_texts(Search::ITEMS, rows(), corpus, (&ids, titles), limit)?;
    let results = outcome.answer.iter().map(|ranked| hits(&ranked.hits, corpus, &ids, titles)).collect();
    let generation = u64::from(corpus.generation());
    Ok(pb::SearchResponse { results, made: Some(made(outcome.made)), generation, columns })
}

/// Hits as the wire has them.
pub(super) fn hits(hits: &[Hit], corpus: &CorpusView, ids: &TextIds, titles: bool) -> pb::Hits {
    let label = |hit: &Hit| corpus.label(hit.row);
    pb::Hits {
        rows: hits.iter().map(|hit| hit.row).collect(),
        memory_ids: hits.iter().map(|hit| label(hit).0).collect(),
        scores: hits.iter().map(|hit| reported(hit.score)).collect(),
        titles: if titles { hits.iter().map(|hit| label(hit).1.into()).collect() } else { Vec::new() },
        text_ids: text_ids(ids, hits.iter().map(|hit| hit.row)),
    }
}
