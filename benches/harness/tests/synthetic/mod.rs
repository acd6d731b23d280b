//! Records of machines that do not exist, computed from cost models: a fixed cost and a cost for each unit of work. No figure here was
//! measured anywhere.

use megaring_harness::record::{
    Axis, Crossover, Device, Machine, Peak, Point, Record, Residence, SCHEMA, Sizes, Times,
};

/// A backend with known costs.
struct Synthetic {
    name: &'static str,
    device: &'static str,
    emulated: bool,
    fixed_ns: f64,
    multiply_adds_per_ns: f64,
    bytes_per_ns: f64,
    /// Bytes a nanosecond of an upload; none where nothing is uploaded.
    upload: Option<f64>,
    /// How far the slowest samples lie above the median.
    tail: f64,
}

const CPU: Synthetic = Synthetic {
    name: "cpu",
    device: "Synthetic CPU \"8 cores\" <made up> & co",
    emulated: false,
    fixed_ns: 4_000.0,
    multiply_adds_per_ns: 700.0,
    bytes_per_ns: 45.0,
    upload: None,
    tail: 0.25,
};
const CUDA: Synthetic = Synthetic {
    name: "cuda",
    device: "Synthetic GPU 9000",
    emulated: false,
    fixed_ns: 28_000.0,
    multiply_adds_per_ns: 60_000.0,
    bytes_per_ns: 900.0,
    upload: Some(12.0),
    tail: 0.08,
};
const WGPU: Synthetic = Synthetic {
    name: "wgpu",
    device: "Synthetic integrated GPU",
    emulated: false,
    fixed_ns: 210_000.0,
    multiply_adds_per_ns: 4_000.0,
    bytes_per_ns: 60.0,
    upload: Some(9.0),
    tail: 0.6,
};
const EMULATED: Synthetic = Synthetic {
    name: "wgpu",
    device: "synthetic pipe (LLVM 0.0, 256 bits)",
    emulated: true,
    fixed_ns: 900_000.0,
    multiply_adds_per_ns: 9.0,
    bytes_per_ns: 20.0,
    upload: Some(6.0),
    tail: 0.4,
};

const ROWS: [u64; 4] = [100, 5_562, 110_000, 1_000_000];
const BATCHES: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 1_024, 5_562];
const DIM: u64 = 384;

/// A fixed number in `0..1` for each case.
fn wobble(seed: u64) -> f64 {
    let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed ^ (mixed >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 40) as f64 / (1u64 << 24) as f64
}

fn times(median: f64, tail: f64, seed: u64) -> Times {
    let w = wobble(seed);
    let p50 = median * (0.97 + 0.06 * w);
    let noisy = seed % 29 == 7;
    let width = if noisy { 0.09 } else { 0.012 };
    Times {
        samples: 120 + (seed % 400) as usize,
        p50_ns: p50,
        p95_ns: p50 * (1.0 + tail * (0.5 + w)),
        p99_ns: p50 * (1.0 + tail * (1.2 + 2.0 * w)),
        min_ns: p50 * 0.96,
        max_ns: p50 * (1.5 + 3.0 * tail),
        ci_ns: [p50 * (1.0 - width), p50 * (1.0 + width)],
        outliers: (seed % 5) as usize,
        doubts: if noisy { vec!["the interval stayed wider than 3 %".into()] } else { Vec::new() },
    }
}

fn search(of: &Synthetic, residence: Residence, rows: u64, items: u64) -> Point {
    let multiply_adds = (rows * DIM * items) as f64;
    let bytes = (rows * (DIM + 8) + items * DIM) as f64;
    let upload = if residence == Residence::Cold { bytes / of.upload.unwrap_or(f64::INFINITY) } else { 0.0 };
    let ns = of.fixed_ns
        + upload
        + (multiply_adds / of.multiply_adds_per_ns).max(bytes / of.bytes_per_ns)
        + items as f64 * 500.0 / of.multiply_adds_per_ns;
    let seed = rows * 31 + items * 7 + of.name.len() as u64 + u64::from(residence == Residence::Cold);
    Point {
        suite: "search".into(),
        case: "search".into(),
        backend: of.name.into(),
        residence,
        sizes: Sizes { rows, dim: DIM, k: 10, items },
        times: times(ns, of.tail, seed),
        multiply_adds,
        bytes,
    }
}

fn searches(of: &Synthetic) -> Vec<Point> {
    let mut points = Vec::new();
    for rows in ROWS {
        for items in BATCHES {
            points.push(search(of, Residence::Resident, rows, items));
            if of.upload.is_some() {
                points.push(search(of, Residence::Cold, rows, items));
            }
        }
    }
    points
}

/// The smallest of `sizes` from which on `wins` is true at all larger ones, too.
fn from_where(sizes: &[u64], wins: impl Fn(u64) -> bool) -> Option<u64> {
    sizes.iter().rev().copied().take_while(|size| wins(*size)).last()
}

fn crossovers(points: &[Point], of: &Synthetic) -> Vec<Crossover> {
    let time = |backend: &str, residence: Residence, rows: u64, items: u64| {
        let fits = |p: &&Point| {
            p.backend == backend && p.residence == residence && (p.sizes.rows, p.sizes.items) == (rows, items)
        };
        points.iter().find(fits).map_or(f64::INFINITY, |p| p.times.p50_ns)
    };
    let wins =
        |residence, rows, items| time(of.name, residence, rows, items) < time("cpu", Residence::Resident, rows, items);
    let crossover = |residence, axis, rows, items, from, up_to| Crossover {
        case: "search".into(),
        residence,
        backend: of.name.into(),
        against: "cpu".into(),
        axis,
        at: Sizes { rows, dim: DIM, k: 10, items },
        from,
        up_to,
    };
    let mut all = Vec::new();
    for residence in [Residence::Resident, Residence::Cold] {
        for rows in ROWS {
            let from = from_where(&BATCHES, |items| wins(residence, rows, items));
            all.push(crossover(residence, Axis::Items, rows, 0, from, 5_562));
        }
        let from = from_where(&ROWS, |rows| wins(residence, rows, 1));
        all.push(crossover(residence, Axis::Rows, 0, 1, from, 1_000_000));
    }
    all
}

fn other(suite: &str, case: &str, backend: &str, items: u64, ns: f64) -> Point {
    Point {
        suite: suite.into(),
        case: case.into(),
        backend: backend.into(),
        residence: Residence::Resident,
        sizes: Sizes { rows: 0, dim: 0, k: 0, items },
        times: times(ns, 0.3, items + case.len() as u64),
        multiply_adds: 0.0,
        bytes: 0.0,
    }
}

/// Encoding, the ring and gRPC of the CPU, and encoding of a GPU.
fn others() -> Vec<Point> {
    let mut points = Vec::new();
    for items in [1, 16, 256, 4_096, 65_536] {
        points.push(other("encode", "encode", "cpu", items, 2_000.0 + items as f64 * 350.0));
        points.push(other("encode", "encode", "cuda", items, 45_000.0 + items as f64 * 60.0));
    }
    points.push(other("ring", "round trip, empty", "cpu", 1, 210.0));
    points.push(other("ring", "submit to completion of an empty job", "cpu", 1, 1_450.0));
    points.push(other("ring", "event publish", "cpu", 1, 96.0));
    points.push(other("grpc", "search over 5,562 rows, one connection", "cpu", 1, 182_000.0));
    points
}

fn machine() -> Machine {
    Machine {
        processor: "Synthetic CPU \"8 cores\" <made up> & co".into(),
        threads: 16,
        system: "linux x86_64".into(),
        memory_bytes: Some(64_000_000_000),
        version: "0.1.0 (synthetic)".into(),
        command: "megaring bench all --json record.json --html report.html".into(),
        started_unix_s: 1_795_258_612,
        took_s: 412.0,
    }
}

fn device(of: &Synthetic) -> Device {
    Device {
        backend: of.name.into(),
        device: of.device.into(),
        instruction_set: if of.name == "cpu" { "AVX-512 VNNI".into() } else { String::new() },
        emulated: of.emulated,
    }
}

fn peak(of: &Synthetic) -> Peak {
    Peak {
        backend: of.name.into(),
        multiply_adds_per_s: Some(of.multiply_adds_per_ns * 1.3e9),
        bytes_per_s: (!of.emulated).then_some(of.bytes_per_ns * 1.15e9),
        how: "a synthetic loop over registers, and one over 1 GiB".into(),
    }
}

/// A run of `all`, the CPU being the first.
fn run(all: &[Synthetic], notes: &[&str]) -> Record {
    let mut points: Vec<Point> = all.iter().flat_map(searches).collect();
    let crossovers = all[1..].iter().flat_map(|of| crossovers(&points, of)).collect();
    if all.iter().any(|of| of.name == "cuda") {
        points.extend(others());
    }
    Record {
        schema: SCHEMA,
        machine: machine(),
        backends: all.iter().map(device).collect(),
        peaks: all.iter().map(peak).collect(),
        points,
        crossovers,
        notes: notes.iter().map(|note| (*note).to_owned()).collect(),
    }
}

/// A CPU and two GPUs that both win somewhere.
pub(crate) fn three_backends() -> Record {
    run(&[CPU, CUDA, WGPU], &["Every figure of this report is synthetic: computed, not measured."])
}

/// A CPU and a program on it that stands in for a GPU and never wins.
pub(crate) fn emulated() -> Record {
    run(&[CPU, EMULATED], &["Every figure of this report is synthetic.", "cuda is missing: no driver was found"])
}

/// A CPU alone.
pub(crate) fn cpu_alone() -> Record {
    run(&[CPU], &["Every figure of this report is synthetic."])
}

/// Nothing at all.
pub(crate) fn empty() -> Record {
    Record { backends: Vec::new(), peaks: Vec::new(), points: Vec::new(), notes: Vec::new(), ..cpu_alone() }
}
