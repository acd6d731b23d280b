//! `ledger`: what a server has kept, the root over it, proofs, and damage.

use std::fs;

use megaring_datasets::Matrix;
use megaring_ledger::{Hash, RECORD_BYTES, leaf_hash, verify_inclusion};
use megaring_proto::v1 as pb;
use megaring_proto::v1::compute_client::ComputeClient;
use rustix::process::Signal;
use serde_json::Value;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::common::Folder;
use crate::serve::Serving;

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn hash(hex: &Value) -> Hash {
    bytes(hex).try_into().unwrap()
}

/// A folder with the ledger of a server that imported three rows, answered four searches, and deleted a row.
fn folder_with_ledger(end: Signal) -> Folder {
    let folder = Folder::new();
    folder.write_npy("rows.npy", &Matrix::new(3, 2, vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0]));
    let serving = Serving::start(&folder, &[]);
    let address = serving.address();
    folder.run(&["corpus", "import", "a", "rows.npy", "--server", &address]).succeeded();
    for _ in 0..4 {
        folder.run(&["search", "a", "--row", "0", "--server", &address]).succeeded();
    }
    folder.run(&["corpus", "delete", "a", "2", "--server", &address]).succeeded();
    let kept = || folder.run(&["ledger", "root", "--json"]).succeeded().records()[0]["size"].as_u64().unwrap();
    // Until it is on its way to the disk: a server that is killed has kept what was.
    while kept() < 6 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    serving.signal(end);
    serving.end();
    folder
}

#[test]
fn what_a_server_did_is_kept_and_can_be_proven() {
    let folder = folder_with_ledger(Signal::TERM);
    let records = folder.run(&["ledger", "query", "--json"]).succeeded().records();
    let kinds: Vec<_> = records.iter().map(|record| record["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["appended", "answered", "answered", "answered", "answered", "dropped"]);
    assert_eq!((&records[0]["call"], &records[0]["count"]), (&"megaring.v1.Corpora/Append".into(), &3.into()));
    let search = &records[1];
    assert_eq!((&search["call"], &search["operation"]), (&"megaring.v1.Compute/Search".into(), &"search".into()));
    assert_eq!((&search["role"], &search["backend"], &search["items"]), (&"admin".into(), &"cpu".into(), &1.into()));
    assert!(search["measured_ns"].as_u64().unwrap() > 0 && search["predicted_ns"].as_u64().unwrap() > 0, "{search}");
    for (args, count) in [
        (&["--operation", "search"][..], 4),
        (&["--operation", "encode"], 0),
        (&["--kind", "dropped"], 1),
        (&["--tenant", "somebody"], 0),
        (&["--tenant", "", "--limit", "2"], 2),
        (&["--since", "1000m"], 6),
    ] {
        let found = folder.run(&[&["ledger", "query", "--json"], args].concat()).succeeded().records();
        assert_eq!(found.len(), count, "{args:?}");
    }
    folder.run(&["ledger", "query", "--kind", "wrong"]).failed(2, &["answered, refused"]);
    let root = folder.run(&["ledger", "root", "--json"]).succeeded().records().remove(0);
    assert_eq!(root["size"], 6);
    for index in 0..6 {
        let proof = folder.run(&["ledger", "prove", &index.to_string(), "--json"]).succeeded().records().remove(0);
        let record: [u8; RECORD_BYTES] = bytes(&proof["bytes"]).try_into().unwrap();
        let path: Vec<Hash> = proof["path"].as_array().unwrap().iter().map(hash).collect();
        assert!(verify_inclusion(&leaf_hash(&record), index, 6, &path, &hash(&root["root"])), "{proof}");
    }
    folder.run(&["ledger", "prove", "6"]).failed(1, &["beyond the ledger, which has 6 records"]);
    let shown = folder.run(&["ledger", "query"]).succeeded().stdout;
    assert!(shown.lines().count() == 6 && shown.contains("search  1 item  in ") && shown.contains("on cpu"), "{shown}");
}

#[test]
fn a_killed_server_has_kept_what_it_did_and_the_next_goes_on() {
    let folder = folder_with_ledger(Signal::KILL);
    folder.run(&["ledger", "verify"]).succeeded();
    let before = folder.run(&["ledger", "root", "--size", "6", "--json"]).succeeded().records().remove(0);
    let serving = Serving::start(&folder, &[]);
    let address = serving.address();
    folder.run(&["search", "a", "--row", "0", "--server", &address]).succeeded();
    serving.signal(Signal::TERM);
    assert_eq!(serving.end().0, Some(0));
    let after = folder.run(&["ledger", "root", "--size", "6", "--json"]).succeeded().records().remove(0);
    assert_eq!(before["root"], after["root"], "what was there is unchanged");
    assert_eq!(folder.run(&["ledger", "root", "--json"]).succeeded().records()[0]["size"], 7);
}

#[test]
fn a_flipped_bit_is_found_and_its_record_named() {
    let folder = folder_with_ledger(Signal::TERM);
    let sound = folder.run(&["ledger", "verify", "--json"]).succeeded().records().remove(0);
    assert_eq!((&sound["sound"], &sound["size"]), (&true.into(), &6.into()));
    let segment = folder.path("megaring-data/.ledger/0000000000000000.seg");
    let mut content = fs::read(&segment).unwrap();
    content[128 + 2 * RECORD_BYTES + 60] ^= 4;
    fs::write(&segment, content).unwrap();
    let found = folder.run(&["ledger", "verify", "--json"]).failed(1, &["damaged", "1 fault"]);
    let faults = &found.records()[0]["faults"];
    assert!(faults[0].as_str().unwrap().contains("record 2"), "{faults}");
}

/// Waits for a client's work, which is gone with its connections then.
fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Encodes until the server says no, or this often; its last answer.
async fn encode(address: &str, times: usize) -> Result<(), Status> {
    let mut compute = ComputeClient::connect(format!("http://{address}")).await.unwrap();
    for _ in 0..times {
        compute.encode(pb::EncodeRequest::default()).await?;
    }
    Ok(())
}

async fn health(address: &str, service: &str) -> ServingStatus {
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let request = HealthCheckRequest { service: service.into() };
    HealthClient::new(channel).check(request).await.unwrap().into_inner().status()
}

#[test]
fn a_full_disk_stops_no_answer_unless_the_ledger_is_required() {
    let folder = Folder::new();
    // Room for the board, and for a few dozen records.
    let serving = Serving::start_on_full_disk(&folder, 8, &["--calibrate", "off"]);
    wait(encode(&serving.address(), 3000)).expect("answers go on");
    assert_eq!(wait(health(&serving.address(), "")), ServingStatus::Serving);
    serving.signal(Signal::TERM);
    let (status, last, stderr) = serving.end();
    assert!(last["ledger_lost"].as_u64().unwrap() > 0 && !last["ledger_fault"].is_null(), "{last}");
    assert!(status == Some(0) && stderr.contains("the ledger keeps nothing for now"), "{stderr}");

    let folder = Folder::new();
    let required = ["--calibrate", "off", "--ledger", "required"];
    let serving = Serving::start_on_full_disk(&folder, 8, &required);
    let refused = wait(encode(&serving.address(), 3000)).expect_err("what could not be kept is refused");
    let details = refused.get_error_details();
    let reason = details.error_info().unwrap().reason.clone();
    assert_eq!((refused.code(), reason.as_str()), (Code::Unavailable, "DENIED_LEDGER"), "{refused}");
    assert!(details.retry_info().is_some() && refused.message().contains("could not be kept"), "{refused}");
    wait(async {
        for service in ["", "megaring.v1.Compute", "megaring.v1.Budgets"] {
            let begun = std::time::Instant::now();
            // It is told a few times a second.
            while health(&serving.address(), service).await != ServingStatus::NotServing {
                assert!(begun.elapsed().as_secs() < 60, "{service:?} is well all along");
            }
        }
    });
    folder.run(&["board", "--server", &serving.address()]).succeeded();
    serving.signal(Signal::TERM);
    serving.end();
    // With room again, another goes on.
    let serving = Serving::start(&folder, &["--ledger", "required"]);
    wait(encode(&serving.address(), 10)).expect("there is room");
    serving.signal(Signal::TERM);
    assert_eq!(serving.end().0, Some(0));
    folder.run(&["ledger", "verify"]).succeeded();
}

#[test]
fn where_there_is_none_it_says_how_one_comes_about() {
    let folder = Folder::new();
    folder.run(&["ledger", "root"]).failed(1, &["there is no ledger in", "megaring serve"]);
    let serving = Serving::start(&folder, &["--ledger", "off"]);
    serving.signal(Signal::TERM);
    serving.end();
    folder.run(&["ledger", "root"]).failed(1, &["there is no ledger in"]);
}
