//! Texts as a slot has them, and as the shaders read them: where each begins and the last ends (u32), then the bytes.

use megaring_ring::Status;

use crate::plan::{Inputs, split};

const OFFSET_BYTES: usize = size_of::<u32>();

/// A job's texts, one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Texts<'a> {
    offsets: &'a [u64],
    bytes: &'a [u8],
}

impl<'a> Texts<'a> {
    /// Those of a slot.
    ///
    /// # Errors
    /// See [`Self::new`].
    pub(super) fn of(inputs: &Inputs<'a>) -> Result<Self, Status> {
        let (offsets, bytes) = split(inputs.payload, inputs.items() + 1, 1)?;
        Self::new(offsets, bytes)
    }

    /// Texts that begin at `offsets`, whose last is where they end.
    ///
    /// # Errors
    /// Offsets that do not rise from 0 to the texts' length, or lengths that 32 bits cannot count.
    pub(super) fn new(offsets: &'a [u64], bytes: &'a [u8]) -> Result<Self, Status> {
        let rising =
            offsets.first() == Some(&0) && offsets.last() == Some(&(bytes.len() as u64)) && offsets.is_sorted();
        let counts = u32::try_from(bytes.len()).is_ok() && u32::try_from(offsets.len()).is_ok();
        if rising && counts { Ok(Self { offsets, bytes }) } else { Err(Status::BadDescriptor) }
    }

    /// Number of texts.
    pub(super) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Bytes of all texts together.
    pub(super) fn bytes(&self) -> u32 {
        self.bytes.len() as u32
    }

    /// Bytes of each.
    pub(super) fn lengths(&self) -> impl Iterator<Item = u32> {
        self.offsets.windows(2).map(|bounds| (bounds[1] - bounds[0]) as u32)
    }

    /// Bytes of the longest; 0 where there is none.
    pub(super) fn longest(&self) -> u32 {
        self.lengths().max().unwrap_or_default()
    }

    /// Bytes of input that they take.
    pub(super) fn input(&self) -> usize {
        (self.offsets.len() * OFFSET_BYTES + self.bytes.len()).next_multiple_of(4)
    }

    /// Writes them to an input.
    pub(super) fn fill(&self, input: &mut [u8]) {
        let (starts, text) = input.split_at_mut(self.offsets.len() * OFFSET_BYTES);
        for (start, offset) in starts.chunks_exact_mut(OFFSET_BYTES).zip(self.offsets) {
            start.copy_from_slice(&(*offset as u32).to_le_bytes());
        }
        text[..self.bytes.len()].copy_from_slice(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_that_do_not_rise_from_none_to_all_are_refused() {
        for offsets in [&[][..], &[0], &[1, 4], &[0, 3], &[0, 5], &[0, 3, 2, 4], &[0, 5, 4], &[0, u64::MAX, 4]] {
            assert_eq!(Texts::new(offsets, b"text").err(), Some(Status::BadDescriptor), "{offsets:?}");
        }
        assert_eq!(Texts::new(&[0, 0, 4, 4], b"text").map(|texts| texts.len()), Ok(3));
    }
}
