//! The command line, read by hand: five commands do not need a parser's compile time.

use std::path::PathBuf;

use crate::peers::Wanted;
use crate::stress::Plan;
use crate::{Result, test};

/// Shown by `--help` on standard output, and after a usage error on standard error.
pub(crate) const HELP: &str = "\
Usage: cargo xtask <command>

  setup             bring the pinned Zig and nvcc into target/tools, unless the PATH has them; say what else is missing
  demo [-- ARGS]    build megaring for release and run `megaring demo ARGS`
  test [STEP]...    run every check and test, or the steps with these words in their names
       [--quick]    leave out what takes long
       [--ci]       count what could not run here as failed (also where CI=true)
  test --stress N   run every program of cargo's tests N times, three at a time, beside 4 busy threads, and say which tests do not pass each time
       [--only A,B]    the tests of these packages (`ring` is megaring-ring), or tests/A.rs and tests/B in whatever package
  tidy              run the tidy checks alone
  bench [NAME]      run the criterion benches, or the one bench NAME
  bench gates       measure what everything else rests on, and fail beyond the gates
       [--json FILE]   also write the figures to FILE
  bench peers       measure megaring beside numpy, faiss, usearch, numkong, aho-corasick and Hyperscan
       [--with WHAT]   torch: beside torch, too (several gigabytes); gpu: let megaring use a GPU
       [--quick]       fewer cases, shorter
       [--out FILE]    where the JSON lines go (target/peers/peers.jsonl)
  help              this text";

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Print [`HELP`].
    Help,
    /// Bring the tools.
    Setup,
    /// Run the demo with these further arguments.
    Demo {
        /// Passed to `megaring demo` as they are.
        arguments: Vec<String>,
    },
    /// Run the tests.
    Test {
        /// Leave out what takes long.
        quick: bool,
        /// A required step that cannot run has failed.
        ci: bool,
        /// Parts of the names of the steps to run; none for all.
        only: Vec<String>,
    },
    /// Look for tests that do not pass every time.
    Stress(Plan),
    /// Run the tidy checks.
    Tidy,
    /// Run the benches.
    Bench {
        /// One bench's name, or all.
        name: Option<String>,
    },
    /// Check the gates.
    BenchGates {
        /// Where the figures go, too.
        json: Option<PathBuf>,
    },
    /// Measure megaring beside others.
    BenchPeers(Wanted),
}

/// Reads the arguments after `cargo xtask`; the error names the one that is wrong.
pub(crate) fn parse(arguments: &[String]) -> Result<Task> {
    let Some((command, rest)) = arguments.split_first() else {
        return Err("a command is missing".into());
    };
    let wants_help = |argument: &String| argument == "--help" || argument == "-h";
    if wants_help(command) || command == "help" || rest.first().is_some_and(wants_help) {
        return Ok(Task::Help);
    }
    match command.as_str() {
        "setup" => no_more("setup", rest).map(|()| Task::Setup),
        "demo" => parse_demo(rest),
        "test" if rest.iter().any(|option| matches!(option.as_str(), "--stress" | "--only")) => {
            parse_stress(rest).map(Task::Stress)
        }
        "test" => parse_test(rest),
        "tidy" => no_more("tidy", rest).map(|()| Task::Tidy),
        "bench" => parse_bench(rest),
        other => Err(format!("there is no command `{other}`")),
    }
}

fn parse_demo(rest: &[String]) -> Result<Task> {
    match rest.split_first() {
        None => Ok(Task::Demo { arguments: Vec::new() }),
        Some((dashes, arguments)) if dashes == "--" => Ok(Task::Demo { arguments: arguments.to_vec() }),
        Some((other, _)) => Err(format!("`demo` does not know `{other}`; arguments for megaring come after `--`")),
    }
}

fn parse_test(rest: &[String]) -> Result<Task> {
    let (mut quick, mut ci, mut only) = (false, false, Vec::new());
    for argument in rest {
        match argument.as_str() {
            "--quick" => quick = true,
            "--ci" => ci = true,
            step if test::names().any(|name| name.contains(step)) => only.push(step.to_owned()),
            other => {
                let names: Vec<&str> = test::names().collect();
                return Err(format!("`test` does not know `{other}`; its steps are {}", names.join(", ")));
            }
        }
    }
    if quick && ci {
        return Err("`--quick` leaves out steps that `--ci` requires, so they do not go together".into());
    }
    Ok(Task::Test { quick, ci, only })
}

fn parse_stress(rest: &[String]) -> Result<Plan> {
    let (mut times, mut only) = (None, Vec::new());
    let mut options = rest.iter().map(String::as_str);
    while let Some(option) = options.next() {
        let value = options.next();
        match (option, value) {
            ("--stress", Some(number)) => {
                let number: Option<u32> = number.parse().ok().filter(|&number| number > 0);
                times = Some(number.ok_or("`--stress` takes how often each test is to run")?);
            }
            ("--only", Some(names)) => only.extend(names.split(',').map(str::to_owned)),
            ("--stress" | "--only", None) => return Err(format!("`{option}` lacks its value")),
            (other, _) => return Err(format!("`test --stress` does not know `{other}`")),
        }
    }
    let times = times.ok_or("`--only` belongs to `--stress N`")?;
    Ok(Plan { times, only })
}

fn parse_bench(rest: &[String]) -> Result<Task> {
    match rest {
        [] => Ok(Task::Bench { name: None }),
        [name, options @ ..] if name == "gates" => parse_gates(options),
        [name, options @ ..] if name == "peers" => parse_peers(options).map(Task::BenchPeers),
        [name] if !name.starts_with('-') => Ok(Task::Bench { name: Some(name.clone()) }),
        [option] => Err(format!("`bench` does not know `{option}`")),
        _ => Err("`bench` takes one name at most".into()),
    }
}

fn parse_gates(options: &[String]) -> Result<Task> {
    match options {
        [] => Ok(Task::BenchGates { json: None }),
        [option, file] if option == "--json" => Ok(Task::BenchGates { json: Some(file.into()) }),
        [option] if option == "--json" => Err("`--json` takes a file".into()),
        [option, ..] if option != "--json" => Err(format!("`bench gates` does not know `{option}`")),
        _ => Err("`bench gates` takes one `--json FILE` at most".into()),
    }
}

fn parse_peers(options: &[String]) -> Result<Wanted> {
    let mut wanted = Wanted::default();
    let mut options = options.iter().map(String::as_str);
    while let Some(option) = options.next() {
        match option {
            "--quick" => wanted.quick = true,
            "--with" => match options.next() {
                Some("torch") => wanted.torch = true,
                Some("gpu") => wanted.gpu = true,
                other => return Err(format!("`--with` takes `torch` or `gpu`, not `{}`", other.unwrap_or_default())),
            },
            "--out" => wanted.out = Some(options.next().ok_or("`--out` takes a file")?.into()),
            other => return Err(format!("`bench peers` does not know `{other}`")),
        }
    }
    Ok(wanted)
}

fn no_more(command: &str, rest: &[String]) -> Result<()> {
    match rest.first() {
        None => Ok(()),
        Some(extra) => Err(format!("`{command}` takes no arguments, but got `{extra}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&words)
    }

    #[test]
    fn every_command_is_read() {
        assert_eq!(parsed("setup"), Ok(Task::Setup));
        assert_eq!(parsed("tidy"), Ok(Task::Tidy));
        let test = |quick, ci, only: &[&str]| {
            Ok(Task::Test { quick, ci, only: only.iter().map(|&step| step.to_owned()).collect() })
        };
        assert_eq!(parsed("test"), test(false, false, &[]));
        assert_eq!(parsed("test --quick"), test(true, false, &[]));
        assert_eq!(parsed("test zig --ci loom"), test(false, true, &["zig", "loom"]));
        let stress = |times, only: &[&str]| {
            Ok(Task::Stress(Plan { times, only: only.iter().map(|&name| name.to_owned()).collect() }))
        };
        assert_eq!(parsed("test --stress 30"), stress(30, &[]));
        assert_eq!(parsed("test --only cli,ring --stress 5 --only abi"), stress(5, &["cli", "ring", "abi"]));
        assert_eq!(parsed("bench"), Ok(Task::Bench { name: None }));
        assert_eq!(parsed("bench search"), Ok(Task::Bench { name: Some("search".into()) }));
        assert_eq!(parsed("bench gates"), Ok(Task::BenchGates { json: None }));
        let json = Some("gates.json".into());
        assert_eq!(parsed("bench gates --json gates.json"), Ok(Task::BenchGates { json }));
        assert_eq!(parsed("bench peers"), Ok(Task::BenchPeers(Wanted::default())));
        let wanted = Wanted { torch: true, gpu: true, quick: true, out: Some("a.jsonl".into()) };
        let line = "bench peers --with torch --quick --out a.jsonl --with gpu";
        assert_eq!(parsed(line), Ok(Task::BenchPeers(wanted)));
        assert_eq!(parsed("demo"), Ok(Task::Demo { arguments: vec![] }));
        assert_eq!(parsed("demo -- --json -h"), Ok(Task::Demo { arguments: vec!["--json".into(), "-h".into()] }));
        for line in ["help", "--help", "-h", "test --help", "demo -h"] {
            assert_eq!(parsed(line), Ok(Task::Help), "{line}");
        }
    }

    #[test]
    fn wrong_lines_name_what_is_wrong() {
        let cases = [
            ("", "a command is missing"),
            ("tset", "`tset`"),
            ("setup now", "`now`"),
            ("demo --json", "`--json`"),
            ("test --fast", "`--fast`"),
            ("test lom", "its steps are setup, tidy"),
            ("test --quick --ci", "do not go together"),
            ("test --stress", "lacks its value"),
            ("test --stress 0", "how often"),
            ("test --stress 5 --ci", "`--ci`"),
            ("test loom --stress 5", "`loom`"),
            ("test --only cli", "`--stress N`"),
            ("bench --all", "`--all`"),
            ("bench a b", "one name"),
            ("bench gates --json", "takes a file"),
            ("bench gates --json a b", "one `--json FILE`"),
            ("bench gates search", "`search`"),
            ("bench peers --with numpy", "`numpy`"),
            ("bench peers --with", "`torch` or `gpu`"),
            ("bench peers --out", "takes a file"),
            ("bench peers faiss", "`faiss`"),
        ];
        for (line, part) in cases {
            let reason = parsed(line).expect_err(line);
            assert!(reason.contains(part), "{line}: {reason}");
        }
    }
}
