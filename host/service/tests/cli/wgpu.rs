//! The wgpu backend as people ask for it: by name, on an adapter of this machine, and on a machine that has none.

use std::io::Write as _;
use std::process::Command;

use crate::common::{Folder, Ran};
use megaring_datasets::{memories, points, sample};
use serde_json::Value;

/// The adapter that tests run on: the one that `MEGARING_WGPU_ADAPTER` names, or the first there is, software too.
pub(crate) fn adapter() -> Option<String> {
    let wish = std::env::var("MEGARING_WGPU_ADAPTER").ok().filter(|name| !name.is_empty());
    let first = || megaring_wgpu::adapters().into_iter().find(|adapter| adapter.lacks.is_none());
    let found = wish.or_else(|| first().map(|adapter| adapter.name));
    if found.is_none() {
        // Past the capture of tests that pass: it is to be counted.
        _ = writeln!(
            std::io::stdout(),
            "\nskipped: this machine has no adapter (`megaring doctor` says how to get one)"
        );
    }
    found
}

/// The program with the backend left to itself, and Vulkan as this process has it.
pub(crate) fn command(folder: &Folder, args: &[&str]) -> Command {
    let mut command = folder.command(args);
    command.env_remove("MEGARING_WGPU");
    command.envs(std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("VK_")));
    command
}

/// The same where no Vulkan driver is found.
fn run_without_drivers(folder: &Folder, args: &[&str]) -> Ran {
    let mut command = command(folder, args);
    for variable in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
        command.env(variable, folder.path("no-such-driver.json"));
    }
    command.env_remove("VK_ADD_DRIVER_FILES");
    Ran::of(command.output().unwrap())
}

/// A folder with the real sample as a corpus, queries, points and memories.
fn folder() -> Folder {
    let folder = Folder::new();
    let rows = sample().unwrap().embeddings;
    folder.write_npy("rows.npy", &rows).write_npy("queries.npy", &rows.head(100));
    folder.run(&["corpus", "import", "real", "rows.npy"]).succeeded();
    let cloud: String = points(5_000, 3).iter().map(|point| format!("{}\n", serde_json::json!(point))).collect();
    folder.write("points.jsonl", cloud);
    let texts = memories(300, 4).unwrap();
    let lines = texts.iter().map(|memory| format!("{}\n", serde_json::json!({ "content": memory.content })));
    folder.write("memories.jsonl", lines.collect::<String>());
    folder
}

#[test]
fn its_answers_are_printed_as_the_cpus() {
    let Some(adapter) = adapter() else { return };
    let folder = folder();
    let commands = [
        vec!["search", "real", "--query-file", "queries.npy"],
        vec!["search", "real", "--query-file", "queries.npy", "--metric", "l2", "--k", "100", "--json"],
        vec!["search", "real", "--row", "7", "--metric", "dot", "--threshold", "0.4", "--k", "2048"],
        vec!["nearest", "--points", "points.jsonl", "--query", "0.1,0.2,-0.3,0.4,0.5", "--k", "25"],
        vec!["encode", "memories.jsonl", "--json", "--words"],
    ];
    for arguments in commands {
        let printed = |backend: &str| {
            let all = [&arguments[..], &["--backend", backend, "--wgpu-adapter", &adapter]].concat();
            let ran = Ran::of(command(&folder, &all).output().unwrap()).succeeded();
            let (lines, made): (Vec<&str>, Vec<&str>) = ran.stdout.lines().partition(|line| !line.contains("\"made\""));
            let told = |record: &str| serde_json::from_str::<Value>(record).unwrap()["made"]["backend"] == backend;
            assert!(made.iter().all(|record| told(record)), "{made:?}");
            assert!(!made.is_empty() || ran.stderr.contains(&format!("answered by {backend}")), "{}", ran.stderr);
            lines.join("\n")
        };
        let (wgpu, cpu) = (printed("wgpu"), printed("cpu"));
        assert!(!cpu.is_empty());
        // Not printed where it differs: thousands of lines.
        assert!(wgpu == cpu, "{arguments:?}");
    }
}

#[test]
fn doctor_tries_the_adapter_that_is_named() {
    let Some(adapter) = adapter() else { return };
    let folder = Folder::new();
    let arguments = ["doctor", "--json", "--wgpu-adapter", &adapter, "--wgpu-memory", "96MiB"];
    let records = Ran::of(command(&folder, &arguments).output().unwrap()).succeeded().records();
    let find = |check: &str| records.iter().find(|record| record["check"] == check);
    let backend = find("backend wgpu").unwrap();
    assert_eq!(backend["state"], "ok", "{backend}");
    assert!(backend["found"].as_str().unwrap().contains("96"), "{backend}");
    for check in ["ring on wgpu", "search on wgpu"] {
        assert_eq!(find(check).unwrap()["state"], "ok", "{check}");
    }
    let is_told = |record: &Value| {
        let (check, found) = (record["check"].as_str().unwrap_or(""), record["found"].as_str().unwrap_or(""));
        check.starts_with("adapter ") && found.contains("a binding") && found.contains("workgroup memory")
    };
    assert!(records.iter().any(is_told), "{records:?}");
}

#[test]
fn software_works_only_for_those_who_name_it() {
    let adapters = megaring_wgpu::adapters();
    if adapters.is_empty() || adapters.iter().any(|adapter| !adapter.software) {
        // Where there is a GPU it is used; where there is nothing another test looks.
        return;
    }
    let folder = folder();
    let search = |more: &[&str]| {
        let arguments = [&["search", "real", "--row", "0", "--backend", "wgpu"], more].concat();
        Ran::of(command(&folder, &arguments).output().unwrap())
    };
    let name = &adapters[0].name;
    search(&[]).failed(1, &["backend wgpu is not available", "only software", name, "--wgpu-adapter"]);
    search(&["--wgpu-adapter", ""]).failed(1, &["only software"]);
    search(&["--wgpu-adapter", name, "--wgpu", "off"]).failed(1, &["switched off"]);
    search(&["--wgpu-adapter", "no such adapter"]).failed(1, &["no such adapter", name]);
    let records = Ran::of(command(&folder, &["doctor", "--json"]).output().unwrap()).succeeded().records();
    let backend = records.iter().find(|record| record["check"] == "backend wgpu").unwrap();
    assert!(backend["state"] == "note" && backend["found"].as_str().unwrap().contains("only software"), "{backend}");
}

#[test]
fn without_a_driver_it_says_so_and_the_rest_works() {
    let folder = folder();
    let search = ["search", "real", "--row", "0", "--backend", "wgpu"];
    let absent = ["backend wgpu is not available", "no Vulkan, Metal or DX12 adapter"];
    if cfg!(target_os = "linux") {
        run_without_drivers(&folder, &search).failed(1, &absent);
        run_without_drivers(&folder, &[&search[..], &["--wgpu-adapter", "llvmpipe"]].concat()).failed(1, &absent);
        let records = run_without_drivers(&folder, &["doctor", "--json"]).succeeded().records();
        let find = |check: &str| records.iter().find(|record| record["check"] == check).unwrap();
        assert_eq!((&find("backend wgpu")["state"], &find("adapters")["state"]), (&"note".into(), &"note".into()));
        let help = find("adapters")["help"].as_str().unwrap();
        assert!(help.contains("mesa-vulkan-drivers") && help.contains("libvulkan1"), "{help}");
        assert!(find("backend wgpu")["found"].as_str().unwrap().contains("no Vulkan"));
    }
    run_without_drivers(&folder, &["search", "real", "--row", "0"]).succeeded();
}
