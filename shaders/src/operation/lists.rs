//! What search and nearest share: a table of cells in the scratch, a threshold for each query, and lists of candidates.
//!
//! A round takes one block of queries after the other. A stage of the operation fills the block's cells for every part.
//! `select` raises each query's threshold to the k-th largest lower bound among them, less the slack that the caller
//! names. Another stage of the operation lists every row whose upper bound reaches the threshold. A threshold only
//! rises, and k rows are at least that good, so no row of the answer is missed, in whatever order the rounds come. A
//! round with fewer than k cells leaves the thresholds as they are.
//!
//! A cell stands for 16 rows where that leaves at least 4 k cells, so that the k-th cell is hardly lower than the k-th
//! row; else for one row. Blocks are as large as the table allows: [`TABLE_BYTES`], or one query's cells where those
//! are more.

use bytemuck::{Pod, Zeroable};
use megaring_core::lists::{self, Candidate, EVERY_ROW, ListHeader, wants_every_row};

use super::{Part, ROUND_ROWS, same_layout};
use crate::script::{MOST_WORK, Script, Sizes};
use crate::stage::Stage;

/// Rows that a cell stands for, where that is not one.
pub(crate) const CELL_ROWS: usize = 16;
/// Cells of these rows must be so many times k.
const CELLS_PER_K: usize = 4;
/// Bytes of cells that a job may ask for without need.
const TABLE_BYTES: usize = 32 << 20;
/// Bytes of a cell, and of what the scratch and the input hold first for each query.
const PAIR: usize = size_of::<[f32; 2]>();
/// Cells that a workgroup of a collecting stage looks through (`COLLECT_CELLS` in `wgsl/shared/collect.wgsl`).
const COLLECT_CELLS: usize = 1024;
/// Work of the selection for a cell.
const SELECT_WORK: u64 = 16;
/// Most workgroups of a dispatch along one dimension, as WebGPU promises.
const WORKGROUPS: usize = 65_535;

/// A block of queries and a part of the corpus: `Block` in `wgsl/shared/cells.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Block {
    pub(crate) first_query: u32,
    pub(crate) queries: u32,
    pub(crate) cell_rows: u32,
    pub(crate) cells: u32,
    pub(crate) first_cell: u32,
    pub(crate) rows: u32,
    pub(crate) first_row: u32,
    pub(crate) table: u32,
    pub(crate) items: u32,
    pub(crate) capacity: u32,
    pub(crate) k: u32,
    pub(crate) fresh: u32,
}

same_layout!(block: Block {
    first_query, queries, cell_rows, cells, first_cell, rows, first_row, table, items, capacity, k, fresh,
});

impl Block {
    /// Cells of this part.
    pub(crate) fn part_cells(&self) -> u32 {
        self.rows.div_ceil(self.cell_rows)
    }

    /// Workgroups of a stage that includes `collect.wgsl`.
    pub(crate) fn collect_workgroups(&self) -> [u32; 3] {
        [self.queries, self.part_cells().div_ceil(COLLECT_CELLS as u32), 1]
    }
}

/// The two stages of an operation. Each writes its dispatches for the block's queries and this part into the script.
pub(crate) trait Screen {
    /// Fills every cell of the part: with the largest lower and the largest upper bound of its rows.
    fn fill_cells(&self, script: &mut Script, part: &Part, block: &Block);

    /// Lists the rows that reach their threshold.
    fn collect(&self, script: &mut Script, part: &Part, block: &Block);
}

/// What a query's threshold is made of: the first pairs of an input.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Threshold {
    /// No row of interest has an upper bound below this. Finite.
    pub(crate) least: f32,
    /// What the bounds leave out: the k-th largest lower bound is lowered by this. Not negative, and larger than need
    /// be by a factor of at least 1 + 2⁻¹⁰, so that denormals may be lost.
    pub(crate) slack: f32,
}

/// The candidate lists of a job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lists {
    items: usize,
    k: usize,
    rows: usize,
    capacity: usize,
    /// [`TABLE_BYTES`], but in tests.
    pub(super) table_bytes: usize,
    /// Work of the filling of a row's cell for a query.
    pair_work: u64,
}

impl Lists {
    /// Lists for `items` queries that ask for the best `k` of `rows` rows, in a result of `result` bytes.
    pub(crate) fn new(items: usize, k: usize, rows: usize, result: usize) -> Self {
        Self { items, k, rows, capacity: lists::capacity(items, result), table_bytes: TABLE_BYTES, pair_work: 1 }
    }

    /// The same, of an operation that takes so many multiply-adds for a query and a row.
    pub(crate) fn with_work(self, pair_work: usize) -> Self {
        Self { pair_work: pair_work.max(1) as u64, ..self }
    }

    /// Work of the two stages for a block and a part: filling the cells, then looking through them and scoring some
    /// rows again.
    pub(crate) fn work(&self, block: &Block) -> [u64; 2] {
        let fill = u64::from(block.queries) * u64::from(block.rows) * self.pair_work;
        [fill, fill / 8]
    }

    /// Whether nothing is screened: every row is a candidate for every query, and the device is not needed.
    pub(crate) fn is_unscreened(&self) -> bool {
        self.items == 0 || wants_every_row(self.k as u64, self.rows as u64) || self.k > self.capacity
    }

    /// What the job needs if its own input, which follows that of the lists, has `input` bytes. Nothing where
    /// nothing is screened.
    pub(crate) fn sizes(&self, input: usize) -> Sizes {
        if self.is_unscreened() {
            return Sizes::default();
        }
        Sizes {
            input: self.input_len() + input,
            scratch: self.table_at() + self.table_cells() * PAIR,
            output: lists::len(self.items, self.capacity),
        }
    }

    /// Bytes of the lists' own input, with which the job's begins: a multiple of 16.
    pub(crate) fn input_len(&self) -> usize {
        (self.items * PAIR).next_multiple_of(16)
    }

    /// Writes the lists' own input.
    pub(crate) fn fill(&self, input: &mut [u8], thresholds: impl Iterator<Item = Threshold>) {
        for (bytes, threshold) in input.as_chunks_mut::<PAIR>().0.iter_mut().zip(thresholds.take(self.items)) {
            bytes.copy_from_slice(bytemuck::bytes_of(&threshold));
        }
    }

    /// Records a round. An empty script where nothing is screened.
    pub(crate) fn round(&self, screen: &impl Screen, parts: &[Part], first: bool) -> Script {
        let mut script = Script::default();
        if self.is_unscreened() {
            return script;
        }
        if first {
            script.clear_output(0..self.items * size_of::<ListHeader>());
        }
        let blocks = self.blocks(parts.iter().map(|part| part.rows.clone()), first);
        for block in blocks {
            for (part, block) in parts.iter().zip(&block) {
                screen.fill_cells(&mut script, part, block);
            }
            let Some(any) = block.first() else { continue };
            let work = u64::from(any.queries) * u64::from(any.cells) * SELECT_WORK;
            script.dispatch(Stage::Select, None, any, [any.queries, 1, 1], work);
            for (part, block) in parts.iter().zip(&block) {
                screen.collect(&mut script, part, block);
            }
        }
        script
    }

    /// Writes the lists to the slot's result. `whole` says for which queries every row is a candidate, whatever the
    /// device found.
    pub(crate) fn deliver(&self, output: &[u8], result: &mut [u8], whole: impl Fn(usize) -> bool) {
        const HEADER: usize = size_of::<ListHeader>();
        let list = self.capacity * size_of::<Candidate>();
        let (headers, lists) = result.split_at_mut(self.items * HEADER);
        let found = output.get(..headers.len()).unwrap_or_default().as_chunks::<HEADER>().0;
        for (query, header) in headers.as_chunks_mut::<HEADER>().0.iter_mut().enumerate() {
            let count = found.get(query).map(|bytes| bytemuck::pod_read_unaligned::<ListHeader>(bytes).count as usize);
            let listed = count.filter(|count| *count <= self.capacity && !whole(query)).and_then(|count| {
                let bytes = query * list..query * list + count * size_of::<Candidate>();
                lists.get_mut(bytes.clone())?.copy_from_slice(output.get(headers_len(self.items)..)?.get(bytes)?);
                Some(ListHeader { count: count as u32, flags: 0 })
            });
            let told = listed.unwrap_or(ListHeader { count: 0, flags: EVERY_ROW });
            header.copy_from_slice(bytemuck::bytes_of(&told));
        }
    }

    /// The blocks of a round, each as one for every part. `parts` are the parts' rows.
    fn blocks(&self, parts: impl Iterator<Item = std::ops::Range<usize>> + Clone, first: bool) -> Vec<Vec<Block>> {
        let rows: usize = parts.clone().map(|rows| rows.len()).sum();
        let cell_rows = if rows / CELL_ROWS >= CELLS_PER_K * self.k { CELL_ROWS } else { 1 };
        let cells: usize = parts.clone().map(|rows| rows.len().div_ceil(cell_rows)).sum();
        let room = self.table_cells() / cells.max(1);
        let bearable = usize::try_from(MOST_WORK / (rows as u64 * self.pair_work).max(1)).unwrap_or(usize::MAX);
        let block = block_of(room.min(bearable), self.items);
        let of_part = |first_query: usize, first_cell: usize, rows: std::ops::Range<usize>| Block {
            first_query: first_query as u32,
            queries: block.min(self.items - first_query) as u32,
            cell_rows: cell_rows as u32,
            cells: cells as u32,
            first_cell: first_cell as u32,
            rows: rows.len() as u32,
            first_row: rows.start as u32,
            table: (self.table_at() / PAIR) as u32,
            items: self.items as u32,
            capacity: self.capacity as u32,
            k: self.k as u32,
            fresh: u32::from(first),
        };
        let of_queries = |first_query: usize| {
            let cells_before = parts.clone().scan(0, |before, rows| {
                let first = *before;
                *before += rows.len().div_ceil(cell_rows);
                Some((first, rows))
            });
            cells_before.map(|(first_cell, rows)| of_part(first_query, first_cell, rows)).collect()
        };
        (0..self.items).step_by(block).map(of_queries).collect()
    }

    /// Where the cells begin in the scratch, in bytes.
    fn table_at(&self) -> usize {
        (self.items * PAIR).next_multiple_of(16)
    }

    /// Cells that there is room for: at least those of one query, since no round has more cells than rows.
    fn table_cells(&self) -> usize {
        self.items.saturating_mul(self.rows).min(self.rows.min(ROUND_ROWS).max(self.table_bytes / PAIR))
    }
}

/// Queries of a block, with room for so many: all of them, else a multiple of 64, else a multiple of 4, else one. So
/// stages may take queries by 4 or by 64 as they lie in the input.
fn block_of(room: usize, items: usize) -> usize {
    match room.min(WORKGROUPS) {
        room if room >= items => items,
        0..4 => 1,
        room @ 4..64 => room / 4 * 4,
        room => room / 64 * 64,
    }
}

fn headers_len(items: usize) -> usize {
    items * size_of::<ListHeader>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_every_query_once_and_every_cell_has_a_place() {
        for (items, k, parts) in
            [(1, 1, vec![0..16, 16..17]), (70, 3, vec![0..1000, 1000..1007]), (300, 50, vec![0..16, 16..999])]
        {
            let rows = parts.iter().map(std::ops::Range::len).sum();
            for table_bytes in [0, 8 * PAIR * rows, 1 << 20, usize::MAX] {
                let lists = Lists { table_bytes, ..Lists::new(items, k, rows, 1 << 20) };
                let mut query = 0;
                for block in lists.blocks(parts.iter().cloned(), true) {
                    let mut cell = 0;
                    for (part, rows) in block.iter().zip(&parts) {
                        assert_eq!((part.first_query, part.first_cell), (query, cell));
                        assert_eq!((part.first_row as usize, part.rows as usize), (rows.start, rows.len()));
                        assert_eq!(part.cell_rows, if items == 70 { 16 } else { 1 });
                        cell += part.part_cells();
                    }
                    let any = block[0];
                    assert!(any.queries == 1 || any.first_query % 4 == 0, "{any:?}");
                    assert_eq!(any.cells, cell);
                    let end = any.table as usize + any.queries as usize * any.cells as usize;
                    assert!(end * PAIR <= lists.sizes(0).scratch && any.table as usize >= items, "{any:?}");
                    query += any.queries;
                }
                assert_eq!(query as usize, items);
            }
        }
    }

    #[test]
    fn a_list_that_does_not_fit_and_one_that_is_not_there_mean_every_row() {
        let lists = Lists::new(3, 1, 100, lists::len(3, 2));
        let mut output = vec![0_u8; lists.sizes(0).output];
        let counts = [2_u32, 0, 3, 0, 1, 0];
        output[..24].copy_from_slice(bytemuck::cast_slice(&counts));
        output[24..].copy_from_slice(bytemuck::cast_slice(&[7_u32, 8, 9, 10, 1, 2, 3, 4, 5, 6, 0, 0]));
        let told = |output: &[u8], whole: fn(usize) -> bool| {
            let mut result = vec![0_u8; lists::len(3, 2)];
            lists.deliver(output, &mut result, whole);
            bytemuck::pod_collect_to_vec::<u8, u32>(&result)
        };
        assert_eq!(told(&output, |_| false), [2, 0, 0, EVERY_ROW, 1, 0, 7, 8, 9, 10, 0, 0, 0, 0, 5, 6, 0, 0]);
        assert_eq!(told(&output, |query| query == 2)[..6], [2, 0, 0, EVERY_ROW, 0, EVERY_ROW]);
        assert_eq!(told(&[], |_| false)[..6], [0, EVERY_ROW, 0, EVERY_ROW, 0, EVERY_ROW]);
    }
}
