//! A corpus in another folder, under another name: a log of its own, and links to the segments, which never change.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use megaring_core::Error;

use crate::corpus::Corpus;
use crate::durable::storage;
use crate::load::cache_path;
use crate::manifest::Manifest;
use crate::piece::{Piece, records};

/// Makes a folder that holds the current version of a corpus.
pub(crate) fn copy(corpus: &Corpus, folder: &Path, name: &str) -> Result<(), Error> {
    corpus.read_files(|version| {
        fs::create_dir(folder).map_err(storage("cannot create", folder))?;
        let mut files = version.pieces.iter().filter_map(Piece::file);
        let linked = files.try_for_each(|file| {
            let from = corpus.folder().join(file);
            link(&from, &folder.join(file)).map_err(storage("cannot copy", &from))
        });
        let copied = linked.and_then(|()| {
            let records = records(&version.pieces, &version.deleted)?;
            let written = Manifest::write(folder, &version.opening.renamed(name), version.view.generation(), &records);
            written.map_err(storage("cannot write in", folder))
        });
        // It may be tried again.
        copied.inspect_err(|_| _ = fs::remove_dir_all(folder))
    })
}

/// Links a segment file, and its cache where it has one, or copies it where links cannot be.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    let linked = |from: &Path, to: &Path| match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
        // Another file system, or one without links, or a file that is somebody else's.
        Err(_) => fs::copy(from, to).and_then(|_| File::open(to)?.sync_all()),
        Ok(()) => Ok(()),
    };
    linked(from, to)?;
    // A cache that cannot be linked is made anew.
    let _ = linked(&cache_path(from), &cache_path(to));
    Ok(())
}
