//! `doctor`, `completions`, help, and the exit status of wrong usage.

use std::process::Stdio;

use megaring_datasets::Matrix;
use serde_json::json;

use crate::common::Folder;

#[test]
fn doctor_finds_this_machine_in_order() {
    let folder = Folder::new();
    let records = folder.run(&["doctor", "--json"]).succeeded().records();
    let state = |check: &str| {
        let record = records.iter().find(|record| record["check"] == check);
        record.unwrap_or_else(|| panic!("{check} is not in {records:?}"))["state"].as_str().unwrap()
    };
    for check in ["ring", "search", "backend cpu", "instruction set in use", "encoder profile", "processor"] {
        assert_eq!(state(check), "ok", "{check}");
    }
    for check in ["backend cuda", "backend wgpu", "data folder", "calibration"] {
        assert_eq!(state(check), "note", "{check}");
    }
    assert_eq!(records.last().unwrap()["healthy"], true);
    assert!(!folder.path("megaring-data").exists(), "doctor changes nothing");
    let text = folder.run(&["doctor"]).succeeded().stdout;
    assert!(text.contains("megaring can do all its work here"), "{text}");
}

/// On a machine with a GPU this is the GPU's own test; on any other, that what `doctor` says of it is what a caller is
/// told who insists.
#[test]
fn doctor_and_a_forced_backend_agree_about_the_gpu() {
    let folder = Folder::new();
    folder.write_npy("rows.npy", &Matrix::new(3, 2, vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0]));
    folder.run(&["corpus", "import", "three", "rows.npy"]).succeeded();
    let records = folder.run(&["doctor", "--json", "--cuda", "auto", "--cuda-memory", "64MiB"]).records();
    let find = |check: &str| records.iter().find(|record| record["check"] == check);
    let search =
        |cuda: &str| folder.run(&["search", "three", "--row", "0", "--backend", "cuda", "--cuda", cuda, "--json"]);
    let backend = find("backend cuda").unwrap();
    let found = backend["found"].as_str().unwrap();
    if backend["state"] == "ok" {
        assert!(found.contains("blocks") && found.contains("persistent") && found.contains("64"), "{found}");
        assert_eq!(
            (&find("ring on cuda").unwrap()["state"], &find("search on cuda").unwrap()["state"]),
            (&json!("ok"), &json!("ok"))
        );
        assert_eq!(search("auto").succeeded().records()[1]["made"]["backend"], "cuda");
    } else {
        assert_eq!(backend["state"], "note", "{backend}");
        assert!(find("search on cuda").is_none());
        search("auto").failed(1, &["backend cuda is not available", found]);
    }
    search("off").failed(1, &["backend cuda is not available", "switched off"]);
}

#[test]
fn doctor_says_what_a_missing_instruction_set_needs() {
    let folder = Folder::new();
    let records = folder.run(&["doctor", "--json"]).succeeded().records();
    let sets: Vec<_> = records
        .iter()
        .filter(|record| {
            record["check"]
                .as_str()
                .is_some_and(|check| check.starts_with("instruction set ") && !check.ends_with("in use"))
        })
        .collect();
    assert!(!sets.is_empty());
    for set in sets {
        let found = set["found"].as_str().unwrap();
        assert!(found == "available" || found.contains("lacks"), "{set}");
    }
}

#[test]
fn doctor_fails_where_something_must_be_mended() {
    let folder = Folder::new();
    folder.write("a-file", "").write("bad.toml", "name = 1");
    for (args, check) in [
        (["--data", "a-file"], "data folder"),
        (["--data", "no/such/parent"], "data folder"),
        (["--isa", "mmx"], "instruction set in use"),
        (["--profile", "bad.toml"], "encoder profile"),
    ] {
        let ran = folder.run(&[&["doctor", "--json"], &args[..]].concat());
        assert_eq!(ran.status, Some(1), "{ran:?}");
        let records = ran.records();
        assert!(records.iter().any(|record| record["check"] == check && record["state"] == "problem"), "{records:?}");
        assert_eq!(records.last().unwrap()["healthy"], false);
    }
}

#[test]
fn completions_know_commands_and_options() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = folder.run(&["completions", shell]).succeeded().stdout;
        for word in ["nearest", "doctor", "verify", "arena-bytes", "skip-invalid"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    folder.run(&["completions", "cmd"]).failed(2, &["cmd"]);
}

#[test]
fn usage_help_and_version() {
    let folder = Folder::new();
    folder.run(&[]).failed(2, &["Usage"]);
    folder.run(&["corpus"]).failed(2, &["Usage"]);
    folder.run(&["fly"]).failed(2, &["fly"]);
    folder.run(&["search", "x", "--wings"]).failed(2, &["--wings"]);
    let help = folder.run(&["--help"]).succeeded().stdout;
    for word in [
        "serve",
        "demo",
        "corpus",
        "search",
        "encode",
        "nearest",
        "calibrate",
        "explain",
        "doctor",
        "completions",
        "MEGARING_DATA",
    ] {
        assert!(help.contains(word), "{word}");
    }
    assert!(help.contains("help settings") && !help.contains("--ring-slots"), "{help}");
    let search = folder.run(&["search", "--help"]).succeeded().stdout;
    assert!(search.contains("--k <N>") && search.contains("--data") && !search.contains("--ring-slots"), "{search}");
    let lists = [["settings", "--json"], ["help", "settings"], ["serve", "--help"]];
    let lists = lists.map(|args| folder.run(&args).succeeded().stdout);
    for option in megaring::cli::command().get_arguments().filter(|arg| arg.is_hide_set()) {
        let option = format!("--{}", option.get_long().unwrap());
        assert!(lists.iter().all(|list| list.matches(&format!("{option} ")).count() == 1), "{option}");
    }
    assert!(lists.iter().all(|list| list.contains("--data ")), "{lists:?}");
    let script = folder.run(&["completions", "bash"]).succeeded().stdout;
    assert!(script.contains("--ring-slots"), "what is not shown is completed all the same");
    assert_eq!(folder.run(&["--version"]).succeeded().stdout.trim(), format!("megaring {}", env!("CARGO_PKG_VERSION")));
    // A wrong file does not stand between a person and the help.
    folder.write("megaring.toml", "nonsense = 1").run(&["--help"]).succeeded();
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let folder = Folder::new();
    let lines: String = (0..20_000).map(|_| "{\"content\": \"a row in a table\"}\n").collect();
    folder.write("many.jsonl", lines);
    let mut child = folder
        .command(&["encode", "many.jsonl", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{output:?}");
}
