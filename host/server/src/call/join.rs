//! `rpc Join`.

use std::sync::Arc;

use megaring_core::Error;
use megaring_core::corpus::CorpusView;
use megaring_core::rescore::Hit;
use megaring_corpus::{Pairs, Store, TextIds};
use megaring_engine::long_search::{Asked, Of, add_pairs};
use megaring_proto::v1 as pb;

use super::search::finite_threshold;
use super::{LongCall, Named, Telling, prefix, text_id_bytes};
use crate::reply_limit::ReplyLimit;
use crate::validate::{at_least_one_answer, metric};

/// How pairs are told.
pub(crate) struct PairsTelling {
    corpus: Arc<CorpusView>,
    searched: Arc<CorpusView>,
    /// The text ids of both.
    texts: [TextIds; 2],
}

impl LongCall for pb::JoinRequest {
    type Telling = PairsTelling;

    fn backend(&self) -> i32 {
        self.backend
    }

    fn corpus(&self) -> &str {
        &self.corpus
    }

    fn prefix_dim(&self) -> Option<u32> {
        self.prefix_dim
    }

    fn validate(self, corpus: Named, store: &Store, _: ReplyLimit) -> Result<(Asked, PairsTelling), Error> {
        let Named { whole: corpus, searched: compared, .. } = corpus;
        let is_self = self.other.is_empty() || self.other == self.corpus;
        let searched = if is_self { corpus.clone() } else { store.view(&self.other)? };
        let metric = metric(self.metric, &searched)?;
        let k = self.k.map(at_least_one_answer).transpose()?;
        let threshold = self.threshold.map(finite_threshold).transpose()?;
        if k.is_none() && threshold.is_none() {
            return Err(Error::field("k", "neither k nor a threshold is given; one of the two is needed"));
        }
        let count = corpus.rows() as u32;
        let end = self.end.unwrap_or(count);
        if end > count {
            return Err(Error::field("end", format!("{end}; the corpus has {count} rows")));
        }
        if self.begin > end {
            return Err(Error::field(
                "begin",
                format!("{}; it is to be {end} at most, where the rows end", self.begin),
            ));
        }
        let of = Of::Rows { corpus: compared.clone(), rows: self.begin..end };
        let texts = [TextIds::of(&corpus)?, TextIds::of(&searched)?];
        let telling = PairsTelling { corpus, searched: searched.clone(), texts };
        let searched = if is_self { compared } else { prefix(store, searched, self.prefix_dim)? };
        Ok((Asked { searched, of, metric, k, threshold }, telling))
    }
}

impl Telling for PairsTelling {
    type Message = pb::JoinResponse;
    const NEXT: &'static str = "next_row";
    const TOO_LARGE: &'static str = "corpus";
    const PART_BYTES: usize = 0;

    /// Two rows of five bytes, two ids of ten, a score of four, and the texts.
    fn bytes(&self, row: u32, hit: &Hit) -> usize {
        34 + text_id_bytes(&self.texts[0], row) + text_id_bytes(&self.texts[1], hit.row)
    }

    fn add(&self, message: &mut Self::Message, row: u32, hits: &[Hit], _: bool) {
        let mut pairs = Pairs::default();
        add_pairs(&mut pairs, &self.corpus, row, &self.searched, hits, &self.texts);
        message.rows.append(&mut pairs.rows);
        message.memory_ids.append(&mut pairs.memory_ids);
        message.neighbours.append(&mut pairs.neighbours);
        message.neighbour_ids.append(&mut pairs.neighbour_ids);
        message.scores.append(&mut pairs.scores);
        message.text_ids.append(&mut pairs.text_ids);
        message.neighbour_text_ids.append(&mut pairs.neighbour_text_ids);
    }

    fn close(&self, message: &mut Self::Message, made: Option<pb::Made>, next: u32) {
        message.next_row = next;
        message.made = made;
        message.generation = u64::from(self.corpus.generation());
        message.other_generation = u64::from(self.searched.generation());
    }
}
