//! The manifest: what a corpus consists of, as a log that commits append to.
//!
//! `manifest.log` is a run of frames: a [`Head`], then text (JSON), then a body. The first frame is the [`Opening`],
//! the frames after it are [`Record`]s in row order: a segment file, or rows that lie in the frame's body (an Arrow IPC
//! stream), which small appends are kept as. A commit is one frame and one sync. When segments are merged, the log is
//! replaced as a whole, by a file that is there whole or not at all; its first `base` records then are one version, and
//! each record after them is one version more.
//!
//! A crash can leave the last frame short, or zeros in the place of its last sectors: it was never acknowledged and is
//! passed over. Any other
//! deviation is a fault. Every frame has a checksum of its head, so that a wrong length is not taken for a short frame.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::RangeInclusive;
use std::path::Path;

use bytemuck::{Pod, Zeroable};
use megaring_core::{Element, Error, RowType};
use roaring::RoaringBitmap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::durable::{TemporaryFile, sync_folder};
use crate::fault::Fault;
use crate::store::CreateOptions;

/// Name of the log in a corpus's folder.
pub(crate) const FILE: &str = "manifest.log";
/// Name of the manifest of earlier versions, which was replaced as a whole.
pub(crate) const FORMER_FILE: &str = "manifest.json";
/// Longest name of a corpus, in bytes.
const MAX_NAME: usize = 64;
/// Version of the log's form: the fourth may have an id column, and rows of bits.
const FORMAT: u32 = 4;
/// What a log with neither is written as, which programs of before read. It has deletions.
const PLAIN_FORMAT: u32 = 3;
/// Those that are read.
const FORMATS: RangeInclusive<u32> = 2..=FORMAT;
/// Version of the form that [`FORMER_FILE`] has.
const FORMER_FORMAT: u32 = 1;

/// One segment file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SegmentEntry {
    pub(crate) file: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// CRC-32 (IEEE) of the whole file.
    pub(crate) crc32: u32,
    /// Names of all columns in the file.
    pub(crate) columns: Vec<String>,
    /// The id of its first row, where the file has no ids: they go on from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first_id: Option<u64>,
}

/// What a log begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Opening {
    format: u32,
    pub(crate) name: String,
    pub(crate) dim: u64,
    /// What they are.
    #[serde(default, skip_serializing_if = "is_float32")]
    element: Element,
    pub(crate) created_unix_ns: u64,
    /// The version that the first `base` records are.
    pub(crate) generation: u32,
    base: u64,
    /// Rows that were here and have no number any more: deleted, and merged away.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) gone: u64,
    /// Whether no two rows have one id.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) unique_ids: bool,
    /// Where no two have: the ids that rows had which are gone are below it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) next_id: u64,
    /// The column that has the rows' ids as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id_column: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
fn is_float32(element: &Element) -> bool {
    *element == Element::Float32
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a commit added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Record {
    /// A segment file.
    Segment(SegmentEntry),
    /// Rows, in the frame's body.
    Rows(u64),
    /// Rows that are deleted from here on.
    Deleted(Deletion),
}

/// Rows that a commit deletes, and those that it adds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deletion {
    /// Bytes at the front of the frame's body: the numbers of the rows, as a roaring bitmap. Rows that are added have
    /// theirs already.
    pub(crate) bytes: u64,
    /// What the rest of the body belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) and: Option<Box<Record>>,
}

/// What stands before a frame. Little-endian, as all of a corpus's files.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Head {
    text: u32,
    body: u32,
    /// CRC-32 (IEEE) of text and body.
    crc: u32,
    /// CRC-32 (IEEE) of the fields before.
    head_crc: u32,
}

const HEAD: usize = size_of::<Head>();
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// A record with its body.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    pub(crate) record: Record,
    pub(crate) body: Vec<u8>,
}

impl Logged {
    /// Of a commit that deletes rows, and adds some where there is `added`.
    pub(crate) fn deleting(rows: &RoaringBitmap, added: Option<Self>) -> io::Result<Self> {
        let mut body = Vec::with_capacity(rows.serialized_size());
        rows.serialize_into(&mut body)?;
        let bytes = body.len() as u64;
        let and = added.map(|added| {
            body.extend_from_slice(&added.body);
            Box::new(added.record)
        });
        Ok(Self { record: Record::Deleted(Deletion { bytes, and }), body })
    }

    /// What it adds, with the body that belongs to it.
    pub(crate) fn added(&self) -> Option<(&Record, &[u8])> {
        match &self.record {
            Record::Deleted(Deletion { bytes, and }) => {
                let body = self.body.get(*bytes as usize..).unwrap_or_default();
                and.as_deref().map(|record| (record, body))
            }
            record => Some((record, &self.body)),
        }
    }

    /// The segment file that it adds.
    pub(crate) fn segment(&self) -> Option<&SegmentEntry> {
        match self.added() {
            Some((Record::Segment(entry), _)) => Some(entry),
            _ => None,
        }
    }

    /// Rows of its body that it adds.
    pub(crate) fn kept_rows(&self) -> u64 {
        match self.added() {
            Some((Record::Rows(rows), _)) => *rows,
            _ => 0,
        }
    }

    /// The rows that it deletes.
    pub(crate) fn deleted(&self) -> Result<RoaringBitmap, String> {
        let Record::Deleted(Deletion { bytes, .. }) = &self.record else { return Ok(RoaringBitmap::new()) };
        let bytes = self.body.get(..*bytes as usize).ok_or("its body is cut short")?;
        RoaringBitmap::deserialize_from(bytes).map_err(|error| error.to_string())
    }
}

/// A log as read.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) opening: Opening,
    pub(crate) records: Vec<Logged>,
    /// Bytes of the whole frames.
    pub(crate) len: u64,
}

impl Opening {
    /// Of an empty corpus.
    pub(crate) fn new(name: &str, row_type: RowType, options: CreateOptions, created_unix_ns: u64) -> Self {
        let CreateOptions { unique_ids, id_column } = options;
        Self {
            format: PLAIN_FORMAT,
            name: name.to_owned(),
            dim: row_type.dim as u64,
            element: row_type.element,
            created_unix_ns,
            generation: 1,
            base: 0,
            gone: 0,
            unique_ids,
            next_id: 0,
            id_column,
        }
    }

    /// What the corpus's rows are.
    pub(crate) fn row_type(&self) -> RowType {
        RowType { element: self.element, dim: self.dim as usize }
    }

    /// The same, of a corpus of another name.
    pub(crate) fn renamed(&self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self.clone() }
    }
}

impl Manifest {
    /// Whether it names this segment file.
    pub(crate) fn names(&self, file: &str) -> bool {
        self.records.iter().filter_map(Logged::segment).any(|entry| entry.file == file)
    }

    /// The version that all records are. `None` when generations have run out (2³² commits).
    pub(crate) fn generation(&self) -> Option<u32> {
        let more = (self.records.len() as u64).saturating_sub(self.opening.base);
        u64::from(self.opening.generation).checked_add(more).and_then(|generation| u32::try_from(generation).ok())
    }

    /// The rows that are deleted in that version, each of which is there.
    pub(crate) fn deleted(&self) -> Result<RoaringBitmap, String> {
        let (mut rows, mut deleted) = (0, RoaringBitmap::new());
        for (number, logged) in self.records.iter().enumerate() {
            rows += logged.segment().map_or(0, |entry| entry.rows) + logged.kept_rows();
            let new = logged.deleted().map_err(|reason| format!("record {number} of it cannot be read: {reason}"))?;
            if let Some(row) = new.max().filter(|row| u64::from(*row) >= rows) {
                return Err(format!("record {number} of it deletes row {row} of {rows}"));
            }
            deleted |= new;
        }
        Ok(deleted)
    }

    /// Reads and checks the manifest in a folder named `name`.
    pub(crate) fn read(folder: &Path, name: &str) -> Result<Self, Fault> {
        let bytes = match fs::read(folder.join(FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return read_former(folder, name),
            Err(error) => return Err(Fault::refused("cannot be read", &error)),
        };
        let manifest = Self::parse(&bytes).map_err(Fault::file)?;
        check(&manifest, name).map_err(Fault::file)?;
        Ok(manifest)
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (opening, _, mut rest) = frame::<Opening>(bytes, 0)?.ok_or("it is cut short")?;
        if !FORMATS.contains(&opening.format) {
            return Err(format!("is of format {}; this version reads formats up to {FORMAT}", opening.format));
        }
        let mut records = Vec::new();
        while let Some((record, body, after)) = frame(rest, bytes.len() - rest.len())
            .map_err(|reason| format!("record {} of it cannot be read: {reason}", records.len()))?
        {
            records.push(Logged { record, body: body.to_vec() });
            rest = after;
        }
        if (records.len() as u64) < opening.base {
            return Err(format!("it has {} of the {} records it began with", records.len(), opening.base));
        }
        Ok(Self { opening, records, len: (bytes.len() - rest.len()) as u64 })
    }

    /// Writes the log of a folder that has none.
    pub(crate) fn write(folder: &Path, opening: &Opening, generation: u32, records: &[Logged]) -> io::Result<()> {
        let log = Self::write_beside(folder, opening, generation, records)?;
        log.rename(&folder.join(FILE)).and_then(|()| sync_folder(folder))
    }

    /// Writes a log of which all records are one version, `generation`, beside the one it is to replace.
    pub(crate) fn write_beside(
        folder: &Path,
        opening: &Opening,
        generation: u32,
        records: &[Logged],
    ) -> io::Result<TemporaryFile> {
        let is_plain = opening.id_column.is_none() && is_float32(&opening.element);
        let format = if is_plain { PLAIN_FORMAT } else { FORMAT };
        let opening = Opening { format, generation, base: records.len() as u64, ..opening.clone() };
        let temporary = TemporaryFile::create(folder)?;
        let mut out = io::BufWriter::new(temporary.handle()?);
        out.write_all(&framed(&opening, &[])?)?;
        extend(&mut out, records)?;
        out.flush()?;
        Ok(temporary)
    }
}

/// A log that is appended to.
pub(crate) struct Log {
    file: File,
    len: u64,
}

impl Log {
    /// Opens the log of a folder, of which `len` bytes are whole frames. What a crash left behind them is cut off.
    pub(crate) fn open(folder: &Path, len: u64) -> io::Result<Self> {
        let mut file = File::options().read(true).write(true).open(folder.join(FILE))?;
        if file.metadata()?.len() != len {
            file.set_len(len)?;
            file.sync_all()?;
        }
        file.seek(SeekFrom::Start(len))?;
        Ok(Self { file, len })
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Adds a record, lasting over a crash from the moment this returns. `Err(true)`: nobody knows whether it does.
    pub(crate) fn append(&mut self, logged: &Logged) -> Result<(), (io::Error, bool)> {
        let frame = framed(&logged.record, &logged.body).map_err(|error| (error, false))?;
        let written = self.file.write_all(&frame);
        let written = written.map_err(|error| (error, false)).and_then(|()| {
            // A sync that failed may have lost what an earlier one would have kept.
            self.file.sync_data().map_err(|error| (error, true))
        });
        match written {
            Ok(()) => {
                self.len += frame.len() as u64;
                Ok(())
            }
            Err((error, true)) => Err((error, true)),
            Err((error, false)) => {
                let restored = self.file.set_len(self.len).and_then(|()| self.file.seek(SeekFrom::Start(self.len)));
                Err((error, restored.is_err()))
            }
        }
    }
}

/// Adds records to the end of a log that nobody reads yet.
pub(crate) fn extend(log: &mut impl Write, records: &[Logged]) -> io::Result<()> {
    records.iter().try_for_each(|logged| log.write_all(&framed(&logged.record, &logged.body)?))
}

/// The bytes of a frame. It ends in one that is not zero, by which a frame that was not written to its end is known:
/// the text does, and a byte after the body, which is a part of it when it is read.
fn framed(text: &impl Serialize, body: &[u8]) -> io::Result<Vec<u8>> {
    let end: &[u8] = if body.is_empty() { &[] } else { &[u8::MAX] };
    let body = &[body, end].concat();
    let text = serde_json::to_vec(text).map_err(io::Error::other)?;
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| io::Error::other("a record is too large"));
    let mut crc = crc32fast::Hasher::new();
    crc.update(&text);
    crc.update(body);
    let mut head = Head { text: length(&text)?, body: length(body)?, crc: crc.finalize(), head_crc: 0 };
    head.head_crc = head.sum();
    Ok([bytemuck::bytes_of(&head), &text, body].concat())
}

impl Head {
    fn sum(&self) -> u32 {
        crc32fast::hash(&bytemuck::bytes_of(self)[..HEAD - size_of::<u32>()])
    }
}

/// A frame's text and body, and what comes after it.
type Frame<'a, T> = (T, &'a [u8], &'a [u8]);

/// The first frame of a log's end, which begins at byte `start`; `None` where there is nothing, or the rest of a frame
/// that was never acknowledged.
fn frame<T: DeserializeOwned>(bytes: &[u8], start: usize) -> Result<Option<Frame<'_, T>>, String> {
    let Some((head, rest)) = bytes.split_at_checked(HEAD) else { return Ok(None) };
    let head: Head = bytemuck::pod_read_unaligned(head);
    // Some systems make a file longer before they write into it, a sector at a time.
    let written = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    let unwritten = (start + written).next_multiple_of(SECTOR) < start + bytes.len();
    if head.head_crc != head.sum() {
        let is_unwritten = written == 0 || (unwritten && written < HEAD);
        return if is_unwritten { Ok(None) } else { Err("the checksum of its head does not match".into()) };
    }
    let Some((text, rest)) = rest.split_at_checked(head.text as usize) else { return Ok(None) };
    let Some((body, rest)) = rest.split_at_checked(head.body as usize) else { return Ok(None) };
    let mut crc = crc32fast::Hasher::new();
    crc.update(text);
    crc.update(body);
    if crc.finalize() != head.crc {
        let is_unwritten = rest.is_empty() && unwritten;
        return if is_unwritten { Ok(None) } else { Err("its checksum does not match".into()) };
    }
    let text = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    Ok(Some((text, body, rest)))
}

fn check(manifest: &Manifest, name: &str) -> Result<(), String> {
    if manifest.opening.name != name {
        return Err(format!("belongs to corpus {:?}, not to the folder it is in", manifest.opening.name));
    }
    if manifest.generation().is_none() {
        return Err("has more records than there are generations".into());
    }
    manifest.deleted()?;
    let mut entries = manifest.records.iter().filter_map(Logged::segment);
    match entries.find(|entry| segment_number(&entry.file).is_none()) {
        Some(entry) => Err(format!("names {:?}, which is no segment's name", entry.file)),
        None => Ok(()),
    }
}

/// The manifest of earlier versions.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Former {
    format: u32,
    name: String,
    dim: u64,
    generation: u32,
    created_unix_ns: u64,
    segments: Vec<SegmentEntry>,
    /// CRC-32 of this manifest's compact JSON with this field 0.
    crc32: u32,
}

fn read_former(folder: &Path, name: &str) -> Result<Manifest, Fault> {
    match fs::read(folder.join(FORMER_FILE)) {
        Ok(text) => parse_former(&text, name).map_err(Fault::file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Fault::file("the file is missing")),
        Err(error) => Err(Fault::refused(&format!("{FORMER_FILE} cannot be read"), &error)),
    }
}

fn parse_former(text: &[u8], name: &str) -> Result<Manifest, String> {
    let unreadable = |error: serde_json::Error| format!("{FORMER_FILE} cannot be read: {error}");
    let mut former: Former = serde_json::from_slice(text).map_err(unreadable)?;
    if former.format != FORMER_FORMAT {
        return Err(format!("{FORMER_FILE} is of format {}; this version reads {FORMER_FORMAT}", former.format));
    }
    let crc32 = std::mem::take(&mut former.crc32);
    if serde_json::to_vec(&former).map(|text| crc32fast::hash(&text)).map_err(unreadable)? != crc32 {
        return Err(format!("the checksum of {FORMER_FILE} does not match"));
    }
    let record = |entry| Logged { record: Record::Segment(entry), body: Vec::new() };
    let records: Vec<Logged> = former.segments.into_iter().map(record).collect();
    let Former { name: own, dim, generation, created_unix_ns, .. } = former;
    let opening = Opening::new(&own, (dim as usize).into(), CreateOptions::default(), created_unix_ns);
    let opening = Opening { generation, base: records.len() as u64, ..opening };
    let manifest = Manifest { opening, records, len: 0 };
    check(&manifest, name)?;
    Ok(manifest)
}

/// Makes a log of the manifest of an earlier version, where there is none yet.
pub(crate) fn renew(folder: &Path, name: &str) -> io::Result<()> {
    if folder.join(FILE).exists() {
        // A crash came between the log and this.
        let is_read = folder.join(FORMER_FILE).exists() && Manifest::read(folder, name).is_ok();
        return if is_read { fs::remove_file(folder.join(FORMER_FILE)) } else { Ok(()) };
    }
    // A manifest that cannot be read stays as it is.
    let Ok(manifest) = read_former(folder, name) else { return Ok(()) };
    let (opening, records) = (&manifest.opening, &manifest.records);
    Manifest::write(folder, opening, opening.generation, records)?;
    fs::remove_file(folder.join(FORMER_FILE))
}

/// Name of the segment file with this number.
pub(crate) fn segment_file(number: u64) -> String {
    format!("seg-{number:06}.arrow")
}

/// The number in a segment's file name; `None` for any other name.
pub(crate) fn segment_number(file: &str) -> Option<u64> {
    let digits = file.strip_prefix("seg-")?.strip_suffix(".arrow")?;
    (digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

/// Checks a corpus's name: 1 to 64 bytes of `a-z 0-9 . _ -`, the first a letter or digit.
///
/// # Errors
/// [`Error::Invalid`] naming the field `name`.
pub fn check_name(name: &str) -> Result<(), Error> {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let starts = name.bytes().next().is_some_and(is_word);
    let goes_on = name.bytes().all(|b| is_word(b) || b"._-".contains(&b));
    if starts && goes_on && name.len() <= MAX_NAME {
        return Ok(());
    }
    let rule = "1 to 64 of the characters a-z, 0-9, '.', '_' and '-', the first a letter or digit";
    Err(Error::field("name", format!("{name:?} is no corpus name: {rule}")))
}
