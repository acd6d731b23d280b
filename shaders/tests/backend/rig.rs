//! A running backend with a ring, and slots made by hand.

use std::io::Write;
use std::sync::{Arc, OnceLock};

use megaring_core::corpus::{CorpusTable, CorpusView, HeapSegment, SegmentView};
use megaring_core::encode::Encode;
use megaring_core::encode::keyword::Automaton;
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_core::matrix::Matrix;
use megaring_core::nop::Nop;
use megaring_core::operation::{Limits, Payload};
use megaring_core::search::Search;
use megaring_core::texts::Texts;
use megaring_core::{Backend, Metric, Operation};
use megaring_datasets::Embeddings;
use megaring_engine::submit::write;
use megaring_ring::{Descriptor, JobRing, Outcome, RingConfig, Ticket, WaitStrategy};
use megaring_wgpu::{AdapterReport, WgpuBackend, WgpuOptions};

pub(crate) struct Rig {
    pub(crate) ring: Arc<JobRing>,
    pub(crate) corpora: Arc<CorpusTable>,
    pub(crate) backend: WgpuBackend,
    pub(crate) automaton: Automaton,
}

/// Serves its purpose on the ring: a job's payload and the room for its answer.
pub(crate) struct Slot {
    pub(crate) descriptor: Descriptor,
    pub(crate) payload: Vec<u8>,
    pub(crate) result: usize,
}

/// The default options, on whatever adapter there is, software too.
pub(crate) fn options() -> WgpuOptions {
    // Any name contains the empty one.
    let adapter = Some(std::env::var("MEGARING_WGPU_ADAPTER").unwrap_or_default());
    let ring = RingConfig { capacity: 64, arena_bytes: 32 << 20, block_bytes: 64 << 10, wait: WaitStrategy::default() };
    WgpuOptions { adapter, ring, ..WgpuOptions::default() }
}

/// Why this machine has no adapter that the options allow. A name that no adapter has is not such a reason.
fn lacking(options: &WgpuOptions) -> Option<String> {
    static ADAPTERS: OnceLock<Vec<AdapterReport>> = OnceLock::new();
    let all = ADAPTERS.get_or_init(megaring_wgpu::adapters);
    if all.is_empty() {
        return Some("no Vulkan, Metal or DX12 adapter".into());
    }
    let wish = options.adapter.as_deref().unwrap_or_default().to_lowercase();
    let named = all.iter().filter(|adapter| adapter.name.to_lowercase().contains(&wish));
    let lacks = named.map(|adapter| Some(format!("the adapter {} {}", adapter.name, adapter.lacks.as_ref()?)));
    lacks.collect::<Option<Vec<_>>>().filter(|lacks| !lacks.is_empty()).map(|lacks| lacks.join("; "))
}

impl Rig {
    /// `None` where there is no adapter, having said so.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&options())
    }

    pub(crate) fn start_with(options: &WgpuOptions) -> Option<Self> {
        if let Some(reason) = lacking(options) {
            // Past the capture of tests that pass: it is to be counted.
            _ = writeln!(std::io::stdout(), "\nskipped: {reason}");
            return None;
        }
        let corpora = Arc::new(CorpusTable::default());
        let automaton = Automaton::new(&Profile::parse(DEFAULT).expect("the default profile"));
        let (backend, ring) = megaring_wgpu::start(options, corpora.clone(), &automaton).expect("the adapter starts");
        Some(Self { ring, corpora, backend, automaton })
    }

    /// A generated corpus in one segment.
    pub(crate) fn corpus(&self, rows: usize, dim: usize) -> Arc<CorpusView> {
        self.corpus_of(&[rows], dim)
    }

    /// A generated corpus in segments of these rows.
    pub(crate) fn corpus_of(&self, rows: &[usize], dim: usize) -> Arc<CorpusView> {
        let segment = |(number, rows): (usize, &usize)| {
            let generator = Embeddings { rows: *rows, dim, seed: 11 + number as u64, ..Embeddings::default() };
            let data = Arc::new(HeapSegment::new(generator.generate().values, dim, None));
            Arc::new(SegmentView::new(data, *rows))
        };
        let segments = rows.iter().enumerate().map(segment).collect();
        let view = Arc::new(CorpusView::new("test".into(), 7, 1, dim, segments));
        self.corpora.register(&view);
        view
    }

    pub(crate) fn submit(&self, slot: &Slot) -> Ticket {
        let mut reservation = self.ring.try_reserve(slot.payload.len(), slot.result).expect("room");
        reservation.payload_mut().copy_from_slice(&slot.payload);
        self.ring.submit(reservation, slot.descriptor)
    }

    pub(crate) fn send(&self, slot: &Slot) -> Outcome {
        self.submit(slot).wait()
    }

    /// What the backend has counted under a name.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let counters = self.backend.counters();
        counters.iter().find(|(counted, _)| *counted == name).unwrap_or_else(|| panic!("{name} is counted")).1
    }
}

/// A job that fits a slot.
pub(crate) fn slot(job: &impl Operation) -> Slot {
    let pieces = job.pieces(&Limits { max_items: usize::MAX, max_bytes: usize::MAX });
    let [piece] = &pieces[..] else { panic!("{} pieces", pieces.len()) };
    let mut payload = vec![0; piece.payload];
    let descriptor = write(job, piece, Payload::new(&mut payload, false));
    Slot { descriptor, payload, result: piece.result }
}

pub(crate) fn nop() -> Slot {
    slot(&Nop)
}

/// A job that encodes texts.
pub(crate) fn encode(texts: &[&str]) -> Slot {
    let mut all = Texts::default();
    texts.iter().for_each(|text| all.push(text));
    slot(&Encode { texts: all, ..Encode::default() })
}

/// The first `items` rows of a corpus against all of it.
pub(crate) fn search(view: &Arc<CorpusView>, items: usize, k: usize) -> Search {
    let values = view.segment_of(0).1.data().embeddings()[..items * view.dim()].to_vec();
    let queries = Matrix { rows: items, dim: view.dim(), values };
    Search { corpus: view.clone(), queries: queries.into(), metric: Metric::Dot, k, threshold: None }
}
