//! Starting programs: each is announced, its output goes straight through, and what is needed of it is kept.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use crate::Result;

/// How a program ended, and what it wrote.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit status.
    pub(crate) status: ExitStatus,
    /// Standard output and then standard error, as far as they were kept.
    pub(crate) output: String,
}

/// Which of a program's streams are kept beside being passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Standard output; standard error stays the terminal's, so that cargo goes on drawing its progress there.
    Stdout,
    /// Standard output, which is for a program to read and not shown.
    StdoutUnseen,
    /// Both.
    Both,
    /// Both, and neither is shown.
    BothUnseen,
}

/// Runs to the end with all streams passed through.
pub(crate) fn stream(command: &mut Command) -> Result<ExitStatus> {
    announce(command);
    command.status().map_err(|error| cannot_start(command, &error))
}

/// Runs to the end without input, passes the streams through line by line, and keeps those that `keep` names.
pub(crate) fn tee(command: &mut Command, keep: Keep) -> Result<Ended> {
    announce(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    if matches!(keep, Keep::Both | Keep::BothUnseen) {
        command.stderr(Stdio::piped());
    }
    let mut child = command.spawn().map_err(|error| cannot_start(command, &error))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    // Each stream has a reader of its own: a program that fills one pipe while the other is read would stand still.
    let kept = thread::scope(|scope| {
        let stderr = scope.spawn(move || match (stderr, keep) {
            (None, _) => String::new(),
            (Some(pipe), Keep::BothUnseen) => pass_on(pipe, &mut io::sink()),
            (Some(pipe), _) => pass_on(pipe, &mut io::stderr()),
        });
        let mut kept = match (stdout, keep) {
            (None, _) => String::new(),
            (Some(pipe), Keep::StdoutUnseen | Keep::BothUnseen) => pass_on(pipe, &mut io::sink()),
            (Some(pipe), Keep::Stdout | Keep::Both) => pass_on(pipe, &mut io::stdout()),
        };
        kept.push_str(&stderr.join().unwrap_or_default());
        kept
    });
    let status = child.wait().map_err(|error| format!("{} could not be waited for: {error}.", line(command)))?;
    Ok(Ended { status, output: kept })
}

/// Runs quietly: its standard output where it succeeded, nothing where it failed or is not there.
pub(crate) fn ask(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// How a program ended, for a sentence: `exit status 101`, or the signal.
pub(crate) fn ending(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit status {code}"))
}

fn announce(command: &Command) {
    eprintln!("$ {}", line(command));
}

/// The command as a person would type it: its own variables, then program and arguments, without the program's folder.
fn line(command: &Command) -> String {
    let mut words: Vec<String> = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={:?}", name.to_string_lossy(), value?.to_string_lossy())))
        .collect();
    let program = std::path::Path::new(command.get_program());
    words.push(program.file_stem().unwrap_or(program.as_os_str()).to_string_lossy().into_owned());
    words.extend(command.get_args().map(|argument| argument.to_string_lossy().into_owned()));
    words.join(" ")
}

fn cannot_start(command: &Command, error: &io::Error) -> String {
    format!("`{}` could not be started: {error}.", line(command))
}

/// Copies until the end of `from`. A reader that went away (`| head`) ends the copying, not the program that writes.
fn pass_on(from: impl Read, to: &mut impl Write) -> String {
    let (mut from, mut line, mut kept) = (BufReader::new(from), Vec::new(), String::new());
    while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let _reader_gone = to.write_all(&line).and_then(|()| to.flush());
        kept.push_str(&String::from_utf8_lossy(&line));
        line.clear();
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rustc(arguments: &[&str]) -> Command {
        let mut command = Command::new("rustc");
        command.args(arguments);
        command
    }

    #[test]
    fn what_is_passed_on_is_kept_whole() {
        let mut seen = Vec::new();
        let kept = pass_on(&b"one\ntwo \xff\nno newline"[..], &mut seen);
        assert_eq!(seen, b"one\ntwo \xff\nno newline");
        assert_eq!(kept, "one\ntwo \u{fffd}\nno newline");
    }

    #[test]
    fn a_reader_that_went_away_does_not_lose_the_text() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert_eq!(pass_on(&b"a\nb\n"[..], &mut Gone), "a\nb\n");
    }

    #[test]
    fn both_streams_and_the_status_come_back() {
        let ended = tee(&mut rustc(&["--version"]), Keep::Stdout).expect("rustc is there");
        assert!(ended.status.success());
        assert!(ended.output.starts_with("rustc "), "{}", ended.output);
        let ended = tee(&mut rustc(&["--no-such-option"]), Keep::Both).expect("rustc is there");
        assert!(!ended.status.success());
        assert!(ended.output.contains("no-such-option"), "{}", ended.output);
    }

    #[test]
    fn a_missing_program_is_a_sentence() {
        let reason = stream(&mut Command::new("megaring-no-such-program")).expect_err("it is not there");
        assert!(reason.starts_with("`megaring-no-such-program` could not be started: "), "{reason}");
        assert_eq!(ask(&mut Command::new("megaring-no-such-program")), None);
    }

    #[test]
    fn the_line_shows_what_was_set() {
        let mut command = Command::new("/usr/bin/cargo");
        command.env("RUSTFLAGS", "--cfg loom").env_remove("CARGO_PKG_NAME").args(["test", "-p", "x"]);
        assert_eq!(line(&command), "RUSTFLAGS=\"--cfg loom\" cargo test -p x");
    }
}
