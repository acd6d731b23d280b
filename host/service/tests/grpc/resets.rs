//! Streams that are opened and reset at once: a burst of them disturbs no other call of the connection, a flood ends
//! the connection. What the system holds of the frames is written before the server looks at the first.

use std::io::{BufReader, Read as _, Write as _};
use std::net::TcpStream;

use megaring_proto::v1 as pb;
use megaring_server::Server;
use tokio::sync::oneshot;

use crate::common::{Wanted, engine, folder, within_a_minute};
use crate::raw;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const BURST: u32 = 1_000;
const FLOOD: u32 = 100_000;

/// What became of the call behind all the others.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Answered,
    /// The connection was ended, for this reason; empty where it could not be read any more.
    Refused(String),
}

impl End {
    #[track_caller]
    fn is_refused(&self, expected: &str) {
        let is_it = matches!(self, Self::Refused(reason) if reason.is_empty() || reason == expected);
        assert!(is_it, "{self:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_cancelled_calls_disturbs_no_other() {
    assert_eq!(behind(BURST, reset).await, End::Answered);
}

/// CVE-2023-44487.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_cancelled_calls_ends_the_connection() {
    behind(FLOOD, reset).await.is_refused("too_many_resets");
}

/// CVE-2025-8671: the client makes the server reset its streams.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_calls_that_the_server_must_reset_ends_the_connection() {
    assert_eq!(behind(BURST, widen_too_far).await, End::Answered);
    behind(FLOOD, widen_too_far).await.is_refused("too_many_internal_resets");
}

/// The client gives the stream up.
fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

/// The client makes the stream's window larger than any may be.
fn widen_too_far(stream: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes())
}

/// Opens so many streams with a frame of `then` behind each, and makes a call on the same connection.
async fn behind(streams: u32, then: fn(u32) -> Vec<u8>) -> End {
    let folder = folder();
    let setup = Wanted::default();
    let engine = engine(folder.path(), &setup);
    let server = Server::bind(setup.server, engine).expect("a free port");
    let mut frames = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat();
    for number in 0..streams {
        frames.extend(open(number));
        frames.extend(then(stream(number)));
    }
    frames.extend(open(streams));
    frames.extend(frame(DATA, END_STREAM, stream(streams), &raw::framed(&pb::ListRequest {})));
    let socket = TcpStream::connect(server.address().to_string()).expect("it connects");
    let mut writing = socket.try_clone().expect("a second handle");
    let writer = std::thread::spawn(move || {
        // A server that has had enough reads no further.
        let _ = writing.write_all(&frames);
    });
    while streams == BURST && !writer.is_finished() {
        tokio::task::yield_now().await;
    }
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(async { drop(stopped.await) }));
    let end = tokio::task::spawn_blocking(move || await_end(socket, stream(streams)));
    let end = within_a_minute("the call ends", end).await.expect("no panic");
    writer.join().expect("no panic");
    drop(stop);
    serving.await.expect("no panic").expect("it serves to the end");
    end
}

/// The number of a client's stream.
fn stream(number: u32) -> u32 {
    2 * number + 1
}

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), body].concat()
}

/// The headers of a call of `Corpora/List`. The first stream's go into the table that both sides keep; later ones are
/// places in it.
fn open(number: u32) -> Vec<u8> {
    // POST and http have places from the beginning.
    let mut block = vec![0x83, 0x86];
    if number > 0 {
        block.extend([0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62]);
        return frame(HEADERS, END_HEADERS, stream(number), &block);
    }
    let names: [(&[u8], &str); 4] = [
        (&[0x44], "/megaring.v1.Corpora/List"),
        (&[0x41], "x"),
        (&[0x5f], "application/grpc"),
        (b"\x40\x02te", "trailers"),
    ];
    for (name, value) in names {
        block.extend([name, &[u8::try_from(value.len()).expect("a short value")], value.as_bytes()].concat());
    }
    frame(HEADERS, END_HEADERS, stream(number), &block)
}

/// Reads until the call of this stream is answered or the connection ends.
fn await_end(socket: TcpStream, call: u32) -> End {
    let mut socket = BufReader::new(socket);
    loop {
        let mut head = [0; 9];
        if socket.read_exact(&mut head).is_err() {
            return End::Refused(String::new());
        }
        let [a, b, c, kind, _, stream @ ..] = head;
        let mut body = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        if socket.read_exact(&mut body).is_err() {
            return End::Refused(String::new());
        }
        match kind {
            GOAWAY => return End::Refused(String::from_utf8_lossy(&body[8..]).into_owned()),
            DATA if u32::from_be_bytes(stream) == call => return End::Answered,
            _ => {}
        }
    }
}
