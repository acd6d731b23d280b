//! A client that sends what a well-made one would not, and keeps no deadline of its own.

use std::net::SocketAddr;

use bytes::Bytes;
use prost::Message;
use tokio::net::TcpStream;
use tonic::codegen::http;

use crate::common::within_a_minute;

/// A message with the five bytes before it that gRPC wants.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    framed_bytes(&message.encode_to_vec())
}

pub(crate) fn framed_bytes(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("a short message").to_be_bytes();
    [&[0][..], &length, message].concat().into()
}

/// What came back.
pub(crate) struct Reply {
    headers: http::HeaderMap,
    pub(crate) data: Vec<u8>,
    /// The headers again, where the status came with them.
    trailers: http::HeaderMap,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }

    /// The status: its number and its message as sent.
    pub(crate) fn status(&self) -> (i32, String) {
        let text = |name: &str| self.trailers.get(name).map(|value| value.to_str().expect("ASCII").to_owned());
        let code = text("grpc-status").expect("a status").parse().expect("a number");
        (code, text("grpc-message").unwrap_or_default())
    }
}

/// Posts to a method (such as `Compute/Search`) and waits for the status: its number and its message as sent.
///
/// With `close` the request ends after `body`; otherwise it stays open.
pub(crate) async fn call(server: SocketAddr, method: &str, timeout: &str, body: Bytes, close: bool) -> (i32, String) {
    let headers = Some(("grpc-timeout", timeout)).filter(|(_, timeout)| !timeout.is_empty());
    post(server, method, headers.as_slice(), body, close).await.status()
}

/// [`call`] with these headers, and all that comes back.
pub(crate) async fn post(
    server: SocketAddr,
    method: &str,
    headers: &[(&str, &str)],
    body: Bytes,
    close: bool,
) -> Reply {
    within_a_minute("the call ends", post_unbounded(server, method, headers, body, close)).await
}

async fn post_unbounded(server: SocketAddr, method: &str, headers: &[(&str, &str)], body: Bytes, close: bool) -> Reply {
    let socket = TcpStream::connect(server).await.expect("it connects");
    let (client, connection) = h2::client::handshake(socket).await.expect("an HTTP/2 server");
    let connection = tokio::spawn(connection);
    let mut request = http::Request::post(format!("http://{server}/megaring.v1.{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut client = client.ready().await.expect("room for a request");
    let (response, mut sending) = client.send_request(request.body(()).expect("a good request"), false).expect("sent");
    // A server that refuses the headers may have answered, and closed the stream, before the body is sent.
    let _ = sending.send_data(body, close);
    let response = response.await.expect("a response");
    let headers = response.headers().clone();
    let mut body = response.into_body();
    let mut received = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.expect("data");
        body.flow_control().release_capacity(data.len()).expect("it was received");
        received.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.expect("an end").unwrap_or_else(|| headers.clone());
    connection.abort();
    Reply { headers, data: received, trailers }
}
