//! `kill -9` in the middle of appends, over and over: what was synced is there, in order, and everything verifies.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::child;
use crate::common::{assert_keeps, events, open, random};

const KILLS: usize = 200;

/// As a child: appends until killed, and says on stdout how many records are safe.
#[test]
fn child_appends() {
    let Some(folder) = child::folder() else { return };
    let mut ledger = open(&folder);
    let mut state = 1 + u64::from(std::process::id());
    loop {
        for _ in 0..random(&mut state) % 4 {
            ledger.append(&events(ledger.size(), random(&mut state) % 40)).unwrap();
        }
        println!("records {}", ledger.sync().unwrap());
    }
}

#[test]
fn a_killed_append_leaves_the_ledger_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let mut appended = 0;
    for kill in 0..KILLS {
        let (acks, more) = (1 + random(&mut state) % 3, Duration::from_micros(random(&mut state) % 2000));
        let safe = run_and_kill(folder.path(), acks, more);
        let ledger = open(folder.path());
        assert!(ledger.size() >= safe, "kill {kill}: {} records of {safe}", ledger.size());
        appended += u64::from(ledger.size() > safe);
        // All of it is looked at now and then, and at the end.
        if kill % 20 == 19 {
            assert_keeps(&ledger, folder.path());
        }
    }
    assert!(appended > 0, "no kill came behind an append that was not synced: this test tested little");
}

/// Lets a child acknowledge `acks` syncs and some microseconds pass, kills it, and returns the records it had
/// acknowledged.
fn run_and_kill(folder: &std::path::Path, acks: u64, more: Duration) -> u64 {
    let mut child = child::command("crash::child_appends", folder).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The harness prints before the test does, and without a line's end.
    let acknowledged = |line: String| line.split_once("records ").and_then(|(_, records)| records.parse().ok());
    let mut safe = 0;
    for _ in 0..acks {
        safe = lines.by_ref().find_map(|line| acknowledged(line.unwrap())).unwrap();
    }
    // The moment of the kill is all that depends on this; no check does.
    let until = Instant::now() + more;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // Acknowledgements that were under way count as well.
    lines.map_while(Result::ok).filter_map(acknowledged).last().unwrap_or(safe)
}
