//! Byte strings of every length about a stripe, long ones, and memories.

use megaring_core::checksum::{Checksum, Checksums};
use megaring_core::texts::Texts;
use megaring_datasets::{memories, reference};

use super::{Cases, Check, Workload};
use crate::{Bench, Failure};

impl Cases for Checksum {
    type Part = Checksums;

    fn cases(check: &mut Check<'_, Self>) -> Result<(), Failure> {
        let text = memories(check.scale.of([40, 2_000, 20_000, 110_000]), 6)?;
        let bytes: Vec<u8> = (0..2 << 20 | 5_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        // Longer than what a backend takes of a string at once, but where that takes too long.
        let longest = check.scale.of([5_000, 2 << 20 | 5, 2 << 20 | 5, 2 << 20 | 5]);
        checked(check, "no string", &[])?;
        checked(check, "empty strings", &[b"", b"", b""])?;
        checked(check, "one byte", &[&bytes[..1]])?;
        // Each begins at another place in its word.
        checked(check, "rising lengths", &(0..140).map(|len| &bytes[len..2 * len]).collect::<Vec<_>>())?;
        checked(check, "long ones among short ones", &[b"", &bytes[1..longest], b"a", &bytes[..longest / 2], b""])?;
        checked(check, "memories", &text.iter().map(|memory| memory.content.as_bytes()).collect::<Vec<_>>())
    }

    fn parts(answer: &Vec<Checksums>) -> Vec<Checksums> {
        answer.clone()
    }

    fn workloads(_: &Bench) -> Result<Vec<Workload<Self>>, Failure> {
        let workload = |count: usize| {
            let jobs = (1..5).map(|seed| Ok(job(memories(count, seed)?.iter().map(|memory| memory.content))));
            let jobs = jobs.collect::<Result<Vec<Self>, Failure>>()?;
            let job = move |turn: usize| jobs[turn % jobs.len()].clone();
            Ok(Workload { name: format!("{count} memories"), elements: count as u64, job: Box::new(job) })
        };
        [1, 100, 10_000].into_iter().map(workload).collect()
    }
}

fn job<T: AsRef<[u8]>>(all: impl Iterator<Item = T>) -> Checksum {
    let mut contents = Texts::default();
    all.for_each(|content| contents.push(content));
    Checksum { contents }
}

fn checked(check: &mut Check<'_, Checksum>, name: &str, all: &[&[u8]]) -> Result<(), Failure> {
    let of = |content: &&[u8]| Checksums { crc32c: reference::crc32c(content), xxhash64: reference::xxhash64(content) };
    let want: Vec<Checksums> = all.iter().map(of).collect();
    check.case(name, job(all.iter()), &want)
}
