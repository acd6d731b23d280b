//! Messages as what they stand for here, and the other way.

use std::ops::Range;

use megaring_core::encode::{Encoded, Zone};
use megaring_core::matrix::Matrix;
use megaring_core::{BackendKind, Dtype, Element, Error, Metric, RowType};
use megaring_corpus::{Description, Rows, SegmentDescription, State};
use megaring_engine::Made;
use megaring_engine::router::{Basis, Forecast, Prospect, Times};
use megaring_proto::v1 as pb;
use megaring_proto::v1::prospect::Outcome;
use std::time::Duration;

pub(super) fn description(corpus: pb::Corpus) -> Description {
    let segment = |segment: pb::Segment| SegmentDescription {
        file: segment.file,
        rows: segment.rows as usize,
        bytes: segment.size_bytes,
        checksum: segment.checksum,
    };
    Description {
        row_type: row_type(&corpus),
        name: corpus.name,
        rows: corpus.rows as usize,
        deleted_rows: corpus.deleted_rows as usize,
        unique_ids: corpus.unique_ids,
        id_column: Some(corpus.id_column).filter(|column| !column.is_empty()),
        generation: corpus.generation as u32,
        segments: corpus.segments.into_iter().map(segment).collect(),
        columns: corpus.columns,
        partial_columns: corpus.partial_columns,
        bytes: corpus.size_bytes,
        created_unix_ns: corpus.created_unix_ns,
        state: match corpus.fault {
            None => State::Healthy,
            Some(pb::Fault { segment, reason }) => State::Faulty { segment, reason },
        },
    }
}

/// `None` for a backend that is not known here.
pub(super) fn made(made: pb::Made) -> Option<Made> {
    Some(Made {
        backend: kind(made.backend())?,
        instruction_set: made.instruction_set,
        exact: made.exact,
        rows_rescored: made.rows_rescored,
        bytes_read: made.bytes_read,
        queue: Duration::from_nanos(made.queue_ns),
        compute: Duration::from_nanos(made.compute_ns),
        rescore: Duration::from_nanos(made.rescore_ns),
        batched_with: made.gathered_queries,
    })
}

fn kind(backend: pb::Backend) -> Option<BackendKind> {
    match backend {
        pb::Backend::Unspecified => None,
        pb::Backend::Cpu => Some(BackendKind::Cpu),
        pb::Backend::Cuda => Some(BackendKind::Cuda),
        pb::Backend::Wgpu => Some(BackendKind::Wgpu),
    }
}

/// `None` where a backend or the outcome for it is not known here, or none has the place of the chosen one.
pub(super) fn forecast(answer: pb::ExplainResponse) -> Option<Forecast> {
    let prospects = answer.prospects.into_iter().map(prospect).collect::<Option<Vec<_>>>()?;
    let chosen = answer.chosen.map(|place| place as usize);
    chosen.is_none_or(|place| place < prospects.len()).then_some(Forecast { prospects, chosen, reason: answer.reason })
}

fn prospect(prospect: pb::Prospect) -> Option<Prospect> {
    let times = match prospect.outcome.clone()? {
        Outcome::NotAskedReason(reason) => Err(reason),
        Outcome::Times(times) => {
            let basis = match times.basis() {
                pb::Basis::Unspecified => return None,
                pb::Basis::Measured => Basis::Measured,
                pb::Basis::Assumed => Basis::Assumed,
            };
            let [model, alone, wait, upload] =
                [times.model_ns, times.alone_ns, times.wait_ns, times.upload_ns].map(Duration::from_nanos);
            Ok(Times { basis, model, alone, wait, upload })
        }
    };
    let reserve = Some(prospect.reserve.clone()).filter(|reason| !reason.is_empty());
    Some(Prospect { kind: kind(prospect.backend())?, device: prospect.device, times, reserve })
}

/// `None` where the answer's columns are not of one length, or a zone is not known here.
pub(super) fn encoded(answer: &pb::EncodeResponse) -> Option<Vec<Encoded>> {
    let (coordinates, rest) = answer.coordinates.as_chunks::<5>();
    let (masks, odd) = answer.masks.as_chunks::<16>();
    let is_whole = rest.is_empty() && odd.is_empty() && coordinates.len() == answer.zones.len();
    if !is_whole || coordinates.len() != masks.len() {
        return None;
    }
    let all = coordinates.iter().zip(masks).zip(&answer.zones);
    let one = |((coordinates, mask), zone): ((&[f64; 5], &[u8; 16]), &u32)| {
        let zone = Zone::ALL.into_iter().find(|known| *known as u32 == *zone)?;
        Some(Encoded { mask: u128::from_le_bytes(*mask), coordinates: *coordinates, zone })
    };
    all.map(one).collect()
}

/// The backend that a request forces, if any.
pub(crate) fn backend(wish: Option<BackendKind>) -> i32 {
    let backend = wish.map_or(pb::Backend::Unspecified, |kind| match kind {
        BackendKind::Cpu => pb::Backend::Cpu,
        BackendKind::Cuda => pb::Backend::Cuda,
        BackendKind::Wgpu => pb::Backend::Wgpu,
    });
    backend.into()
}

/// The metric that is asked for; none stands for the corpus's own.
pub(crate) fn metric(metric: Option<Metric>) -> i32 {
    let metric = metric.map_or(pb::Metric::Unspecified, |metric| match metric {
        Metric::Cosine => pb::Metric::Cosine,
        Metric::Dot => pb::Metric::Dot,
        Metric::L2 => pb::Metric::L2,
        Metric::Hamming => pb::Metric::Hamming,
        Metric::Jaccard => pb::Metric::Jaccard,
    });
    metric.into()
}

/// What the rows of a corpus are.
fn row_type(corpus: &pb::Corpus) -> RowType {
    let element = if corpus.dtype() == pb::Dtype::Bit { Element::Bit } else { Element::Float32 };
    RowType { element, dim: corpus.dim as usize }
}

/// The type of elements on the wire.
pub(crate) fn dtype(element: Element) -> i32 {
    let dtype = match element {
        Element::Float32 => pb::Dtype::Float32,
        Element::Bit => pb::Dtype::Bit,
    };
    dtype.into()
}

/// Vectors that are sent as queries to a corpus of a type.
pub(crate) fn queries(matrix: &Matrix, row_type: RowType) -> pb::Vectors {
    vectors(matrix, row_type, 0..matrix.rows)
}

fn vectors(matrix: &Matrix, row_type: RowType, rows: Range<usize>) -> pb::Vectors {
    let each = Dtype::of(row_type.element).row_bytes(row_type.dim);
    let values = matrix.range(&rows).chunks_exact(matrix.dim.max(1));
    let bytes = |row: &[f32]| row.iter().flat_map(|value| value.to_le_bytes()).take(each).collect::<Vec<u8>>();
    let data: Vec<u8> = values.flat_map(bytes).collect();
    let dtype = dtype(row_type.element);
    pb::Vectors { data: data.into(), dtype, rows: rows.len() as u32, dim: row_type.dim as u32, int8_scale: None }
}

/// A request with some of its queries; with all of it where it has none.
pub(super) fn some_queries(request: &pb::SearchRequest, rows: Range<u32>) -> pb::SearchRequest {
    let mut piece = request.clone();
    if let Some(queries) = &mut piece.queries {
        let each = queries.data.len() / (queries.rows as usize).max(1);
        queries.data = queries.data.slice(rows.start as usize * each..rows.end as usize * each);
        queries.rows = rows.len() as u32;
    }
    piece
}

/// Some rows of an import, for an append.
pub(super) fn rows(all: &Rows, row_type: RowType, rows: Range<usize>) -> Result<pb::Rows, Error> {
    fn part<T: Clone>(column: &[T], rows: &Range<usize>) -> Vec<T> {
        column.get(rows.clone()).map(<[T]>::to_vec).unwrap_or_default()
    }
    fn optional<T: Clone>(column: &Option<Vec<T>>, rows: &Range<usize>) -> Vec<T> {
        column.as_deref().map(|column| part(column, rows)).unwrap_or_default()
    }
    let coordinates = all.coordinates.as_ref().map(|axes| {
        let point = |row: usize| axes.iter().map(move |axis| axis[row]);
        rows.clone().flat_map(point).collect()
    });
    Ok(pb::Rows {
        memory_ids: part(&all.memory_ids, &rows),
        ids: part(&all.ids, &rows),
        titles: part(&all.titles, &rows),
        embeddings: Some(vectors(&all.embeddings, row_type, rows.clone())),
        coordinates: coordinates.unwrap_or_default(),
        galactic_distance: optional(&all.galactic_distance, &rows),
        importance: optional(&all.importance, &rows),
        zone: optional(&all.zone, &rows).into_iter().map(u32::from).collect(),
        constellation_id: optional(&all.constellation_id, &rows).into_iter().map(u32::from).collect(),
        last_accessed_ns: optional(&all.last_accessed_ns, &rows),
        is_protected: optional(&all.is_protected, &rows),
        columns: all.further.to_stream(rows)?,
    })
}
