//! Before every call, and before a message is decoded: whose token it has, and then, once, the gate.
//!
//! Of a call of one message the gate is told how long that is: the first five bytes of a gRPC message say so, and they
//! are waited for. Of a stream it is asked at once, as of a call without a message; the size of its messages is limited
//! as they come. What is refused is never read any further. Health and reflection have no row in the table, and pass.
//! Behind the gate come the tenant's own rate and, where a ledger is required, whether it can be written.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use megaring_core::Error;
use megaring_core::gate::{self, Cost, Denial, Handler, Reason, TOOLS};
use megaring_engine::Engine;
use megaring_simd::gate::{Call, Gate};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tower::{Layer, Service};

use super::message_memory::{Counted, MessageMemory, PREFIX_BYTES, Received};
use crate::error::status;
use crate::service::Passed;
use crate::tenants::{Identity, Tenants};

/// When a new try is worthwhile where the ledger cannot be written: it is tried again by then.
const RETRY_LEDGER: Duration = Duration::from_secs(1);

/// Wraps services in [`GateService`].
#[derive(Clone)]
pub(super) struct GateLayer {
    pub(super) gate: Arc<Gate>,
    pub(super) tenants: Arc<Tenants>,
    /// Told of what is refused.
    pub(super) engine: Arc<Engine>,
    pub(super) requires_ledger: bool,
    pub(super) memory: Arc<MessageMemory>,
}

/// A service that only those calls reach which the gate lets in.
#[derive(Clone)]
pub(super) struct GateService<S> {
    layer: GateLayer,
    inner: S,
}

impl<S> Layer<S> for GateLayer {
    type Service = GateService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GateService { layer: self.clone(), inner }
    }
}

impl<S> Service<http::Request<Body>> for GateService<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Some(tool) = gate::tool_id(request.uri().path().trim_start_matches('/')) else {
            return Box::pin(self.inner.call(request));
        };
        let identity = match self.layer.tenants.identify(request.headers()) {
            Ok(identity) => identity,
            Err(error) => {
                let refusal = self.layer.turn_away(tool, error);
                return Box::pin(async move { Ok(refusal.into_http()) });
            }
        };
        let call = Call { tool, role: identity.role, bytes: 0 };
        if TOOLS[usize::from(tool)].handler == Handler::Streaming as u8 {
            return match self.layer.pass(call, identity) {
                Ok(passed) => {
                    let (mut parts, body) = request.into_parts();
                    let received = Received::of_stream();
                    let body = Counted::new(body, &parts.headers, self.layer.memory.clone(), received.clone());
                    parts.extensions.insert(passed);
                    parts.extensions.insert(received);
                    Box::pin(self.inner.call(http::Request::from_parts(parts, Body::new(body))))
                }
                Err(refusal) => Box::pin(async move { Ok(refusal.into_http()) }),
            };
        }
        let layer = self.layer.clone();
        // The one that is ready; what is left in its place is asked anew.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let begun = Begun::read(body).await;
            match layer.pass(Call { bytes: begun.announced(), ..call }, identity) {
                Ok(passed) => {
                    parts.extensions.insert(passed);
                    // Held until the call is answered.
                    let received = Received::default();
                    let body = Counted::new(begun, &parts.headers, layer.memory, received.clone());
                    let answer = inner.call(http::Request::from_parts(parts, Body::new(body))).await;
                    drop(received);
                    answer
                }
                Err(refusal) => Ok(refusal.into_http()),
            }
        })
    }
}

impl GateLayer {
    /// Lets a call in, or says why not.
    fn pass(&self, call: Call, identity: Identity) -> Result<Passed, Status> {
        let decision = self.gate.check(call);
        let denial = if decision.is_allowed() {
            identity.count(call.tool).and_then(|()| self.ledger_is_kept(decision.cost())).err()
        } else {
            self.gate.denial(call, &decision)
        };
        let Some(denial) = denial else { return Ok(Passed { tool: call.tool, cost: decision.cost(), identity }) };
        self.engine.telemetry().denied(&identity.tenant, call.tool, Some(call.role), call.bytes, &denial);
        Err(status(&Error::Denied(denial)))
    }

    /// The status of a call of which nobody knows who makes it.
    fn turn_away(&self, tool: u16, error: Error) -> Status {
        if let Error::Denied(denial) = &error {
            self.engine.telemetry().denied("", tool, None, 0, denial);
        }
        status(&error)
    }

    /// Whether what becomes of a call can be kept, where it has to be. Looking into the service goes on, so that people
    /// can see what is wrong.
    fn ledger_is_kept(&self, cost: Cost) -> Result<(), Denial> {
        let recorder = self.engine.recorder().filter(|_| self.requires_ledger && cost != Cost::Read);
        let fault = recorder.and_then(|recorder| recorder.state().fault);
        fault.map_or(Ok(()), |fault| {
            let description = format!("what becomes of it could not be kept: {fault}");
            Err(Denial { reason: Reason::Ledger, description, retry_after: Some(RETRY_LEDGER) })
        })
    }
}

/// A body whose beginning was read.
struct Begun {
    head: Bytes,
    /// What came in the place of more data.
    then: Option<Result<Frame<Bytes>, Status>>,
    rest: Body,
}

impl Begun {
    /// Reads the prefix of the first message, or what there is.
    async fn read(mut rest: Body) -> Self {
        let mut head = Bytes::new();
        while head.len() < PREFIX_BYTES {
            match poll_fn(|context| Pin::new(&mut rest).poll_frame(context)).await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if head.is_empty() => head = data,
                    Ok(data) => head = [head, data].concat().into(),
                    Err(trailers) => return Self { head, then: Some(Ok(trailers)), rest },
                },
                Some(Err(broken)) => return Self { head, then: Some(Err(broken)), rest },
                None => break,
            }
        }
        Self { head, then: None, rest }
    }

    /// Bytes of the first message, as its sender has them; 0 where there is none.
    fn announced(&self) -> u64 {
        let length = self.head.get(1..PREFIX_BYTES).and_then(<[u8]>::first_chunk);
        length.map_or(0, |length| u32::from_be_bytes(*length).into())
    }
}

impl http_body::Body for Begun {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if !self.head.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.head)))));
        }
        match self.then.take() {
            Some(then) => Poll::Ready(Some(then)),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_empty() && self.then.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Nobody asks a request's body, whose length gRPC does not know either.
        SizeHint::default()
    }
}
