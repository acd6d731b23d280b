//! `megaring serve` as a process: what it announces, what it locks, how it ends.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Stdio};

use crate::common::Folder;
use megaring_datasets::Matrix;
use megaring_proto::v1 as pb;
use megaring_proto::v1::compute_client::ComputeClient;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

struct Serving {
    child: Child,
    stdout: BufReader<ChildStdout>,
    listening: Value,
}

impl Serving {
    fn start(folder: &Folder, args: &[&str]) -> Self {
        let args = [&["serve", "--json", "--listen", "127.0.0.1:0"], args].concat();
        let mut child = folder.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let listening = serde_json::from_str(&line).unwrap_or_else(|_| {
            let mut stderr = String::new();
            child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
            panic!("{line:?} {stderr}")
        });
        Self { child, stdout, listening }
    }

    fn address(&self) -> String {
        self.listening["address"].as_str().unwrap().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The exit status, the last line of stdout and all of stderr.
    fn end(mut self) -> (Option<i32>, Value, String) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let status = self.child.wait().unwrap().code();
        (status, rest.lines().last().map(|line| serde_json::from_str(line).unwrap()).unwrap_or_default(), stderr)
    }
}

fn folder() -> Folder {
    let folder = Folder::new();
    let rows = Matrix::new(3, 2, vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    folder.write_npy("rows.npy", &rows).run(&["corpus", "import", "three", "rows.npy"]).succeeded();
    folder
}

fn search(address: &str) -> Vec<u32> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = ComputeClient::connect(format!("http://{address}")).await.unwrap();
        let data: Vec<u8> = [1.0_f32, 0.25].iter().flat_map(|value| value.to_le_bytes()).collect();
        let queries =
            pb::Vectors { data: data.into(), dtype: pb::Dtype::Float32.into(), rows: 1, dim: 2, int8_scale: None };
        let request = pb::SearchRequest { corpus: "three".into(), queries: Some(queries), k: 2, ..Default::default() };
        client.search(request).await.unwrap().into_inner().results[0].rows.clone()
    })
}

#[test]
fn serves_until_it_is_told_to_stop() {
    let folder = folder();
    for signal in [Signal::TERM, Signal::INT] {
        let serving = Serving::start(&folder, &[]);
        assert_eq!(serving.listening["event"], "listening");
        assert_eq!(serving.listening["pid"].as_u64(), Some(u64::from(serving.child.id())));
        assert_eq!(search(&serving.address()), [0, 2]);
        serving.signal(signal);
        let (status, last, stderr) = serving.end();
        assert_eq!((status, &last["drained"]), (Some(0), &Value::Bool(true)), "{stderr}");
        assert_eq!((&last["jobs_answered"], &last["failovers"]), (&json!(1), &json!(0)));
        assert_eq!(last["counters"], json!({}), "the CPU counts nothing beside");
        assert!(stderr.contains("draining"), "{stderr}");
    }
}

#[test]
fn while_it_serves_others_read_but_do_not_write() {
    let folder = folder();
    let serving = Serving::start(&folder, &[]);
    let pid = serving.child.id().to_string();
    folder.run(&["corpus", "create", "other", "--dim", "2"]).failed(1, &["megaring-data", "in use", &pid]);
    folder.run(&["corpus", "append", "three", "rows.npy"]).failed(1, &["in use", &pid]);
    folder.run(&["serve", "--listen", "127.0.0.1:0"]).failed(1, &["in use", &pid]);
    folder.run(&["search", "three", "--row", "0"]).succeeded();
    folder.run(&["corpus", "verify"]).succeeded();
    serving.signal(Signal::TERM);
    assert_eq!(serving.end().0, Some(0));
    folder.run(&["corpus", "create", "other", "--dim", "2"]).succeeded();
}

#[test]
fn a_port_in_use_is_one_sentence() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = folder.run(&["serve", "--listen", &address]).failed(1, &[&address, "port"]);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
}

/// A connection whose client does nothing more, not even answer the server's farewell.
fn silent_client(address: &str) -> (tokio::runtime::Runtime, ComputeClient<tonic::transport::Channel>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(async {
        let mut client = ComputeClient::connect(format!("http://{address}")).await.unwrap();
        client.encode(pb::EncodeRequest::default()).await.unwrap();
        client
    });
    (runtime, client)
}

#[test]
fn draining_has_a_limit() {
    let folder = folder();
    let serving = Serving::start(&folder, &["--drain-timeout", "100ms"]);
    let silent = silent_client(&serving.address());
    serving.signal(Signal::TERM);
    let (status, last, stderr) = serving.end();
    assert_eq!((status, &last["drained"]), (Some(1), &Value::Bool(false)), "{stderr}");
    assert!(stderr.contains("cut off") && stderr.contains("100 ms"), "{stderr}");
    drop(silent);
}

#[test]
fn a_second_signal_ends_at_once() {
    let folder = folder();
    let mut serving = Serving::start(&folder, &["--drain-timeout", "60m", "--log", "off"]);
    let silent = silent_client(&serving.address());
    serving.signal(Signal::TERM);
    let mut stderr = BufReader::new(serving.child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("draining"), "{line}");
    serving.signal(Signal::INT);
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("second signal; calls"), "{line}");
    assert_eq!(serving.child.wait().unwrap().code(), Some(1));
    drop(silent);
}

#[test]
fn settings_reach_the_server() {
    let folder = folder();
    folder.write("megaring.toml", "message_limit = \"1KiB\"\nlog = \"off\"");
    let serving = Serving::start(&folder, &["--events-file", "events"]);
    assert!(folder.path("events").metadata().unwrap().len() > 0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let status = runtime.block_on(async {
        let mut client = ComputeClient::connect(format!("http://{}", serving.address())).await.unwrap();
        let memories = vec![pb::Memory { content: "x".repeat(4096), ..Default::default() }];
        client.encode(pb::EncodeRequest { memories, ..Default::default() }).await.unwrap_err()
    });
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status:?}");
    // With it goes the connection, which nobody would close otherwise.
    drop(runtime);
    serving.signal(Signal::TERM);
    let (status, _, stderr) = serving.end();
    assert_eq!(status, Some(0));
    assert!(!stderr.contains("INFO"), "{stderr}");
}
