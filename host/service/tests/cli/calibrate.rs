//! `calibrate`, and what the other commands make of its file.

use megaring_datasets::Matrix;
use serde_json::Value;

use crate::common::{Folder, Ran};
use crate::wgpu::{adapter, command};

const FILE: &str = "megaring-data/.calibration.json";

/// The one whole run: everything that needs a file of this machine looks at this one's.
#[test]
fn what_is_measured_is_kept_and_gone_by() {
    let folder = Folder::new();
    folder.write_npy("rows.npy", &Matrix::new(3, 2, vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0]));
    folder.run(&["corpus", "import", "three", "rows.npy"]).succeeded();
    let adapter = adapter();
    let run = |args: &[&str]| {
        let named = adapter.as_deref().map(|name| ["--wgpu-adapter", name]);
        let all = [args, named.as_ref().map_or(&[][..], |named| &named[..])].concat();
        if adapter.is_some() { Ran::of(command(&folder, &all).output().unwrap()) } else { folder.run(&all) }
    };
    // Other tests run beside, so it is most likely noisy.
    let ran = run(&["calibrate", "--quick", "--anyway", "--json"]).succeeded();
    let records = ran.records();
    assert_eq!((records.len(), &records[0]["quick"]), (1, &Value::Bool(true)));
    assert!(records[0]["saved_to"].as_str().unwrap().ends_with(".calibration.json"));
    let backends = records[0]["backends"].as_array().unwrap();
    assert_eq!(backends[0]["backend"], "cpu");
    assert_eq!(backends.iter().any(|backend| backend["backend"] == "wgpu"), adapter.is_some(), "{}", records[0]);
    // What comes last may have been left out on a busy machine.
    for operation in ["nop", "encode", "search"] {
        assert!(backends[0]["operations"][operation]["typical_error"].is_number(), "{operation}: {}", backends[0]);
    }
    assert!(ran.stderr.contains("calibrating: 0 of "), "{}", ran.stderr);

    let explained = run(&["explain", "--rows", "5562", "--dim", "384", "--queries", "1", "--json"]).succeeded();
    let record = &explained.records()[0];
    let prospects = record["prospects"].as_array().unwrap();
    let running: Vec<&Value> = prospects.iter().filter(|prospect| !prospect["times"].is_null()).collect();
    assert_eq!(running.len(), 1 + usize::from(adapter.is_some()));
    assert!(running.iter().all(|prospect| prospect["times"]["basis"] == "measured"), "{record}");
    assert!(record["assumed_because"].is_null());
    let doctor = run(&["doctor", "--json"]).records();
    let finding = doctor.iter().find(|record| record["check"] == "calibration").unwrap();
    assert!(finding["state"] == "ok" && finding["found"].as_str().unwrap().starts_with("quick, of cpu"), "{finding}");
    let listed = run(&["corpus", "list", "--json"]).succeeded().records();
    assert_eq!(listed.len(), 1, "the file is no corpus: {listed:?}");
    another_machine_and_a_broken_file(&folder, &run);
}

/// What was measured elsewhere, or cannot be read, is told, does no harm and stays as it is.
fn another_machine_and_a_broken_file(folder: &Folder, run: &dyn Fn(&[&str]) -> Ran) {
    let mut calibration: Value = serde_json::from_str(&std::fs::read_to_string(folder.path(FILE)).unwrap()).unwrap();
    calibration["fingerprint"]["processor"] = "Another 9000".into();
    for (text, told) in [(calibration.to_string(), "Another 9000"), ("{ \"schema\": ".into(), "cannot be read")] {
        folder.write(FILE, &text);
        let explained = run(&["explain", "--rows", "9", "--dim", "3"]).succeeded();
        assert!(explained.stderr.contains(told) && explained.stdout.contains("assumed"), "{explained:?}");
        let doctor = run(&["doctor", "--json"]).records();
        let finding = doctor.iter().find(|record| record["check"] == "calibration").unwrap();
        assert!(finding["state"] == "note" && finding["found"].as_str().unwrap().contains(told), "{finding}");
        assert!(finding["help"].as_str().unwrap().contains("megaring calibrate"), "{finding}");
        let search = run(&["search", "three", "--row", "0"]).succeeded();
        assert!(!search.stderr.contains(told), "other commands do not speak of it: {}", search.stderr);
        assert_eq!(std::fs::read_to_string(folder.path(FILE)).unwrap(), text);
    }
}

#[test]
fn a_file_that_cannot_be_written_is_refused_before_anything_is_measured() {
    let folder = Folder::new();
    folder.write("a-file", "old").write("locked.json", "old");
    let mut locked = std::fs::metadata(folder.path("locked.json")).unwrap().permissions();
    locked.set_readonly(true);
    std::fs::set_permissions(folder.path("locked.json"), locked).unwrap();
    std::fs::create_dir(folder.path("a-folder")).unwrap();
    for (file, reason) in
        [("a-file/c.json", "a-file/c.json"), ("a-folder", "it is no file"), ("locked.json", "it is read-only")]
    {
        let ran = folder.run(&["calibrate", "--quick", "--anyway", "--calibration", file]).failed(1, &[file, reason]);
        assert!(ran.stdout.is_empty() && !ran.stderr.contains("calibrating"), "{ran:?}");
    }
    for file in ["a-file", "locked.json"] {
        assert_eq!(std::fs::read_to_string(folder.path(file)).unwrap(), "old");
    }
    assert!(!folder.path("megaring-data").exists());
}
