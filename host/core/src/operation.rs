//! Operations: what the service can do. [`operations!`](crate::operations) is the only list of them; it stands beside
//! their modules, in `lib.rs`. An operation's definition, the layout of its payload and its result, how it is cut and
//! how its answer is finished stand in one file, named after it.
//!
//! The middle of the service (admission, routing, submission) knows an operation as [`Operation`], its caller as
//! [`Answered`]. What each backend does for an operation is an exhaustive match over [`Opcode`] there ([`Serves`]).
//! `host/docs/adding-an-operation.md` is the recipe for a further one.

use std::ops::Range;
use std::sync::Arc;

use crate::corpus::{Columns, CorpusView};
use crate::encode::profile::Profile;
use crate::error::Error;
use crate::exact::ExactKernel;

macro_rules! opcodes {
    ($($number:literal $module:ident::$operation:ident,)*) => {
        /// What a job asks for. The number is the opcode in a submission slot; 0 is never a job.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Opcode {
            $(#[doc = concat!("See [`crate::", stringify!($module), "`].")] $operation = $number,)*
        }

        impl Opcode {
            /// Every opcode, in rising order.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$operation),*];
            /// How many there are.
            pub const COUNT: usize = [$($number),*].len();

            /// The stem that this operation has in file names, on the command line and in logs.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$operation => stringify!($module),)* }
            }

            /// What most of a job's time goes into, by which its cost is estimated.
            #[must_use]
            pub const fn class(self) -> Class {
                match self { $(Self::$operation => <crate::$module::$operation as Answered>::CLASS,)* }
            }

            /// The size of a job that is only described, and what it would read.
            ///
            /// # Errors
            /// [`Error::Invalid`] naming the number that is missing or does not belong there, [`Error::Precondition`]
            /// for a corpus that lacks what the operation reads.
            pub fn describe(self, shape: &Shape) -> Result<Description, Error> {
                match self { $(Self::$operation => <crate::$module::$operation as Answered>::describe(shape),)* }
            }
        }

        $(impl Listed for crate::$module::$operation {
            const OPCODE: Opcode = Opcode::$operation;
        })*
    };
}

crate::operations!(opcodes);

impl Opcode {
    /// The opcode with this number, if there is one.
    #[must_use]
    pub fn from_u16(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|opcode| *opcode as u16 == code)
    }

    /// Its place in [`Self::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        Self::ALL.iter().position(|opcode| *opcode == self).unwrap_or_default()
    }
}

impl std::str::FromStr for Opcode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|opcode| opcode.name() == name)
            .ok_or_else(|| format!("unknown operation {name:?}: {} are known", known()))
    }
}

impl std::fmt::Display for Opcode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What the list says of an operation. Implemented by [`operations!`](crate::operations) alone.
pub trait Listed {
    /// Its opcode.
    const OPCODE: Opcode;
}

/// A validated job, as the middle of the service knows it.
pub trait Operation: Send + Sync + 'static {
    /// The opcode of its slots.
    fn opcode(&self) -> Opcode;

    /// What it consists of: the router estimates its time by it.
    fn size(&self) -> Size;

    /// The corpus that it reads, if any.
    fn reads(&self) -> Option<Reads<'_>>;

    /// Cuts it into pieces of which each fits a slot. An empty batch has none.
    fn pieces(&self, limits: &Limits) -> Vec<Piece>;

    /// Writes a piece's payload, and what its slot says beside it.
    fn write(&self, piece: &Piece, payload: &mut Payload<'_>, slot: &mut SlotFields);
}

/// A job, as its caller knows it.
pub trait Answered: Operation + Listed + Sized {
    /// What its caller gets: of an empty batch the default, otherwise the pieces' answers one after the other.
    type Answer: Default + Send + 'static;

    /// What most of its time goes into.
    const CLASS: Class;

    /// What one item of a batch is called, in the plural: also the field of a request that holds them.
    const ITEMS: &'static str;

    /// The size of a job that is only described, and what it would read.
    ///
    /// # Errors
    /// See [`Opcode::describe`].
    fn describe(shape: &Shape) -> Result<Description, Error>;

    /// Whether [`Self::finish`] takes so little that it may hold up an async thread: some 100 µs.
    fn is_light(&self, piece: &Piece, result: &[u8]) -> bool;

    /// Makes a piece's exact answer of what a backend found, and adds it to the `answer` of the pieces before.
    ///
    /// # Errors
    /// [`Error::Internal`] where a backend's result is not of the agreed form; `answer` is of no use then.
    fn finish(
        &self,
        piece: &Piece,
        result: &[u8],
        by: &Exact<'_>,
        answer: &mut Self::Answer,
    ) -> Result<Finished, Error>;
}

/// What was done for a piece's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Answers that were added, where a query may have any number: the caller's limit counts them.
    pub answers: usize,
    /// Rows whose exact score was computed.
    pub rows_rescored: u64,
    /// Bytes of rows, codes, coordinates or texts that were read, as planned.
    pub bytes_read: u64,
}

/// What finishing needs beside a backend's result.
pub struct Exact<'a> {
    /// Exact scores, by the best kernels of this machine.
    pub kernel: &'a dyn ExactKernel,
    /// The encoder's profile.
    pub profile: &'a Profile,
}

/// What a job consists of. Products beyond 64 bits are 2^64 - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Size {
    /// Queries, memories or texts.
    pub items: u64,
    /// Bytes that are read at least once: codes, rows, coordinates or texts.
    pub bytes: u64,
    /// Multiply-adds of all pairs, as defined; none where nothing is multiplied.
    pub multiply_adds: u64,
    /// Elements of rows that are scored once more in full precision; for scores, the numbers that are answered.
    pub candidates: u64,
}

/// What most of a job's time goes into. Operations of one class share the coefficients of a backend's cost model, so
/// that a further operation needs no numbers of its own; what differs between them is learnt from outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Nothing: the path itself.
    Path,
    /// Integer products of codes.
    Screen,
    /// Products in float64.
    Exact,
    /// A pass over bytes of text.
    Text,
    /// Distances in 5-D.
    Points,
}

impl Class {
    /// Every class, in the order of its number.
    pub const ALL: [Self; 5] = [Self::Path, Self::Screen, Self::Exact, Self::Text, Self::Points];

    /// The name in a calibration's file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Screen => "screen",
            Self::Exact => "exact",
            Self::Text => "text",
            Self::Points => "points",
        }
    }
}

/// What a job reads of a corpus.
#[derive(Clone, Copy)]
pub struct Reads<'a> {
    /// The version.
    pub corpus: &'a Arc<CorpusView>,
    /// The columns of each segment; none where the slot names the corpus but its consumer answers without looking.
    pub columns: Columns,
}

/// What a backend takes in one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Items.
    pub max_items: usize,
    /// Bytes of payload and result together.
    pub max_bytes: usize,
}

/// A job in numbers, for those who ask what one would cost (`Admin.Explain`). What an operation has no use for is zero.
#[derive(Clone, Default)]
pub struct Shape {
    /// Items of the batch.
    pub items: u64,
    /// Rows or points searched.
    pub rows: u64,
    /// Elements of a row.
    pub dim: u64,
    /// Answers wanted of each query.
    pub k: u64,
    /// Bytes of all texts together.
    pub text_bytes: u64,
    /// A corpus in the place of `rows` and `dim`.
    pub corpus: Option<Arc<CorpusView>>,
}

/// What [`Opcode::describe`] makes of a [`Shape`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// What the job would consist of.
    pub size: Size,
    /// Columns that it would read, of `rows` rows with `dim` elements each.
    pub columns: Columns,
    /// Rows or points searched.
    pub rows: u64,
    /// Elements of each.
    pub dim: u64,
    /// Answers of each query.
    pub k: u64,
}

/// Items of a job that share a slot, and the bytes they need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Items, counted within the job.
    pub items: Range<usize>,
    /// Bytes of payload.
    pub payload: usize,
    /// Bytes of result.
    pub result: usize,
}

impl Piece {
    /// Bytes of payload and result together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.payload + self.result
    }
}

/// What an operation says in a submission slot beside what every job says (opcode, items, tenant, deadline, regions).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlotFields {
    /// Handle of the corpus.
    pub corpus: u32,
    /// Version of the corpus.
    pub corpus_generation: u32,
    /// Elements of one item.
    pub dim: u32,
    /// Rows wanted of each query.
    pub k: u32,
    /// [`crate::Metric`] as a number.
    pub metric: u8,
    /// [`crate::Dtype`] of the payload as a number.
    pub dtype: u8,
    /// Bits between an operation and its kernels.
    pub flags: u16,
    /// Score threshold; minus infinity for none.
    pub threshold: f64,
}

impl Default for SlotFields {
    fn default() -> Self {
        let (corpus, corpus_generation, dim, k, metric, dtype, flags) = (0, 0, 0, 0, 0, 0, 0);
        Self { corpus, corpus_generation, dim, k, metric, dtype, flags, threshold: f64::NEG_INFINITY }
    }
}

impl SlotFields {
    /// Names a version of a corpus.
    pub fn name_corpus(&mut self, view: &CorpusView) {
        self.corpus = view.handle();
        self.corpus_generation = view.generation();
    }
}

/// Fills a payload from its start: little-endian, each part beginning at a multiple of 8 bytes of a region that is
/// aligned to 64.
pub struct Payload<'a> {
    /// Whether the backend has the rows of the job's corpus at hand, so that a slot may name them.
    pub finds_rows: bool,
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Payload<'a> {
    /// Over a region of a piece's length.
    #[must_use]
    pub fn new(bytes: &'a mut [u8], finds_rows: bool) -> Self {
        Self { finds_rows, bytes, at: 0 }
    }

    /// The next values. They fit: a piece's length was counted from them.
    pub fn put<T: bytemuck::NoUninit>(&mut self, values: &[T]) {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
}

/// Cuts `items` into pieces that differ by at most one in length, of at most `limits`. An item needs so many bytes of
/// payload and of result, and each piece `fixed` bytes of payload beside.
#[must_use]
pub fn even_pieces(items: usize, payload: usize, result: usize, fixed: usize, limits: &Limits) -> Vec<Piece> {
    let room = limits.max_bytes.saturating_sub(fixed) / (payload + result).max(1);
    let each = room.clamp(1, limits.max_items.max(1));
    let count = items.div_ceil(each);
    (0..count)
        .map(|piece| {
            let items = items * piece / count..items * (piece + 1) / count;
            let len = items.len();
            Piece { items, payload: fixed + len * payload, result: len * result }
        })
        .collect()
}

/// The error of a result region that cannot be read.
#[must_use]
pub fn misshapen() -> Error {
    Error::Internal("a backend's result is not of the agreed form".into())
}

/// Whether a backend does an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves<T> {
    /// By this.
    By(T),
    /// Not, and why.
    Not(&'static str),
}

/// The operations of a backend, with the reason why it lacks the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served([Option<&'static str>; Opcode::COUNT]);

impl Served {
    /// What a backend's exhaustive match says of each opcode.
    #[must_use]
    pub fn by<T>(serves: impl Fn(Opcode) -> Serves<T>) -> Self {
        Self(Opcode::ALL.map(|opcode| match serves(opcode) {
            Serves::By(_) => None,
            Serves::Not(reason) => Some(reason),
        }))
    }

    /// Whether it does an operation.
    #[must_use]
    pub fn contains(&self, opcode: Opcode) -> bool {
        self.0[opcode.index()].is_none()
    }

    /// Why it does not, where it does not.
    #[must_use]
    pub fn refusal(&self, opcode: Opcode) -> Option<String> {
        self.0[opcode.index()].map(|reason| format!("it does not serve {opcode}: {reason}"))
    }

    /// Those that it does.
    pub fn iter(&self) -> impl Iterator<Item = Opcode> {
        Opcode::ALL.into_iter().filter(|opcode| self.contains(*opcode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_lead_back_to_their_opcode() {
        for opcode in Opcode::ALL {
            assert_eq!(Opcode::from_u16(opcode as u16), Some(opcode));
            assert_eq!(opcode.name().parse(), Ok(opcode));
            assert_eq!(Opcode::ALL[opcode.index()], opcode);
        }
        assert_eq!((Opcode::from_u16(0), Opcode::from_u16(Opcode::COUNT as u16 + 1)), (None, None));
        assert!("polish".parse::<Opcode>().is_err_and(|error| error.contains("nearest")));
    }

    #[test]
    fn pieces_cover_all_items_once_and_keep_the_limits() {
        let cases = [(0, 8, 8, 0), (1, 1536, 100, 0), (1000, 1536, 3000, 40), (7, 1 << 20, 0, 0), (513, 0, 0, 0)];
        for (items, payload, result, fixed) in cases {
            let limits = Limits { max_items: 100, max_bytes: 1 << 16 };
            let mut end = 0;
            for piece in even_pieces(items, payload, result, fixed, &limits) {
                assert_eq!(piece.items.start, end);
                let len = piece.items.len();
                assert!(len == 1 || len <= limits.max_items && piece.bytes() <= limits.max_bytes, "{piece:?}");
                assert_eq!((piece.payload, piece.result), (fixed + len * payload, len * result));
                end = piece.items.end;
            }
            assert_eq!(end, items);
        }
    }

    #[test]
    fn what_a_backend_lacks_is_told_with_its_reason() {
        let served = Served::by(|opcode| match opcode {
            Opcode::Score => Serves::Not("nobody wrote it"),
            _ => Serves::By(()),
        });
        assert!(served.contains(Opcode::Search) && !served.contains(Opcode::Score));
        assert_eq!(served.refusal(Opcode::Search), None);
        assert_eq!(served.refusal(Opcode::Score).as_deref(), Some("it does not serve score: nobody wrote it"));
        assert_eq!(served.iter().count(), Opcode::COUNT - 1);
    }
}
