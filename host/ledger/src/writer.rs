//! Writing a ledger's files: segment by segment, each durable before the next is begun.
//!
//! - A write that fails leaves the whole records that came through. The rest of it is cut off before the next write.
//! - A sync that fails may have dropped what it was to write, and a second one then has nothing to do and succeeds
//!   (<https://wiki.postgresql.org/wiki/Fsync_Errors>). So the segment is read back, compared with the tree and written
//!   to another file, which takes its place when it is synced.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{Disk, write_all};
use crate::error::Error;
use crate::record::{RECORD_BYTES, Record};
use crate::roots::{RootsFile, replace};
use crate::segment::{self, Header, offset};
use crate::tree::Subtree;
use crate::view::LedgerView;

/// The end of a ledger, to which records are appended.
#[derive(Debug)]
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    height: u32,
    roots: RootsFile,
    /// Of the segment that is appended to.
    number: u64,
    path: PathBuf,
    /// `None` where it has not been made yet.
    file: Option<File>,
    /// Whole records in it.
    records: u64,
    /// Whether something else may lie behind them.
    is_ragged: bool,
    /// Whether its name lasts over a crash.
    is_listed: bool,
    /// Whether a sync has failed, after which only writing the segment anew makes it last.
    is_suspect: bool,
    /// Leading records of the ledger that are known to last over a crash.
    durable: u64,
}

impl Writer {
    /// Goes on where `view` ends: cuts off what a crash has left behind it, and makes the rest last.
    pub(crate) fn open(view: &LedgerView, disk: Arc<dyn Disk>, roots: RootsFile) -> Result<Self, Error> {
        let tail = view.tail();
        let (path, records) = (tail.path().to_owned(), tail.tree.len());
        let file = File::options().read(true).write(true).open(&path);
        let file = match file.map_err(Error::io("open", &path)) {
            Err(error) if error.is_not_found() => None,
            file => Some(file?),
        };
        // A crash came while it was made.
        let is_unmade = file.is_some() && records == 0 && tail.header()?.is_err();
        let is_ragged = file.is_some() && !is_unmade && tail.bytes()? != offset(records);
        let durable = tail.index(0);
        let (folder, height, number) = (view.folder().to_owned(), view.height(), tail.number);
        let (is_listed, is_suspect) = (false, false);
        let mut writer = Self {
            disk,
            folder,
            height,
            roots,
            number,
            path,
            file,
            records,
            is_ragged,
            is_listed,
            is_suspect,
            durable,
        };
        if is_unmade {
            writer.file = Some(writer.begin()?);
        }
        writer.cut()?;
        writer.sync(view)?;
        writer.roots.settle(&view.roots()[..number as usize])?;
        Ok(writer)
    }

    /// Leading records of the ledger that are known to last over a crash.
    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    /// Appends records for which the last segment has room, or which begin the next where it is full. On failure, how
    /// many were appended.
    pub(crate) fn write(&mut self, view: &LedgerView, records: &[Record]) -> Result<(), (usize, Error)> {
        let file = match self.ready(view) {
            Ok(file) => file,
            Err(error) => return Err((0, error)),
        };
        let written = write_all(&*self.disk, &self.path, &file, offset(self.records), bytemuck::cast_slice(records));
        self.file = Some(file);
        let (whole, failure) = match written {
            Ok(()) => (records.len(), None),
            Err((bytes, error)) => (bytes / RECORD_BYTES, Some(error)),
        };
        self.records += whole as u64;
        self.is_ragged = failure.is_some();
        match failure {
            None => Ok(()),
            Some(error) => Err((whole, Error::io("append to", &self.path)(error))),
        }
    }

    /// Makes all records last over a crash, of which `view` has the tree.
    pub(crate) fn sync(&mut self, view: &LedgerView) -> Result<(), Error> {
        let size = (self.number << self.height) + self.records;
        let Some(file) = &self.file else { return Ok(()) };
        if self.durable == size {
            return Ok(());
        }
        if self.is_suspect {
            self.write_anew(view)?;
        } else if let Err(error) = self.disk.sync(&self.path, file) {
            return Err(self.suspect(error));
        }
        if !self.is_listed {
            self.disk.sync_folder(&self.folder).map_err(|error| self.suspect(error))?;
            self.is_listed = true;
        }
        self.durable = size;
        Ok(())
    }

    /// Removes the segments from `from` up to `to`, which is not the last, behind making sure of their roots.
    pub(crate) fn remove(&mut self, view: &LedgerView, from: u64, to: u64) -> Result<(), Error> {
        self.roots.settle(&view.roots()[..self.number as usize])?;
        for number in from..to {
            let path = segment::path(&self.folder, number);
            match self.disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", &path)(error)),
                _ => {}
            }
        }
        self.disk.sync_folder(&self.folder).map_err(Error::io("sync", &self.folder))
    }

    /// The file to append to: one with room, that ends where its last whole record does.
    fn ready(&mut self, view: &LedgerView) -> Result<File, Error> {
        if self.records >> self.height != 0 {
            self.sync(view)?;
            self.roots.settle(&view.roots()[..=self.number as usize])?;
            (self.number, self.records, self.file) = (self.number + 1, 0, None);
            (self.is_ragged, self.is_listed) = (false, false);
            self.path = segment::path(&self.folder, self.number);
        }
        self.cut()?;
        self.file.take().map_or_else(|| self.begin(), Ok)
    }

    /// Makes the segment's file.
    fn begin(&self) -> Result<File, Error> {
        let file = self.disk.create(&self.path).map_err(Error::io("make", &self.path))?;
        let header = Header::of_segment(self.number, self.height);
        match write_all(&*self.disk, &self.path, &file, 0, bytemuck::bytes_of(&header)) {
            Ok(()) => Ok(file),
            Err((_, error)) => {
                // What cannot be removed is written over the next time.
                let _ = self.disk.remove(&self.path);
                Err(Error::io("append to", &self.path)(error))
            }
        }
    }

    /// Cuts off what lies behind the last whole record.
    fn cut(&mut self) -> Result<(), Error> {
        if let Some(file) = self.file.as_ref().filter(|_| self.is_ragged) {
            self.disk.cut(&self.path, file, offset(self.records)).map_err(Error::io("cut", &self.path))?;
            self.is_ragged = false;
        }
        Ok(())
    }

    fn suspect(&mut self, source: io::Error) -> Error {
        self.is_suspect = true;
        Error::Sync { path: self.path.clone(), durable: self.durable, source }
    }

    /// Puts another file in the segment's place, of records that are those of the tree.
    fn write_anew(&mut self, view: &LedgerView) -> Result<(), Error> {
        let tail = view.tail();
        let records = tail.read(0, self.records as usize)?;
        if Subtree::over(self.height, &records) != tail.tree {
            return Err(tail.damage(&records, 0));
        }
        let header = Header::of_segment(self.number, self.height);
        let bytes = [bytemuck::bytes_of(&header), bytemuck::cast_slice(&records)].concat();
        let file = replace(&*self.disk, &self.path, &bytes);
        self.file = Some(file.map_err(|error| self.suspect(error))?);
        tail.reopen();
        (self.is_suspect, self.is_ragged, self.is_listed) = (false, false, false);
        Ok(())
    }
}
