//! How what a merge made takes the place of what it was made of.
//!
//! Commits go on while a merge is under way, and are remembered. It catches up with them in rounds, in which nobody
//! waits for it; the last few alone, and the new log's name, are left to the moment in which commits have to wait.

use std::fs;
use std::sync::{Arc, MutexGuard, PoisonError};

use megaring_core::Error;
use roaring::RoaringBitmap;

use super::{Corpus, NamedFile, Turn, out_of_generations};
use crate::change::Change;
use crate::durable::{TemporaryFile, storage, sync_folder};
use crate::manifest::{self, Log, Manifest};
use crate::piece::records;
use crate::version::{Content, Version};

/// Commits that are left to the moment in which others wait.
const FEW: usize = 2;
/// Rounds of catching up. Each is as short as commits were few during the one before, so that two or three do, unless
/// the machine has no time for merging.
const ROUNDS: usize = 32;

/// What a merge made, on its way to being the corpus.
pub(crate) struct Merged {
    content: Content,
    /// The rows that have no number any more.
    dropped: RoaringBitmap,
    /// The log of `content`, beside the one whose place it is to take.
    log: TemporaryFile,
    /// `content` as searches will see it, but for the last few commits.
    ready: Version,
}

impl Merged {
    /// Adds what was committed since.
    fn add(&mut self, since: Vec<Change>) -> Result<(), Error> {
        let since: Vec<Change> = since.into_iter().map(|change| change.renumbered(&self.dropped)).collect();
        let records = since.iter().map(Change::logged).collect::<Result<Vec<_>, _>>()?;
        let added = self.log.handle().and_then(|mut to| manifest::extend(&mut to, &records));
        added.map_err(storage("cannot write", self.log.path()))?;
        let (Content { pieces, deleted, .. }, row_type) = (&mut self.content, self.ready.view.row_type());
        since.into_iter().for_each(|change| change.apply(pieces, deleted, row_type));
        Ok(())
    }

    /// Makes the log last over a crash, and ready what searches will look for.
    fn prepare(&mut self, began: &Version) -> Result<(), Error> {
        self.log.sync().map_err(storage("cannot write", self.log.path()))?;
        let (handle, generation) = (self.ready.view.handle(), self.ready.view.generation());
        self.ready = Version::new(self.content.clone(), handle, generation, 0, Some(&self.ready));
        self.ready.view.prepare_as(&began.view);
        Ok(())
    }
}

impl Corpus {
    /// Held, nothing is merged but by who holds it: segment files stay.
    pub(crate) fn merging(&self) -> MutexGuard<'_, ()> {
        self.merges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A version to merge segments of. What is committed from here on is remembered.
    pub(crate) fn begin_merge(&self) -> Result<Arc<Version>, Error> {
        let mut turn = self.turn();
        let version = self.version()?;
        turn.commits.since = Some(Vec::new());
        Ok(version)
    }

    /// Ends a merge that came to nothing.
    pub(crate) fn give_up_merge(&self) {
        self.turn().commits.since = None;
    }

    /// Writes the log of what a merge made of the version that it began with. `dropped` are the rows that have no
    /// number any more.
    pub(crate) fn made(&self, content: Content, dropped: RoaringBitmap, began: &Version) -> Result<Merged, Error> {
        let records = records(&content.pieces, &content.deleted)?;
        let generation = began.view.generation().saturating_add(1);
        let log = Manifest::write_beside(self.folder(), &content.opening, generation, &records);
        let log = log.map_err(storage("cannot write in", self.folder()))?;
        let ready = Version::new(content.clone(), self.handle, generation, 0, Some(began));
        Ok(Merged { content, dropped, log, ready })
    }

    /// Replaces the version that a merge began with by what it made of it, and by what was committed since. The number
    /// of commits that it added while others had to wait comes back.
    pub(crate) fn finish_merge(
        &self,
        mut merged: Merged,
        began: &Version,
        files: Vec<NamedFile<'_>>,
    ) -> Result<usize, Error> {
        let mut round = 0;
        loop {
            let since = self.turn().commits.since.as_mut().map(std::mem::take);
            // Who read everything anew meanwhile has forgotten what was committed since.
            merged.add(since.ok_or(Error::Cancelled)?)?;
            merged.prepare(began)?;
            let turn = self.turn();
            round += 1;
            if round == ROUNDS || turn.commits.since.as_ref().is_none_or(|since| since.len() <= FEW) {
                return self.put_in_place(merged, files, turn);
            }
        }
    }

    fn put_in_place(&self, mut merged: Merged, files: Vec<NamedFile<'_>>, mut turn: Turn<'_>) -> Result<usize, Error> {
        let version = self.version()?;
        let path = self.folder.join(manifest::FILE);
        let generation = version.view.generation().checked_add(1).ok_or_else(|| out_of_generations(&self.name))?;
        let since = turn.commits.since.take().ok_or(Error::Cancelled)?;
        let late = since.len();
        if late > 0 {
            merged.add(since)?;
            merged.log.sync().map_err(storage("cannot write", &path))?;
        }
        merged.log.put(&path).map_err(storage("cannot write", &path))?;
        // From here on the new log is what a restart finds.
        files.into_iter().for_each(NamedFile::keep);
        let before = turn.commits.log.take();
        turn.gone.push(Box::new(before));
        let reopened = sync_folder(&self.folder)
            .and_then(|()| fs::metadata(&path))
            .and_then(|metadata| Log::open(&self.folder, metadata.len()));
        match reopened {
            Ok(log) => turn.commits.log = Some(log),
            Err(error) => return Err(self.lose_track(&mut turn, &version, &error)),
        }
        self.install(&mut turn, merged.content, generation, &merged.ready);
        Ok(late)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use megaring_core::Error;
    use megaring_core::corpus::CorpusTable;
    use megaring_core::matrix::Matrix;
    use roaring::RoaringBitmap;

    use super::FEW;
    use crate::append::{Appender, Mode};
    use crate::corpus::{Corpus, Settings};
    use crate::durable::storage;
    use crate::manifest::{Manifest, Opening};
    use crate::rows::Rows;
    use crate::store::CreateOptions;
    use crate::version::Content;

    fn append(corpus: &Arc<Corpus>, id: u64) -> Result<(), Error> {
        let embeddings = Matrix { rows: 1, dim: 2, values: vec![id as f32; 2] };
        let mut appender = Appender::new(corpus.clone(), Mode::Append)?;
        appender.push(Rows { memory_ids: vec![id], embeddings, ..Rows::default() })?;
        appender.commit().map(|_| ())
    }

    /// However much was committed while it was under way.
    #[test]
    fn a_merge_leaves_few_commits_to_the_moment_in_which_others_wait() -> Result<(), Error> {
        let refused = storage("cannot write", Path::new("a"));
        let prepared = tempfile::tempdir().and_then(|folder| {
            let path = folder.path().join("a");
            std::fs::create_dir(&path)?;
            Manifest::write(&path, &Opening::new("a", 2.into(), CreateOptions::default(), 0), 1, &[])
                .map(|()| (folder, path))
        });
        let (_folder, path) = prepared.map_err(refused)?;
        let load = || {
            let settings = Settings { writable: true, check_bytes: 1 << 20, small_bytes: 1 << 20 };
            let (table, selections) = (Arc::new(CorpusTable::default()), Arc::default());
            Arc::new(Corpus::load(path.clone(), "a".into(), 1, settings, (table, selections), Arc::default(), None))
        };
        let corpus = load();
        (0..3).try_for_each(|id| append(&corpus, id))?;
        let began = corpus.begin_merge()?;
        (3..103).try_for_each(|id| append(&corpus, id))?;
        corpus.delete(&[1, 50], &[])?;
        let content =
            Content { opening: began.opening.clone(), pieces: began.pieces.clone(), deleted: RoaringBitmap::new() };
        let merged = corpus.made(content, RoaringBitmap::new(), &began)?;
        assert!(corpus.finish_merge(merged, &began, Vec::new())? <= FEW);
        append(&corpus, 103)?;
        for corpus in [corpus, load()] {
            let view = corpus.version()?.view.clone();
            let ids: Vec<u64> =
                view.visible_runs(0..view.rows()).flatten().map(|row| view.label(row as u32).0).collect();
            assert_eq!(ids, (0..104).filter(|id| ![1, 50].contains(id)).collect::<Vec<u64>>());
        }
        Ok(())
    }
}
