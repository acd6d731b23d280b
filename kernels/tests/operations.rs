//! Score, encode and nearest by the device code itself, through the backend and its ring: against the definitions, bit
//! for bit, on what is hard about each, and with slots that are wrong.

#[path = "support/slot.rs"]
mod slot;

use std::io::Write;
use std::sync::Arc;

use bytemuck::allocation::pod_collect_to_vec;
use bytemuck::cast_slice;
use megaring_core::checksum::Checksum;
use megaring_core::corpus::{CorpusView, HeapSegment, SegmentView};
use megaring_core::encode::Encode;
use megaring_core::encode::keyword::Automaton;
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_core::lists::{CandidateLists, Candidates, len};
use megaring_core::nearest::{self, Nearest, Points};
use megaring_core::score::Score;
use megaring_core::screen::QueryScreen;
use megaring_core::search::{Queries, Search};
use megaring_core::texts::Texts;
use megaring_core::{Backend, Metric, Opcode, Operation, exact, matrix};
use megaring_cuda::device::Device;
use megaring_cuda::twin::Twin;
use megaring_cuda::{CudaBackend, CudaMode, CudaOptions, Timings, start_on};
use megaring_datasets::{Embeddings, Matrix, golden, memories, points, poison, queries, reference};
use megaring_ring::{Descriptor, JobRing, RingConfig, Status, WaitStrategy};

use self::slot::{Sent, slots};

/// A backend on the twin.
struct Rig {
    backend: CudaBackend,
    ring: Arc<JobRing>,
    automaton: Automaton,
    profile: Profile,
}

impl Rig {
    /// `None`, with a word why, where no twin can be had.
    fn new(mode: CudaMode) -> Option<Self> {
        Self::on(Twin::load(), mode)
    }

    fn on(twin: Result<Arc<Twin>, String>, mode: CudaMode) -> Option<Self> {
        let twin = twin.inspect_err(|why| _ = writeln!(std::io::stdout(), "\nskipped: {why}")).ok()?;
        let profile = Profile::parse(DEFAULT).expect("the default profile");
        let automaton = Automaton::new(&profile);
        let ring =
            RingConfig { capacity: 8, arena_bytes: 64 << 20, block_bytes: 64 << 10, wait: WaitStrategy::default() };
        let memory_bytes = twin.info().memory_total / 32;
        let options = CudaOptions { mode, device: 0, memory_bytes, ring, screen: Default::default() };
        let timings = Timings::patient();
        let (backend, ring) = start_on(twin, &options, &timings, &automaton).expect("the twin starts");
        Some(Self { backend, ring, automaton, profile })
    }

    fn send(&self, sent: &Sent) -> (Status, Vec<u8>) {
        let mut reservation = self.ring.try_reserve(sent.payload.len(), sent.result).expect("room");
        reservation.payload_mut().copy_from_slice(&sent.payload);
        let outcome = self.ring.submit(reservation, sent.descriptor).wait();
        (outcome.completion.status, outcome.result().to_vec())
    }

    /// The answers of a job's slots, one after the other, all of which must be there; what it reads is brought first.
    fn run(&self, job: &dyn Operation) -> Vec<u8> {
        let _resident = self.backend.prepare(job.reads()).expect("room on the device");
        let answer = |sent: Sent| {
            let (status, answer) = self.send(&sent);
            assert_eq!(status, Status::Ok, "{:?}", sent.descriptor);
            answer
        };
        slots(job).into_iter().flat_map(answer).collect()
    }

    /// Whether each row, as a query by its number, gets upper bounds of what it scores, in lists that are short for
    /// some.
    fn bounds_hold(&self, rows: &Matrix, k: usize) {
        let view = corpus(rows, &points(rows.rows, 1), &[rows.rows / 4, rows.rows / 2]);
        for metric in Metric::OF_FLOATS {
            let queries = Queries::Rows((0..rows.rows as u32).collect());
            let answer = self.run(&Search { corpus: view.clone(), queries, metric, k, threshold: None });
            let answer: Vec<u64> = pod_collect_to_vec(&answer);
            let lists = CandidateLists::read(cast_slice(&answer), rows.rows, rows.rows).expect("well-formed lists");
            let mut short = 0;
            for query in 0..rows.rows {
                let Candidates::Listed(listed) = lists.of(query) else { continue };
                short += 1;
                let asked = rows.row(query);
                let norm2 = exact::dot(asked, asked);
                // What turns an upper bound into one of the goodness, as rescoring does it.
                let offset = if metric == Metric::L2 { 2.0 * QueryScreen::l2_slack(norm2) - norm2 } else { 0.0 };
                for found in listed {
                    let goodness = metric.goodness(exact::score(metric, asked, rows.row(found.row as usize)));
                    let upper = f64::from(found.upper) + offset;
                    assert!(upper >= goodness, "{metric}, query {query}: {found:?} of {goodness}");
                }
            }
            assert!(short > 50, "{metric}: only {short} lists tell rows apart");
        }
    }

    fn encode(&self, texts: &[&str]) -> Vec<u128> {
        let answer = self.run(&encode(texts));
        answer.as_chunks().0.iter().map(|mask| u128::from_le_bytes(*mask)).collect()
    }

    /// Against the tables and against one search per word.
    fn check_encode(&self, texts: &[&str]) {
        let found = self.encode(texts);
        assert_eq!(found.len(), texts.len());
        for (text, found) in texts.iter().zip(found) {
            assert_eq!(found, self.automaton.mask(text.as_bytes()), "{text:?}");
            assert_eq!(found, reference::keyword_mask(text, self.profile.words()), "{text:?}");
        }
    }

    fn scores(&self, view: &Arc<CorpusView>, asked: &Matrix, metric: Metric, rows: Option<&[u32]>) -> Vec<f32> {
        let job = Score { corpus: view.clone(), queries: batch(asked), metric, rows: rows.map(<[u32]>::to_vec) };
        pod_collect_to_vec(&self.run(&job))
    }

    /// The k nearest as the host ranks what the device lists; the lists' lengths come along, 0 for every row.
    fn nearest(&self, points: &Points, asked: &[[f64; 5]], k: usize) -> (Vec<Vec<(u32, f64)>>, Vec<usize>) {
        let weights = nearest::DEFAULT_WEIGHTS;
        let answer = self.run(&Nearest { points: points.clone(), queries: asked.to_vec(), weights, k });
        let aligned: Vec<u64> = pod_collect_to_vec(&answer);
        let lists = CandidateLists::read(cast_slice(&aligned), asked.len(), points.len()).expect("well-formed lists");
        let ranked = asked.iter().enumerate().map(|(query, at)| {
            let (rows, listed): (Vec<u32>, usize) = match lists.of(query) {
                Candidates::Listed(listed) => (listed.iter().map(|c| c.row).collect(), listed.len()),
                Candidates::EveryRow => ((0..points.len() as u32).collect(), 0),
                ranked @ Candidates::Ranked { .. } => panic!("{ranked:?} of a device"),
            };
            let ranked = nearest::rank(rows.into_iter(), |row| points.point(row), *at, weights, k);
            (ranked.iter().map(|n| (n.row, n.distance)).collect(), listed)
        });
        ranked.unzip()
    }
}

fn encode(texts: &[&str]) -> Encode {
    let mut all = Texts::default();
    texts.iter().for_each(|text| all.push(text));
    Encode { texts: all, ..Encode::default() }
}

fn batch(values: &Matrix) -> matrix::Matrix {
    matrix::Matrix { rows: values.rows, dim: values.dim, values: values.values.clone() }
}

/// A corpus cut into segments of the given lengths, the rest in one more; with a point for each row.
fn corpus(rows: &Matrix, cloud: &[[f64; 5]], cuts: &[usize]) -> Arc<CorpusView> {
    let mut segments = Vec::new();
    let mut from = 0_usize;
    for len in cuts.iter().copied().chain([usize::MAX]) {
        let to = rows.rows.min(from.saturating_add(len));
        let values = rows.values[from * rows.dim..to * rows.dim].to_vec();
        let columns = std::array::from_fn(|axis| cloud[from..to].iter().map(|point| point[axis]).collect());
        let segment = HeapSegment::new(values, rows.dim, Some(columns));
        segments.push(Arc::new(SegmentView::new(Arc::new(segment), to - from)));
        from = to;
    }
    Arc::new(CorpusView::new("test".into(), 7, 1, rows.dim, segments))
}

fn clustered(rows: usize, dim: usize) -> Matrix {
    Embeddings { rows, dim, seed: 11, ..Embeddings::default() }.generate()
}

/// Numbers of which the large ones swallow the small ones, or leave them, as the order of additions has it.
fn swallowing(rows: usize, dim: usize) -> Matrix {
    let large = [2_f32.powi(60), -2_f32.powi(60), 1.0, 3.0, -1.0, 0.0, 5.0];
    Matrix::new(rows, dim, (0..rows * dim).map(|at| large[at * at % 1_009 % large.len()]).collect())
}

#[test]
fn encode_finds_the_masks_of_the_golden_file_and_of_real_texts() {
    let cases = golden().expect("the golden file");
    let contents: Vec<&str> = cases.iter().map(|case| case.content.as_str()).collect();
    let memories = memories(3_000, 4).expect("the sample is embedded");
    let texts: Vec<&str> = (0..memories.len()).map(|memory| memories.content(memory)).collect();
    for mode in CudaMode::ALL {
        let Some(rig) = Rig::new(mode) else { return };
        let expected: Vec<u128> = cases.iter().map(|case| case.mask).collect();
        assert_eq!(rig.encode(&contents), expected, "{mode}");
        if mode == CudaMode::Persistent {
            rig.check_encode(&texts);
        }
    }
}

#[test]
fn encode_finds_the_masks_of_texts_that_are_hard_to_share_out() {
    let Some(rig) = Rig::new(CudaMode::Persistent) else { return };
    let kelvin =
        ["to\u{212A}en", "\u{212A}ey", "STAC\u{212A}", "b\u{130}t", "\u{130}ndex", "\u{212A}", "framewor\u{212A}s"];
    let letters: Vec<String> = kelvin.iter().flat_map(|word| (0..40).map(move |pad| "-".repeat(pad) + word)).collect();
    // Words at every place of a slice, within longer texts, as texts of their own, and cut in two by the end of a text.
    let inside: Vec<String> = (0..900).map(|_| format!("{:-<50}revelation{:->51}", "", "")).collect();
    let alone = ["architecture", "", "x", "civilization", "tree", "", "", "journey"].repeat(300);
    let halves = ["archi", "tecture"].repeat(200);
    // One text over many spans, with a word of its own at each end and one in the middle; then empty texts.
    let filler = ".".repeat(150_001);
    let long = format!("graph{filler}wisdom{filler}hope");
    let before_nothing = ["", long.as_str(), "", ""];
    for texts in
        [borrowed(&letters), borrowed(&inside), alone, halves, before_nothing.to_vec(), vec![""; 9_000], vec![]]
    {
        rig.check_encode(&texts);
    }
    // An even and an odd number of texts begin at different places of the first piece of 16 bytes.
    rig.check_encode(&["vision"]);
    rig.check_encode(&["vision", "hope"]);
}

/// Half a mebibyte of scratch memory, and texts of more in one slot: they are read where they lie.
#[test]
fn texts_that_scratch_memory_cannot_hold_have_their_masks_and_checksums() {
    let Some(rig) = Rig::on(Twin::with(3, 16 << 20), CudaMode::Persistent) else { return };
    assert_eq!(rig.backend.capabilities().max_bytes, 4 * (512 << 10), "four times the scratch memory of a job");
    let filler = ".".repeat(600_001);
    let long = format!("graph{filler}wisdom");
    let texts = ["vision", &long, "", &long[3..600_000], "hope"];
    rig.check_encode(&texts);
    let mut contents = Texts::default();
    texts.iter().for_each(|text| contents.push(text));
    let found = rig.run(&Checksum { contents });
    let want = texts.map(|text| [reference::crc32c(text.as_bytes()).into(), reference::xxhash64(text.as_bytes())]);
    assert_eq!(found, pod_collect_to_vec::<_, u8>(&want));
}

fn borrowed(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

#[test]
fn scores_are_the_definitions_to_the_bit() {
    let Some(rig) = Rig::new(CudaMode::Persistent) else { return };
    let base = clustered(70, 33);
    let shapes = [
        ("odd width", clustered(333, 41)),
        ("several slices of the queries", clustered(70, 3_100)),
        ("one element", clustered(100, 1)),
        ("a zero row", poison::zero_row(&base, 3)),
        ("huge", poison::huge(80, 24)),
        ("tiny", poison::tiny(80, 24)),
        ("cancelling", poison::cancelling(80, 24)),
        ("swallowing", swallowing(80, 24)),
    ];
    for (name, rows) in &shapes {
        let view = corpus(rows, &points(rows.rows, 2), &[50, 1, 0]);
        for count in [1, 2, 13] {
            let asked = queries(rows, count, 2);
            for metric in Metric::OF_FLOATS {
                let want = |query: usize, row: u32| {
                    let score = exact::score(metric, asked.row(query), rows.row(row as usize));
                    exact::reported(score).to_bits()
                };
                let named: Vec<u32> = (0..90).map(|i| (i * 97 + 5) % rows.rows as u32).collect();
                let all: Vec<u32> = (0..rows.rows as u32).collect();
                for (rows, asked_for) in [(&all, None), (&named, Some(named.as_slice()))] {
                    let found = rig.scores(&view, &asked, metric, asked_for);
                    let want: Vec<u32> =
                        (0..count).flat_map(|q| rows.iter().map(move |r| (q, *r))).map(|(q, r)| want(q, r)).collect();
                    assert_eq!(
                        found.iter().map(|s| s.to_bits()).collect::<Vec<_>>(),
                        want,
                        "{name}, {metric}, {count} queries"
                    );
                }
            }
        }
        assert_eq!(rig.scores(&view, &rows.head(3), Metric::Dot, Some(&[])), [0.0_f32; 0], "{name}");
    }
}

#[test]
fn nearest_points_of_the_payload_and_of_a_corpus() {
    let Some(rig) = Rig::new(CudaMode::Persistent) else { return };
    let cloud = points(20_000, 8);
    let coarse: Vec<[f64; 5]> = cloud.iter().map(|point| point.map(|x| (x * 4.0).round() / 4.0)).collect();
    // Distances that float32 cannot tell apart, nearest last; and distances beyond its range.
    let close: Vec<[f64; 5]> = (0..9_000).map(|i| [1.0 + f64::from(9_000 - i) * 1e-12, 0.0, 0.0, 0.0, 0.0]).collect();
    let far: Vec<[f64; 5]> = (0..9_000).map(|i| [f64::from(i) * 1e90, 0.0, 0.0, 1.0, 0.0]).collect();
    // Nearer and nearer: every limit found is soon beaten.
    let falling: Vec<[f64; 5]> = (0..20_000).map(|i| [f64::from(20_000 - i); 5]).collect();
    for (name, cloud) in [
        ("scattered", cloud),
        ("coarse", coarse),
        ("close", close),
        ("far", far),
        ("falling", falling),
        ("one place", vec![[0.5; 5]; 2_100]),
    ] {
        let asked: Vec<[f64; 5]> = [points(2, 80), vec![[0.0; 5]]].concat();
        let columns: [Vec<f64>; 5] = std::array::from_fn(|axis| cloud.iter().map(|point| point[axis]).collect());
        let rows = clustered(cloud.len(), 2);
        let view = corpus(&rows, &cloud, &[5_000, 0, 3, 1_500]);
        for points in [Points::Sent(Arc::new(columns)), Points::Corpus(view)] {
            for k in [1, 10, 5_000] {
                let (found, listed) = rig.nearest(&points, &asked, k);
                for (query, at) in asked.iter().enumerate() {
                    let want = reference::nearest(&cloud, at, &nearest::DEFAULT_WEIGHTS, k);
                    let want: Vec<(u32, f64)> = want.iter().map(|n| (n.row, n.distance)).collect();
                    assert_eq!(found[query], want, "{name}, k {k}");
                }
                // What ties with nothing is told apart: a list, and a short one.
                if ["scattered", "falling"].contains(&name) && 2 * k < cloud.len() {
                    assert!(listed.iter().all(|listed| (k..k + 16).contains(listed)), "{name}, k {k}: {listed:?}");
                }
            }
        }
    }
}

#[test]
fn rows_whose_distances_only_the_root_makes_equal_are_both_kept() {
    let Some(rig) = Rig::new(CudaMode::Persistent) else { return };
    // Squared distances 1 + 3 * 2^-24 and one unit in the last place less: float32 rounds them apart, but their roots
    // agree.
    let at = |[y, v]: [f64; 2]| [1.0, y, 0.0, 0.0, v];
    let (further, nearer) =
        (at([6.46862907050273e-05, 0.00020894354383926839]), at([5.54577856971921e-05, 0.00020960580150131136]));
    let squared = [further, nearer].map(|point| nearest::squared(point, [0.0; 5], nearest::DEFAULT_WEIGHTS));
    assert!(squared[0] > squared[1] && squared[0].sqrt() == squared[1].sqrt() && squared[0] as f32 > squared[1] as f32);
    let cloud = [vec![further, nearer], vec![[9.0; 5]; 20]].concat();
    let columns = std::array::from_fn(|axis| cloud.iter().map(|point| point[axis]).collect());
    let (found, listed) = rig.nearest(&Points::Sent(Arc::new(columns)), &[[0.0; 5]], 1);
    assert_eq!((found[0][0].0, listed[0]), (0, 2));
}

/// Rows as queries have their bounds from the corpus's own columns. What the codes of these lose points nearly where
/// the rows do, so that little of a bound is to spare.
#[test]
fn bounds_of_rows_by_number_hold_where_codes_lose_most() {
    let Some(rig) = Rig::new(CudaMode::Persistent) else { return };
    const DIM: usize = 40;
    let row = |code: i32, lost: f32| {
        let mut row = [(code as f32 + lost) / 127.0; DIM];
        row[0] = 1.0;
        row
    };
    let losses = [0.0, 0.49, -0.49].into_iter();
    let values: Vec<f32> = losses.flat_map(|lost| (1..127).flat_map(move |code| row(code, lost))).collect();
    let rows = Matrix::new(values.len() / DIM, DIM, values);
    rig.bounds_hold(&rows, 12);
}

/// What is rounded of a long row's length is more than a short query is long.
#[test]
fn bounds_of_rows_by_number_hold_for_all_lengths() {
    let Some(rig) = Rig::new(CudaMode::Persistent) else { return };
    let mut rows = Embeddings { rows: 300, dim: 24, seed: 41, ..Embeddings::default() }.generate();
    for (row, values) in rows.values.chunks_exact_mut(24).enumerate() {
        let length = if row % 4 == 0 { -25 } else { 25 };
        values.iter_mut().for_each(|value| *value *= 2.0_f32.powi(length));
    }
    // Long rows are among so many of the nearest to a short one.
    rig.bounds_hold(&rows, 100);
}

#[test]
fn a_job_that_wants_every_row_reads_no_column() {
    let Some(rig) = Rig::new(CudaMode::Persistent) else { return };
    let rows = clustered(40, 8);
    let view = corpus(&rows, &points(40, 1), &[20]);
    let (weights, asked) = (nearest::DEFAULT_WEIGHTS, vec![[0.0; 5]]);
    for k in [20, 40] {
        let search = Search {
            corpus: view.clone(),
            queries: batch(&rows.head(3)).into(),
            metric: Metric::Dot,
            k,
            threshold: None,
        };
        let nearest = Nearest { points: Points::Corpus(view.clone()), queries: asked.clone(), weights, k };
        for (job, items) in [(&search as &dyn Operation, 3), (&nearest, 1)] {
            let answer: Vec<u64> = pod_collect_to_vec(&rig.run(job));
            let lists = CandidateLists::read(cast_slice(&answer), items, 40).expect("well-formed lists");
            assert!((0..items).all(|query| lists.of(query) == Candidates::EveryRow), "{}, k {k}", job.opcode());
        }
    }
    let counters = rig.backend.counters();
    assert!(counters.contains(&("uploads", 0)), "{counters:?}");
}

#[test]
fn wrong_slots_are_refused_and_the_next_ones_served() {
    let Some(rig) = Rig::new(CudaMode::Persistent) else { return };
    let rows = clustered(64, 8);
    let view = corpus(&rows, &points(64, 1), &[]);
    let first = rows.head(1);
    let job = Score { corpus: view.clone(), queries: batch(&first), metric: Metric::Dot, rows: Some(vec![0, 1]) };
    let _resident = rig.backend.prepare(job.reads()).expect("room on the device");
    let descriptor_of = |job: &dyn Operation| slots(job)[0].descriptor;
    let query = cast_slice::<f32, u8>(rows.row(0)).to_vec();
    let with_rows = |ids: &[u32]| [query.as_slice(), cast_slice(ids)].concat();
    let score = descriptor_of(&job);
    let all = descriptor_of(&Score { rows: None, ..job.clone() });
    let offsets = |values: &[u64]| [cast_slice::<u64, u8>(values), b"hope"].concat();
    let texts = descriptor_of(&encode(&["a", "b"]));
    let points: Vec<u8> = cast_slice::<f64, u8>(&[1.0; 5 * 12]).to_vec();
    let sent = Points::Sent(Arc::new(std::array::from_fn(|_| vec![1.0; 10])));
    let near = descriptor_of(&Nearest { points: sent, queries: vec![[1.0; 5]], weights: [1.0; 5], k: 1 });
    use Status::{BadDescriptor, DeadlineExceeded, Ok, ResultTooSmall, StaleCorpus, UnknownOpcode};
    let mut cases: Vec<(Descriptor, Vec<u8>, usize, Status)> = vec![
        (Descriptor { opcode: 99, ..score }, with_rows(&[0, 1]), 8, UnknownOpcode),
        (Descriptor { deadline_ns: 1, ..score }, with_rows(&[0, 1]), 8, DeadlineExceeded),
        (score, with_rows(&[0, 63]), 8, Ok),
        (score, with_rows(&[0, 64]), 8, BadDescriptor),
        (score, with_rows(&[u32::MAX, 0]), 8, BadDescriptor),
        (score, with_rows(&[0]), 8, BadDescriptor),
        (score, with_rows(&[0, 1]), 7, ResultTooSmall),
        (Descriptor { k: u32::MAX, ..score }, with_rows(&[0, 1]), 8, BadDescriptor),
        (Descriptor { items: u32::MAX, ..score }, with_rows(&[0, 1]), 8, BadDescriptor),
        (Descriptor { items: 2, ..all }, query.clone(), 512, BadDescriptor),
        (all, query.clone(), 255, ResultTooSmall),
        (all, query.clone(), 256, Ok),
        (Descriptor { dim: 9, ..all }, query.clone(), 256, BadDescriptor),
        (Descriptor { metric: 0, ..all }, query.clone(), 256, BadDescriptor),
        (Descriptor { metric: 6, ..all }, query.clone(), 256, BadDescriptor),
        (Descriptor { corpus: 8, ..all }, query.clone(), 256, StaleCorpus),
        (Descriptor { corpus_generation: 2, ..all }, query.clone(), 256, StaleCorpus),
        (near, points.clone(), len(1, 4), Ok),
        (near, points.clone(), 7, ResultTooSmall),
        (Descriptor { k: 0, ..near }, points.clone(), len(1, 4), BadDescriptor),
        (Descriptor { dim: 11, ..near }, points.clone(), len(1, 4), BadDescriptor),
        (Descriptor { dim: u32::MAX, ..near }, points.clone(), len(1, 4), BadDescriptor),
        (Descriptor { items: u32::MAX, ..near }, points.clone(), len(1, 4), BadDescriptor),
        (Descriptor { flags: 0, corpus: 7, corpus_generation: 9, ..near }, points.clone(), len(1, 4), StaleCorpus),
        (Descriptor { flags: 0, corpus: 7, corpus_generation: 1, ..near }, points, len(1, 4), StaleCorpus),
    ];
    for opcode in [Opcode::Encode, Opcode::Checksum] {
        let texts = Descriptor { opcode: opcode as u16, ..texts };
        cases.extend([
            (texts, offsets(&[0, 2, 4]), 32, Ok),
            (texts, offsets(&[0, 2, 4]), 31, ResultTooSmall),
            (texts, offsets(&[0, 5, 4]), 32, BadDescriptor),
            (texts, offsets(&[0, u64::MAX, 4]), 32, BadDescriptor),
            (texts, offsets(&[0, 2, 3]), 32, BadDescriptor),
            (texts, offsets(&[0, 2, 5]), 32, BadDescriptor),
            (texts, offsets(&[1, 2, 4]), 32, BadDescriptor),
            (Descriptor { items: 0, ..texts }, offsets(&[0]), 0, BadDescriptor),
            (Descriptor { items: 0, ..texts }, vec![0; 8], 0, Ok),
            (Descriptor { items: u32::MAX, ..texts }, offsets(&[0, 2, 4]), 32, BadDescriptor),
        ]);
    }
    // Offsets that fall at the border of two threads' pairs, two warps' and two chunks'.
    for border in [2, 64, 512, 4096] {
        let mut values: Vec<u64> = (0..=5_000).collect();
        for expected in [Ok, BadDescriptor] {
            values[border - 1] += 1;
            let payload = [cast_slice::<u64, u8>(&values), &[b'x'; 5_000]].concat();
            let [sent] = &slots(&encode(&["x"; 5_000]))[..] else { panic!("one slot") };
            for opcode in [Opcode::Encode, Opcode::Checksum] {
                let descriptor = Descriptor { opcode: opcode as u16, ..sent.descriptor };
                let (status, _) = rig.send(&Sent { descriptor, payload: payload.clone(), ..sent.clone() });
                assert_eq!(status, expected, "{opcode}, {border}");
            }
        }
    }
    for (descriptor, payload, result, expected) in cases {
        let (status, _) = rig.send(&Sent { descriptor, payload, result });
        assert_eq!(status, expected, "{descriptor:?}");
    }
    rig.check_encode(&["after all this, wisdom"]);
    assert_eq!(rig.backend.health(), Result::Ok(()));
}
