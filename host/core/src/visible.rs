//! Which rows of a segment a view shows: those that are not deleted, and that a filter lets pass.
//!
//! A hidden row keeps its number, and no answer has it. To a screen it is what padding is: its bound is -inf.

use std::ops::Range;

use crate::screen::{GROUP_ROWS, groups};

/// A bit for each row of a segment, the words being the groups of the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visible {
    groups: Vec<u16>,
    rows: usize,
    count: usize,
}

const _: () = assert!(GROUP_ROWS == u16::BITS as usize);

impl Visible {
    /// All of `rows` rows.
    #[must_use]
    pub fn all(rows: usize) -> Self {
        Self::of_groups(vec![u16::MAX; groups(rows)], rows)
    }

    /// None of `rows` rows.
    #[must_use]
    pub fn none(rows: usize) -> Self {
        Self { groups: vec![0; groups(rows)], rows, count: 0 }
    }

    /// Those of `rows` rows whose bit is set, the first being the lowest of the first byte. Missing bits are not set.
    #[must_use]
    pub fn of_bits(bits: &[u8], rows: usize) -> Self {
        let word = |pair: &[u8]| u16::from_le_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        let mut words: Vec<u16> = bits.chunks(size_of::<u16>()).map(word).collect();
        words.resize(groups(rows), 0);
        Self::of_groups(words, rows)
    }

    fn of_groups(mut groups: Vec<u16>, rows: usize) -> Self {
        if let Some(last) = groups.last_mut() {
            *last &= u16::MAX >> (groups_end(rows) - rows);
        }
        let count = groups.iter().map(|group| group.count_ones() as usize).sum();
        Self { groups, rows, count }
    }

    /// Hides some rows more; those beyond the segment are passed over.
    #[must_use]
    pub fn without(mut self, rows: impl Iterator<Item = usize>) -> Self {
        for row in rows.filter(|row| *row < self.rows) {
            self.groups[row / GROUP_ROWS] &= !(1 << (row % GROUP_ROWS));
        }
        Self::of_groups(self.groups, self.rows)
    }

    /// Shows some rows more; those beyond the segment are passed over.
    #[must_use]
    pub fn with(mut self, rows: impl Iterator<Item = usize>) -> Self {
        for row in rows.filter(|row| *row < self.rows) {
            self.groups[row / GROUP_ROWS] |= 1 << (row % GROUP_ROWS);
        }
        Self::of_groups(self.groups, self.rows)
    }

    /// Those that both show, of the same rows.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.groups.iter_mut().zip(&other.groups).for_each(|(mine, other)| *mine &= other);
        Self::of_groups(self.groups, self.rows)
    }

    /// Rows of the segment, hidden ones too.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows that are visible.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether a row is. One beyond the segment is not.
    #[must_use]
    pub fn contains(&self, row: usize) -> bool {
        self.groups.get(row / GROUP_ROWS).is_some_and(|group| group & 1 << (row % GROUP_ROWS) != 0)
    }

    /// The bits of a group's rows.
    #[must_use]
    pub fn group(&self, group: usize) -> u16 {
        self.groups.get(group).copied().unwrap_or(0)
    }

    /// Runs of groups that have a visible row each, in order, within `range`.
    pub fn runs_of_groups(&self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        runs(range, |from, wanted| {
            let rest = self.groups.get(from..).unwrap_or_default();
            from + rest.iter().position(|group| (*group != 0) == wanted).unwrap_or(rest.len())
        })
    }

    /// Runs of visible rows, in order, within `range`.
    pub fn runs_of_rows(&self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        runs(range, |from, wanted| {
            let (group, lane) = (from / GROUP_ROWS, from % GROUP_ROWS);
            let rest = self.groups.get(group..).unwrap_or_default();
            let bits = |(at, group): (usize, &u16)| {
                let bits = if wanted { *group } else { !*group };
                let bits = if at == 0 { bits & u16::MAX << lane } else { bits };
                (bits != 0).then(|| at * GROUP_ROWS + bits.trailing_zeros() as usize)
            };
            let next = rest.iter().enumerate().find_map(bits);
            group * GROUP_ROWS + next.unwrap_or(rest.len() * GROUP_ROWS)
        })
    }
}

fn groups_end(rows: usize) -> usize {
    groups(rows) * GROUP_ROWS
}

/// The longest runs of what is wanted within `range`. `next` finds the first place from one on that is wanted, or is
/// not.
fn runs(range: Range<usize>, next: impl Fn(usize, bool) -> usize) -> impl Iterator<Item = Range<usize>> {
    let (mut at, end) = (range.start, range.end);
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let begin = next(at, true).min(end);
        at = if begin < end { next(begin, false).min(end) } else { end };
        (begin < at).then_some(begin..at)
    })
}
