//! Merging: small segments, and rows of the log, become larger segments, while searches and appends go on.
//!
//! Neighbours of the same columns are merged, so rows keep their order and with it the order of ties. Deleted rows are
//! left behind, and those after them get lower numbers; a segment that has many of them is rewritten for that. A
//! segment is merged with those after it once they are as large as it is: of n rows, each is rewritten some log(n)
//! times, and some log(n) segments are left. The merged files are written beside the others, then a log that names them
//! takes the place of the old one, with what was committed meanwhile: before and after that moment a crash leaves one
//! version or the other, and files that neither names are swept at the next open.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrow_schema::SchemaRef;
use megaring_core::{Error, RowType};
use roaring::RoaringBitmap;

use crate::change::renumbered;
use crate::corpus::{Corpus, NamedFile};
use crate::load::stored;
use crate::piece::Piece;
use crate::segment_writer::SegmentWriter;
use crate::version::{Content, Version};

/// How many times what is small may be in the log, before it becomes a segment.
const LOG_SHARE: u64 = 16;
/// Segments that are merged at least, where none of the log's rows are.
const FEWEST: usize = 4;
/// Largest segment that merging makes unasked. Larger ones cost a search nothing more.
const LARGEST: u64 = 1 << 30;
/// A segment is rewritten once one in so many of its rows is deleted.
const WORN: usize = 4;
/// Bytes of vectors that are rewritten between two pauses.
const RUN_BYTES: usize = 8 << 20;
/// Rows that are: titles and further columns may be longer than vectors.
const RUN_ROWS: usize = 8192;
/// A merge of more bytes is given up when the store is closed.
const SHORT: u64 = 64 << 20;

/// Which pieces to merge: runs of neighbours. `deleted` are the deleted rows of each.
fn plan(pieces: &[Piece], deleted: &[usize], log_bytes: u64) -> Vec<Range<usize>> {
    let is_worn = |at: usize| !is_kept(&pieces[at]) && deleted[at] * WORN >= pieces[at].rows();
    let kept: u64 = pieces.iter().filter(|piece| is_kept(piece)).map(Piece::bytes).sum();
    let flushes = kept > log_bytes;
    let mut runs: Vec<Range<usize>> = Vec::new();
    for stretch in stretches(pieces) {
        let mut end = stretch.end;
        while end > stretch.start {
            let begin = run_before(pieces, stretch.start, end);
            // One that is too large for company is rewritten alone.
            let begin = if begin == end && is_worn(end - 1) { end - 1 } else { begin };
            let run = &pieces[begin..end];
            // Rows stay in the log until there are many.
            let is_worth_it = match flushes {
                true => run.iter().any(is_kept),
                false => run.iter().filter(|piece| !is_kept(piece)).count() >= FEWEST,
            } || (begin..end).any(is_worn);
            if is_worth_it {
                runs.push(begin..end);
            }
            end = if is_worth_it { begin } else { end - 1 };
        }
    }
    runs.sort_unstable_by_key(|run| run.start);
    runs
}

/// Where a run begins that ends before `end`: rows of the log, and segments as long as they are no larger than what
/// comes after them.
fn run_before(pieces: &[Piece], start: usize, end: usize) -> usize {
    let (mut begin, mut total) = (end, 0);
    while begin > start {
        let next = &pieces[begin - 1];
        let joins = total == 0 || is_kept(next) || next.bytes() <= total;
        if !joins || total + next.bytes() > LARGEST {
            break;
        }
        total += next.bytes();
        begin -= 1;
    }
    begin
}

fn is_kept(piece: &Piece) -> bool {
    matches!(piece, Piece::Kept(_))
}

/// Runs to merge where all that can be is to be.
fn plan_all(pieces: &[Piece], deleted: &[usize]) -> Vec<Range<usize>> {
    let is_done =
        |stretch: &Range<usize>| matches!(&pieces[stretch.clone()], [Piece::Stored(_)]) && deleted[stretch.start] == 0;
    stretches(pieces).into_iter().filter(|stretch| !is_done(stretch)).collect()
}

/// Neighbours of the same columns.
fn stretches(pieces: &[Piece]) -> Vec<Range<usize>> {
    let mut stretches: Vec<(Range<usize>, &SchemaRef)> = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        match stretches.last_mut() {
            Some((range, form)) if *form == piece.form() => range.end = at + 1,
            _ => stretches.push((at..at + 1, piece.form())),
        }
    }
    stretches.into_iter().map(|(range, _)| range).collect()
}

/// What a merge did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compacted {
    /// Segments, and runs of rows in the log, that became others.
    pub merged: usize,
    /// Segments that they became.
    pub into: usize,
    /// Rows rewritten.
    pub rows: usize,
    /// Deleted rows that were left behind.
    pub dropped: usize,
}

/// Merges all of a corpus that can be merged.
pub(crate) fn compact_all(corpus: &Corpus) -> Result<Compacted, Error> {
    merge(corpus, plan_all, &|_, _| Ok(()))
}

/// Called after each run of rows, with how long it took and the bytes of the merge; an error ends it.
type Pause<'a> = &'a dyn Fn(Duration, u64) -> Result<(), Error>;

fn merge(
    corpus: &Corpus,
    plan: impl Fn(&[Piece], &[usize]) -> Vec<Range<usize>>,
    pause: Pause<'_>,
) -> Result<Compacted, Error> {
    let _turn = corpus.merging();
    let began = corpus.begin_merge()?;
    let runs = plan(&began.pieces, &began.deleted_rows());
    let merged = catch_unwind(AssertUnwindSafe(|| merge_runs(corpus, &began, &runs, pause)));
    let merged = merged.unwrap_or_else(|_| Err(Error::Internal("merging segments panicked".into())));
    if merged.is_err() || runs.is_empty() {
        corpus.give_up_merge();
    }
    merged
}

fn merge_runs(corpus: &Corpus, began: &Version, runs: &[Range<usize>], pause: Pause<'_>) -> Result<Compacted, Error> {
    let mut done = Compacted::default();
    if runs.is_empty() {
        return Ok(done);
    }
    let (mut pieces, mut files, mut replaced, mut next) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let starts = began.starts();
    let mut dropped = RoaringBitmap::new();
    for run in runs {
        pieces.extend_from_slice(&began.pieces[next..run.start]);
        next = run.end;
        let old = &began.pieces[run.clone()];
        let rows = starts[run.start]..starts[run.end];
        dropped.extend(began.deleted.range(rows.clone()));
        done.merged += old.len();
        replaced.extend(old.iter().filter_map(Piece::file).map(|file| corpus.folder().join(file)));
        if let Some((named, piece)) = rewrite(corpus, old, (rows.start, &began.deleted), began.view.row_type(), pause)?
        {
            done.into += 1;
            done.rows += piece.rows();
            pieces.push(piece);
            files.push(named);
        }
    }
    pieces.extend_from_slice(&began.pieces[next..]);
    done.dropped = dropped.len() as usize;
    let mut opening = began.opening.clone();
    opening.gone += dropped.len();
    if opening.unique_ids {
        opening.next_id = began.next_id().unwrap_or(u64::MAX);
    }
    let deleted = renumbered(&(&began.deleted - &dropped), &dropped);
    let made = corpus.made(Content { opening, pieces, deleted }, dropped, began)?;
    corpus.finish_merge(made, began, files)?;
    replaced.iter().for_each(|path| corpus.remove_segment(path));
    Ok(done)
}

/// Writes the rows of neighbours, but for the deleted ones, into one segment file; `None` where none is left.
fn rewrite<'a>(
    corpus: &'a Corpus,
    old: &[Piece],
    (mut start, deleted): (u32, &RoaringBitmap),
    row_type: RowType,
    pause: Pause<'_>,
) -> Result<Option<(NamedFile<'a>, Piece)>, Error> {
    let total = old.iter().map(Piece::bytes).sum();
    let mut writer = SegmentWriter::new(corpus.folder(), row_type);
    let mut begun = Instant::now();
    for piece in old {
        let most = (RUN_BYTES / (4 * row_type.width().max(1))).clamp(1, RUN_ROWS);
        piece.for_each_run(corpus.folder(), row_type, most, (start, deleted), |rows| {
            writer.push(rows)?;
            pause(begun.elapsed(), total)?;
            begun = Instant::now();
            Ok(())
        })?;
        start += piece.rows() as u32;
    }
    let Some(written) = writer.finish()? else { return Ok(None) };
    let (named, file, entry) = corpus.name_file(written, row_type)?;
    let derived = corpus.derive(&file, &entry, row_type);
    Ok(Some((named, stored(file, entry, derived, row_type))))
}

/// Merges in the background, one corpus at a time.
#[derive(Default)]
pub(crate) struct Compactor {
    thread: Mutex<Thread>,
    closing: Arc<AtomicBool>,
}

#[derive(Default)]
struct Thread {
    queue: Option<Sender<Arc<Corpus>>>,
    handle: Option<JoinHandle<()>>,
}

impl Compactor {
    /// Looks after a corpus soon, where there is something to merge.
    pub(crate) fn ask(&self, corpus: Arc<Corpus>) {
        let failed = corpus.unmerged_rows.load(Ordering::Relaxed);
        let is_needed = corpus.version().is_ok_and(|version| {
            // What could not be merged is tried again when there is an eighth more of it.
            let plan = || plan(&version.pieces, &version.deleted_rows(), log_bytes(&corpus));
            version.view.rows() >= failed + failed / 8 && !plan().is_empty()
        });
        if !is_needed || corpus.is_queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut thread = self.lock();
        if self.closing.load(Ordering::Relaxed) {
            return;
        }
        if thread.queue.is_none() {
            let (queue, corpora) = mpsc::channel::<Arc<Corpus>>();
            let closing = self.closing.clone();
            let work = move || corpora.iter().for_each(|corpus| merge_all_small(&corpus, &closing));
            // Without a thread nothing is merged, and the next commit tries again.
            thread.handle = std::thread::Builder::new().name("megaring-compact".into()).spawn(work).ok();
            thread.queue = thread.handle.as_ref().map(|_| queue);
        }
        if thread.queue.as_ref().is_none_or(|queue| queue.send(corpus.clone()).is_err()) {
            corpus.is_queued.store(false, Ordering::Release);
        }
    }

    /// Ends after the merges that are short.
    pub(crate) fn close(&self) {
        let Thread { queue, handle } = {
            let mut thread = self.lock();
            self.closing.store(true, Ordering::Relaxed);
            std::mem::take(&mut *thread)
        };
        drop(queue);
        // A thread that panicked has merged nothing.
        let _ = handle.map(JoinHandle::join);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Thread> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_bytes(corpus: &Corpus) -> u64 {
    LOG_SHARE * corpus.small_bytes() as u64
}

fn merge_all_small(corpus: &Corpus, closing: &AtomicBool) {
    corpus.is_queued.store(false, Ordering::Release);
    let pause = |took: Duration, bytes: u64| {
        if !closing.load(Ordering::Relaxed) {
            // Half of the time is the others'.
            std::thread::sleep(took);
        } else if bytes > SHORT {
            return Err(Error::Cancelled);
        }
        Ok(())
    };
    loop {
        match merge(corpus, |pieces, deleted| plan(pieces, deleted, log_bytes(corpus)), &pause) {
            Ok(Compacted { merged: 0, .. }) | Err(Error::Cancelled | Error::CorpusNotFound { .. }) => return,
            Ok(done) => tracing::debug!(folder = %corpus.folder().display(), ?done, "segments were merged"),
            Err(error) => {
                let rows = corpus.version().map_or(0, |version| version.view.rows());
                corpus.unmerged_rows.store(rows, Ordering::Relaxed);
                return tracing::warn!(folder = %corpus.folder().display(), %error, "segments stay unmerged");
            }
        }
    }
}
