//! The most that this machine gives: integer multiply-adds without loads, and bytes read with hardly any arithmetic.
//!
//! [`peaks`] measures both; a search reaches a share of the smaller limit. It blocks for about a second, on threads of
//! its own, and needs memory for a buffer that no cache holds. Other programs make the peaks smaller, never larger.

use std::fs;
use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::SimdError;
use crate::kernels::KernelSet;

/// 64 rows of 4 codes, each u8 = code + 128, row after row.
pub type Codes = [u8; 256];
/// 4 queries of 4 codes in -127..=127.
pub type QueryCodes = [i8; 16];
/// For each of 4 queries, the sums of 64 rows.
pub type Sums = [[i32; 64]; 4];
/// 64 bytes, as one line of a cache.
pub type Piece = [u64; 8];

/// The most iterations of [`KernelSet::multiply_adds`] in one call, after which no sum can have left an i32.
pub const MAX_ITERATIONS: usize = 1 << 14;

/// Multiply-adds of one iteration: 64 rows, 4 queries, 4 dimensions.
pub const MULTIPLY_ADDS: usize = 64 * 4 * 4;

impl KernelSet {
    /// out\[q\]\[r\] = `iterations` · Σ (codes\[r\]\[d\] − 128) · queries\[q\]\[d\], by [`MULTIPLY_ADDS`] multiply-adds
    /// an iteration: the instructions of the int8 screen, with every operand in a register.
    ///
    /// # Errors
    /// More than [`MAX_ITERATIONS`], or a query's code of -128.
    pub fn multiply_adds(
        &self,
        codes: &Codes,
        queries: &QueryCodes,
        iterations: usize,
        out: &mut Sums,
    ) -> Result<(), SimdError> {
        if iterations > MAX_ITERATIONS {
            return Err(SimdError::TooLarge { what: "the iterations", found: iterations, limit: MAX_ITERATIONS });
        }
        if let Some(position) = queries.iter().position(|code| *code == i8::MIN) {
            return Err(SimdError::QueryCode { position });
        }
        // SAFETY: the arrays are those of the kernel's signature, `out` is borrowed exclusively, and no sum overflows
        // for iterations and codes within their ranges. The CPU has the instructions: a `KernelSet` exists.
        unsafe { (self.table.multiply_adds)(codes, queries, iterations, out) };
        Ok(())
    }

    /// The exclusive or of all pieces, word by word: one pass over memory, with one instruction a load.
    pub fn read_pieces(&self, pieces: &[Piece]) -> Piece {
        let mut out = [0; 8];
        // SAFETY: the kernel reads `pieces.len()` pieces and writes one; the CPU has the instructions because a
        // `KernelSet` exists.
        unsafe { (self.table.read_pieces)(pieces.as_ptr(), pieces.len(), &mut out) };
        out
    }
}

/// What all threads together reached, in the best of several rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peaks {
    /// int8 multiply-adds a second, with the instructions of the screen.
    pub multiply_adds_per_s: f64,
    /// Bytes read from main memory a second.
    pub bytes_per_s: f64,
    /// The buffer that was read, in bytes.
    pub buffer_bytes: usize,
}

const ROUNDS: usize = 6;
const ROUND: Duration = Duration::from_millis(50);
/// Pieces between two looks at the clock: a mebibyte.
const STRETCH: usize = 1 << 14;

/// Measures both peaks with `threads` threads at once (at least one).
pub fn peaks(set: &KernelSet, threads: usize) -> Peaks {
    let threads = threads.max(1);
    let buffer_bytes = buffer_bytes(cache_bytes(), available_bytes());
    let multiply_adds_per_s = best(threads, |barrier| multiply_add_rounds(set, barrier));
    let bytes_per_s = best(threads, |barrier| read_rounds(set, buffer_bytes / threads, barrier));
    Peaks { multiply_adds_per_s, bytes_per_s, buffer_bytes }
}

/// What each round came to a second.
type Rates = [f64; ROUNDS];

/// The best round, all threads' rates added up.
fn best(threads: usize, work: impl Fn(&Barrier) -> Rates + Sync) -> f64 {
    let barrier = Barrier::new(threads);
    let all: Vec<Rates> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(&barrier))).collect();
        // A worker has nothing to panic over; one that did counts as having done nothing.
        workers.into_iter().map(|worker| worker.join().unwrap_or([0.0; ROUNDS])).collect()
    });
    (0..ROUNDS).map(|round| all.iter().map(|rates| rates[round]).sum()).fold(0.0, f64::max)
}

/// Runs `step`, which says how much it did, for one round, together with all other threads; how much that is a second.
fn round(barrier: &Barrier, mut step: impl FnMut() -> usize) -> f64 {
    barrier.wait();
    let begin = Instant::now();
    let mut done = 0;
    loop {
        done += step();
        let elapsed = begin.elapsed();
        if elapsed >= ROUND {
            return done as f64 / elapsed.as_secs_f64();
        }
    }
}

fn multiply_add_rounds(set: &KernelSet, barrier: &Barrier) -> Rates {
    // All sorts of codes: what a multiplier draws, and so how fast it is clocked, depends on its operands.
    let codes: Codes = std::array::from_fn(|i| (i * 167 + 13) as u8);
    let queries: QueryCodes = std::array::from_fn(|i| (i as i32 * 15 - 113) as i8);
    let mut out = [[0; 64]; 4];
    std::array::from_fn(|_| {
        round(barrier, || {
            let run = set.multiply_adds(black_box(&codes), &queries, MAX_ITERATIONS, &mut out);
            black_box(&out);
            if run.is_ok() { MAX_ITERATIONS * MULTIPLY_ADDS } else { 0 }
        })
    })
}

fn read_rounds(set: &KernelSet, bytes: usize, barrier: &Barrier) -> Rates {
    // Written, so that every page is there, and by the thread that reads, so that it is near.
    let pieces: Vec<Piece> = (0..bytes / size_of::<Piece>()).map(|i| [i as u64 + 1; 8]).collect();
    let mut stretches = pieces.chunks(STRETCH).cycle();
    std::array::from_fn(|_| {
        round(barrier, || {
            let stretch = stretches.next().unwrap_or_default();
            black_box(set.read_pieces(stretch));
            size_of_val(stretch)
        })
    })
}

/// How much to read: twice what the caches hold, at least 256 MiB, but at most a quarter of the available memory.
fn buffer_bytes(caches: usize, available: usize) -> usize {
    (2 * caches).clamp(256 << 20, 2 << 30).min(available / 4).max(1 << 20)
}

/// What the last-level caches of all processors hold together, as far as the system tells (Linux).
fn cache_bytes() -> usize {
    let mut seen = Vec::new();
    let mut total = 0;
    for cpu in 0.. {
        let level = |index: usize| format!("/sys/devices/system/cpu/cpu{cpu}/cache/index{index}");
        let Some(last) = (0..8).rev().map(level).find(|path| fs::exists(path).unwrap_or(false)) else {
            return total;
        };
        let read = |name: &str| fs::read_to_string(format!("{last}/{name}")).unwrap_or_default();
        let sharers = read("shared_cpu_list");
        if !seen.contains(&sharers) {
            total += read("size").trim().strip_suffix('K').and_then(|kib| kib.parse::<usize>().ok()).unwrap_or(0) << 10;
            seen.push(sharers);
        }
    }
    total
}

/// Memory that can be had without swapping, where the system tells (Linux).
fn available_bytes() -> usize {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = info.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<usize>().ok()).map_or(usize::MAX, |kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_is_larger_than_the_caches_unless_memory_is_short() {
        const MIB: usize = 1 << 20;
        for (caches, available, expected) in [
            (0, usize::MAX, 256 * MIB),
            (32 * MIB, 8192 * MIB, 256 * MIB),
            (300 * MIB, 24_000 * MIB, 600 * MIB),
            (300 * MIB, 1000 * MIB, 250 * MIB),
            (4096 * MIB, usize::MAX, 2048 * MIB),
            (32 * MIB, 0, MIB),
        ] {
            assert_eq!(buffer_bytes(caches, available), expected, "{caches} {available}");
        }
    }
}
