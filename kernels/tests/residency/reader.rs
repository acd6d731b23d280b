//! What a kernel does with a table entry, and a check of every byte that it would read.

use std::sync::Arc;

use bytemuck::{cast_slice, pod_read_unaligned};
use megaring_core::corpus::{Column, CorpusView, SegmentView};
use megaring_cuda::abi::{
    CORPORA_MASK, CORPORA_PROBES, CORPUS_COORDINATES, CORPUS_ROWS, CORPUS_SCREENED, CORPUS_WILD, Corpus, NO_HANDLE,
    Segment, corpus_home,
};
use megaring_cuda::device::DevicePtr;

use crate::mock::{DIM, Job, MockDevice, MockHost, Reading, World, reads};

/// A job that the ring has and the kernel works on: what it found when it began, and the spans it goes on reading.
pub(crate) struct Running {
    pub(crate) entry: Corpus,
    ticket: u64,
    host: Arc<MockHost>,
    device: Arc<MockDevice>,
    job: Job,
    readings: Vec<Reading>,
}

impl World {
    /// The entry that a job finds, with its address.
    pub(crate) fn find(&self, handle: u32, generation: u32) -> Option<(DevicePtr, Corpus)> {
        let home = corpus_home(handle, generation);
        for probe in 0..CORPORA_PROBES {
            // Entries come and go while it looks.
            std::thread::yield_now();
            let slot = (home + probe) & CORPORA_MASK;
            let at = self.corpora.offset(slot as usize * size_of::<Corpus>());
            let entry: Corpus = pod_read_unaligned(&self.device.read(at, size_of::<Corpus>()));
            if (entry.handle, entry.generation) == (handle, generation) {
                return Some((at, entry));
            }
            if entry.handle == NO_HANDLE {
                return None;
            }
        }
        None
    }

    pub(crate) fn has(&self, view: &CorpusView) -> bool {
        self.find(view.handle(), view.generation()).is_some()
    }

    /// Puts a prepared job into the ring and lets the kernel begin it.
    pub(crate) fn begin(&self, job: &Job) -> Running {
        let ticket = self.host.submit();
        let view = reads(job).corpus;
        let (at, entry) = self.find(view.handle(), view.generation()).expect("a prepared version has an entry");
        check_entry(&entry, view);
        // All but the handle, which may be replaced.
        let mut readings = vec![self.device.reading(at.offset(4), size_of::<Corpus>() - 4)];
        if entry.segment_count > 0 {
            readings.push(self.device.reading(entry.segments, entry.segment_count as usize * size_of::<Segment>()));
        }
        if entry.stream.is_null() {
            for (at, expected) in spans(&self.device, &entry, job) {
                readings.push(self.device.reading(at, expected.len()));
            }
        }
        let (host, device) = (self.host.clone(), self.device.clone());
        Running { entry, ticket, host, device, job: job.clone(), readings }
    }

    /// [`World::begin`] to the end.
    pub(crate) fn run(&self, job: &Job) {
        self.begin(job).end();
    }
}

impl Running {
    /// Reads everything once more, and answers.
    pub(crate) fn end(self) {
        if self.entry.stream.is_null() {
            self.check();
        }
        self.leave();
    }

    /// Every byte is what the corpus says.
    pub(crate) fn check(&self) {
        for (at, expected) in spans(&self.device, &self.entry, &self.job) {
            assert_eq!(self.device.read(at, expected.len()), expected, "a column is not what was uploaded");
        }
    }

    /// Answers without another look.
    pub(crate) fn leave(self) {
        drop(self.readings);
        self.host.settle(self.ticket);
    }
}

pub(crate) fn list(device: &MockDevice, entry: &Corpus) -> Vec<Segment> {
    let bytes = match entry.segment_count as usize {
        0 => Vec::new(),
        count => device.read(entry.segments, count * size_of::<Segment>()),
    };
    bytes.chunks_exact(size_of::<Segment>()).map(pod_read_unaligned).collect()
}

fn check_entry(entry: &Corpus, view: &CorpusView) {
    let segments = || view.segments().map(|(_, segment)| segment);
    let groups: usize = segments().map(|segment| segment.rows().div_ceil(16)).sum();
    let max_norm = segments().map(|segment| segment.data().codes().max_norm).fold(0.0, f64::max);
    let wild = segments().any(|segment| segment.data().codes().wild);
    assert_eq!((entry.dim, entry.rows, entry.groups), (DIM as u32, view.rows() as u32, groups as u32));
    assert_eq!((entry.max_norm, entry.reserved), (max_norm, [0; 8]));
    assert_eq!(entry.flags & CORPUS_WILD != 0, wild);
    assert_eq!(entry.stream.is_null(), entry.stream_session == 0);
}

/// What a job reads: addresses, and what should be there.
fn spans(device: &MockDevice, entry: &Corpus, job: &Job) -> Vec<(DevicePtr, Vec<u8>)> {
    let (view, columns) = (reads(job).corpus, reads(job).columns);
    if columns.is_empty() || columns.screen().is_some() && entry.flags & CORPUS_WILD != 0 {
        return Vec::new();
    }
    for column in columns.iter() {
        assert_ne!(entry.flags & flag(column), 0, "the entry says that {column:?} is there");
    }
    let list = list(device, entry);
    let segments: Vec<(usize, &Arc<SegmentView>)> = view.segments().filter(|(_, segment)| segment.rows() > 0).collect();
    assert_eq!(list.len(), segments.len());
    let mut spans = Vec::new();
    for (placed, (start, segment)) in list.iter().zip(segments) {
        assert_eq!((placed.first_row, placed.row_count), (start as u32, segment.rows() as u32));
        spans.extend(columns.iter().map(|column| span(column, placed, segment)));
    }
    spans
}

fn flag(column: Column) -> u32 {
    match column {
        Column::Codes | Column::Screen(_) => CORPUS_SCREENED,
        Column::Embeddings | Column::Norms => CORPUS_ROWS,
        Column::Coordinates => CORPUS_COORDINATES,
    }
}

fn span(column: Column, placed: &Segment, segment: &SegmentView) -> (DevicePtr, Vec<u8>) {
    let data = segment.data();
    match column {
        Column::Codes => (placed.codes, data.codes().packed.to_vec()),
        Column::Screen(metric) => (placed.columns[metric as usize - 1], cast_slice(segment.columns(metric)).to_vec()),
        Column::Embeddings => (placed.rows, cast_slice(data.embeddings()).to_vec()),
        Column::Norms => (placed.norms2, cast_slice(data.norms2()).to_vec()),
        Column::Coordinates => {
            let axes = data.coordinates().expect("the corpus has coordinates");
            (placed.coordinates, axes.iter().flat_map(|axis| cast_slice(axis).to_vec()).collect())
        }
    }
}
