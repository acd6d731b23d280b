//! What can be measured, and the data for it.

use std::str::FromStr;
use std::sync::Arc;

use megaring_bench::any::Job;
use megaring_bench::{Failure, encode_job};
use megaring_core::Metric;
use megaring_core::corpus::{CorpusTable, CorpusView};
use megaring_core::encode::Encode;
use megaring_core::nop::Nop;

use crate::corpora::{self, generated};
use crate::machine::Machine;

/// One thing to measure. Searches are by cosine, top 10.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// An empty job.
    Nop,
    /// Empty jobs a second, 32 at a time in the ring.
    NopRate,
    /// This many queries on 5,562 x 384.
    Query(usize),
    /// Single queries on 5,562 x 384 a second, 32 at a time in the ring.
    QueryRate,
    /// One query on 1,000,000 x 384.
    QueryMillion,
    /// 110,000 memories.
    Encode,
}

/// Rows of the usual corpus.
pub(super) const ROWS: usize = 5_562;

impl FromStr for Case {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(match name {
            "nop" => Self::Nop,
            "nop-rate" => Self::NopRate,
            "query-1" => Self::Query(1),
            "query-64" => Self::Query(64),
            "query-all" => Self::Query(ROWS),
            "query-rate" => Self::QueryRate,
            "query-1m" => Self::QueryMillion,
            "encode" => Self::Encode,
            _ => return Err(format!("unknown case {name:?}")),
        })
    }
}

/// Corpora and memories, made when they are first asked for and kept.
pub(super) struct Data {
    machine: Machine,
    table: Arc<CorpusTable>,
    usual: Option<Arc<CorpusView>>,
    million: Option<Arc<CorpusView>>,
    memories: Option<Encode>,
    /// Where the next batch of queries begins.
    start: usize,
}

impl Data {
    pub(super) fn new(machine: Machine, table: Arc<CorpusTable>) -> Self {
        Self { machine, table, usual: None, million: None, memories: None, start: 0 }
    }

    /// The next job of a case: with other queries than the one before.
    pub(super) fn job(&mut self, case: Case) -> Result<Job, Failure> {
        match case {
            Case::Nop | Case::NopRate => Ok(Job::Nop(Nop)),
            Case::Query(batch) => {
                let corpus = self.usual();
                Ok(self.search(&corpus, batch))
            }
            Case::QueryRate => {
                let corpus = self.usual();
                Ok(self.search(&corpus, 1))
            }
            Case::QueryMillion => {
                let corpus = self.million();
                Ok(self.search(&corpus, 1))
            }
            Case::Encode => Ok(Job::Encode(self.memories()?.clone())),
        }
    }

    fn search(&mut self, corpus: &Arc<CorpusView>, batch: usize) -> Job {
        let batch = batch.min(corpus.rows());
        self.start = (self.start + 37) % (corpus.rows() - batch + 1);
        corpora::search(corpus, corpora::own_queries(corpus, self.start, batch), Metric::Cosine, 10)
    }

    fn usual(&mut self) -> Arc<CorpusView> {
        let rows = self.machine.sized(ROWS, 80);
        let make = || corpora::corpus(&self.table, generated(rows, 384, 1), &[]);
        self.usual.get_or_insert_with(make).clone()
    }

    fn million(&mut self) -> Arc<CorpusView> {
        let rows = self.machine.sized(1_000_000, 200);
        let make = || corpora::corpus(&self.table, generated(rows, 384, 2), &[]);
        self.million.get_or_insert_with(make).clone()
    }

    fn memories(&mut self) -> Result<&Encode, Failure> {
        if self.memories.is_none() {
            let memories = megaring_datasets::memories(self.machine.sized(110_000, 60), 1)?;
            self.memories = Some(encode_job(memories.iter()));
        }
        self.memories.as_ref().ok_or_else(|| "no memories".into())
    }
}
