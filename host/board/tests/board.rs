//! A board in a file: its bytes, what other processes see of it, and what is refused.
#![cfg(not(loom))]

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use megaring_board::{Board, BoardError, BoardView, BreakerRule, BreakerState, FIELDS, Health};
use tempfile::TempDir;

/// What a child process is to do with the board of [`CHILD_FILE`].
const CHILD: &str = "MEGARING_TEST_BOARD_CHILD";
const CHILD_FILE: &str = "MEGARING_TEST_BOARD_FILE";
/// A child says this when it has begun.
const READY: &str = "ready";

fn scratch() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".board");
    (folder, path)
}

fn health(of: f64) -> Health {
    [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0].map(|field| field * of).into()
}

fn patch(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn the_bytes_are_those_of_the_table() {
    let (_folder, path) = scratch();
    let board = Board::create(&path).unwrap();
    board.publisher().unwrap().publish(health(0.5));
    board.breaker(2).install();
    board.breaker(63).failed(&BreakerRule { failures: 1, ..BreakerRule::default() }, 7, 11);
    let bytes = fs::read(&path).unwrap();
    assert_eq!((bytes.len(), &bytes[..8]), (4096, b"MEGABORD".as_slice()));
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!([word(8), word(16)], [1 | 4096 << 32, std::process::id().into()]);
    assert!(word(24) > 0 && word(32) >= word(24) && word(40) > 0);
    assert!(word(128) > 0 && word(128) % 2 == 0, "the sequence is even");
    for (place, field) in FIELDS.iter().enumerate() {
        assert_eq!(f64::from_bits(word(136 + 8 * place)), 0.5 * (place + 1) as f64, "{}", field.name);
    }
    assert_eq!([word(256 + 2 * 32), word(256 + 2 * 32 + 24)], [1, 0]);
    assert_eq!([0, 8, 16, 24].map(|at| word(256 + 63 * 32 + at)), [2, 1, 11, 1_000_000_011]);
    assert!(bytes[2816..].iter().all(|byte| *byte == 0), "the rest is zero");
}

#[test]
fn a_view_sees_what_is_written_and_when_the_writer_has_ended() {
    let (_folder, path) = scratch();
    let board = Board::create(&path).unwrap();
    let mut publisher = board.publisher().unwrap();
    assert!(board.publisher().is_none(), "one writes");
    let view = BoardView::open(&path).unwrap();
    assert_eq!((view.health(), view.pid()), (Some(Health::default()), u64::from(std::process::id())));
    publisher.publish(health(1.0));
    assert_eq!(view.health(), Some(health(1.0)));
    board.breaker(9).install();
    board.breaker(9).failed(&BreakerRule { failures: 1, ..BreakerRule::default() }, 0, 5);
    assert_eq!(view.breaker(9).state(6), BreakerState::Open);
    assert_eq!(view.breaker(8).state(6), BreakerState::Absent);
    assert!(view.is_alive() && view.silent_for().is_some());
    drop(publisher);
    assert!(board.publisher().is_some(), "another may write now");
    drop(board);
    assert_eq!((view.is_alive(), view.silent_for(), view.health()), (false, None, Some(health(1.0))));
    let again = Board::create(&path).unwrap();
    assert!(view.is_alive());
    assert_eq!((view.health(), view.breaker(9).state(6)), (Some(Health::default()), BreakerState::Absent));
    drop(again);
}

#[test]
fn a_writer_that_is_silent_is_taken_for_dead() {
    let (_folder, path) = scratch();
    let board = Board::create(&path).unwrap();
    let view = BoardView::open(&path).unwrap();
    let long_ago = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap() - Duration::from_secs(3);
    patch(&path, 32, &(long_ago.as_nanos() as u64).to_le_bytes());
    assert!(!view.is_alive() && view.silent_for().is_some_and(|silence| silence >= Duration::from_secs(3)));
    // Its clock was set back by a day meanwhile: it was heard of in the future, that is, lately.
    let tomorrow = long_ago + Duration::from_secs(86_400);
    patch(&path, 32, &(tomorrow.as_nanos() as u64).to_le_bytes());
    assert!(view.is_alive());
    board.publisher().unwrap().publish(health(1.0));
    assert!(view.is_alive());
}

#[test]
fn files_that_are_no_boards_are_refused_and_left_as_they_are() {
    let (_folder, path) = scratch();
    assert!(matches!(BoardView::open(&path), Err(BoardError::File { .. })));
    assert!(matches!(Board::create(&path.join("none/.board")), Err(BoardError::File { .. })));
    assert!(matches!(Board::create(path.parent().unwrap()), Err(BoardError::File { .. })), "a folder");
    for content in [b"short".to_vec(), vec![7; 4096], [b"MEGABORD".as_slice(), &[0; 9]].concat(), vec![0; 8192]] {
        fs::write(&path, &content).unwrap();
        for refused in [Board::create(&path).map(drop), BoardView::open(&path).map(drop)] {
            assert!(matches!(refused, Err(BoardError::NotABoard { .. })), "{refused:?}");
        }
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    fs::write(&path, []).unwrap();
    assert!(matches!(BoardView::open(&path), Err(BoardError::NotABoard { .. })));
    fs::remove_file(&path).unwrap();
    drop(Board::create(&path).unwrap());
    patch(&path, 8, &2_u32.to_le_bytes());
    assert!(matches!(BoardView::open(&path), Err(BoardError::Version { found: 2, .. })));
    drop(Board::create(&path).unwrap());
    assert!(BoardView::open(&path).is_ok(), "what another version left behind is written over");
}

#[test]
fn one_writes_at_a_time() {
    let (_folder, path) = scratch();
    let board = Board::create(&path).unwrap();
    assert!(matches!(Board::create(&path), Err(BoardError::InUse { .. })));
    let mut child = child("create", &path);
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("another process writes it"), "{said}");
    assert!(child.wait().unwrap().success());
    drop(board);
    assert!(Board::create(&path).is_ok());
}

#[test]
fn a_writer_that_is_killed_leaves_a_board_that_can_be_read_and_taken_over() {
    let (_folder, path) = scratch();
    let mut child = child("publish", &path);
    await_ready(&mut child);
    let view = BoardView::open(&path).unwrap();
    assert!(view.is_alive() && view.pid() == u64::from(child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    // It may have died in the middle of a health, and then there is none.
    if let Some(last) = view.health() {
        assert_eq!(last, health(last.utilisation));
    }
    let board = Board::create(&path).unwrap();
    assert_eq!((view.health(), view.pid()), (Some(Health::default()), u64::from(std::process::id())));
    drop(board);
}

#[test]
fn no_process_sees_a_health_torn() {
    let (_folder, path) = scratch();
    let board = Board::create(&path).unwrap();
    let mut publisher = board.publisher().unwrap();
    publisher.publish(health(1.0));
    let mut child = child("read", &path);
    await_ready(&mut child);
    let is_read = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut of = 1.0;
            while !is_read.load(Ordering::Relaxed) {
                of += 1.0;
                publisher.publish(health(of));
            }
        });
        let status = child.wait();
        is_read.store(true, Ordering::Relaxed);
        assert!(status.unwrap().success(), "it saw one torn, or an old one after a new one");
    });
}

#[test]
#[cfg(unix)]
fn a_view_cannot_be_written_through() {
    use std::os::unix::process::ExitStatusExt;
    let (_folder, path) = scratch();
    let board = Board::create(&path).unwrap();
    board.publisher().unwrap().publish(health(1.0));
    let mut child = child("write", &path);
    await_ready(&mut child);
    let ended = child.wait().unwrap();
    assert!(ended.signal().is_some_and(|signal| [7, 10, 11].contains(&signal)), "no fault of memory: {ended}");
    assert_eq!(board.health(), Some(health(1.0)));
}

fn child(what: &str, path: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "what_a_child_does", "--nocapture"]).env(CHILD, what).env(CHILD_FILE, path);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

fn await_ready(child: &mut Child) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains(READY))), "it never began");
}

/// Not a test by itself: what the children of the others do.
#[test]
fn what_a_child_does() {
    let (Some(what), Some(path)) = (std::env::var_os(CHILD), std::env::var_os(CHILD_FILE)) else { return };
    let path = PathBuf::from(path);
    match what.to_str() {
        Some("create") => println!("{}", Board::create(&path).unwrap_err()),
        Some("publish") => {
            let board = Board::create(&path).unwrap();
            let mut publisher = board.publisher().unwrap();
            println!("{READY}");
            for of in 1.. {
                publisher.publish(health(f64::from(of)));
            }
        }
        Some("read") => {
            let view = BoardView::open(&path).unwrap();
            println!("{READY}");
            let mut newest = 0.0;
            for _ in 0..200_000 {
                let seen = view.health().unwrap();
                assert!(seen == health(seen.utilisation) && seen.utilisation >= newest);
                newest = seen.utilisation;
            }
            // Nobody reads what the harness has to say at its end.
            std::process::exit(0);
        }
        Some("write") => {
            let view = BoardView::open(&path).unwrap();
            println!("{READY}");
            view.words()[17].store(0, Ordering::Relaxed);
        }
        other => panic!("{other:?}"),
    }
}
