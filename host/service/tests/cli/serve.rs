//! `megaring serve` as a process: what it announces, what it locks, how it ends.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::common::Folder;
#[cfg(target_os = "linux")]
use crate::packed;
use megaring_datasets::Matrix;
use megaring_proto::v1 as pb;
use megaring_proto::v1::compute_client::ComputeClient;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// A running server.
pub(crate) struct Serving {
    child: Child,
    stdout: BufReader<ChildStdout>,
    listening: Value,
}

impl Serving {
    pub(crate) fn start(folder: &Folder, args: &[&str]) -> Self {
        let listen: &[&str] = if args.contains(&"--listen") { &[] } else { &["--listen", "127.0.0.1:0"] };
        Self::run(&mut folder.command(&[&["serve", "--json"], listen, args].concat()))
    }

    /// A server that can write no file beyond so many KiB, as if the disk were full.
    pub(crate) fn start_on_full_disk(folder: &Folder, kib: usize, args: &[&str]) -> Self {
        let command = folder.command(&[&["serve", "--json", "--listen", "127.0.0.1:0"], args].concat());
        let mut shell = Command::new("sh");
        // In blocks of 512 bytes. Who ignores the signal is told by an error.
        shell.arg("-c").arg(format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", kib * 2)).arg("sh");
        shell.arg(command.get_program()).args(command.get_args()).env_clear();
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.stdin(Stdio::null()).current_dir(command.get_current_dir().unwrap());
        Self::run(&mut shell)
    }

    fn run(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
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

    pub(crate) fn address(&self) -> String {
        self.listening["address"].as_str().unwrap().to_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The exit status, the last line of stdout and all of stderr.
    pub(crate) fn end(mut self) -> (Option<i32>, Value, String) {
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
        let address = serving.address();
        serving.signal(signal);
        let (status, last, stderr) = serving.end();
        assert_eq!((status, &last["drained"]), (Some(0), &Value::Bool(true)), "{stderr}");
        assert_eq!((&last["jobs_answered"], &last["failovers"]), (&json!(1), &json!(0)));
        assert_eq!(last["counters"], json!({}), "the CPU counts nothing beside");
        // What was said already is not said again by the log.
        assert_eq!((stderr.matches("draining").count(), stderr.contains(&address)), (1, false), "{stderr}");
    }
}

#[test]
fn names_are_resolved() {
    let folder = folder();
    let serving = Serving::start(&folder, &["--listen", "localhost:0"]);
    let address: SocketAddr = serving.address().parse().unwrap();
    assert!(address.ip().is_loopback() && address.port() != 0, "{address}");
    assert_eq!(search(&serving.address()), [0, 2]);
    serving.signal(Signal::TERM);
    assert_eq!(serving.end().0, Some(0));
    folder.run(&["serve", "--listen", "a..b:7272"]).failed(1, &["a..b:7272 names no address"]);
    for wrong in ["localhost", "7272", ":7272", "localhost:", "localhost:70000", "::1:7272"] {
        folder.run(&["serve", "--listen", wrong]).failed(2, &["--listen", "such as localhost:7272"]);
    }
}

/// Memory is taken for what a message may become, not for what it would.
#[cfg(target_os = "linux")]
#[test]
fn a_small_message_that_would_become_a_gigabyte_takes_little() {
    const GIGABYTE: usize = 1 << 30;
    let folder = folder();
    let serving = Serving::start(&folder, &["--message-limit", "8MiB", "--log", "off"]);
    assert_eq!(search(&serving.address()), [0, 2]);
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", serving.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
    };
    let before = peak();
    for (encoding, packed) in [("gzip", packed::gzip(GIGABYTE)), ("zstd", packed::zstd(GIGABYTE))] {
        assert!(packed.len() < 8 << 20);
        assert_eq!(encode_packed(&serving.address(), encoding, &packed), tonic::Code::OutOfRange, "{encoding}");
    }
    let more = peak() - before;
    assert!(more < GIGABYTE / 8, "{more} bytes more");
    serving.signal(Signal::TERM);
    assert_eq!(serving.end().0, Some(0));
}

/// The status of an Encode whose message is these compressed bytes.
#[cfg(target_os = "linux")]
fn encode_packed(address: &str, encoding: &str, packed: &[u8]) -> tonic::Code {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let (client, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let request = tonic::codegen::http::Request::post(format!("http://{address}/megaring.v1.Compute/Encode"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-encoding", encoding);
        let (response, mut body) =
            client.ready().await.unwrap().send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(packed::framed(packed).into(), true).unwrap();
        let response = response.await.unwrap();
        tonic::Code::from_bytes(response.headers()["grpc-status"].as_bytes())
    })
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
