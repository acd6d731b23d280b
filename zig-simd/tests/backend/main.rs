//! The CPU backend through its ring, against the naive reference: every operation, on every instruction set of this
//! machine, both ways of sharing work (by query and by rows), several segments, ties, and numbers that no screen can
//! bound.

mod join;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use megaring_core::corpus::{CorpusTable, CorpusView, HeapSegment, SegmentView};
use megaring_core::encode::keyword::Automaton;
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_core::encode::{Encode, Features};
use megaring_core::exact::ScalarKernel;
use megaring_core::lists::Candidates;
use megaring_core::nearest::{DEFAULT_WEIGHTS, FLAG_POINTS, Nearest, Points};
use megaring_core::nop::Nop;
use megaring_core::operation::{Exact, Finished, Limits, Payload, Piece};
use megaring_core::rescore::{Ask, rank};
use megaring_core::score::Score;
use megaring_core::search::{FLAG_QUERY_ROWS, Queries, Search};
use megaring_core::texts::Texts;
use megaring_core::{Answered, Backend, Metric, Opcode, Operation, RowType, matrix};
use megaring_datasets::{Embeddings, Matrix, memories, points, poison, queries, reference};
use megaring_engine::submit::write;
use megaring_ring::{Descriptor, JobRing, Outcome, RingConfig, Status, WaitStrategy};
use megaring_simd::KernelSet;
use megaring_simd::backend::{CpuBackend, CpuOptions};

struct Rig {
    ring: Arc<JobRing>,
    corpora: Arc<CorpusTable>,
    kernels: &'static KernelSet,
    profile: Profile,
    backend: CpuBackend,
    /// Whether the thread that waits for an answer takes part.
    helps: Helps,
    sent: AtomicUsize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Helps {
    Never,
    Always,
    /// With every other job.
    Sometimes,
}

impl Rig {
    fn new(kernels: &'static KernelSet, workers: usize, helps: Helps) -> Self {
        Self::waiting(kernels, workers, helps, WaitStrategy::default())
    }

    fn waiting(kernels: &'static KernelSet, workers: usize, helps: Helps, wait: WaitStrategy) -> Self {
        let ring = JobRing::new(RingConfig { capacity: 8, arena_bytes: 64 << 20, block_bytes: 64 << 10, wait })
            .expect("a ring of 8");
        let corpora = Arc::new(CorpusTable::default());
        let options = CpuOptions { workers, wait, device: "test".into() };
        let profile = Profile::parse(DEFAULT).expect("the default profile");
        let backend = CpuBackend::start(options, ring.clone(), kernels, corpora.clone(), &Automaton::new(&profile))
            .expect("threads to be had");
        Self { ring, corpora, kernels, profile, backend, helps, sent: AtomicUsize::new(0) }
    }

    fn all() -> impl Iterator<Item = Self> {
        let each = |kernels| {
            [(1, Helps::Never), (3, Helps::Never), (1, Helps::Always)]
                .map(|(workers, helps)| Self::new(kernels, workers, helps))
        };
        KernelSet::available().into_iter().flat_map(each)
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
        self.corpora.register(&view);
        view
    }

    /// A job's answer, which must fit one slot.
    fn answer<J: Answered>(&self, job: &J) -> (J::Answer, Finished) {
        self.answer_within(job, |piece| piece.result)
    }

    /// The same, with a result of another length than the job asks for.
    fn answer_within<J: Answered>(&self, job: &J, result: impl Fn(&Piece) -> usize) -> (J::Answer, Finished) {
        let (piece, descriptor, payload) = slot(job);
        let outcome = self.send(descriptor, &payload, result(&piece));
        assert_eq!(outcome.completion.status, Status::Ok, "{descriptor:?}");
        let by = Exact { kernel: self.kernels, profile: &self.profile };
        let mut answer = J::Answer::default();
        let finished = job.finish(&piece, outcome.result(), &by, &mut answer).expect("a result of the agreed form");
        (answer, finished)
    }

    fn send(&self, descriptor: Descriptor, payload: &[u8], result: usize) -> Outcome {
        let mut reservation = self.ring.try_reserve(payload.len(), result).expect("room");
        reservation.payload_mut().copy_from_slice(payload);
        let helps = match self.helps {
            Helps::Never => false,
            Helps::Always => true,
            Helps::Sometimes => self.sent.fetch_add(1, Ordering::Relaxed).is_multiple_of(2),
        };
        if !helps {
            return self.ring.submit(reservation, descriptor).wait();
        }
        let helper = self.backend.helper().expect("the CPU takes help");
        let ticket = reservation.submit_unannounced(descriptor);
        ticket.wait_helping(|ticket| helper.can_help(ticket), |ticket| helper.help(ticket))
    }

    fn search(&self, view: &Arc<CorpusView>, queries: &Matrix, ask: Ask, room: Room) -> Vec<Vec<(u32, f64)>> {
        let Ask { metric, k, threshold } = ask;
        let job = Search { corpus: view.clone(), queries: owned(queries).into(), metric, k, threshold };
        let result = |piece: &Piece| match room {
            Room::Usual => piece.result,
            Room::Little => megaring_core::lists::len(queries.rows, (4 * k).min(view.rows())),
        };
        let ranked = self.answer_within(&job, result).0.into_iter();
        ranked.map(|ranked| ranked.hits.iter().map(|hit| (hit.row, hit.score)).collect()).collect()
    }
}

/// Room for candidates in a result.
#[derive(Debug, Clone, Copy)]
enum Room {
    Usual,
    /// Four for each hit.
    Little,
}

/// A job's only piece, with its slot.
fn slot(job: &impl Operation) -> (Piece, Descriptor, Vec<u8>) {
    let pieces = job.pieces(&Limits { max_items: usize::MAX, max_bytes: usize::MAX });
    let [piece] = &pieces[..] else { panic!("{} pieces", pieces.len()) };
    let mut payload = vec![0; piece.payload];
    let descriptor = write(job, piece, Payload::new(&mut payload, true));
    (piece.clone(), descriptor, payload)
}

fn owned(rows: &Matrix) -> matrix::Matrix {
    matrix::Matrix { rows: rows.rows, dim: rows.dim, values: rows.values.clone() }
}

fn truth(rows: &Matrix, queries: &Matrix, ask: Ask) -> Vec<Vec<(u32, f64)>> {
    let metric = match ask.metric {
        Metric::Cosine => reference::Metric::Cosine,
        Metric::Dot => reference::Metric::Dot,
        Metric::L2 => reference::Metric::L2,
        Metric::Hamming => reference::Metric::Hamming,
        Metric::Jaccard => reference::Metric::Jaccard,
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

/// Rows of three elements are all scored, wider ones are screened.
#[test]
fn search_equals_the_reference_for_few_and_many_queries() {
    for rows in [clustered(1500, 3), clustered(1500, 48)] {
        for rig in Rig::all() {
            let view = rig.corpus(&rows, &[16, 700, 1]);
            for count in [1, 2, 7, 70] {
                let queries = queries(&rows, count, 5);
                for metric in Metric::OF_FLOATS {
                    for k in [1, 10, 100, 749, 1500, 9999] {
                        let ask = ask(metric, k);
                        let found = rig.search(&view, &queries, ask, Room::Usual);
                        let dim = rows.dim;
                        assert_eq!(found, truth(&rows, &queries, ask), "{dim} {metric} k {k} queries {count}");
                    }
                }
            }
        }
    }
}

/// Callers at once, of which all or some wake nobody for their own jobs, with workers that sleep as soon as they can.
#[test]
fn every_caller_is_answered_whoever_helps() {
    let rows = clustered(2_000, 32);
    let kernels = KernelSet::from_env().expect("an instruction set");
    // One chunk, several by query, and one of several queries.
    let asked: Vec<Matrix> = [1, 40, 2].iter().map(|count| queries(&rows, *count, 7)).collect();
    let want: Vec<_> = asked.iter().map(|asked| truth(&rows, asked, ask(Metric::Dot, 3))).collect();
    for helps in [Helps::Always, Helps::Sometimes] {
        for (workers, wait) in [(1, WaitStrategy::Park), (2, WaitStrategy::Park), (2, WaitStrategy::default())] {
            let rig = Rig::waiting(kernels, workers, helps, wait);
            let view = rig.corpus(&rows, &[500]);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for round in 0..60 {
                            let asked = &asked[round % 3];
                            let found = rig.search(&view, asked, ask(Metric::Dot, 3), Room::Usual);
                            assert_eq!(found, want[round % 3]);
                            rig.answer(&Nop);
                        }
                    });
                }
            });
            assert_eq!((rig.ring.outstanding(), rig.ring.stats().faults), (0, 0));
        }
    }
}

#[test]
fn search_shares_large_corpora_by_rows() {
    for rows in [clustered(20_000, 96), clustered(60_000, 2)] {
        let queries = queries(&rows, 3, 9);
        for rig in Rig::all() {
            let view = rig.corpus(&rows, &[7_777]);
            for metric in Metric::OF_FLOATS {
                let want = truth(&rows, &queries, ask(metric, 10));
                assert_eq!(rig.search(&view, &queries, ask(metric, 10), Room::Usual), want, "{metric}");
            }
        }
    }
}

/// Rows of bits that no cache keeps are read once for many queries, by all workers.
#[test]
fn many_queries_over_large_rows_of_bits_find_what_each_finds_alone() {
    let (rows, words) = (17_000, 256);
    let word = |at: usize| f32::from_bits((at as u32).wrapping_mul(0x9e37_79b9).rotate_left(at as u32 % 32));
    let values: Vec<f32> = (0..rows * words).map(word).collect();
    for rig in Rig::all() {
        let segment = |rows: std::ops::Range<usize>| {
            let values = values[rows.start * words..rows.end * words].to_vec();
            let row_type = RowType::bits(32 * words);
            Arc::new(SegmentView::new(Arc::new(HeapSegment::of(values, row_type)), rows.len()))
        };
        let segments = vec![segment(0..9_000), segment(9_000..rows)];
        let view = Arc::new(CorpusView::new("test".into(), 7, 1, RowType::bits(32 * words), segments));
        rig.corpora.register(&view);
        for metric in Metric::OF_BITS {
            let search = |queries: Vec<u32>| {
                let (corpus, queries) = (view.clone(), Queries::Rows(queries));
                rig.answer(&Search { corpus, queries, metric, k: 5, threshold: None }).0
            };
            let asked: Vec<u32> = (0..70).map(|at| at * 241).collect();
            let found = search(asked.clone());
            for (row, ranked) in asked.iter().zip(&found).step_by(9) {
                assert_eq!(ranked.hits, search(vec![*row])[0].hits, "{metric}");
            }
            let ask = Ask { metric, k: 5, threshold: None };
            let want = rank(&view, view.embedding(241), ask, &Candidates::EveryRow, &ScalarKernel);
            assert_eq!(found[1].hits, want.hits, "{metric}");
        }
    }
}

/// A corpus of more codes than caches hold: rows that few queries tell apart by high halves alone, rows that need all
/// of their codes, and rows that no bound tells apart.
#[test]
fn few_queries_over_a_large_corpus_read_halves_and_lose_no_row() {
    let (rows, dim) = (17_600, 1024);
    let mut apart = clustered(rows, dim);
    for row in 0..200 {
        // Last bits decide.
        let copy = apart.values[dim * 7..dim * 8].to_vec();
        apart.values[dim * (300 + row)..][..dim].copy_from_slice(&copy);
        apart.values[dim * (300 + row) + row] *= 1.0 + f32::EPSILON * (row % 3) as f32;
    }
    let same = Matrix { rows, dim, values: apart.values[..dim].repeat(rows) };
    for kernels in KernelSet::available() {
        let rig = Rig::new(kernels, 2, Helps::Never);
        for (rows, counts) in [(&apart, &[1, 3, 8][..]), (&same, &[1])] {
            let view = rig.corpus(rows, &[6000]);
            for (count, metric) in counts.iter().zip(Metric::OF_FLOATS) {
                let queries = queries(rows, *count, 17);
                for k in [1, 40] {
                    let found = rig.search(&view, &queries, ask(metric, k), Room::Usual);
                    assert_eq!(found, truth(rows, &queries, ask(metric, k)), "{} {metric} k {k}", kernels.isa());
                }
            }
        }
    }
}

#[test]
fn search_keeps_ties_lists_that_overflow_and_unusual_rows_exact() {
    let shapes = [2, 24].map(|dim| {
        let base = clustered(400, dim);
        [
            ("duplicates", poison::duplicated(&base, 3)),
            ("constant", poison::constant(500, dim, 0.125)),
            ("zero row", poison::zero_row(&base, 3)),
            ("huge", poison::huge(300, dim)),
            ("tiny", poison::tiny(300, dim)),
            ("cancelling", poison::cancelling(300, dim)),
        ]
    });
    for rig in Rig::all() {
        for (name, rows) in shapes.iter().flatten() {
            let view = rig.corpus(rows, &[100]);
            for queries in [rows.head(2), rows.head(20), poison::constant(1, rows.dim, 0.0)] {
                for metric in Metric::OF_FLOATS {
                    for room in [Room::Little, Room::Usual] {
                        let want = truth(rows, &queries, ask(metric, 5));
                        assert_eq!(rig.search(&view, &queries, ask(metric, 5), room), want, "{name} {metric} {room:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_score_threshold_is_kept_to_the_last_bit() {
    for rows in [clustered(600, 33), clustered(600, 2)] {
        let queries = queries(&rows, 4, 3);
        for rig in Rig::all() {
            let view = rig.corpus(&rows, &[]);
            for metric in Metric::OF_FLOATS {
                let exact = truth(&rows, &queries, ask(metric, 20));
                // A threshold equal to a score keeps that row; the neighbouring float64 drops it.
                let score = exact[0][9].1;
                for threshold in [score, score.next_up(), score.next_down()] {
                    let ask = Ask { metric, k: 15, threshold: Some(threshold) };
                    let found = rig.search(&view, &queries, ask, Room::Usual);
                    assert_eq!(found, truth(&rows, &queries, ask), "{metric} {threshold}");
                }
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
        for (metric, twin) in Metric::OF_FLOATS.into_iter().zip([
            reference::Metric::Cosine,
            reference::Metric::Dot,
            reference::Metric::L2,
        ]) {
            let want = reference::score(twin, &queries.values, &rows.values, rows.dim);
            let mut job = Score { corpus: view.clone(), queries: owned(&queries), metric, rows: None };
            assert_eq!(rig.answer(&job).0, want, "{metric}");
            job.rows = Some(named.clone());
            let picked: Vec<f32> = (0..21)
                .flat_map(|q| named.iter().map(move |row| (q, *row)))
                .map(|(q, row)| want[q * 333 + row as usize])
                .collect();
            assert_eq!(rig.answer(&job).0, picked, "{metric}, named rows");
        }
    }
}

#[test]
fn masks_equal_one_substring_search_per_keyword() {
    let profile = Profile::parse(DEFAULT).expect("the default profile");
    let memories = memories(3_000, 4).expect("the sample is embedded");
    let mut texts: Vec<&str> = (0..memories.len()).map(|i| memories.content(i)).collect();
    texts.extend(["", "", "K\u{212A}ey bin\u{130}ary", ""]);
    let mut all = Texts::default();
    texts.iter().for_each(|text| all.push(text));
    // The same bytes as one last text: leaves words in the arena where the empty texts' masks will be.
    let mut last = vec![0; all.offsets.len()];
    last[texts.len()] = all.bytes.len() as u64;
    let stale = Texts { offsets: last, bytes: all.bytes.clone() };
    let job = |texts: Texts| {
        let (features, gardens) = (vec![Features::default(); texts.len()], vec![String::new(); texts.len()]);
        Encode { texts, features, gardens }
    };
    let (job, stale) = (job(all), job(stale));
    let want: Vec<u128> = texts.iter().map(|text| reference::keyword_mask(text, profile.words())).collect();
    for rig in Rig::all() {
        let masks = |job: &Encode| rig.answer(job).0.iter().map(|encoded| encoded.mask).collect::<Vec<_>>();
        assert_ne!(masks(&stale).last(), Some(&0));
        assert_eq!(masks(&job), want);
    }
}

#[test]
fn nearest_points_equal_the_reference_with_ties() {
    let cloud = points(40_000, 8);
    let asked: Vec<[f64; 5]> = points(9, 80);
    let (queries, weights) = (asked.clone(), DEFAULT_WEIGHTS);
    let columns = std::array::from_fn(|axis| cloud.iter().map(|point| point[axis]).collect());
    let mut job = Nearest { points: Points::Sent(Arc::new(columns)), queries, weights, k: 0 };
    for rig in Rig::all() {
        for k in [1, 10, 300] {
            job.k = k;
            let (answer, Finished { rows_rescored, .. }) = rig.answer(&job);
            assert!(rows_rescored < 40_000, "40,000 points have fewer ties than that");
            assert_eq!(answer.len(), asked.len());
            for (found, point) in answer.iter().zip(&asked) {
                let got: Vec<(u32, f64)> = found.iter().map(|n| (n.row, n.distance)).collect();
                let want: Vec<(u32, f64)> =
                    reference::nearest(&cloud, point, &weights, k).iter().map(|n| (n.row, n.distance)).collect();
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
        let one = rows.head(1);
        let job = Search { corpus: view, queries: owned(&one).into(), metric: Metric::Dot, k: 3, threshold: None };
        let (_, good, query) = slot(&job);
        let faults = [
            (Descriptor { opcode: 99, ..good }, Status::UnknownOpcode),
            (Descriptor { corpus_generation: 2, ..good }, Status::StaleCorpus),
            (Descriptor { dim: 9, ..good }, Status::BadDescriptor),
            (Descriptor { k: 0, ..good }, Status::BadDescriptor),
            (Descriptor { metric: 9, ..good }, Status::BadDescriptor),
            (Descriptor { items: 2, ..good }, Status::BadDescriptor),
            // The query's first number as a row that there is not.
            (Descriptor { flags: FLAG_QUERY_ROWS, ..good }, Status::BadDescriptor),
            (Descriptor { deadline_ns: 1, ..good }, Status::DeadlineExceeded),
            (Descriptor { opcode: Opcode::Encode as u16, items: 1, ..good }, Status::BadDescriptor),
            (Descriptor { opcode: Opcode::Checksum as u16, items: 1, ..good }, Status::BadDescriptor),
            (Descriptor { opcode: Opcode::Nearest as u16, flags: FLAG_POINTS, ..good }, Status::BadDescriptor),
            (Descriptor { opcode: Opcode::Score as u16, k: 1, ..good }, Status::BadDescriptor),
        ];
        for (descriptor, want) in faults {
            let outcome = rig.send(descriptor, &query, 4096);
            assert_eq!(outcome.completion.status, want, "{descriptor:?}");
        }
        assert_eq!(rig.send(good, &query, 0).completion.status, Status::ResultTooSmall);
        assert_eq!(rig.send(good, &query, 4096).completion.status, Status::Ok);
        rig.answer(&Nop);
        rig.backend.shutdown();
    }
}
