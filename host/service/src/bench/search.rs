//! Searches: over a grid of sizes, where backends cross, and as people ask for them.

use std::sync::Arc;

use megaring_core::BackendKind;
use megaring_core::search::Search;
use megaring_engine::Engine;
use megaring_engine::measure::sampler::Subject;
use megaring_harness::record::{Residence, Sizes};

use super::corpora::{Corpus, METRIC};
use super::session::{Case, Entrant, Session, timed};
use crate::console::grouped;

/// A batch over a corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    residence: Residence,
    k: usize,
    items: usize,
}

/// A corpus and what is asked of it.
pub(super) struct Block {
    rows: usize,
    dim: usize,
    cells: Vec<Cell>,
}

/// The grid in which backends cross: corpora by rows and dimensions, and for each answers by batches. The batches with
/// 1 are also those along which the corpus grows. Cold corpora are asked for the same batches, in a quick run for every
/// other.
pub(super) fn crossover(quick: bool) -> Vec<Block> {
    let rows: &[usize] =
        if quick { &[1_000, 5_562, 20_000, 110_000] } else { &[1_000, 5_562, 20_000, 110_000, 1_000_000] };
    let (dims, answers): (&[usize], &[usize]) = if quick { (&[384], &[10]) } else { (&[384, 768], &[10, 100]) };
    let most = if quick { 10 } else { 12 };
    let block = |rows, dim| {
        let resident = answers.iter().flat_map(|k| (0..=most).map(|power| (Residence::Resident, *k, 1 << power)));
        let cold = (0..=most).step_by(if quick { 2 } else { 1 }).map(|power| (Residence::Cold, 10, 1 << power));
        let cells = resident.chain(cold).map(|(residence, k, items)| Cell { residence, k, items });
        Block { rows, dim, cells: cells.collect() }
    };
    // More of the largest corpus than its usual dimension would take most of the time.
    let all = dims.iter().flat_map(|dim| rows.iter().map(|rows| (*rows, *dim)));
    all.filter(|(rows, dim)| *rows < 1_000_000 || *dim == 384).map(|(rows, dim)| block(rows, dim)).collect()
}

/// What people ask for.
pub(super) fn usual(quick: bool) -> Vec<Block> {
    let block = |rows, batches: &[usize]| {
        let both = [Residence::Resident, Residence::Cold];
        let cells = both
            .into_iter()
            .flat_map(|at| batches.iter().map(move |items| Cell { residence: at, k: 10, items: *items }));
        Block { rows, dim: 384, cells: cells.collect() }
    };
    let mut blocks = vec![block(100, &[1]), block(5_562, &[1, 16, 64, 256, 5_562]), block(110_000, &[1, 64])];
    if !quick {
        blocks.push(block(1_000_000, &[1, 64]));
    }
    blocks
}

/// What people ask for, then what the grid has beside it: each size once. Of a size measured twice the backends' times
/// could come from different minutes, not taken in alternation.
pub(super) fn all(quick: bool) -> Vec<Block> {
    let mut blocks = usual(quick);
    let mut grid = crossover(quick);
    for block in &mut grid {
        let asked = blocks.iter().filter(|usual| (usual.rows, usual.dim) == (block.rows, block.dim));
        let asked: Vec<Cell> = asked.flat_map(|usual| &usual.cells).copied().collect();
        block.cells.retain(|cell| !asked.contains(cell));
    }
    blocks.extend(grid);
    blocks
}

/// The cells that backends of these kinds have.
pub(super) fn cells<'a>(blocks: &'a [Block], kinds: &'a [BackendKind]) -> impl Iterator<Item = &'a Cell> {
    blocks.iter().flat_map(|block| &block.cells).filter(|cell| !able(kinds, cell.residence).is_empty())
}

/// The backends that there is something to upload for, where it is to be uploaded.
fn able(kinds: &[BackendKind], residence: Residence) -> Vec<BackendKind> {
    let able = |kind: &&BackendKind| residence == Residence::Resident || **kind != BackendKind::Cpu;
    kinds.iter().filter(able).copied().collect()
}

/// Measures all blocks, one corpus after the other.
pub(super) fn run(session: &mut Session, blocks: &[Block]) {
    for Block { rows, dim, cells } in blocks {
        let kinds = session.kinds();
        let cells: Vec<&Cell> = cells.iter().filter(|cell| !able(&kinds, cell.residence).is_empty()).collect();
        if session.lacks_time() {
            cells.iter().for_each(|_| session.miss());
            continue;
        }
        let most = cells.iter().map(|cell| cell.items).max().unwrap_or(0);
        match Corpus::make(session.engine(), *rows, *dim, most) {
            Some(corpus) => cells.iter().for_each(|cell| measure(session, &corpus, (*rows, *dim), cell)),
            None => {
                cells.iter().for_each(|_| session.skip());
                session
                    .note(format!("search over {} x {dim} was left out: memory is too short", grouped(*rows as u64)));
            }
        }
    }
}

fn measure(session: &mut Session, corpus: &Corpus, (rows, dim): (usize, usize), cell: &Cell) {
    let Cell { residence, k, items } = *cell;
    let sizes = Sizes { rows: rows as u64, dim: dim as u64, k: k as u64, items: items as u64 };
    let (multiply_adds, bytes) =
        ((rows * dim) as f64 * items as f64, (rows * dim + items * dim * size_of::<f32>()) as f64);
    let case = Case { suite: "search", name: "search", residence, sizes, multiply_adds, bytes };
    let engine = session.engine().clone();
    let entrants = able(&session.kinds(), residence).into_iter().map(|kind| entrant(&engine, kind, corpus, cell));
    session.measure(&case, entrants.collect());
}

fn entrant<'a>(engine: &'a Arc<Engine>, kind: BackendKind, corpus: &'a Corpus, cell: &'a Cell) -> Entrant<'a> {
    let subject = Subject::new(move |call| {
        let view = match cell.residence {
            Residence::Resident => corpus.resident(),
            Residence::Cold => corpus.fresh(engine),
        };
        let queries = corpus.queries(call.number, cell.items);
        timed(
            engine,
            kind,
            Search { corpus: view, queries: queries.into(), metric: METRIC, k: cell.k, threshold: None },
        )
    });
    (kind, subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_searches_have_each_size_once() {
        for quick in [true, false] {
            let sizes = |blocks: &[Block]| -> Vec<(usize, usize, Cell)> {
                let of =
                    |block: &Block| block.cells.iter().map(|cell| (block.rows, block.dim, *cell)).collect::<Vec<_>>();
                blocks.iter().flat_map(of).collect()
            };
            let (usual, grid, all) = (sizes(&usual(quick)), sizes(&crossover(quick)), sizes(&all(quick)));
            assert!(all.starts_with(&usual) && grid.iter().all(|size| all.contains(size)));
            assert!(usual.iter().any(|size| grid.contains(size)), "there is something to leave out");
            assert!(all.iter().enumerate().all(|(nth, size)| !all[..nth].contains(size)), "one is measured twice");
        }
    }

    #[test]
    fn the_grid_holds_what_crossovers_need() {
        for quick in [true, false] {
            let blocks = crossover(quick);
            let both = [BackendKind::Cpu, BackendKind::Cuda];
            for block in &blocks {
                let batches = |residence, k| -> Vec<usize> {
                    let of = block.cells.iter().filter(|cell| (cell.residence, cell.k) == (residence, k));
                    of.map(|cell| cell.items).collect()
                };
                let resident = batches(Residence::Resident, 10);
                assert_eq!((resident.first(), resident.last()), (Some(&1), Some(&if quick { 1_024 } else { 4_096 })));
                assert!(resident.windows(2).all(|pair| pair[1] == 2 * pair[0]));
                let cold = batches(Residence::Cold, 10);
                assert!(cold.windows(2).all(|pair| pair[1] == if quick { 4 } else { 2 } * pair[0]));
                assert_eq!((cold.first(), cold.last()), (resident.first(), resident.last()));
                assert!(quick || batches(Residence::Resident, 100) == resident);
            }
            assert_eq!(blocks.len(), if quick { 4 } else { 9 });
            assert!(cells(&blocks, &both).count() > cells(&blocks, &both[..1]).count());
            assert!(
                cells(&blocks, &both[..1]).all(|cell| cell.residence == Residence::Resident),
                "nothing is uploaded"
            );
        }
    }
}
