//! What is read: a file, a pipe or standard input, opened once and read from its first byte to its last. Of what gzip
//! has compressed, the content is read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Chain, Cursor, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;
use megaring_core::Error;

use super::format::Format;

/// What gzip's files begin with: its magic, and deflate, its only method.
const GZIP: &[u8] = &[0x1f, 0x8b, 8];
/// First bytes that are looked at to tell what they are of.
const START: u64 = 64;
/// Bytes that are read at a time.
const BUFFER: usize = 1 << 20;

/// An open file, pipe or standard input.
pub struct Input {
    path: PathBuf,
    name: String,
    bytes_total: u64,
    start: Vec<u8>,
    reader: Reader,
}

/// A reader whose first bytes were looked at before.
type Begun<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

enum Reader {
    Plain(Begun<Raw>),
    Gzip(Box<Begun<Members>>),
}

/// What gzip has compressed, in one member or several.
struct Members(Option<GzDecoder<Begun<Raw>>>);

/// Bytes as they are stored or sent.
struct Raw {
    source: Source,
    bytes_read: u64,
}

enum Source {
    File(File),
    StandardInput(io::Stdin),
}

impl Input {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field `path` where it cannot be read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_as(path, None)
    }

    /// [`Self::open`], of a format that somebody named.
    pub(super) fn open_as(path: &Path, format: Option<Format>) -> Result<Self, Error> {
        let (name, source, bytes_total) = if path.as_os_str() == "-" {
            ("standard input".to_owned(), Source::StandardInput(io::stdin()), 0)
        } else {
            let refused = |error| refusal(path, &error);
            let file = File::open(path).map_err(refused)?;
            let metadata = file.metadata().map_err(refused)?;
            if metadata.is_dir() {
                return Err(Error::field("path", format!("{} is a folder", path.display())));
            }
            (path.display().to_string(), Source::File(file), if metadata.is_file() { metadata.len() } else { 0 })
        };
        let format = format.or_else(|| Format::of_extension(&extension(path)?));
        let known = (bytes_total > 0).then_some(bytes_total);
        let is_matrix = |start: &[u8]| format.is_some_and(|format| format.has_lengths(start, known));
        let (start, reader) = look(source, is_matrix).map_err(|error| refusal(Path::new(&name), &error))?;
        Ok(Self { path: path.to_owned(), name, bytes_total, start, reader })
    }

    /// What it is called in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes read so far of those stored.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        match &self.reader {
            Reader::Plain(reader) => reader.get_ref().get_ref().1.bytes_read,
            Reader::Gzip(reader) => {
                let member = reader.get_ref().get_ref().1.0.as_ref();
                member.map_or(0, |member| member.get_ref().get_ref().get_ref().1.bytes_read)
            }
        }
    }

    /// Bytes stored; 0 where that is not known.
    #[must_use]
    pub fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    /// Both.
    pub(super) fn place(&self) -> (u64, u64) {
        (self.bytes_read(), self.bytes_total)
    }

    /// Its first bytes, decompressed: at least 64 where it has as many.
    pub(super) fn start(&self) -> &[u8] {
        &self.start
    }

    /// See [`extension`].
    pub(super) fn extension(&self) -> Option<String> {
        extension(&self.path)
    }

    /// The path under which the very bytes that are read can be opened again.
    pub(super) fn stored_at(&self) -> Option<&Path> {
        self.file().map(|_| self.path.as_path())
    }

    /// How many bytes there are to read, where that is known before.
    pub(super) fn plain_bytes(&self) -> Option<u64> {
        self.file().map(|_| self.bytes_total)
    }

    /// The bytes as a file that can be read in any order: the file itself, or a temporary one that holds what came.
    pub(super) fn into_file(mut self) -> Result<File, Error> {
        if let Some(mut file) = self.file().map(File::try_clone).transpose().map_err(|error| self.unreadable(&error))? {
            file.rewind().map_err(|error| self.unreadable(&error))?;
            return Ok(file);
        }
        let name = self.name.clone();
        let refused = move |error: io::Error| {
            let folder = std::env::temp_dir();
            let reason = format!("{name} cannot be kept in the temporary folder {}: {error}", folder.display());
            Error::Storage(reason)
        };
        let mut kept = tempfile::tempfile().map_err(&refused)?;
        loop {
            let bytes = match self.reader.buffered().fill_buf() {
                Ok(bytes) => bytes,
                Err(error) => return Err(self.unreadable(&error)),
            };
            if bytes.is_empty() {
                break;
            }
            kept.write_all(bytes).map_err(&refused)?;
            let count = bytes.len();
            self.reader.buffered().consume(count);
        }
        kept.rewind().map_err(refused)?;
        Ok(kept)
    }

    /// An error of reading it.
    #[must_use]
    pub fn unreadable(&self, error: &io::Error) -> Error {
        refusal(Path::new(&self.name), error)
    }

    /// The file, where it is one that holds what is read and knows its length.
    fn file(&self) -> Option<&File> {
        match &self.reader {
            Reader::Plain(reader) if self.bytes_total > 0 => match &reader.get_ref().get_ref().1.source {
                Source::File(file) => Some(file),
                Source::StandardInput(_) => None,
            },
            _ => None,
        }
    }
}

/// Why a file cannot be read, in the words of every command.
#[must_use]
pub fn unreadable(path: &Path, error: &io::Error) -> String {
    let shown = path.display();
    match error.kind() {
        ErrorKind::NotFound => format!("{shown} does not exist"),
        ErrorKind::PermissionDenied => format!("{shown} cannot be read: permission denied"),
        _ => format!("{shown} cannot be read: {error}"),
    }
}

fn refusal(path: &Path, error: &io::Error) -> Error {
    Error::field("path", unreadable(path, error))
}

/// The end of a file's name, behind the last dot and in small letters; `.gz` is passed over.
fn extension(path: &Path) -> Option<String> {
    let ending = |path: &Path| Some(path.extension()?.to_str()?.to_ascii_lowercase());
    match ending(path)?.as_str() {
        "gz" => ending(Path::new(path.file_stem()?)),
        other => Some(other.to_owned()),
    }
}

/// `is_matrix` says of the first bytes that they are lengths, whatever they look like.
fn look(source: Source, is_matrix: impl Fn(&[u8]) -> bool) -> io::Result<(Vec<u8>, Reader)> {
    let (start, reader) = begin(Raw { source, bytes_read: 0 })?;
    if !start.starts_with(GZIP) || is_matrix(&start) {
        return Ok((start, Reader::Plain(reader)));
    }
    let (start, reader) = begin(Members(Some(GzDecoder::new(reader))))?;
    Ok((start, Reader::Gzip(Box::new(reader))))
}

fn begin<R: Read>(mut from: R) -> io::Result<(Vec<u8>, Begun<R>)> {
    let mut start = Vec::new();
    from.by_ref().take(START).read_to_end(&mut start)?;
    Ok((start.clone(), BufReader::with_capacity(BUFFER, Cursor::new(start).chain(from))))
}

impl Reader {
    fn buffered(&mut self) -> &mut dyn BufRead {
        match self {
            Self::Plain(reader) => reader,
            Self::Gzip(reader) => &mut **reader,
        }
    }
}

impl Read for Members {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(member) = &mut self.0 else { return Ok(0) };
            let read = member.read(bytes)?;
            if read > 0 || bytes.is_empty() {
                return Ok(read);
            }
            let more = member.get_mut().fill_buf()?;
            if more.is_empty() {
                return Ok(0);
            }
            if !GZIP.starts_with(&more[..more.len().min(GZIP.len())]) {
                let reason = "bytes stand behind the end of what gzip has compressed; `gzip -dc FILE` leaves them out";
                return Err(io::Error::new(ErrorKind::InvalidData, reason));
            }
            self.0 = self.0.take().map(|member| GzDecoder::new(member.into_inner()));
        }
    }
}

impl Read for Raw {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.source {
            Source::File(file) => file.read(bytes)?,
            Source::StandardInput(input) => input.read(bytes)?,
        };
        self.bytes_read += read as u64;
        Ok(read)
    }
}

impl Read for Input {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.reader.buffered().read(bytes)
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.reader.buffered().read_exact(bytes)
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.buffered().fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.reader.buffered().consume(count);
    }
}
