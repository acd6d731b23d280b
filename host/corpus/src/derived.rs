//! What is computed from a segment and cached beside it: squared norms, the int8 codes of the screen, and the codes
//! once more in halves.
//!
//! The file begins with a [`Header`], then one [`PartHeader`] for each record batch of the segment, then the sections,
//! each starting at a multiple of 64 bytes. It is mapped and read in place. It is no original: whatever is wrong with
//! it, it is made anew from the segment, and where it cannot be written (a read-only folder, a full disk) its content
//! stays on the heap.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use arrow_buffer::{ArrowNativeType, Buffer, ScalarBuffer};
use bytemuck::{Pod, Zeroable};
use megaring_core::aligned::AlignedBytes;
use megaring_core::nibbles::{self, Nibbles, NibblesView};
use megaring_core::screen::{self, CodesView, RowCodes};
use megaring_core::{Element, RowType};

use crate::durable::{Paced, TemporaryFile, sync_folder};
use crate::fault::Fault;
use crate::mapping;

const MAGIC: [u8; 8] = *b"MEGADRV\0";
const VERSION: u32 = 2;
/// How codes lie in a section: changes with the constants of [`screen`], and makes files of another layout stale.
const CODE_LAYOUT: u32 = (screen::GROUP_ROWS as u32) << 16 | (screen::QUAD as u32) << 8 | screen::CODE_BIAS as u32;
const ALIGNMENT: usize = 64;
/// Sections of a part.
const SECTIONS: usize = 7;

/// Which segment a cache must belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Checksum of the segment file.
    pub(crate) segment_crc: u32,
    pub(crate) dim: usize,
}

/// Derived columns of one part. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DerivedPart {
    pub(crate) norms2: ScalarBuffer<f64>,
    packed: Buffer,
    scale: ScalarBuffer<f32>,
    residual: ScalarBuffer<f32>,
    high: Buffer,
    low: Buffer,
    high_residual: ScalarBuffer<f32>,
    wild: bool,
    max_norm: f64,
}

impl DerivedPart {
    /// Of bits there is nothing to compute.
    pub(crate) fn compute(embeddings: &[f32], row_type: RowType) -> Self {
        let (embeddings, dim) = match row_type.element {
            Element::Float32 => (embeddings, row_type.dim),
            Element::Bit => (&[][..], row_type.width()),
        };
        let norms2 = screen::norms2(embeddings, dim);
        let codes = screen::pack(embeddings, dim, &norms2);
        let Nibbles { high, low, residual: high_residual } = Nibbles::new(codes.view(), norms2.len(), dim);
        let RowCodes { packed, scale, residual, wild, max_norm } = codes;
        let buffer = |bytes: AlignedBytes| Buffer::from(bytes::Bytes::from_owner(bytes));
        Self {
            norms2: norms2.into(),
            packed: buffer(packed),
            scale: scale.into(),
            residual: residual.into(),
            high: buffer(high),
            low: buffer(low),
            high_residual: high_residual.into(),
            wild,
            max_norm,
        }
    }

    pub(crate) fn codes(&self) -> CodesView<'_> {
        CodesView {
            packed: &self.packed,
            scale: &self.scale,
            residual: &self.residual,
            wild: self.wild,
            max_norm: self.max_norm,
        }
    }

    pub(crate) fn nibbles(&self) -> NibblesView<'_> {
        NibblesView { high: &self.high, low: &self.low, residual: &self.high_residual }
    }

    fn sections(&self) -> [&[u8]; SECTIONS] {
        let (norms2, scale) = (self.norms2.inner(), self.scale.inner());
        [norms2, &self.packed, scale, self.residual.inner(), &self.high, &self.low, self.high_residual.inner()]
    }

    /// Whether every bit is the other's.
    fn equals(&self, other: &Self) -> bool {
        let bits = |part: &Self| (part.wild, part.max_norm.to_bits());
        self.sections() == other.sections() && bits(self) == bits(other)
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    version: u32,
    code_layout: u32,
    segment_crc: u32,
    /// CRC-32 of this header with this field 0 and of all that follows.
    crc: u32,
    dim: u64,
    parts: u64,
    unused: [u64; 3],
}

#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
struct PartHeader {
    rows: u64,
    wild: u64,
    max_norm: f64,
    /// Where the sections begin: norms2, codes, scale, residual; high halves, low ones, and the residual of the first.
    starts: [u64; SECTIONS],
    unused: [u64; 6],
}

const _: () = assert!(size_of::<Header>() == ALIGNMENT && size_of::<PartHeader>() == 2 * ALIGNMENT);

/// Maps the cache of a segment whose parts have these embeddings, or makes it anew. `write` says whether the folder may
/// be written to, `check` whether the file's checksum is compared.
pub(crate) fn open(path: &Path, stamp: Stamp, parts: &[&[f32]], write: bool, check: bool) -> Vec<DerivedPart> {
    let found = load(path, stamp, parts, check);
    let is_limit = found.as_ref().is_err_and(|fault| fault.is_limit);
    if let Ok(found) = found {
        return found;
    }
    if write
        && !is_limit
        && store(path, stamp, parts).is_ok()
        && let Ok(made) = load(path, stamp, parts, true)
    {
        return made;
    }
    parts.iter().map(|part| DerivedPart::compute(part, stamp.dim.into())).collect()
}

/// Compares a cache file with what it should hold. `Ok` where there is no file: the next open makes one.
pub(crate) fn verify(path: &Path, stamp: Stamp, parts: &[&[f32]]) -> Result<(), Fault> {
    if !path.exists() {
        return Ok(());
    }
    let found = load(path, stamp, parts, true)?;
    let mut pairs = parts.iter().zip(&found);
    match pairs.all(|(part, found)| DerivedPart::compute(part, stamp.dim.into()).equals(found)) {
        true => Ok(()),
        false => Err(Fault::file("its norms or codes are not those of the segment")),
    }
}

fn load(path: &Path, stamp: Stamp, parts: &[&[f32]], check: bool) -> Result<Vec<DerivedPart>, Fault> {
    let bytes: Buffer = mapping::map(path).map_err(|error| Fault::refused("cannot be mapped", &error))?.into();
    let header: Header = read_at(&bytes, 0).ok_or_else(|| Fault::file("it is cut short"))?;
    if (header.magic, header.version, header.code_layout) != (MAGIC, VERSION, CODE_LAYOUT) {
        return Err(Fault::file("it is of another version"));
    }
    let wanted = (stamp.segment_crc, stamp.dim as u64, parts.len() as u64);
    if (header.segment_crc, header.dim, header.parts) != wanted {
        return Err(Fault::file("it belongs to another segment"));
    }
    if check && sum(&header, &bytes[size_of::<Header>()..]) != header.crc {
        return Err(Fault::file("its checksum does not match"));
    }
    let part = |(index, values): (usize, &&[f32])| {
        let rows = values.len() / stamp.dim.max(1);
        load_part(&bytes, index, rows, stamp.dim).ok_or_else(|| Fault::file("its sections do not fit the segment"))
    };
    parts.iter().enumerate().map(part).collect()
}

fn load_part(bytes: &Buffer, index: usize, rows: usize, dim: usize) -> Option<DerivedPart> {
    let header: PartHeader = read_at(bytes, size_of::<Header>() + index * size_of::<PartHeader>())?;
    if header.rows != rows as u64 {
        return None;
    }
    let [norms2, packed, scale, residual, high, low, high_residual] = header.starts;
    let groups = screen::groups(rows);
    Some(DerivedPart {
        norms2: typed(section(bytes, norms2, rows.checked_mul(8)?)?, rows)?,
        packed: section(bytes, packed, screen::packed_len(rows, dim))?,
        scale: typed(section(bytes, scale, rows.checked_mul(4)?)?, rows)?,
        residual: typed(section(bytes, residual, rows.checked_mul(4)?)?, rows)?,
        high: section(bytes, high, groups.checked_mul(nibbles::high_group(dim))?)?,
        low: section(bytes, low, groups.checked_mul(screen::GROUP_ROWS * nibbles::half_row(dim))?)?,
        high_residual: typed(section(bytes, high_residual, rows.checked_mul(4)?)?, rows)?,
        wild: header.wild != 0,
        max_norm: header.max_norm,
    })
}

fn read_at<T: Pod>(bytes: &[u8], start: usize) -> Option<T> {
    let bytes = bytes.get(start..start.checked_add(size_of::<T>())?)?;
    bytemuck::try_pod_read_unaligned(bytes).ok()
}

fn section(bytes: &Buffer, start: u64, len: usize) -> Option<Buffer> {
    let start = usize::try_from(start).ok()?;
    let fits = start.checked_add(len)? <= bytes.len() && start.is_multiple_of(ALIGNMENT);
    fits.then(|| bytes.slice_with_length(start, len))
}

/// `None` where the buffer is not aligned for `T` (an empty mapping may lie anywhere).
fn typed<T: ArrowNativeType>(buffer: Buffer, len: usize) -> Option<ScalarBuffer<T>> {
    let aligned = buffer.as_ptr().align_offset(align_of::<T>()) == 0;
    aligned.then(|| ScalarBuffer::new(buffer, 0, len))
}

fn sum(header: &Header, rest: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(bytemuck::bytes_of(&Header { crc: 0, ..*header }));
    crc.update(rest);
    crc.finalize()
}

/// Computes and writes a cache file, one part in memory at a time.
fn store(path: &Path, stamp: Stamp, parts: &[&[f32]]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = TemporaryFile::create(folder)?;
    let mut out = BufWriter::new(Paced::new(temporary.handle()?));
    let heads = size_of::<Header>() + parts.len() * size_of::<PartHeader>();
    out.write_all(&vec![0; heads])?;
    let mut place = heads as u64;
    let mut table = Vec::with_capacity(parts.len());
    let mut sections_crc = crc32fast::Hasher::new();
    for part in parts {
        let derived = DerivedPart::compute(part, stamp.dim.into());
        let mut head = PartHeader {
            rows: derived.norms2.len() as u64,
            wild: u64::from(derived.wild),
            max_norm: derived.max_norm,
            ..Default::default()
        };
        for (start, section) in head.starts.iter_mut().zip(derived.sections()) {
            *start = place;
            place += write_padded(&mut out, section, &mut sections_crc)?;
        }
        table.push(head);
    }
    out.flush()?;
    write_heads(temporary.handle()?, stamp, &table, &sections_crc)?;
    temporary.rename(path)?;
    sync_folder(folder)
}

fn write_padded(out: &mut impl Write, section: &[u8], crc: &mut crc32fast::Hasher) -> io::Result<u64> {
    let padding = section.len().next_multiple_of(ALIGNMENT) - section.len();
    let padding = &[0; ALIGNMENT][..padding];
    for bytes in [section, padding] {
        crc.update(bytes);
        out.write_all(bytes)?;
    }
    Ok((section.len() + padding.len()) as u64)
}

fn write_heads(mut file: File, stamp: Stamp, table: &[PartHeader], sections: &crc32fast::Hasher) -> io::Result<()> {
    let mut header = Header {
        magic: MAGIC,
        version: VERSION,
        code_layout: CODE_LAYOUT,
        segment_crc: stamp.segment_crc,
        crc: 0,
        dim: stamp.dim as u64,
        parts: table.len() as u64,
        unused: [0; 3],
    };
    let mut crc = crc32fast::Hasher::new();
    crc.update(bytemuck::bytes_of(&header));
    crc.update(bytemuck::cast_slice(table));
    crc.combine(sections);
    header.crc = crc.finalize();
    file.seek(SeekFrom::Start(0))?;
    file.write_all(bytemuck::bytes_of(&header))?;
    file.write_all(bytemuck::cast_slice(table))
}
