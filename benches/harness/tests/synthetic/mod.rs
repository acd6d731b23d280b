//! Records of machines that do not exist, computed from cost models: a fixed cost and a cost for each unit of work. No
//! figure here was measured anywhere.

use megaring_harness::crossover::crossovers;
use megaring_harness::record::{Axis, Device, Machine, Peak, Point, Record, Residence, SCHEMA, Sizes, Times};

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
}

const CPU: Synthetic = Synthetic {
    name: "cpu",
    device: "Synthetic CPU \"8 cores\" <made up> & co",
    emulated: false,
    fixed_ns: 4_000.0,
    multiply_adds_per_ns: 700.0,
    bytes_per_ns: 45.0,
    upload: None,
};
const CUDA: Synthetic = Synthetic {
    name: "cuda",
    device: "Synthetic GPU 9000",
    emulated: false,
    fixed_ns: 28_000.0,
    multiply_adds_per_ns: 60_000.0,
    bytes_per_ns: 900.0,
    upload: Some(12.0),
};
const EMULATED: Synthetic = Synthetic {
    name: "wgpu",
    device: "synthetic pipe (LLVM 0.0, 256 bits)",
    emulated: true,
    fixed_ns: 900_000.0,
    multiply_adds_per_ns: 9.0,
    bytes_per_ns: 20.0,
    upload: Some(6.0),
};

const ROWS: [u64; 4] = [100, 5_562, 110_000, 1_000_000];
const BATCHES: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 1_024, 5_562];
const DIM: u64 = 384;

fn times(p50_ns: f64, seed: u64) -> Times {
    let noisy = seed % 29 == 7;
    let width = if noisy { 0.09 } else { 0.012 };
    Times {
        samples: 120,
        p50_ns,
        p95_ns: p50_ns * (1.1 + (seed % 7) as f64 / 20.0),
        p99_ns: p50_ns * 1.6,
        min_ns: p50_ns * 0.96,
        max_ns: p50_ns * 2.5,
        ci_ns: [p50_ns * (1.0 - width), p50_ns * (1.0 + width)],
        outliers: (seed % 5) as usize,
        doubts: if noisy { vec![format!("after {seed} samples within 9 % only")] } else { Vec::new() },
    }
}

fn search(of: &Synthetic, residence: Residence, rows: u64, items: u64) -> Point {
    let multiply_adds = (rows * DIM * items) as f64;
    let bytes = (rows * (DIM + 8) + items * DIM) as f64;
    let upload = if residence == Residence::Cold { bytes / of.upload.unwrap_or(f64::INFINITY) } else { 0.0 };
    let work = (multiply_adds / of.multiply_adds_per_ns).max(bytes / of.bytes_per_ns);
    let seed = rows * 31 + items * 7 + of.name.len() as u64 + u64::from(residence == Residence::Cold);
    Point {
        suite: "search".into(),
        case: "search".into(),
        backend: of.name.into(),
        residence,
        sizes: Sizes { rows, dim: DIM, k: 10, items },
        times: times(of.fixed_ns + upload + work, seed),
        multiply_adds,
        bytes,
    }
}

fn other(suite: &str, case: &str, items: u64, ns: f64) -> Point {
    let sizes = Sizes { rows: 0, dim: 0, k: 0, items };
    let (suite, case) = (suite.into(), case.into());
    Point {
        suite,
        case,
        sizes,
        times: times(ns, items),
        multiply_adds: 0.0,
        bytes: 0.0,
        ..search(&CPU, Residence::Resident, 1, 1)
    }
}

fn run(all: &[Synthetic], notes: &[&str]) -> Record {
    let mut points = Vec::new();
    for of in all {
        let residences = [Some(Residence::Resident), of.upload.map(|_| Residence::Cold)];
        for residence in residences.into_iter().flatten() {
            points.extend(ROWS.iter().flat_map(|rows| BATCHES.map(|items| search(of, residence, *rows, items))));
        }
    }
    let crossovers = [Axis::Items, Axis::Rows].into_iter().flat_map(|axis| crossovers(&points, "cpu", axis)).collect();
    points.extend([1, 16, 256, 4_096].map(|items| other("encode", "encode", items, 2_000.0 + items as f64 * 350.0)));
    points.push(other("ring", "empty job", 1, 1_450.0));
    let device = |of: &Synthetic| Device {
        backend: of.name.into(),
        device: of.device.into(),
        instruction_set: if of.name == "cpu" { "AVX-512 VNNI".into() } else { String::new() },
        emulated: of.emulated,
    };
    let peak = |of: &Synthetic| Peak {
        backend: of.name.into(),
        multiply_adds_per_s: Some(of.multiply_adds_per_ns * 1.3e9),
        bytes_per_s: (!of.emulated).then_some(of.bytes_per_ns * 1.15e9),
        how: "a synthetic loop over registers, and one over 1 GiB".into(),
    };
    let machine = Machine {
        processor: CPU.device.into(),
        threads: 16,
        system: "linux x86_64".into(),
        memory_bytes: Some(64_000_000_000),
        version: "0.1.0 (synthetic)".into(),
        command: "megaring bench all --json record.json --html report.html".into(),
        started_unix_s: 1_795_258_612,
        took_s: 412.0,
    };
    let notes = notes.iter().map(|note| (*note).to_owned()).collect();
    let (backends, peaks) = (all.iter().map(device).collect(), all.iter().map(peak).collect());
    Record { schema: SCHEMA, machine, backends, peaks, points, crossovers, notes }
}

/// A CPU, a GPU that wins somewhere, and a program on the CPU that never does.
pub(crate) fn three_backends() -> Record {
    run(&[CPU, CUDA, EMULATED], &["Every figure of this report is synthetic: computed, not measured."])
}

/// A CPU alone.
pub(crate) fn cpu_alone() -> Record {
    run(&[CPU], &["cuda is missing: no driver was found"])
}

/// Nothing at all.
pub(crate) fn empty() -> Record {
    Record { backends: Vec::new(), peaks: Vec::new(), points: Vec::new(), notes: Vec::new(), ..cpu_alone() }
}
