//! What the backend tests before it takes a job: that this adapter, its driver and its compiler do what the proofs
//! assume. Each operation runs on small data that is hard for it and is compared with its definition, by a test in its
//! own file.

use std::ops::Range;
use std::sync::Arc;

use megaring_core::Opcode;
use megaring_core::corpus::{Column, Columns, CorpusView, HeapSegment, SegmentView};
use megaring_core::encode::keyword::Automaton;
use megaring_core::operation::Serves;

use crate::cut::Pair;
use crate::gpu::Gpu;
use crate::operation::{Operation, Part, serves};
use crate::{Unavailable, trial};

/// Rows of the corpus, and their elements.
pub(crate) const ROWS: usize = 600;
pub(crate) const DIM: usize = 44;
/// Queries there are.
pub(crate) const QUERIES: usize = 40;
/// Hits to ask for: of cells of 16 rows, and of single ones.
pub(crate) const HITS: [usize; 2] = [5, 60];

/// Runs the self-test of every operation that is served.
///
/// # Errors
/// Which operation's answer is not to be trusted, or what the device said.
pub(crate) fn run_all(gpu: &Gpu, automaton: &Automaton) -> Result<(), Unavailable> {
    let trial = Trial::new(gpu, automaton);
    for opcode in Opcode::ALL {
        let Serves::By(handler) = serves(opcode) else { continue };
        (handler.self_test)(&trial).map_err(|reason| {
            Unavailable::new(format_args!("the adapter {} fails the self-test of {opcode}: {reason}", gpu.name))
        })?;
    }
    Ok(())
}

/// What a self-test works with.
pub(crate) struct Trial<'a> {
    pub(crate) gpu: &'a Gpu,
    pub(crate) automaton: &'a Automaton,
    /// A corpus of one segment: [`ROWS`] rows of which some are alike and some lie close together.
    pub(crate) view: CorpusView,
    /// [`QUERIES`] of them, one after the other.
    pub(crate) queries: Vec<f32>,
}

impl<'a> Trial<'a> {
    pub(crate) fn new(gpu: &'a Gpu, automaton: &'a Automaton) -> Self {
        let mut numbers = Numbers::new();
        let mut values: Vec<f32> = (0..ROWS * DIM).map(|_| numbers.near_one() as f32).collect();
        values.copy_within(0..DIM, 300 * DIM);
        values.copy_within(DIM..3 * DIM, 400 * DIM);
        values[401 * DIM..402 * DIM].iter_mut().for_each(|value| *value *= 1.001);
        let queries = (0..QUERIES * DIM).map(|_| numbers.near_one() as f32).collect();
        let segment = Arc::new(SegmentView::new(Arc::new(HeapSegment::new(values, DIM, None)), ROWS));
        Self { gpu, automaton, view: CorpusView::new("self-test".into(), 0, 0, DIM, vec![segment]), queries }
    }

    /// The corpus's only segment.
    pub(crate) fn segment(&self) -> &SegmentView {
        self.view.segment_of(0).1
    }

    /// Columns of the corpus, in parts of an uneven number of rows.
    ///
    /// # Errors
    /// The device has no room.
    pub(crate) fn parts(&self, columns: &[Column]) -> Result<Vec<Part>, String> {
        let part = |rows: Range<usize>| {
            let pair = Pair::of(Columns::of(columns)).ok_or("there are more columns than buffers")?;
            let [first, second] = pair.contents(self.segment(), DIM, &rows).ok_or("a segment lacks something")?;
            self.part(&first, &second, rows)
        };
        [0..16 * 7, 16 * 7..ROWS].into_iter().map(part).collect()
    }

    /// A part whose two buffers hold these bytes.
    ///
    /// # Errors
    /// The device has no room.
    pub(crate) fn part(&self, first: &[u8], second: &[u8], rows: Range<usize>) -> Result<Part, String> {
        Ok(Part { binding: trial::bind(self.gpu, first, second).map_err(|full| full.to_string())?, rows })
    }

    /// Runs a job of one round, and gives back its slot's result of `len` bytes.
    ///
    /// # Errors
    /// What went wrong with the device.
    pub(crate) fn run(&self, job: &mut dyn Operation, parts: &[Part], len: usize) -> Result<Vec<u8>, String> {
        trial::run(self.gpu, job, &[parts.to_vec()], len)
    }
}

/// Numbers that look random (xorshift, Marsaglia 2003) and are the same every time.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }

    /// Between -1 and 1, with all bits of a float64.
    pub(crate) fn near_one(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{automaton, gpus};

    #[test]
    fn the_adapter_of_this_machine_passes() {
        let automaton = automaton();
        for gpu in gpus() {
            run_all(gpu, &automaton).expect("it passes");
        }
    }
}
