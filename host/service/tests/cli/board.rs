//! `board`: what a server's state board says, by the file that it leaves and over the network.

use rustix::process::Signal;
use serde_json::Value;

use crate::common::Folder;
use crate::serve::Serving;

#[test]
fn a_server_shows_how_it_is_and_that_it_has_ended() {
    let folder = Folder::new();
    folder.run(&["board"]).failed(1, &["there is no board at", "--server"]);
    let serving = Serving::start(&folder, &[]);
    let address = serving.address();
    for args in [&["board", "--json"][..], &["board", "--json", "--server", &address]] {
        let records = folder.run(args).succeeded().records();
        let [board] = &records[..] else { panic!("{records:?}") };
        assert_eq!((&board["alive"], board["pid"].is_u64()), (&Value::Bool(true), true), "{board}");
        let health = board["health"].as_object().unwrap();
        assert!(health.len() == 7 && health.values().all(|value| value.as_f64().is_some_and(|value| value >= 0.0)));
        let breakers = board["breakers"].as_array().unwrap();
        assert!(breakers.iter().any(|breaker| breaker["operation"] == "search" && breaker["state"] == "closed"));
    }
    let shown = folder.run(&["board"]).succeeded().stdout;
    assert!(shown.contains("is alive") && shown.contains("memory_pressure") && shown.contains("closed"), "{shown}");
    folder.run(&["board", "--file", "x", "--server", &address]).failed(2, &["leave one out"]);
    serving.signal(Signal::TERM);
    assert_eq!(serving.end().0, Some(0));
    let left = folder.run(&["board", "--json"]).succeeded().records();
    assert_eq!((&left[0]["alive"], &left[0]["silent_seconds"]), (&Value::Bool(false), &Value::Null));
    assert!(folder.run(&["board"]).succeeded().stdout.contains("has ended"));
}

#[test]
fn what_a_gate_cannot_go_by_is_refused_as_usage() {
    let folder = Folder::new();
    for (args, words) in [
        (&["--rate", "seek=1"][..], "no calls are counted as \"seek\"; there are"),
        (&["--rate", "search"], "KIND=RATE"),
        (&["--rate", "search=0"], "no rate"),
        (&["--rule", "mood > 1: read"], "utilisation"),
        (&["--rule", "backlog > 1: reed"], "none of read, query"),
        (&["--maturity", "ripe"], "stable, experimental"),
        (&["--breaker-failures", "0"], "0"),
    ] {
        folder.run(&[&["serve", "--listen", "127.0.0.1:0"], args].concat()).failed(2, &[words]);
    }
}
