//! The CPU backend through its ring, against the naive reference: every operation, every instruction set this machine has, both ways of
//! sharing work (by query and by rows), several segments, ties, and numbers that no screen can bound.

use std::sync::Arc;

use bytemuck::cast_slice;
use megaring_core::lists::{CandidateLists, FLAG_ALL_ROWS, FLAG_POINTS, len};
use megaring_core::corpus::{CorpusTable, CorpusView, HeapSegment, SegmentView};
use megaring_core::encode::keyword::Automaton;
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_core::rescore::{Ask, rank};
use megaring_core::{Backend, Metric, Opcode, nearest};
use megaring_datasets::{Embeddings, Matrix, memories, points, poison, queries, reference};
use megaring_ring::{Descriptor, JobRing, RingConfig, Status, WaitStrategy};
use megaring_simd::KernelSet;
use megaring_simd::backend::{CpuBackend, CpuOptions};

struct Rig {
    ring: Arc<JobRing>,
    table: Arc<CorpusTable>,
    kernels: &'static KernelSet,
    backend: CpuBackend,
}

impl Rig {
    fn new(kernels: &'static KernelSet, workers: usize) -> Self {
        let ring = JobRing::new(RingConfig {
            capacity: 8,
            arena_bytes: 64 << 20,
            block_bytes: 64 << 10,
            wait: WaitStrategy::default(),
        })
        .expect("a ring of 8");
        let table = Arc::new(CorpusTable::default());
        let options = CpuOptions { workers, wait: WaitStrategy::default(), device: "test".into() };
        let profile = Profile::parse(DEFAULT).expect("the default profile");
        let backend = CpuBackend::start(options, ring.clone(), kernels, table.clone(), &Automaton::new(&profile))
            .expect("threads to be had");
        Self { ring, table, kernels, backend }
    }

    fn all() -> impl Iterator<Item = Self> {
        KernelSet::available().into_iter().flat_map(|kernels| [1, 3].map(|workers| Self::new(kernels, workers)))
    }

    /// A corpus cut into segments of the given lengths (the rest in one more).
    fn corpus(&self, rows: &Matrix, cuts: &[usize]) -> Arc<CorpusView> {
        let mut segments = Vec::new();
        let mut from = 0_usize;
        for len in cuts.iter().copied().chain([usize::MAX]) {
            let to = rows.rows.min(from.saturating_add(len));
            let values = rows.values[from * rows.dim..to * rows.dim].to_vec();
            segments.push(Arc::new(SegmentView::new(Arc::new(HeapSegment::new(values, rows.dim, None)), to - from)));
            from = to;
        }
        let view = Arc::new(CorpusView::new("test".into(), 7, 1, rows.dim, segments));
        self.table.register(&view);
        view
    }

    /// Sends one slot and gives back its result, which must be Ok.
    fn run(&self, descriptor: Descriptor, payload: &[u8], result: usize) -> Vec<u8> {
        let outcome = self.send(descriptor, payload, result);
        assert_eq!(outcome.completion.status, Status::Ok, "{descriptor:?}");
        outcome.result().to_vec()
    }

    fn send(&self, descriptor: Descriptor, payload: &[u8], result: usize) -> megaring_ring::Outcome {
        let mut reservation = self.ring.try_reserve(payload.len(), result).expect("room");
        reservation.payload_mut().copy_from_slice(payload);
        self.ring.submit(reservation, descriptor).wait()
    }

    fn search(&self, view: &CorpusView, queries: &Matrix, ask: Ask, spare: usize) -> Vec<Vec<(u32, f64)>> {
        let result = len(queries.rows, (4 * ask.k + spare).min(view.rows()));
        let worst = if ask.metric == Metric::L2 { f64::INFINITY } else { f64::NEG_INFINITY };
        let descriptor = Descriptor {
            opcode: Opcode::Search as u16,
            corpus: view.handle(),
            corpus_generation: view.generation(),
            items: queries.rows as u32,
            dim: queries.dim as u32,
            k: ask.k as u32,
            metric: ask.metric as u8,
            threshold: ask.threshold.unwrap_or(worst),
            ..Descriptor::default()
        };
        let found = self.run(descriptor, cast_slice(&queries.values), result);
        // The result region is aligned; this copy of it need not be.
        let aligned: Vec<u64> = bytemuck::allocation::pod_collect_to_vec(&found);
        let lists =
            CandidateLists::read(&cast_slice(&aligned)[..found.len()], queries.rows).expect("well-formed lists");
        (0..queries.rows)
            .map(|query| {
                let ranked = rank(view, queries.row(query), ask, &lists.of(query), self.kernels);
                ranked.hits.iter().map(|hit| (hit.row, hit.score)).collect()
            })
            .collect()
    }
}

fn truth(rows: &Matrix, queries: &Matrix, ask: Ask) -> Vec<Vec<(u32, f64)>> {
    let metric = match ask.metric {
        Metric::Cosine => reference::Metric::Cosine,
        Metric::Dot => reference::Metric::Dot,
        Metric::L2 => reference::Metric::L2,
    };
    reference::search(metric, &queries.values, &rows.values, rows.dim, ask.k, ask.threshold)
        .into_iter()
        .map(|hits| hits.into_iter().map(|hit| (hit.row, hit.score)).collect())
        .collect()
}

fn ask(metric: Metric, k: usize) -> Ask {
    Ask { metric, k, threshold: None }
}

fn clustered(rows: usize, dim: usize) -> Matrix {
    Embeddings { rows, dim, seed: 11, ..Embeddings::default() }.generate()
}

#[test]
fn search_equals_the_reference_for_few_and_many_queries() {
    let rows = clustered(1500, 48);
    for rig in Rig::all() {
        let view = rig.corpus(&rows, &[16, 700, 1]);
        for count in [1, 2, 7, 70] {
            let queries = queries(&rows, count, 5);
            for metric in Metric::ALL {
                for k in [1, 10, 100, 749, 1500, 9999] {
                    let want = truth(&rows, &queries, ask(metric, k));
                    assert_eq!(
                        rig.search(&view, &queries, ask(metric, k), 256),
                        want,
                        "{metric} k {k} queries {count}"
                    );
                }
            }
        }
    }
}

#[test]
fn search_shares_large_corpora_by_rows() {
    let rows = clustered(20_000, 96);
    let queries = queries(&rows, 3, 9);
    for rig in Rig::all() {
        let view = rig.corpus(&rows, &[7_777]);
        for metric in Metric::ALL {
            let want = truth(&rows, &queries, ask(metric, 10));
            assert_eq!(rig.search(&view, &queries, ask(metric, 10), 256), want, "{metric}");
        }
    }
}

#[test]
fn search_keeps_ties_lists_that_overflow_and_unusual_rows_exact() {
    let base = clustered(400, 24);
    let shapes = [
        ("duplicates", poison::duplicated(&base, 3)),
        ("constant", poison::constant(500, 24, 0.125)),
        ("zero row", poison::zero_row(&base, 3)),
        ("huge", poison::huge(300, 24)),
        ("tiny", poison::tiny(300, 24)),
        ("cancelling", poison::cancelling(300, 24)),
    ];
    for rig in Rig::all() {
        for (name, rows) in &shapes {
            let view = rig.corpus(rows, &[100]);
            for queries in [rows.head(2), rows.head(20), poison::constant(1, rows.dim, 0.0)] {
                for metric in Metric::ALL {
                    for spare in [0, 256] {
                        let want = truth(rows, &queries, ask(metric, 5));
                        assert_eq!(rig.search(&view, &queries, ask(metric, 5), spare), want, "{name} {metric} {spare}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_score_threshold_is_kept_to_the_last_bit() {
    let rows = clustered(600, 33);
    let queries = queries(&rows, 4, 3);
    for rig in Rig::all() {
        let view = rig.corpus(&rows, &[]);
        for metric in Metric::ALL {
            let exact = truth(&rows, &queries, ask(metric, 20));
            // A threshold equal to a score keeps that row; the neighbouring float64 drops it.
            let score = exact[0][9].1;
            for threshold in [score, score.next_up(), score.next_down()] {
                let ask = Ask { metric, k: 15, threshold: Some(threshold) };
                assert_eq!(rig.search(&view, &queries, ask, 256), truth(&rows, &queries, ask), "{metric} {threshold}");
            }
        }
    }
}

#[test]
fn scores_of_all_and_of_named_rows_equal_the_reference() {
    let rows = clustered(333, 40);
    let queries = queries(&rows, 21, 2);
    for rig in Rig::all() {
        let view = rig.corpus(&rows, &[50, 50]);
        let named: Vec<u32> = (0..200).map(|i| (i * 97 + 5) % 333).collect();
        for (metric, twin) in
            Metric::ALL.into_iter().zip([reference::Metric::Cosine, reference::Metric::Dot, reference::Metric::L2])
        {
            let want = reference::score(twin, &queries.values, &rows.values, rows.dim);
            let mut descriptor = Descriptor {
                opcode: Opcode::Score as u16,
                corpus: 7,
                corpus_generation: 1,
                items: 21,
                dim: 40,
                metric: metric as u8,
                flags: FLAG_ALL_ROWS,
                ..Descriptor::default()
            };
            let all = rig.run(descriptor, cast_slice(&queries.values), 21 * 333 * 4);
            assert_eq!(bytemuck::allocation::pod_collect_to_vec::<u8, f32>(&all), want, "{metric}");
            descriptor.flags = 0;
            descriptor.k = named.len() as u32;
            let payload = [cast_slice::<f32, u8>(&queries.values), cast_slice(&named)].concat();
            let some = rig.run(descriptor, &payload, 21 * named.len() * 4);
            let picked: Vec<f32> = (0..21)
                .flat_map(|q| named.iter().map(move |row| (q, *row)))
                .map(|(q, row)| want[q * 333 + row as usize])
                .collect();
            assert_eq!(bytemuck::allocation::pod_collect_to_vec::<u8, f32>(&some), picked, "{metric}, named rows");
        }
        drop(view);
    }
}

#[test]
fn masks_equal_one_substring_search_per_keyword() {
    let profile = Profile::parse(DEFAULT).expect("the default profile");
    let memories = memories(3_000, 4).expect("the sample is embedded");
    let mut texts: Vec<&str> = (0..memories.len()).map(|i| memories.content(i)).collect();
    texts.extend(["", "", "K\u{212A}ey bin\u{130}ary", ""]);
    let mut offsets = vec![0_u64];
    let mut bytes = Vec::new();
    for text in &texts {
        bytes.extend_from_slice(text.as_bytes());
        offsets.push(bytes.len() as u64);
    }
    let want: Vec<u128> = texts.iter().map(|text| reference::keyword_mask(text, profile.words())).collect();
    let payload = [cast_slice::<u64, u8>(&offsets), &bytes].concat();
    let descriptor = Descriptor { opcode: Opcode::Encode as u16, items: texts.len() as u32, ..Descriptor::default() };
    // The same bytes as one last text: leaves words in the arena where the empty texts' masks will be.
    let mut last = vec![0_u64; offsets.len()];
    last[texts.len()] = bytes.len() as u64;
    let stale = [cast_slice::<u64, u8>(&last), &bytes].concat();
    for rig in Rig::all() {
        assert_ne!(rig.run(descriptor, &stale, texts.len() * 16)[(texts.len() - 1) * 16..], [0; 16]);
        let found = rig.run(descriptor, &payload, texts.len() * 16);
        let found: Vec<u128> = found.as_chunks().0.iter().map(|mask| u128::from_le_bytes(*mask)).collect();
        assert_eq!(found, want);
    }
}

#[test]
fn nearest_points_equal_the_reference_with_ties() {
    let cloud = points(40_000, 8);
    let asked: Vec<[f64; 5]> = points(9, 80);
    let weights = nearest::DEFAULT_WEIGHTS;
    let columns: [Vec<f64>; 5] = std::array::from_fn(|axis| cloud.iter().map(|point| point[axis]).collect());
    let mut payload = cast_slice::<[f64; 5], u8>(&asked).to_vec();
    payload.extend_from_slice(cast_slice(&weights));
    columns.iter().for_each(|column| payload.extend_from_slice(cast_slice(column)));
    for rig in Rig::all() {
        for k in [1, 10, 300] {
            let descriptor = Descriptor {
                opcode: Opcode::Nearest as u16,
                items: 9,
                dim: 40_000,
                k,
                flags: FLAG_POINTS,
                ..Descriptor::default()
            };
            let found = rig.run(descriptor, &payload, len(9, k as usize + 256));
            let aligned: Vec<u64> = bytemuck::allocation::pod_collect_to_vec(&found);
            let lists = CandidateLists::read(&cast_slice(&aligned)[..found.len()], 9).expect("well-formed lists");
            for (query, point) in asked.iter().enumerate() {
                let rows: Vec<u32> = match lists.of(query) {
                    megaring_core::lists::Candidates::Listed(listed) => listed.iter().map(|c| c.row).collect(),
                    megaring_core::lists::Candidates::EveryRow => (0..40_000).collect(),
                };
                assert!(rows.len() < 40_000, "40,000 points have fewer ties than that");
                let ranked = nearest::rank(rows.into_iter(), |row| cloud[row as usize], *point, weights, k as usize);
                let got: Vec<(u32, f64)> = ranked.iter().map(|n| (n.row, n.distance)).collect();
                let want: Vec<(u32, f64)> = reference::nearest(&cloud, point, &weights, k as usize)
                    .iter()
                    .map(|n| (n.row, n.distance))
                    .collect();
                assert_eq!(got, want);
            }
        }
    }
}

#[test]
fn faulty_slots_get_an_error_completion_and_the_workers_go_on() {
    let rows = clustered(64, 8);
    for rig in Rig::all() {
        let view = rig.corpus(&rows, &[]);
        let good = Descriptor {
            opcode: Opcode::Search as u16,
            corpus: 7,
            corpus_generation: 1,
            items: 1,
            dim: 8,
            k: 3,
            metric: Metric::Dot as u8,
            threshold: f64::NEG_INFINITY,
            ..Descriptor::default()
        };
        let query = cast_slice::<f32, u8>(rows.row(0)).to_vec();
        let faults = [
            (Descriptor { opcode: 99, ..good }, Status::UnknownOpcode),
            (Descriptor { corpus_generation: 2, ..good }, Status::StaleCorpus),
            (Descriptor { dim: 9, ..good }, Status::BadDescriptor),
            (Descriptor { k: 0, ..good }, Status::BadDescriptor),
            (Descriptor { metric: 9, ..good }, Status::BadDescriptor),
            (Descriptor { items: 2, ..good }, Status::BadDescriptor),
            (Descriptor { deadline_ns: 1, ..good }, Status::DeadlineExceeded),
            (Descriptor { opcode: Opcode::Encode as u16, items: 1, ..good }, Status::BadDescriptor),
            (Descriptor { opcode: Opcode::Nearest as u16, flags: FLAG_POINTS, ..good }, Status::BadDescriptor),
            (Descriptor { opcode: Opcode::Score as u16, k: 1, ..good }, Status::BadDescriptor),
        ];
        for (descriptor, want) in faults {
            let outcome = rig.send(descriptor, &query, 4096);
            assert_eq!(outcome.completion.status, want, "{descriptor:?}");
        }
        assert_eq!(rig.send(good, &query, 0).completion.status, Status::ResultTooSmall);
        assert_eq!(rig.send(good, &query, 4096).completion.status, Status::Ok);
        assert_eq!(rig.send(Descriptor { opcode: Opcode::Nop as u16, ..good }, &[], 0).completion.status, Status::Ok);
        rig.backend.shutdown();
        drop(view);
    }
}
