//! How long merging holds up others: one row at a time is appended to a corpus of 200,000 x 64 that is merged over and
//! over, and views are taken. Beside it, how long a plain sync of a small file takes then: a disk has its own turns.

use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use megaring_core::matrix::Matrix;
use megaring_corpus::{Access, Rows, Store};

const NAME: &str = "merged";
const ROWS: usize = 200_000;
const DIM: usize = 64;
const MERGES: usize = 20;
/// Rows deleted before each merge, so that there is something to do.
const DELETED: usize = 1000;

fn rows(first: usize, count: usize) -> Rows {
    let value = |at: usize| ((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 - 8e6;
    let values = (first * DIM..(first + count) * DIM).map(value).collect();
    Rows { embeddings: Matrix { rows: count, dim: DIM, values }, ..Rows::default() }
}

fn append(store: &Store, first: usize, count: usize) {
    let mut appender = store.append(NAME).expect("it is there");
    appender.push(rows(first, count)).expect("good rows");
    appender.commit().expect("room on disk");
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{what:<24} {:>6}  median {:>7.2} p99 {:>7.2} longest {:>7.2} ms",
        times.len(),
        ms(times[times.len() / 2]),
        ms(times[times.len() * 99 / 100]),
        ms(times[times.len() - 1])
    );
}

fn time(what: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    what();
    begun.elapsed()
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), Access::Exclusive).expect("a folder");
    store.create(NAME, DIM).expect("room on disk");
    append(&store, 0, ROWS);
    let mut plain = File::create(folder.path().join("plain")).expect("room on disk");
    let mut sync = || {
        time(|| {
            plain.write_all(&[7; 600]).expect("room on disk");
            plain.sync_data().expect("room on disk");
        })
    };
    show("a sync, alone", (0..500).map(|_| sync()).collect());
    show("an append, alone", (0..500).map(|at| time(|| append(&store, ROWS + at, 1))).collect());
    let done = AtomicBool::new(false);
    for syncs in [false, true] {
        done.store(false, Ordering::Release);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut merges = Vec::new();
                for merge in 0..MERGES {
                    let first = (merge + MERGES * usize::from(syncs)) * DELETED;
                    store.delete(NAME, &(first as u64..).take(DELETED).collect::<Vec<_>>()).expect("room on disk");
                    merges.push(time(|| _ = store.compact(NAME).expect("room on disk")));
                }
                show("a merge", merges);
                done.store(true, Ordering::Release);
            });
            let done = &done;
            if !syncs {
                scope.spawn(|| {
                    let mut times = Vec::new();
                    while !done.load(Ordering::Acquire) {
                        times.push(time(|| drop(store.view(NAME).expect("room on disk"))));
                        std::thread::sleep(Duration::from_micros(50));
                    }
                    show("a view, meanwhile", times);
                });
            }
            let mut times = Vec::new();
            let mut at = 0;
            while !done.load(Ordering::Acquire) {
                times.push(if syncs { sync() } else { time(|| append(&store, ROWS + at, 1)) });
                at += 1;
            }
            show(if syncs { "a sync, meanwhile" } else { "an append, meanwhile" }, times);
        });
    }
}
