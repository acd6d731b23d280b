//! What a commit changes: rows that it deletes and rows that it adds, in one record of the log.

use megaring_core::{Error, RowType};
use roaring::RoaringBitmap;

use crate::append::Mode;
use crate::ids::NewIds;
use crate::manifest::Logged;
use crate::piece::{self, Piece};
use crate::version::Version;

/// What a deletion did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// Rows deleted.
    pub rows: usize,
    /// Ids that no row had, in rising order.
    pub missing: Vec<u64>,
    /// Text ids that no row had, in rising order.
    pub missing_texts: Vec<String>,
    /// Rows the corpus has now.
    pub total_rows: usize,
    /// The corpus's version now.
    pub generation: u32,
}

/// What a commit changes. Rows are numbered as they are once the new ones are added.
#[derive(Clone)]
pub(crate) struct Change {
    pub(crate) deleted: RoaringBitmap,
    pub(crate) added: Option<Piece>,
}

impl Change {
    /// The record that stands for it in a log.
    pub(crate) fn logged(&self) -> Result<Logged, Error> {
        let added = self.added.as_ref().map(Piece::logged).transpose()?;
        match added {
            Some(added) if self.deleted.is_empty() => Ok(added),
            added => Logged::deleting(&self.deleted, added).map_err(|error| Error::Internal(error.to_string())),
        }
    }

    /// Makes it part of a version's content.
    pub(crate) fn apply(self, pieces: &mut Vec<Piece>, deleted: &mut RoaringBitmap, row_type: RowType) {
        if let Some(added) = self.added {
            piece::push(pieces, added, row_type);
        }
        *deleted |= self.deleted;
    }

    /// The same where these rows have no number any more.
    pub(crate) fn renumbered(self, dropped: &RoaringBitmap) -> Self {
        Self { deleted: renumbered(&self.deleted, dropped), ..self }
    }
}

/// The numbers that rows have once `dropped`, of which they are none, have no number any more.
pub(crate) fn renumbered(rows: &RoaringBitmap, dropped: &RoaringBitmap) -> RoaringBitmap {
    let (mut before, mut count) = (dropped.iter().peekable(), 0);
    let number = |row: u32| {
        while before.next_if(|dropped| *dropped < row).is_some() {
            count += 1;
        }
        row - count
    };
    rows.iter().map(number).collect()
}

/// Rows whose place new ones take.
#[derive(Default)]
pub(crate) struct Replaced {
    pub(crate) rows: RoaringBitmap,
    /// How many of them were there before.
    pub(crate) before: usize,
    /// How many are new themselves: their id comes again.
    pub(crate) again: usize,
}

impl Replaced {
    /// By rows that have these ids and follow a version's last.
    pub(crate) fn by(ids: &NewIds, version: &Version, mode: Mode) -> Result<Self, Error> {
        if mode == Mode::Append {
            return if version.opening.unique_ids {
                ids.check_unique(&version.view).map(|()| Self::default())
            } else {
                Ok(Self::default())
            };
        }
        let mut rows = ids.rows_of(&version.view)?;
        let before = rows.len() as usize;
        let start = version.view.rows();
        let again = ids.repeated();
        rows.extend(again.iter().map(|(row, _)| (start + row) as u32));
        Ok(Self { rows, before, again: again.len() })
    }
}
