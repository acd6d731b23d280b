//! The calls of `megaring.v1.Compute`: one [`Call`] for each message, or one `LongCall` where the answer is a stream.
//! How it becomes a job and what comes out becomes its response stand in one file, named after the operation; what they
//! share is in [`crate::validate`] and [`crate::reply`].

use std::sync::Arc;

use bytes::Bytes;
use megaring_core::corpus::CorpusView;
use megaring_core::rescore::Hit;
use megaring_core::{Answered, Error};
use megaring_corpus::{Selected, Store, TextIds, Wanted, fetch};
use megaring_engine::long_search::Asked;
use megaring_engine::{Engine, Outcome, Terms};
use megaring_proto::v1 as pb;
use prost::Message;

use crate::reply_limit::ReplyLimit;
use crate::service::LIGHT_BYTES;

mod checksum;
mod encode;
mod join;
mod nearest;
mod score;
mod search;
mod search_range;

/// A request, as the one handler of all operations knows it.
pub trait Call: Message + Default + Sized + 'static {
    /// The operation that it asks for.
    type Operation: Answered;
    /// What its caller gets.
    type Response: Message + Send + 'static;

    /// The corpus that it names, if any.
    fn corpus(&self) -> Option<&str>;

    /// The rows of the corpus that it is about; all unless it says so.
    fn take_filter(&mut self) -> Option<pb::Filter> {
        None
    }

    /// How many elements of a row count; all unless it says so.
    fn prefix_dim(&self) -> Option<u32> {
        None
    }

    /// The backend that it forces, as the wire numbers it.
    fn backend(&self) -> i32;

    /// Bytes that [`Self::validate`] touches.
    fn payload_bytes(&self) -> usize;

    /// The job, or what is wrong with it: the field as the wire has it, and the row. `corpus` is the one that it names.
    ///
    /// # Errors
    /// [`Error::Invalid`], or [`Error::Precondition`] for a corpus that lacks what the operation reads.
    fn validate(self, corpus: Option<Named>, limit: ReplyLimit) -> Result<Validated<Self>, Error>;

    /// Answers that a reply can carry, where it shows only as they are found how many there are.
    fn max_answers(_limit: ReplyLimit) -> Option<usize> {
        None
    }

    /// Does the job.
    fn run(
        engine: &Arc<Engine>,
        job: Self::Operation,
        terms: Terms,
    ) -> impl Future<Output = Result<AnswerOf<Self>, Error>> + Send {
        engine.run(job, terms)
    }
}

/// What comes out of a call's job.
pub type AnswerOf<C> = Outcome<<<C as Call>::Operation as Answered>::Answer>;

/// Makes the response of what came out.
type Reply<C> = Box<dyn FnOnce(AnswerOf<C>, &Engine) -> Result<<C as Call>::Response, Error> + Send>;

/// A call that is valid.
pub struct Validated<C: Call> {
    /// The job.
    pub job: C::Operation,
    /// About what its reply takes in memory.
    pub reply_bytes: usize,
    /// The reply.
    pub reply: Reply<C>,
}

/// A request that is answered by messages of bounded size, as many as it takes.
pub(crate) trait LongCall: Message + Default + Sized + 'static {
    /// What becomes its messages.
    type Telling: Telling;

    /// The corpus that it names.
    fn corpus(&self) -> &str;

    /// The rows of the corpus that it is about; all unless it says so.
    fn take_filter(&mut self) -> Option<pb::Filter> {
        None
    }

    /// How many elements of a row count; all unless it says so.
    fn prefix_dim(&self) -> Option<u32> {
        None
    }

    /// The backend that it forces, as the wire numbers it.
    fn backend(&self) -> i32;

    /// What is to be searched, and how its hits are told; or what is wrong with it, as [`Call::validate`] says.
    /// `corpus` is the one that it names.
    ///
    /// # Errors
    /// As [`Call::validate`], and those of [`Store::view`].
    fn validate(self, corpus: Named, store: &Store, limit: ReplyLimit) -> Result<(Asked, Self::Telling), Error>;
}

/// Makes messages of hits.
pub(crate) trait Telling: Send + 'static {
    /// What its caller gets.
    type Message: Message + Default + Send + 'static;

    /// What the query or row is called that a further call would begin with.
    const NEXT: &'static str;

    /// The field to blame where one hit is too large for a message.
    const TOO_LARGE: &'static str;

    /// Bytes that hits of a query take in a message beside the hits themselves, at most.
    const PART_BYTES: usize;

    /// Bytes that a hit of a query takes in a message, at most.
    fn bytes(&self, query: u32, hit: &Hit) -> usize;

    /// Adds the next hits of a query.
    fn add(&self, message: &mut Self::Message, query: u32, hits: &[Hit], is_last: bool);

    /// Says what there is to say beside the hits: how they were made, and which query or row is the next.
    fn close(&self, message: &mut Self::Message, made: Option<pb::Made>, next: u32);
}

/// What a hit takes in memory: id, score and a look at the corpus's labels included.
const HIT_BYTES: usize = 32;

/// The corpus that a call names.
#[derive(Clone)]
pub struct Named {
    /// Its current version.
    pub whole: Arc<CorpusView>,
    /// The same, of which the rows alone are visible that the call's filter lets pass.
    pub chosen: Arc<CorpusView>,
    /// What is searched or scored: `chosen`, unless the call asks for a prefix of its rows.
    pub searched: Arc<CorpusView>,
    /// The same rows gathered, where that is worth it: what a search with sent queries is done on.
    pub gathered: Option<Arc<CorpusView>>,
}

/// What stands before a text that repeats in a message, at most.
const TEXT_BYTES: usize = 6;

/// The text ids of rows, as a reply has them: none where the corpus has no column for them.
fn text_ids(ids: &TextIds, rows: impl Iterator<Item = u32>) -> Vec<String> {
    rows.filter_map(|row| ids.get(row)).map(str::to_owned).collect()
}

/// What the text id of a row takes in a reply, at most.
fn text_id_bytes(ids: &TextIds, row: u32) -> usize {
    ids.get(row).map_or(0, |text| TEXT_BYTES + text.len())
}

/// Refuses a reply whose ids and titles alone are more than a message carries, before any of them is copied.
fn check_texts(
    field: &str,
    rows: impl Iterator<Item = u32>,
    corpus: &CorpusView,
    (ids, titles): (&TextIds, bool),
    limit: ReplyLimit,
) -> Result<(), Error> {
    if !titles && corpus.id_column().is_none() {
        return Ok(());
    }
    let title = |row| if titles { corpus.label(row).1.len() } else { 0 };
    limit.refuse(field, rows.map(|row| title(row) + ids.get(row).map_or(0, str::len)).sum())
}

/// About what the hits of a reply take in memory. Columns are read on threads for blocking work, however few there are,
/// and so are ids that are texts.
fn reply_bytes(hits: usize, columns: &[String], corpus: Option<&CorpusView>) -> usize {
    let are_read = !columns.is_empty() || corpus.is_some_and(|corpus| corpus.id_column().is_some());
    hits.saturating_mul(HIT_BYTES).saturating_add(if are_read { LIGHT_BYTES } else { 0 })
}

/// The corpus that a call must name.
fn named(corpus: Option<Named>) -> Result<Named, Error> {
    corpus.ok_or_else(unnamed)
}

/// What is said where none is named.
pub(crate) fn unnamed() -> Error {
    Error::field("corpus", "name a corpus")
}

/// A version, or a prefix of its rows where one is asked for.
fn prefix(store: &Store, view: Arc<CorpusView>, dim: Option<u32>) -> Result<Arc<CorpusView>, Error> {
    dim.map_or(Ok(view.clone()), |dim| store.prefix(&view, dim as usize))
}

/// Refuses columns that the rows of a corpus cannot answer, before any work is done.
fn check_columns(corpus: &CorpusView, columns: &[String]) -> Result<(), Error> {
    if columns.is_empty() { Ok(()) } else { fetch(corpus, &[], columns, usize::MAX).map(|_| ()) }
}

/// The columns of the rows of an answer, as Arrow; nothing where none are asked for.
fn columns_of(
    corpus: &CorpusView,
    rows: impl Iterator<Item = u32>,
    columns: &[String],
    limit: ReplyLimit,
) -> Result<Bytes, Error> {
    if columns.is_empty() {
        return Ok(Bytes::new());
    }
    fetch(corpus, &rows.collect::<Vec<u32>>(), columns, limit.0)?.to_stream().map(Bytes::from)
}

impl Named {
    /// A corpus, and what of it is selected.
    pub(crate) fn new(whole: Arc<CorpusView>, Selected { view: chosen, gathered }: Selected) -> Self {
        Self { whole, searched: chosen.clone(), chosen, gathered }
    }

    /// A corpus, all of whose rows are meant.
    pub(crate) fn whole(whole: Arc<CorpusView>) -> Self {
        Self { chosen: whole.clone(), searched: whole.clone(), whole, gathered: None }
    }

    /// The same where so many elements of its rows count. May take long.
    pub(crate) fn cut(self, store: &Store, dim: u32, wanted: Wanted<'_>) -> Result<Self, Error> {
        let cut = |view: &Arc<CorpusView>| store.prefix_while(view, dim as usize, wanted);
        let (searched, gathered) = (cut(&self.chosen)?, self.gathered.as_ref().map(cut).transpose()?);
        Ok(Self { searched, gathered, ..self })
    }
}
