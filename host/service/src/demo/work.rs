//! The calls that the demo makes.

use megaring_core::Metric;
use megaring_datasets::reference::Hit;
use megaring_datasets::{Matrix, Memories, queries};
use megaring_proto::v1 as pb;

use super::client::Client;
use super::data::Corpus;
use super::expected::{self, encode_difference, search_difference};
use super::report::{Measured, Report};
use crate::console::{Failure, grouped};
use crate::remote;

/// Hits wanted everywhere.
const K: usize = 10;
/// How often a whole corpus is searched against itself.
const ROUNDS: usize = 5;
/// Single queries.
const SINGLES: usize = 200;
/// Calls before the clock runs: connection, caches and the processor's clock settle.
const WARM_UP: usize = 20;
/// Queries of a batch.
const BATCH: usize = 64;
/// Batches.
const BATCHES: usize = 20;
/// Memories of one request of the stream.
const MEMORIES: usize = 2_048;
/// Seed of the queries.
const SEED: u64 = 2;

/// The generated corpus: against itself, single queries, batches by each metric.
pub(super) fn generated(corpus: &Corpus, client: &mut Client, report: &mut Report) -> Result<(), Failure> {
    let all = expected::search(corpus, &corpus.rows, Metric::Cosine, K);
    report.add_reference(all.took);
    let rows = grouped(corpus.rows.rows as u64);
    let itself =
        Batches { corpus, queries: &corpus.rows, metric: Metric::Cosine, titles: false, expected: &all.answers };
    report.add(itself.unary(format!("{rows} rows against themselves, one batch"), corpus.rows.rows, ROUNDS, client)?.0);
    report.add(itself.stream(format!("{rows} rows against themselves, stream of {BATCH}"), client)?);

    let singles = queries(&corpus.rows, SINGLES, SEED);
    let answers = expected::search(corpus, &singles, Metric::Cosine, K);
    report.add_reference(answers.took);
    let singles =
        Batches { corpus, queries: &singles, metric: Metric::Cosine, titles: false, expected: &answers.answers };
    for query in 0..WARM_UP {
        client.search(singles.request(query, query + 1))?;
    }
    report.add(singles.unary(format!("single queries, {rows} rows"), 1, 1, client)?.0);

    let batches = queries(&corpus.rows, BATCH * BATCHES, SEED + 1);
    for metric in Metric::OF_FLOATS {
        let answers = expected::search(corpus, &batches, metric, K);
        report.add_reference(answers.took);
        let batches = Batches { corpus, queries: &batches, metric, titles: false, expected: &answers.answers };
        report.add(batches.unary(format!("batches of {BATCH} by {metric}, {rows} rows"), BATCH, 1, client)?.0);
    }
    Ok(())
}

/// The real sample against itself, with titles. Answers one reply for each row.
pub(super) fn real(corpus: &Corpus, client: &mut Client, report: &mut Report) -> Result<Vec<pb::Hits>, Failure> {
    let all = expected::search(corpus, &corpus.rows, Metric::Cosine, K);
    report.add_reference(all.took);
    let rows = grouped(corpus.rows.rows as u64);
    let itself =
        Batches { corpus, queries: &corpus.rows, metric: Metric::Cosine, titles: true, expected: &all.answers };
    let what = format!("{rows} real rows against themselves, with titles");
    let (measured, last) = itself.unary(what, corpus.rows.rows, ROUNDS, client)?;
    report.add(measured);
    Ok(last.results)
}

/// Memories through one stream.
pub(super) fn memories(memories: &Memories, client: &mut Client, report: &mut Report) -> Result<(), Failure> {
    let expected = expected::encode(memories)?;
    report.add_reference(expected.took);
    let ranges = (0..memories.len()).step_by(MEMORIES).map(|start| start..memories.len().min(start + MEMORIES));
    let requests: Vec<pb::EncodeRequest> = ranges.clone().map(|range| encode_request(memories, range)).collect();
    let mut measured = Measured {
        what: format!("{} memories to 5-D, stream of {}", grouped(memories.len() as u64), grouped(MEMORIES as u64)),
        items: 0,
        rows: 0,
        times: Vec::new(),
        difference: None,
    };
    for _ in 0..ROUNDS {
        let (replies, took) = client.encode_stream(requests.clone())?;
        measured.times.push(took);
        measured.items += memories.len();
        if replies.len() != requests.len() {
            measured.difference = Some(format!("{} replies to {} requests", replies.len(), requests.len()));
        }
        let mut pairs = replies.iter().zip(ranges.clone());
        let difference =
            pairs.find_map(|(reply, range)| encode_difference(reply, &expected.answers[range.clone()], &range));
        measured.difference = measured.difference.take().or(difference);
    }
    report.add(measured);
    Ok(())
}

/// Queries with their expected answers.
struct Batches<'a> {
    corpus: &'a Corpus,
    queries: &'a Matrix,
    metric: Metric,
    titles: bool,
    expected: &'a [Vec<Hit>],
}

impl Batches<'_> {
    /// All queries in calls of `batch`, in several rounds. Answers the last reply too.
    fn unary(
        &self,
        what: String,
        batch: usize,
        rounds: usize,
        client: &mut Client,
    ) -> Result<(Measured, pb::SearchResponse), Failure> {
        let mut measured = self.measured(what);
        let mut last = pb::SearchResponse::default();
        for _ in 0..rounds {
            for start in (0..self.queries.rows).step_by(batch) {
                let end = self.queries.rows.min(start + batch);
                let (reply, took) = client.search(self.request(start, end))?;
                measured.times.push(took);
                measured.items += end - start;
                let difference = search_difference(&reply, &self.expected[start..end], self.corpus, self.titles);
                measured.difference = measured.difference.take().or(difference);
                last = reply;
            }
        }
        Ok((measured, last))
    }

    /// All queries through one stream of small requests, in several rounds.
    fn stream(&self, what: String, client: &mut Client) -> Result<Measured, Failure> {
        let mut measured = self.measured(what);
        let starts = (0..self.queries.rows).step_by(BATCH);
        let ranges: Vec<_> = starts.map(|start| start..self.queries.rows.min(start + BATCH)).collect();
        for _ in 0..ROUNDS {
            let requests = ranges.iter().map(|range| self.request(range.start, range.end)).collect();
            let (replies, took) = client.search_stream(requests)?;
            measured.times.push(took);
            measured.items += self.queries.rows;
            if replies.len() != ranges.len() {
                measured.difference = Some(format!("{} replies to {} requests", replies.len(), ranges.len()));
            }
            let difference = replies.iter().zip(&ranges).find_map(|(reply, range)| {
                search_difference(reply, &self.expected[range.clone()], self.corpus, self.titles)
            });
            measured.difference = measured.difference.take().or(difference);
        }
        Ok(measured)
    }

    fn measured(&self, what: String) -> Measured {
        Measured { what, items: 0, rows: self.corpus.rows.rows, times: Vec::new(), difference: None }
    }

    fn request(&self, start: usize, end: usize) -> pb::SearchRequest {
        let dim = self.queries.dim;
        let values = &self.queries.values[start * dim..end * dim];
        pb::SearchRequest {
            corpus: self.corpus.name.to_owned(),
            queries: Some(pb::Vectors {
                data: values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into(),
                dtype: pb::Dtype::Float32.into(),
                rows: (end - start) as u32,
                dim: dim as u32,
                int8_scale: None,
            }),
            metric: remote::metric(Some(self.metric)),
            k: K as u32,
            with_titles: self.titles,
            ..pb::SearchRequest::default()
        }
    }
}

fn encode_request(memories: &Memories, range: std::ops::Range<usize>) -> pb::EncodeRequest {
    let memory = |index| {
        let memory = memories.get(index);
        pb::Memory {
            content: memory.content.to_owned(),
            importance: memory.importance,
            access_count: memory.access_count,
            age_days: memory.age_days,
            galactic_distance: memory.galactic_distance,
            garden: memory.garden.to_owned(),
        }
    };
    pb::EncodeRequest {
        memories: range.map(memory).collect(),
        with_masks: true,
        backend: pb::Backend::Unspecified.into(),
    }
}
