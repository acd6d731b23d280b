//! `rpc SearchRange`.

use std::sync::Arc;

use megaring_core::Error;
use megaring_core::corpus::CorpusView;
use megaring_core::rescore::Hit;
use megaring_corpus::{Store, TextIds};
use megaring_engine::long_search::{Asked, Of};
use megaring_proto::v1 as pb;

use super::search::{finite_threshold, hits, queries};
use super::{LongCall, Named, TEXT_BYTES, Telling, text_id_bytes};
use crate::reply_limit::ReplyLimit;
use crate::validate::metric;

/// A row of five bytes, an id of ten, a score of four.
const HIT_BYTES: usize = 19;

/// How the hits of queries are told.
pub(crate) struct HitsTelling {
    corpus: Arc<CorpusView>,
    ids: TextIds,
    titles: bool,
}

impl LongCall for pb::SearchRangeRequest {
    type Telling = HitsTelling;

    fn backend(&self) -> i32 {
        self.backend
    }

    fn corpus(&self) -> &str {
        &self.corpus
    }

    fn take_filter(&mut self) -> Option<pb::Filter> {
        self.filter.take()
    }

    fn prefix_dim(&self) -> Option<u32> {
        self.prefix_dim
    }

    fn validate(self, corpus: Named, _: &Store, limit: ReplyLimit) -> Result<(Asked, HitsTelling), Error> {
        let Named { whole, chosen: corpus, searched, .. } = corpus;
        let metric = metric(self.metric, &corpus)?;
        let none = || Error::field("threshold", "give one; Search answers the best k without");
        let threshold = Some(finite_threshold(self.threshold.ok_or_else(none)?)?);
        let named = (self.query_rows, self.query_ids);
        let (_, queries) = queries(self.queries, named, (&whole, searched.row_type()), limit)?;
        let ids = TextIds::of(&corpus)?;
        let telling = HitsTelling { corpus, ids, titles: self.with_titles };
        Ok((Asked { searched, of: Of::Queries(queries), metric, k: None, threshold }, telling))
    }
}

impl Telling for HitsTelling {
    type Message = pb::SearchRangeResponse;
    const NEXT: &'static str = "next_query";
    const TOO_LARGE: &'static str = "with_titles";
    const PART_BYTES: usize = 48;

    fn bytes(&self, _: u32, hit: &Hit) -> usize {
        let title = if self.titles { TEXT_BYTES + self.corpus.label(hit.row).1.len() } else { 0 };
        HIT_BYTES + title + text_id_bytes(&self.ids, hit.row)
    }

    fn add(&self, message: &mut Self::Message, query: u32, found: &[Hit], is_last: bool) {
        let hits = Some(hits(found, &self.corpus, &self.ids, self.titles));
        message.results.push(pb::RangeHits { query, hits, is_last });
    }

    fn close(&self, message: &mut Self::Message, made: Option<pb::Made>, _: u32) {
        message.made = made;
        message.generation = u64::from(self.corpus.generation());
    }
}
