//! From a corpus's folder to a version in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use megaring_core::corpus::SegmentView;
use megaring_core::{Element, RowType};

use crate::corpus::{Loss, Settings};
use crate::derived::{self, DerivedPart, Stamp};
use crate::description::describe_unread;
use crate::fault::Fault;
use crate::manifest::{self, Logged, Manifest, Record, SegmentEntry, segment_number};
use crate::piece::{self, Kept, Piece, Stored};
use crate::segment::{MappedSegment, SegmentFile};
use crate::text_ids;
use crate::version::{Content, Version};

/// Maps one segment of a manifest, with the cheap checks and, for small files, the checksum.
pub(crate) fn map_segment(
    folder: &Path,
    entry: &SegmentEntry,
    row_type: RowType,
    check: u64,
    small: u64,
) -> Result<SegmentFile, Fault> {
    let path = folder.join(&entry.file);
    // The length comes first, and before the mapping: the footer of a truncated file would only say that it is no Arrow
    // file.
    let bytes = match fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) => return Err(Fault::refused("cannot be read", &error)),
    };
    if bytes != entry.bytes {
        return Err(Fault::file(format!("it has {bytes} bytes, the manifest says {}", entry.bytes)));
    }
    let mapped = SegmentFile::bytes(&path, small)?;
    if bytes <= check && crc32fast::hash(&mapped) != entry.crc32 {
        return Err(Fault::file("its checksum does not match"));
    }
    let mut mapped = SegmentFile::read(mapped, row_type)?;
    mapped.number(entry.first_id.unwrap_or_default());
    match mapped.rows() as u64 == entry.rows {
        true => Ok(mapped),
        false => Err(Fault::file(format!("it has {} rows, the manifest says {}", mapped.rows(), entry.rows))),
    }
}

/// A version, or why there is none and as much as is known of it.
pub(crate) fn load(folder: &Path, name: &str, handle: u32, settings: &Settings) -> Result<Version, Arc<Loss>> {
    loop {
        let unreadable = |fault: Fault| Arc::new(Loss::of(manifest::FILE, &fault, None));
        let manifest = Manifest::read(folder, name).map_err(unreadable)?;
        let deleted = manifest.deleted().map_err(|reason| unreadable(Fault::file(reason)))?;
        match load_pieces(folder, &manifest, settings) {
            Ok(pieces) => {
                let generation = manifest.generation().unwrap_or(u32::MAX);
                let content = Content { opening: manifest.opening, pieces, deleted };
                return Ok(Version::new(content, handle, generation, manifest.len, None));
            }
            // Another process may have merged segments meanwhile, and removed them.
            Err(_) if !settings.writable && has_changed(folder, name, manifest.generation().unwrap_or(u32::MAX)) => {}
            Err((file, fault)) => return Err(Arc::new(Loss::of(&file, &fault, Some(describe_unread(&manifest))))),
        }
    }
}

/// Whether the folder has another version by now.
pub(crate) fn has_changed(folder: &Path, name: &str, generation: u32) -> bool {
    Manifest::read(folder, name).is_ok_and(|now| now.generation() != Some(generation))
}

/// The pieces, or the file that is to blame and why.
fn load_pieces(folder: &Path, manifest: &Manifest, settings: &Settings) -> Result<Vec<Piece>, (String, Fault)> {
    let row_type = manifest.opening.row_type();
    let mut pieces = Vec::new();
    for (record, body) in manifest.records.iter().filter_map(Logged::added) {
        let piece = match record {
            Record::Segment(entry) => {
                let file = map_segment(folder, entry, row_type, settings.check_bytes, settings.small_bytes)
                    .map_err(|fault| (entry.file.clone(), fault))?;
                let derived = derive(folder, &file, entry, row_type, settings);
                stored(file, entry.clone(), derived, row_type)
            }
            Record::Rows(_) => {
                let kept = Kept::decode(body, row_type);
                Piece::Kept(Arc::new(kept.map_err(|fault| (manifest::FILE.to_owned(), fault))?))
            }
            Record::Deleted(_) => {
                return Err((manifest::FILE.to_owned(), Fault::file("a deletion adds a deletion")));
            }
        };
        if let Some(column) = &manifest.opening.id_column {
            let checked = text_ids::check_field(piece.form().field_with_name(column).ok(), column);
            let file = piece.file().unwrap_or(manifest::FILE).to_owned();
            checked.map_err(|fault| (file, fault))?;
        }
        piece::push(&mut pieces, piece, row_type);
    }
    Ok(pieces)
}

/// A segment file as a piece.
pub(crate) fn stored(file: SegmentFile, entry: SegmentEntry, derived: Vec<DerivedPart>, row_type: RowType) -> Piece {
    let parts = file.parts.iter().cloned().zip(derived);
    let views = parts.map(|(part, derived)| {
        let rows = part.rows;
        Arc::new(SegmentView::new(MappedSegment::new(part, derived), rows))
    });
    let views = views.collect();
    Piece::Stored(Arc::new(Stored::new(entry, views, &file, row_type)))
}

/// What is computed from a segment: of a small one on the heap, of another in the cache beside it.
pub(crate) fn derive(
    folder: &Path,
    file: &SegmentFile,
    entry: &SegmentEntry,
    row_type: RowType,
    settings: &Settings,
) -> Vec<DerivedPart> {
    let embeddings: Vec<&[f32]> = file.parts.iter().map(|part| &part.embeddings[..]).collect();
    if entry.bytes <= settings.small_bytes || row_type.element == Element::Bit {
        return embeddings.iter().map(|part| DerivedPart::compute(part, row_type)).collect();
    }
    let stamp = Stamp { segment_crc: entry.crc32, dim: row_type.dim };
    let path = cache_path(&folder.join(&entry.file));
    let check = fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= settings.check_bytes);
    derived::open(&path, stamp, &embeddings, settings.writable, check)
}

/// Path of the cache beside a segment.
pub(crate) fn cache_path(segment: &Path) -> PathBuf {
    segment.with_extension("derived")
}

/// The largest number of a segment file in a folder.
pub(crate) fn last_number(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let names = entries.flatten().filter_map(|entry| segment_number(entry.file_name().to_str()?));
    names.max().unwrap_or(0)
}
