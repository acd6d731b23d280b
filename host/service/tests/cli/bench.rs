//! `megaring bench`: what it writes, what it refuses before it measures, and what it says of a machine with one
//! backend. Nothing here depends on how fast anything is.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::common::{Folder, Ran};
use crate::wgpu::{adapter, command};

/// A run that ends soon, whatever the machine.
const SOON: &str = "--time-limit=300ms";

fn record(folder: &Folder, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder.path(name)).unwrap()).unwrap()
}

fn list<'a>(record: &'a Value, key: &str) -> &'a [Value] {
    record[key].as_array().unwrap_or_else(|| panic!("{key} is no list in {record}"))
}

fn has_note(record: &Value, part: &str) -> bool {
    list(record, "notes").iter().any(|note| note.as_str().unwrap().contains(part))
}

/// Times that a person can believe: rising, above nothing, with an interval around the median.
#[track_caller]
fn is_sound(point: &Value) {
    let of = |key: &str| point["times"][key].as_f64().unwrap_or_else(|| panic!("{key} in {point}"));
    let interval: Vec<f64> = point["times"]["ci_ns"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
    let rising = [of("min_ns"), interval[0], of("p50_ns"), interval[1], of("max_ns")];
    assert!(rising.is_sorted() && rising[0] > 0.0, "{point}");
    assert!([of("p50_ns"), of("p95_ns"), of("p99_ns"), of("max_ns")].is_sorted(), "{point}");
    assert!(of("samples") >= 6.0, "{point}");
}

/// The first `<h1>` of a page.
fn headline(page: &str) -> &str {
    let (_, from) = page.split_once("<h1>").unwrap_or_else(|| panic!("no headline in {page:.2000}"));
    from.split_once("</h1>").unwrap().0
}

/// Titles of a page's sections.
fn sections(page: &str) -> Vec<&str> {
    page.split("<h2>").skip(1).map(|from| from.split_once("</h2>").unwrap().0).collect()
}

/// Pictures that show the time of a batch: one for each size of corpus.
fn latency_pictures(page: &str) -> usize {
    // The others are of one batch, over the sizes of corpora.
    page.split("aria-label=\"Time of a batch, search: ").skip(1).filter(|from| !from.starts_with("batch of")).count()
}

/// The points that are drawn in a picture, by their backend.
fn points_of(picture: &str, backend: &str) -> usize {
    picture.matches(&format!("<title>{backend}, batch of ")).count()
}

#[test]
fn every_suite_writes_a_record_and_a_report() {
    let folder = Folder::new();
    for asked in ["crossover", "search", "encode", "ring", "grpc"] {
        let args = ["bench", asked, "--quick", SOON, "--json", "out.json", "--html", "out.html"];
        let ran = folder.run(&args).succeeded();
        // The grid in which backends cross is one of searches.
        let suite = if asked == "crossover" { "search" } else { asked };
        assert!(ran.stdout.starts_with(&format!("{suite}\nCASE ")), "{ran:?}");
        assert!(ran.stderr.contains("points in"), "{ran:?}");
        let record = record(&folder, "out.json");
        assert_eq!(record["schema"], 1);
        let points = list(&record, "points");
        assert!(!points.is_empty() && points.iter().all(|point| point["suite"] == suite), "{record}");
        points.iter().for_each(is_sound);
        assert!(points.iter().all(|point| point["backend"] == "cpu" && point["residence"] == "resident"), "{record}");
        assert!(list(&record, "crossovers").is_empty());
        assert!(has_note(&record, "cpu is the only backend that runs here"), "{record}");
        assert!(has_note(&record, "cuda was not measured: it is switched off by the settings"), "{record}");
        let device = &list(&record, "backends")[0];
        assert_eq!((&device["backend"], &device["emulated"]), (&Value::from("cpu"), &Value::from(false)));
        assert!(list(&record, "peaks")[0]["multiply_adds_per_s"].as_f64().unwrap() > 0.0, "{record}");
        let command = record["machine"]["command"].as_str().unwrap();
        assert!(command.starts_with(&format!("megaring bench {asked} --quick")), "{command}");
        let report = std::fs::read_to_string(folder.path("out.html")).unwrap();
        assert!(report.to_ascii_lowercase().starts_with("<!doctype html"), "{suite}");
        assert_eq!(headline(&report).contains("No search was measured"), suite != "search", "{}", headline(&report));
    }
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "only the two files are left: {left:?}");
}

#[test]
fn a_grid_of_the_processor_alone_is_shown_and_compared_with_nothing() {
    let folder = Folder::new();
    let args = ["bench", "crossover", "--quick", "--time-limit=2s", "--html", "out.html", "--svg", "out.svg"];
    folder.run(&args).succeeded();
    let report = std::fs::read_to_string(folder.path("out.html")).unwrap();
    let told = headline(&report);
    assert!(told.starts_with("Only the CPU (") && told.ends_with("there is nothing to compare it with."), "{told}");
    assert!(sections(&report).contains(&"How long a search takes"), "{:?}", sections(&report));
    assert!(!sections(&report).contains(&"Who wins where"), "{:?}", sections(&report));
    assert!(latency_pictures(&report) > 0 && points_of(&report, "cpu") > 0, "{told}");
    let picture = std::fs::read_to_string(folder.path("out.svg")).unwrap();
    assert!(picture.starts_with("<svg") && points_of(&picture, "cpu") > 0, "{picture:.2000}");
}

#[test]
fn what_there_is_no_time_for_is_left_out_and_said_to_be() {
    let folder = Folder::new();
    folder.run(&["bench", "all", "--time-limit", "1ms", "--json", "out.json"]).succeeded();
    let record = record(&folder, "out.json");
    assert!(has_note(&record, "the time limit of 1.00 ms was used up before "), "{record}");
}

#[test]
fn programs_get_a_line_for_each_point() {
    let records = Folder::new().run(&["bench", "ring", "--time-limit=5s", "--json"]).succeeded().records();
    let (rest, points) = records.split_last().unwrap();
    points.iter().for_each(is_sound);
    let cases: Vec<&str> = points.iter().map(|point| point["case"].as_str().unwrap()).collect();
    assert_eq!(cases, ["empty job", "slot there and back, one thread", "event publish"]);
    assert_eq!(rest["machine"]["threads"], std::thread::available_parallelism().unwrap().get());
    assert!(has_note(rest, "each sample is the mean of"), "{rest}");
}

#[test]
fn a_file_that_cannot_be_written_is_refused_before_anything_is_measured() {
    let folder = Folder::new();
    folder.write("kept", "as it was");
    std::fs::create_dir(folder.path("inner")).unwrap();
    let refused = |args: &[&str], path: &str| {
        let ran = folder.run(&[&["bench", "all"], args].concat());
        let ran = ran.failed(1, &[path, "cannot be written", "nothing was measured"]);
        assert!(ran.stdout.is_empty() && !ran.stderr.contains("points in"), "{ran:?}");
    };
    refused(&["--json", "no/such/folder/out.json"], "no/such/folder/out.json");
    refused(&["--json", "good.json", "--html", "inner"], "inner");
    refused(&["--html", "kept/out.html"], "kept/out.html");
    refused(&["--json", "good.json", "--svg", "no/such/folder/out.svg"], "no/such/folder/out.svg");
    assert_eq!(std::fs::read_to_string(folder.path("kept")).unwrap(), "as it was");
    assert!(!folder.path("good.json").exists(), "nothing is left of the one that could have been written");
}

#[test]
fn wrong_usage_is_told() {
    let folder = Folder::new();
    folder.run(&["bench"]).failed(2, &["<SUITE>"]);
    folder.run(&["bench", "everything"]).failed(2, &["everything", "crossover", "grpc"]);
    folder.run(&["bench", "ring", "--time-limit", "0"]).failed(2, &["--time-limit", "no time"]);
    folder.run(&["bench", "ring", "--time-limit", "soon"]).failed(2, &["--time-limit"]);
    folder.run(&["bench", "ring", "out.json"]).failed(2, &["out.json", "--json"]);
    folder.run(&["bench", "ring", "--svg", "out.svg"]).failed(2, &["shows searches", "crossover"]);
    folder.run(&["bench", "ring", "--rows", "0"]).failed(2, &["--rows"]);
}

#[test]
fn two_backends_are_measured_in_alternation_and_crossed() {
    let Some(adapter) = adapter() else { return };
    let folder = Folder::new();
    let args = ["bench", "crossover", "--quick", "--time-limit", "6s", "--json", "out.json", "--html", "out.html"];
    let args = [&args[..], &["--svg", "out.svg", "--wgpu-adapter", &adapter]].concat();
    let ran = Ran::of(command(&folder, &args).output().unwrap()).succeeded();
    assert!(ran.stdout.contains("wgpu over cpu"), "{ran:?}");
    let record = record(&folder, "out.json");
    let points = list(&record, "points");
    points.iter().for_each(is_sound);
    for backend in ["cpu", "wgpu"] {
        assert!(points.iter().any(|point| point["backend"] == backend), "{backend} in {record}");
    }
    let mut cold = points.iter().filter(|point| point["residence"] == "cold");
    assert!(cold.all(|point| point["backend"] == "wgpu"), "the processor uploads nothing: {record}");
    assert!(!list(&record, "crossovers").is_empty(), "{record}");
    assert!(!has_note(&record, "only backend"), "{record}");
    let emulated = list(&record, "backends").iter().any(|device| device["emulated"] == true);
    assert_eq!(has_note(&record, "its times say nothing of a GPU"), emulated, "{record}");
    let page = std::fs::read_to_string(folder.path("out.html")).unwrap();
    shows_two(&page, &record);
    let picture = std::fs::read_to_string(folder.path("out.svg")).unwrap();
    assert!(["cpu", "wgpu"].iter().all(|backend| points_of(&picture, backend) > 0), "{picture:.2000}");
}

/// The page says who wins, where, and how long it takes.
#[track_caller]
fn shows_two(page: &str, record: &Value) {
    let told = headline(page);
    assert!(told.starts_with("On this machine ") && told.contains("wgpu") && told.contains(" wins"), "{told}");
    for title in ["How long a search takes", "Who wins where", "Where a backend begins to win"] {
        assert!(sections(page).contains(&title), "{title:?} is not in {:?}", sections(page));
    }
    assert!(page.contains("aria-label=\"Map of winners, search, dim 384, k = 10: corpus in place\""), "{told}");
    let corpora: BTreeSet<u64> =
        list(record, "points").iter().filter_map(|point| point["sizes"]["rows"].as_u64()).collect();
    assert_eq!(latency_pictures(page), corpora.len(), "{corpora:?}");
    assert!(["cpu", "wgpu"].iter().all(|backend| points_of(page, backend) > 0), "{told}");
}
