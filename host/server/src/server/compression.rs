//! What tonic leaves to a server about compressed messages.
//!
//! - A reply is compressed where the request is. Clients say in every call what they could decompress, and tonic takes
//!   that for a wish; but most of them are near, and for them it is nothing but a delay.
//! - tonic compresses where a call is polled. A large message takes it a second and more, so such a call gives its
//!   async thread to others while it is polled.
//! - A message that cannot be decompressed is its sender's fault ([`of_compressed`]).

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::Either;
use http_body::Frame;
use tokio::runtime::{Handle, RuntimeFlavor};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tower::{Layer, Service};

use crate::error::of_compressed;

/// The header that says how messages are compressed.
const ENCODING: &str = "grpc-encoding";
/// The header that says how the other side's may be.
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// Wraps services in [`CompressionService`].
#[derive(Debug, Clone, Copy)]
pub(super) struct CompressionLayer;

/// A service whose calls may be compressed.
#[derive(Debug, Clone)]
pub(super) struct CompressionService<S>(S);

impl<S> Layer<S> for CompressionLayer {
    type Service = CompressionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CompressionService(inner)
    }
}

impl<S> Service<http::Request<Body>> for CompressionService<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let headers = request.headers_mut();
        if headers.get(ENCODING).is_none_or(|encoding| encoding == "identity") {
            headers.remove(ACCEPT_ENCODING);
            return Either::Left(self.0.call(request));
        }
        let mut answer = Box::pin(self.0.call(request));
        Either::Right(Box::pin(async move {
            let response = poll_fn(|context| aside(|| answer.as_mut().poll(context))).await?;
            Ok(match Status::from_header_map(response.headers()) {
                Some(refusal) => of_compressed(refusal).into_http(),
                None => response.map(|body| Body::new(Aside(body))),
            })
        }))
    }
}

/// A reply whose messages are compressed as they are read.
struct Aside(Body);

impl http_body::Body for Aside {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        aside(|| Pin::new(&mut self.0).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

/// Does what may take long without holding up the other tasks of this thread, where the runtime has more than one.
fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}
