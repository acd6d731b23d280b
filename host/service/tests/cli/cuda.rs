//! The CUDA backend as people ask for it, through a driver that is the kernels' twin: every call that the host makes of
//! it, in its order, and what becomes of each that fails.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use megaring_cuda::twin;
use megaring_datasets::sample;
use serde_json::Value;

use crate::common::{Folder, Ran};

/// The driver without a function; `None`, with a word why, where there can be none here.
fn driver(missing: Option<&str>) -> Option<PathBuf> {
    if cfg!(not(target_os = "linux")) {
        return None;
    }
    // Past the capture of tests that pass: it is to be counted.
    twin::driver(missing).inspect_err(|why| _ = writeln!(std::io::stdout(), "\nskipped: {why}")).ok()
}

/// A folder with a corpus of the real sample's first rows.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.write_npy("rows.npy", &sample().unwrap().embeddings.head(300));
    folder.run(&["corpus", "import", "real", "rows.npy"]).succeeded();
    folder
}

/// A search by a row on CUDA, with this driver in the place of NVIDIA's.
fn search(folder: &Folder, driver: &Path, mode: &str, variables: &[(&str, &str)]) -> Ran {
    let args = ["search", "real", "--row", "7", "--json", "--backend", "cuda", "--cuda-mode", mode];
    run(folder, driver, &args, variables)
}

fn run(folder: &Folder, driver: &Path, args: &[&str], variables: &[(&str, &str)]) -> Ran {
    let mut command = folder.command(args);
    command.env("MEGARING_CUDA", "auto").env("LD_LIBRARY_PATH", driver);
    Ran::of(command.envs(variables.iter().copied()).output().unwrap())
}

/// The functions that were called, each with its flags, in order.
fn log(folder: &Folder) -> Vec<String> {
    let log = std::fs::read_to_string(folder.path("log")).unwrap_or_default();
    log.lines().map(str::to_owned).collect()
}

/// What was found, without how.
fn hits(ran: &Ran) -> Vec<Value> {
    let hits: Vec<Value> = ran.records().iter().filter_map(|record| record.get("hits").cloned()).collect();
    assert!(!hits.is_empty(), "{ran:?}");
    hits
}

#[test]
fn a_search_goes_through_the_driver_as_it_is_documented() {
    let Some(driver) = driver(None) else { return };
    let folder = folder();
    let want = hits(&folder.run(&["search", "real", "--row", "7", "--json"]).succeeded());
    for mode in ["persistent", "launch", "graph"] {
        let ran = search(&folder, &driver, mode, &[("MEGARING_DRIVER_LOG", "log")]).succeeded();
        assert_eq!(hits(&ran), want, "{mode}");
        let calls = log(&folder);
        std::fs::remove_file(folder.path("log")).unwrap();
        // Nothing is loaded, allocated or freed while a kernel runs: that would wait for its end, which does not come.
        assert!(calls.iter().all(|call| !call.ends_with('!')), "{mode}: {calls:?}");
        let place = |call: &str| {
            let place = calls.iter().position(|called| called == call);
            place.unwrap_or_else(|| panic!("{mode}: no {call} in {calls:?}"))
        };
        // Page-locked memory that is mapped and everybody's; streams that do not wait for the default one; events
        // that measure nothing.
        let order = ["cuInit 0", "cuDevicePrimaryCtxRetain", "cuStreamCreate 1", "cuModuleLoadData", "cuFuncLoad"];
        let then = ["cuMemHostAlloc 3", "cuEventCreate 2", "cuLaunchCooperativeKernel"];
        let last = ["cuModuleUnload", "cuStreamDestroy_v2", "cuDevicePrimaryCtxRelease_v2"];
        let places: Vec<usize> = order.iter().chain(&then).chain(&last).map(|call| place(call)).collect();
        assert!(places.is_sorted(), "{mode}: {places:?} in {calls:?}");
        assert_eq!(calls.iter().any(|call| call == "cuGraphLaunch"), mode == "graph", "{mode}");
        let count = |call: &str| calls.iter().filter(|called| *called == call).count();
        assert_eq!(count("cuMemAlloc_v2"), count("cuMemFree_v2"), "{mode}");
        assert_eq!(count("cuMemHostAlloc 3"), count("cuMemFreeHost"), "{mode}");
    }
}

/// Each function fails at its first call: the command ends with one plain sentence, or it can do without.
#[test]
fn a_call_that_fails_is_a_reason() {
    let Some(driver) = driver(None) else { return };
    let folder = folder();
    let want = hits(&folder.run(&["search", "real", "--row", "7", "--json"]).succeeded());
    search(&folder, &driver, "graph", &[("MEGARING_DRIVER_LOG", "log")]).succeeded();
    let names: BTreeSet<String> =
        log(&folder).iter().filter_map(|call| call.split(' ').next()).map(Into::into).collect();
    assert!(names.len() > 35, "{names:?}");
    for name in &names {
        let failing = format!("{name}:1");
        let ran = search(&folder, &driver, "graph", &[("MEGARING_DRIVER_FAIL", &failing)]);
        match ran.status {
            Some(0) => assert_eq!(hits(&ran), want, "{failing}"),
            Some(1) => {
                let told: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("megaring: ")).collect();
                assert!(told.len() == 1 && told[0].contains("cuda"), "{failing}: {ran:?}");
            }
            _ => panic!("{failing}: {ran:?}"),
        }
        assert!(!ran.stderr.contains("panicked"), "{failing}: {ran:?}");
    }
}

#[test]
fn a_driver_that_is_none_or_lacks_a_function_is_told_and_the_cpu_goes_on() {
    let (Some(driver), Some(lacking)) = (driver(None), driver(Some("cuGraphUpload"))) else { return };
    let folder = folder();
    search(&folder, &lacking, "persistent", &[]).failed(1, &["cuGraphUpload"]);
    let stub = [("MEGARING_DRIVER_FAIL", "cuInit:1:34")];
    search(&folder, &driver, "persistent", &stub).failed(1, &["a toolkit's stub"]);
    for (driver, variables, reason) in [(&lacking, &[][..], "cuGraphUpload"), (&driver, &stub, "a toolkit's stub")] {
        let records = run(&folder, driver, &["doctor", "--json"], variables).records();
        let of = |check: &str| records.iter().find(|record| record["check"] == check).unwrap();
        assert!(of("backend cuda")["found"].as_str().unwrap().contains(reason), "{records:?}");
        assert_eq!(of("backend cpu")["state"], "ok");
    }
}

#[test]
fn a_kernel_that_uploads_wait_for_is_launched_for_each_batch() {
    let Some(driver) = driver(None) else { return };
    let folder = folder();
    let want = hits(&folder.run(&["search", "real", "--row", "7", "--json"]).succeeded());
    let queue = [("MEGARING_DRIVER_QUEUE", "one")];
    assert_eq!(hits(&search(&folder, &driver, "persistent", &queue).succeeded()), want);
    let records = run(&folder, &driver, &["doctor", "--json"], &queue).records();
    let cuda = records.iter().find(|record| record["check"] == "backend cuda").unwrap();
    assert!(cuda["found"].as_str().unwrap().contains("uploads wait for the kernel's end"), "{cuda}");
}
