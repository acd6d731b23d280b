//! Where settings come from: flag, environment, file, default; and that the three know the same settings.

use crate::common::Folder;
use clap::{Arg, Command};
use megaring::config::{duration, file, size};

/// Every option of the command and its subcommands, with the path of the command that declares it.
fn options(command: &Command) -> Vec<(Vec<String>, Arg)> {
    fn walk(command: &Command, path: &[String], found: &mut Vec<(Vec<String>, Arg)>) {
        let options = command.get_arguments().filter(|arg| arg.get_long().is_some());
        found.extend(options.map(|arg| (path.to_vec(), arg.clone())));
        for inner in command.get_subcommands() {
            walk(inner, &[path, &[inner.get_name().to_owned()]].concat(), found);
        }
    }
    let mut found = Vec::new();
    walk(command, &[], &mut found);
    found
}

#[test]
fn every_option_has_its_variable_by_the_rule() {
    let options = options(&megaring::cli::command());
    assert!(options.len() > 30, "{} options", options.len());
    for (path, arg) in options {
        let id = arg.get_id().as_str();
        let parts: Vec<&str> = ["megaring"].into_iter().chain(path.iter().map(String::as_str)).chain([id]).collect();
        let expected = parts.join("_").to_uppercase();
        assert_eq!(arg.get_env().and_then(|name| name.to_str()), Some(expected.as_str()), "{path:?} --{id}");
        assert_eq!(arg.get_long(), Some(id.replace('_', "-").as_str()), "{path:?} --{id}");
    }
}

#[test]
fn every_option_but_the_files_name_has_its_key() {
    let command = megaring::cli::command();
    let values = [
        "true",
        "1",
        "0.5",
        "\"cpu\"",
        "\"cosine\"",
        "\"jsonl\"",
        "\"npy\"",
        "\"1,1,1,1,1\"",
        "\"embedding=vec\"",
        "\"10s\"",
        "\"park\"",
        "\"auto\"",
        "\"launch\"",
        "\"int8\"",
        "\"search\"",
        "\"127.0.0.1:1\"",
        "\"on\"",
        "\"stable\"",
        "\"search=1\"",
        "\"backlog > 1: read\"",
        "\"answered\"",
        "\"writer\"",
        "\"text\"",
    ];
    for (path, arg) in options(&command) {
        let table = if path.is_empty() { String::new() } else { format!("[{}]\n", path.join(".")) };
        let id = arg.get_id().as_str();
        let install = |value: &str| file::install(command.clone(), &format!("{table}{id} = {value}"));
        if id == "config" {
            assert!(install("\"a.toml\"").is_err_and(|error| error.to_string().contains("unknown key")));
            continue;
        }
        let installed = values.iter().find_map(|value| install(value).ok());
        let installed =
            installed.unwrap_or_else(|| panic!("no value is taken for {path:?} {id}: {:?}", install("\"text\"")));
        let inner = path.iter().fold(&installed, |command, name| command.find_subcommand(name).unwrap());
        let arg = inner.get_arguments().find(|arg| arg.get_id() == id).unwrap();
        assert_eq!(arg.get_default_values().len(), 1, "{path:?} {id}");
    }
}

/// A folder in which each possible data folder holds a corpus named after where its name was read.
fn four_sources() -> Folder {
    let folder = Folder::new();
    for (data, name) in
        [("flag", "from-flag"), ("env", "from-env"), ("file", "from-file"), ("megaring-data", "from-default")]
    {
        folder.run(&["corpus", "create", name, "--dim", "3", "--data", data]).succeeded();
    }
    folder
}

fn listed(folder: &Folder, args: &[&str], env: &[(&str, &str)]) -> String {
    let output =
        folder.command(&[&["corpus", "list", "--json"], args].concat()).envs(env.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let record: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    record["name"].as_str().unwrap().to_owned()
}

#[test]
fn flag_then_environment_then_file_then_default() {
    let folder = four_sources();
    assert_eq!(listed(&folder, &[], &[]), "from-default");
    folder.write("megaring.toml", "data = \"file\"");
    assert_eq!(listed(&folder, &[], &[]), "from-file");
    assert_eq!(listed(&folder, &[], &[("MEGARING_DATA", "env")]), "from-env");
    assert_eq!(listed(&folder, &["--data", "flag"], &[("MEGARING_DATA", "env")]), "from-flag");
    assert_eq!(listed(&folder, &["--data", "flag"], &[]), "from-flag");
}

#[test]
fn the_file_is_found_by_flag_and_by_environment() {
    let folder = four_sources();
    folder
        .write("megaring.toml", "data = \"file\"")
        .write("other.toml", "data = \"env\"")
        .write("third.toml", "data = \"flag\"");
    assert_eq!(listed(&folder, &["--config", "other.toml"], &[]), "from-env");
    assert_eq!(listed(&folder, &[], &[("MEGARING_CONFIG", "other.toml")]), "from-env");
    assert_eq!(listed(&folder, &["--config", "third.toml"], &[("MEGARING_CONFIG", "other.toml")]), "from-flag");
    folder.run(&["--config", "nowhere.toml", "corpus", "list"]).failed(2, &["nowhere.toml"]);
}

#[test]
fn options_of_one_command_follow_the_same_order() {
    let folder = Folder::new();
    let rows = megaring_datasets::Matrix::new(6, 2, (0..12).map(|value| value as f32).collect());
    folder.write_npy("rows.npy", &rows).run(&["corpus", "import", "six", "rows.npy"]).succeeded();
    let hits = |args: &[&str], env: &[(&str, &str)]| {
        let args = [&["search", "six", "--row", "0", "--json"], args].concat();
        let output = folder.command(&args).envs(env.iter().copied()).output().unwrap();
        let line: serde_json::Value =
            serde_json::from_slice(output.stdout.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
        line["hits"].as_array().unwrap().len()
    };
    assert_eq!(hits(&[], &[]), 6);
    folder.write("megaring.toml", "[search]\nk = 2");
    assert_eq!(hits(&[], &[]), 2);
    assert_eq!(hits(&[], &[("MEGARING_SEARCH_K", "3")]), 3);
    assert_eq!(hits(&["--k", "4"], &[("MEGARING_SEARCH_K", "3")]), 4);
}

#[test]
fn what_the_line_lacks_may_be_in_the_file() {
    let folder = Folder::new();
    folder.run(&["corpus", "create", "a"]).failed(2, &["--dim"]);
    folder.write("megaring.toml", "json = true\n[corpus.create]\ndim = 7");
    let records = folder.run(&["corpus", "create", "a"]).succeeded().records();
    assert_eq!(records[0]["dim"], 7);
}

#[test]
fn keys_and_values_that_do_not_fit_are_named() {
    let folder = Folder::new();
    let run = |text: &str, expected: &[&str]| {
        folder
            .write("megaring.toml", text)
            .run(&["corpus", "list"])
            .failed(2, &[&["megaring.toml"], expected].concat());
    };
    run("dta = \"x\"", &["unknown key \"dta\"", "data"]);
    run("[search]\nkk = 3", &["unknown key \"search.kk\""]);
    run("[serch]\nk = 3", &["unknown key \"serch\""]);
    run("config = \"x.toml\"", &["unknown key \"config\""]);
    run("ring_slots = 3", &["\"ring_slots\"", "power of two"]);
    run("arena_bytes = \"12 parsecs\"", &["\"arena_bytes\"", "parsecs"]);
    run("cuda = \"perhaps\"", &["\"cuda\"", "auto or off"]);
    run("cuda_mode = \"fast\"", &["\"cuda_mode\"", "persistent, launch and graph"]);
    run("cuda_device = -1", &["\"cuda_device\""]);
    run("cuda_memory = \"0\"", &["\"cuda_memory\"", "above 0"]);
    run("wgpu = \"perhaps\"", &["\"wgpu\"", "auto or off"]);
    run("wgpu_memory = \"0\"", &["\"wgpu_memory\"", "above 0"]);
    run("calibrate = \"perhaps\"", &["\"calibrate\"", "auto or off"]);
    run("[explain]\ndim = 0", &["\"explain.dim\""]);
    run("json = \"perhaps\"", &["\"json\"", "true or false"]);
    run("data = [1]", &["\"data\"", "text or a number"]);
    run("[search]\nk = 0", &["\"search.k\""]);
    run("data = ", &["TOML"]);
}

#[test]
fn values_of_the_environment_are_checked_too() {
    let folder = Folder::new();
    let run = |name: &str, value: &str| folder.command(&["corpus", "list"]).env(name, value).output().unwrap();
    for (name, value) in [
        ("MEGARING_RING_SLOTS", "5"),
        ("MEGARING_LISTEN", "here"),
        ("MEGARING_WAIT", "asleep"),
        ("MEGARING_JSON", "perhaps"),
        ("MEGARING_CUDA", "sometimes"),
        ("MEGARING_CUDA_MEMORY", "much"),
        ("MEGARING_WGPU", "seldom"),
        ("MEGARING_WGPU_MEMORY", "much"),
        ("MEGARING_CALIBRATE", "never"),
    ] {
        let output = run(name, value);
        assert_eq!(output.status.code(), Some(2), "{name}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(value), "{name}: {output:?}");
    }
}

#[test]
fn an_instruction_set_that_is_not_there_is_an_error() {
    let folder = Folder::new();
    folder.write_npy("rows.npy", &megaring_datasets::Matrix::new(1, 2, vec![1.0, 2.0]));
    folder.run(&["corpus", "import", "one", "rows.npy"]).succeeded();
    folder.run(&["search", "one", "--row", "0", "--isa", "mmx"]).failed(1, &["mmx", "available here"]);
    folder
        .run(&["search", "one", "--row", "0", "--isa", if cfg!(target_arch = "x86_64") { "baseline" } else { "neon" }])
        .succeeded();
}

#[test]
fn sizes_and_durations() {
    assert_eq!(size("64MiB"), Ok(64 << 20));
    assert_eq!(size("1 GB"), Ok(1_000_000_000));
    assert_eq!(size("4096"), Ok(4096));
    assert_eq!(size("2k"), Ok(2048));
    for wrong in ["", "MiB", "0", "-1", "1.5MiB", "1 TiBB", "99999999999999999999", "18446744073709551615GiB"] {
        assert!(size(wrong).is_err(), "{wrong:?}");
    }
    assert_eq!(duration("10s"), Ok(std::time::Duration::from_secs(10)));
    assert_eq!(duration("250ms"), Ok(std::time::Duration::from_millis(250)));
    assert_eq!(duration("2"), Ok(std::time::Duration::from_secs(2)));
    assert_eq!(duration("3m"), Ok(std::time::Duration::from_secs(180)));
    for wrong in ["", "s", "-1s", "1h", "1.5s"] {
        assert!(duration(wrong).is_err(), "{wrong:?}");
    }
}
