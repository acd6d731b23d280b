//! The deadline of a call: read from `grpc-timeout` once, handed to the handler, and enforced over everything before
//! the reply's first byte, the reading of the request included.
//!
//! tonic has a timer for the same header, and answers CANCELLED when it fires. It starts after this layer was called
//! and asks this layer first when it fires, so the answer is always this layer's DEADLINE_EXCEEDED.

use std::task::{Context, Poll};
use std::time::Instant;

use megaring_core::Error;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tower::{Layer, Service};

use crate::error::status;
use crate::service::Deadline;
use crate::validate;

/// Wraps services in [`DeadlineService`].
#[derive(Debug, Clone, Copy)]
pub(super) struct DeadlineLayer;

/// A service whose calls end at their deadline.
#[derive(Debug, Clone)]
pub(super) struct DeadlineService<S>(S);

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService(inner)
    }
}

impl<S> Service<http::Request<Body>> for DeadlineService<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let deadline = match deadline(&request) {
            Ok(Some(deadline)) => deadline,
            Ok(None) => return Box::pin(self.0.call(request)),
            Err(malformed) => return Box::pin(async move { Ok(malformed.into_http()) }),
        };
        request.extensions_mut().insert(Deadline(deadline));
        let answer = tokio::time::timeout_at(deadline.into(), self.0.call(request));
        Box::pin(async move {
            let passed = |_| Ok(status(&Error::DeadlineExceeded { stage: "worked on" }).into_http());
            answer.await.unwrap_or_else(passed)
        })
    }
}

/// `None` where the client set none, or one beyond what the clock can count.
fn deadline(request: &http::Request<Body>) -> Result<Option<Instant>, Status> {
    let Some(header) = request.headers().get("grpc-timeout") else { return Ok(None) };
    // Whatever is not ASCII is not of the form either.
    let timeout = validate::timeout(header.to_str().unwrap_or_default()).map_err(|error| status(&error))?;
    Ok(Instant::now().checked_add(timeout))
}
