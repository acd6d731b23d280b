//! The Merkle tree: its nodes in memory, and roots and proofs from them, in the recursive terms of RFC 6962, section
//! 2.1.
//!
//! Nothing here knows where a node comes from. A *node* is the hash of a perfect subtree: that of `level` and `index`
//! stands over the leaves from `index << level` up to `(index + 1) << level`.

use rayon::prelude::*;

use crate::error::Error;
use crate::merkle::{EMPTY_ROOT, Hash, leaf_hashes, node_hash, parents};
use crate::record::Record;

/// Where nodes come from.
pub(crate) trait Nodes {
    /// The node of `level` and `index`, all of whose leaves are there.
    fn node(&mut self, level: u32, index: u64) -> Result<Hash, Error>;
}

/// The root over the first `size` leaves.
pub(crate) fn root(nodes: &mut impl Nodes, size: u64) -> Result<Hash, Error> {
    if size == 0 { Ok(EMPTY_ROOT) } else { range(nodes, 0, size) }
}

/// `PATH(index, D[size])`: the siblings from the leaf up to the root.
pub(crate) fn inclusion(nodes: &mut impl Nodes, index: u64, size: u64) -> Result<Vec<Hash>, Error> {
    let (mut start, mut end, mut siblings) = (0, size, Vec::new());
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            siblings.push((middle, end));
            end = middle;
        } else {
            siblings.push((start, middle));
            start = middle;
        }
    }
    siblings.into_iter().rev().map(|(start, end)| range(nodes, start, end)).collect()
}

/// `PROOF(old, D[new])`. Nothing is to be shown where the trees are one, or the old one is empty.
pub(crate) fn consistency(nodes: &mut impl Nodes, old: u64, new: u64) -> Result<Vec<Hash>, Error> {
    if old == 0 {
        return Ok(Vec::new());
    }
    let (mut start, mut end, mut siblings) = (0, new, Vec::new());
    while end != old {
        let middle = start + split(end - start);
        if old <= middle {
            siblings.push((middle, end));
            end = middle;
        } else {
            siblings.push((start, middle));
            start = middle;
        }
    }
    // The subtree that the old tree ends in; where that is all of it, whoever checks has its root.
    if start > 0 {
        siblings.push((start, end));
    }
    siblings.into_iter().rev().map(|(start, end)| range(nodes, start, end)).collect()
}

/// `MTH(D[start:end])` of leaves that one subtree of the tree stands over.
fn range(nodes: &mut impl Nodes, start: u64, end: u64) -> Result<Hash, Error> {
    let len = end - start;
    if len.is_power_of_two() {
        return nodes.node(len.ilog2(), start >> len.ilog2());
    }
    let middle = start + split(len);
    Ok(node_hash(&range(nodes, start, middle)?, &range(nodes, middle, end)?))
}

/// The largest power of two below `len`, which is at least 2.
fn split(len: u64) -> u64 {
    1 << (len - 1).ilog2()
}

/// All nodes over leaves that come one after another, from the lowest level that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Levels(Vec<Vec<Hash>>);

impl Levels {
    /// Those over nodes of the lowest level.
    pub(crate) fn over(lowest: Vec<Hash>) -> Self {
        let mut levels = vec![lowest];
        while let Some(last) = levels.last().filter(|last| last.len() > 1) {
            let next = parents(last);
            levels.push(next);
        }
        Self(levels)
    }

    /// Adds a node to the lowest level, and those above that it completes.
    pub(crate) fn push(&mut self, mut node: Hash) {
        for level in 0.. {
            if level == self.0.len() {
                self.0.push(Vec::new());
            }
            self.0[level].push(node);
            let (pairs, []) = self.0[level].as_chunks::<2>() else { return };
            let Some([left, right]) = pairs.last() else { return };
            node = node_hash(left, right);
        }
    }

    /// A node; `level` counts from the lowest.
    pub(crate) fn node(&self, level: u32, index: u64) -> Option<Hash> {
        self.0.get(level as usize)?.get(usize::try_from(index).ok()?).copied()
    }

    /// The nodes that have none above them, from the lowest: the perfect subtrees that the leaves fall into, from the
    /// last and smallest.
    fn peaks(&self) -> impl Iterator<Item = Hash> {
        self.0.iter().filter(|level| level.len() % 2 == 1).filter_map(|level| level.last().copied())
    }

    /// The nodes of the lowest level.
    pub(crate) fn lowest(&self) -> &[Hash] {
        self.0.first().map_or(&[], Vec::as_slice)
    }
}

/// The root of a whole ledger: `upper` stands on the roots of all full segments, `last` is the last segment, which may
/// be full, too.
pub(crate) fn root_of_all(upper: &Levels, last: &Subtree) -> Hash {
    let open = Levels::over(last.open.clone());
    let within = open.peaks().chain(last.levels.peaks()).filter(|_| !last.is_full());
    within.chain(upper.peaks()).reduce(|right, left| node_hash(&left, &right)).unwrap_or(EMPTY_ROOT)
}

/// Levels of leaves that are not kept: a block is what is read and hashed anew for a proof.
const BLOCK_LEVEL: u32 = 5;

/// What is kept of the subtree over a segment: its nodes from the blocks up, and the leaves of the block that is not
/// full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subtree {
    height: u32,
    levels: Levels,
    open: Vec<Hash>,
}

impl Subtree {
    /// Over the first records of a segment that has room for `1 << height`.
    pub(crate) fn over(height: u32, records: &[Record]) -> Self {
        let hashed = Hashed::of(height, records, 0);
        Self { height, levels: Levels::over(hashed.blocks), open: hashed.trailing }
    }

    /// Binary logarithm of the records that there is room for.
    pub(crate) fn height(&self) -> u32 {
        self.height
    }

    /// Level of a block: nothing below it is kept.
    pub(crate) fn block_level(&self) -> u32 {
        block_level(self.height)
    }

    /// Adds records that were hashed for where it ends.
    pub(crate) fn extend(&mut self, hashed: Hashed) {
        let Hashed { leading, blocks, trailing } = hashed;
        self.open.extend(leading);
        if self.open.len() == 1 << self.block_level() {
            self.levels.push(top(std::mem::take(&mut self.open)));
        }
        blocks.into_iter().for_each(|node| self.levels.push(node));
        self.open.extend(trailing);
    }

    /// Records so far.
    pub(crate) fn len(&self) -> u64 {
        ((self.levels.lowest().len() as u64) << self.block_level()) + self.open.len() as u64
    }

    /// Whether the segment has no more room.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >> self.height != 0
    }

    /// The root of a full segment.
    pub(crate) fn root(&self) -> Option<Hash> {
        self.node(self.height, 0)
    }

    /// A node from the blocks up; `index` counts within the segment.
    pub(crate) fn node(&self, level: u32, index: u64) -> Option<Hash> {
        self.levels.node(level.checked_sub(self.block_level())?, index)
    }

    /// The leaves of block `index`, where that is the one that is not full.
    pub(crate) fn open_block(&self, index: u64) -> Option<&[Hash]> {
        (index == self.levels.lowest().len() as u64).then_some(self.open.as_slice())
    }
}

/// The hashes of some records of a segment, as a [`Subtree`] takes them.
#[derive(Debug)]
pub(crate) struct Hashed {
    /// Leaves up to where a block begins.
    leading: Vec<Hash>,
    /// Nodes over whole blocks.
    blocks: Vec<Hash>,
    /// Leaves behind the last whole block.
    trailing: Vec<Hash>,
}

impl Hashed {
    /// Of records of which the first is number `at` of a segment of `1 << height`. Many are shared out over all
    /// processors.
    pub(crate) fn of(height: u32, records: &[Record], at: u64) -> Self {
        let block = 1 << block_level(height);
        let to_border = (block - (at as usize & (block - 1))) & (block - 1);
        let (leading, records) = records.split_at(to_border.min(records.len()));
        let (blocks, trailing) = records.split_at(records.len() & !(block - 1));
        let node = |block: &[Record]| top(leaf_hashes(block));
        let blocks = if blocks.len() < FEW {
            blocks.chunks(block).map(node).collect()
        } else {
            blocks.par_chunks(block).map(node).collect()
        };
        Self { leading: leaf_hashes(leading), blocks, trailing: leaf_hashes(trailing) }
    }
}

/// Records that are hashed sooner than other threads are woken.
const FEW: usize = 256;

fn block_level(height: u32) -> u32 {
    BLOCK_LEVEL.min(height)
}

/// The node over a power of two of others.
fn top(mut hashes: Vec<Hash>) -> Hash {
    while hashes.len() > 1 {
        hashes = parents(&hashes);
    }
    hashes.first().copied().unwrap_or(EMPTY_ROOT)
}
