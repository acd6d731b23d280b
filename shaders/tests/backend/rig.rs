//! A running backend with a ring, and slots made by hand.

use std::io::Write;
use std::sync::{Arc, OnceLock};

use bytemuck::cast_slice;
use megaring_core::lists::len;
use megaring_core::corpus::{CorpusTable, CorpusView, HeapSegment, SegmentView};
use megaring_core::encode::keyword::Automaton;
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_core::{Backend, Metric, Opcode};
use megaring_datasets::Embeddings;
use megaring_ring::{Descriptor, JobRing, Outcome, RingConfig, Ticket, WaitStrategy};
use megaring_wgpu::{AdapterReport, WgpuBackend, WgpuOptions};

pub(crate) struct Rig {
    pub(crate) ring: Arc<JobRing>,
    pub(crate) table: Arc<CorpusTable>,
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

/// Why no adapter that the options allow can be used, where that is a matter of what this machine has. A name that no adapter has is none.
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
        let table = Arc::new(CorpusTable::default());
        let automaton = Automaton::new(&Profile::parse(DEFAULT).expect("the default profile"));
        let (backend, ring) = megaring_wgpu::start(options, table.clone(), &automaton).expect("the adapter starts");
        Some(Self { ring, table, backend, automaton })
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
        self.table.register(&view);
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

pub(crate) fn nop() -> Slot {
    Slot { descriptor: Descriptor { opcode: Opcode::Nop as u16, ..Descriptor::default() }, payload: vec![], result: 0 }
}

/// The masks of texts.
pub(crate) fn masks(texts: &[&str]) -> Slot {
    let ends = texts.iter().scan(0_u64, |end, text| {
        *end += text.len() as u64;
        Some(*end)
    });
    let offsets: Vec<u64> = std::iter::once(0).chain(ends).collect();
    let mut payload: Vec<u8> = cast_slice(&offsets).to_vec();
    payload.extend(texts.iter().flat_map(|text| text.bytes()));
    let descriptor = Descriptor { opcode: Opcode::Encode as u16, items: texts.len() as u32, ..Descriptor::default() };
    Slot { descriptor, payload, result: 16 * texts.len() }
}

/// The first `items` rows of a corpus against all of it.
pub(crate) fn search(view: &CorpusView, items: usize, k: usize) -> Slot {
    let (_, segment) = view.segments().next().expect("a segment");
    let payload = cast_slice(&segment.data().embeddings()[..items * view.dim()]).to_vec();
    let descriptor = Descriptor {
        opcode: Opcode::Search as u16,
        corpus: view.handle(),
        corpus_generation: view.generation(),
        items: items as u32,
        dim: view.dim() as u32,
        k: k as u32,
        metric: Metric::Dot as u8,
        threshold: f64::NEG_INFINITY,
        ..Descriptor::default()
    };
    Slot { descriptor, payload, result: len(items, 4 * k + 256) }
}

pub(crate) fn job(view: &Arc<CorpusView>) -> megaring_core::job::Job {
    let queries = megaring_core::matrix::Matrix { rows: 1, dim: view.dim(), values: vec![1.0; view.dim()] };
    megaring_core::job::Job::Search(megaring_core::job::SearchJob {
        corpus: view.clone(),
        queries,
        metric: Metric::Dot,
        k: 3,
        threshold: None,
    })
}
