//! Search among rows of bits: what a query and a row have in common is counted, and [`super::lists`] does the rest.
//!
//! A Hamming distance is its own bound. A Jaccard index is off by a few units of float32 (`wgsl/shared/bits.wgsl`).

use bytemuck::{Pod, Zeroable};
use megaring_core::Metric;
use megaring_core::corpus::Column;

use super::lists::{Block, Lists, Screen, Threshold};
use super::{Delivery, Operation, Part, same_layout};
use crate::script::{Script, Sizes};
use crate::stage::Stage;

/// What it reads.
pub(super) const COLUMNS: [Column; 2] = [Column::Embeddings, Column::Screen(Metric::Hamming)];
/// Rows and queries of a workgroup of `bits.wgsl`.
const THREADS: u32 = 64;
const QUERIES: u32 = 4;
/// Work of a word, in multiply-adds.
const WORD_WORK: usize = 2;

/// Twin of the shaders'.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct BitsParams {
    block: Block,
    width: u32,
    queries: u32,
    metric: u32,
    unused: u32,
}

same_layout!(bits_params: BitsParams { block, width, queries, metric, unused });

/// A job.
pub(super) struct Bits<'a> {
    lists: Lists,
    queries: &'a [f32],
    width: usize,
    metric: Metric,
    least: f32,
}

impl<'a> Bits<'a> {
    /// The best `k` of `rows` rows of `width` words for each query, of those that pass `threshold`, into a result of
    /// `result` bytes.
    pub(super) fn new(
        queries: &'a [f32],
        (metric, k, threshold): (Metric, usize, f64),
        (rows, width): (usize, usize),
        result: usize,
    ) -> Self {
        let lists = Lists::new(queries.len() / width.max(1), k, rows, result).with_work(WORD_WORK * width);
        // Below the least upper bound of a row that passes.
        let least = (metric.goodness(threshold) as f32).next_down();
        let least = if least.is_nan() { f32::MIN } else { least.clamp(f32::MIN, f32::MAX) };
        Self { lists, queries, width, metric, least }
    }

    /// Whether every row is a candidate: the job then needs nothing of the corpus, nor of the device.
    pub(super) fn is_unscreened(&self) -> bool {
        self.lists.is_unscreened()
    }

    fn params(&self, block: &Block) -> BitsParams {
        let queries = (self.lists.input_len() / size_of::<u32>()) as u32;
        BitsParams { block: *block, width: self.width as u32, queries, metric: self.metric as u32, unused: 0 }
    }
}

impl Screen for Bits<'_> {
    fn fill_cells(&self, script: &mut Script, part: &Part, block: &Block) {
        let workgroups = [block.rows.div_ceil(THREADS), block.queries.div_ceil(QUERIES), 1];
        let [work, _] = self.lists.work(block);
        script.dispatch(Stage::Bits, Some(&part.binding), &self.params(block), workgroups, work);
    }

    fn collect(&self, script: &mut Script, part: &Part, block: &Block) {
        let [_, work] = self.lists.work(block);
        let workgroups = block.collect_workgroups();
        script.dispatch(Stage::BitsCollect, Some(&part.binding), &self.params(block), workgroups, work);
    }
}

impl Operation for Bits<'_> {
    fn sizes(&self) -> Sizes {
        self.lists.sizes(size_of_val(self.queries))
    }

    fn fill(&self, input: &mut [u8]) {
        if self.is_unscreened() {
            return;
        }
        let (head, queries) = input.split_at_mut(self.lists.input_len());
        let items = self.queries.len() / self.width.max(1);
        self.lists.fill(head, std::iter::repeat_n(Threshold { least: self.least, slack: 0.0 }, items));
        queries[..size_of_val(self.queries)].copy_from_slice(bytemuck::cast_slice(self.queries));
    }

    fn round(&mut self, parts: &[Part], first: bool) -> Script {
        self.lists.round(self, parts, first)
    }

    fn delivery(&self) -> Delivery {
        let lists = self.lists;
        let none = lists.is_unscreened();
        Box::new(move |output, result| lists.deliver(output, result, |_| none))
    }
}
