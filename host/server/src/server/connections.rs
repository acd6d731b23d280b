//! Connections before gRPC: how many there may be, their encryption, and the end of those that nobody uses.
//!
//! A connection counts from its acceptance to its end. While there are as many as may be, further ones wait with the
//! system. One whose encryption is not agreed upon soon, that says nothing at first, or on which no call has been under
//! way for long, is closed.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::transport::server::Connected;
use tower::{Layer, Service};

use super::address::{self, Listener};
use super::tls::Certificates;

/// How long a client may take to agree upon encryption, and then to say something.
const FIRST_WORDS: Duration = Duration::from_secs(10);
/// How long nobody is accepted where the system has no room for another connection.
const NO_ROOM: Duration = Duration::from_millis(100);

/// What bounds connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// At once.
    pub(super) connections: usize,
    /// How long one may be without a call; zero is for ever.
    pub(super) idle: Duration,
}

/// The connections of a listener, ready for HTTP/2.
pub(super) fn accept(
    listener: Listener,
    certificates: Option<Arc<Certificates>>,
    limits: Limits,
) -> impl Stream<Item = Result<Connection, Infallible>> {
    let Limits { connections, idle } = limits;
    let places = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
    let accepted = stream::unfold((listener, places), |(listener, places)| async move {
        let place = places.clone().acquire_owned().await.ok()?;
        let socket = accepted(&listener).await;
        Some(((socket, place), (listener, places)))
    });
    let ready = move |(socket, place): (Box<dyn address::Stream>, OwnedSemaphorePermit)| {
        let acceptor = certificates.as_deref().map(Certificates::acceptor);
        async move {
            let io = match acceptor {
                None => socket,
                Some(acceptor) => {
                    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
                    let made = tokio::time::timeout(FIRST_WORDS, acceptor.accept(socket)).await.map_err(late).flatten();
                    let made = made.inspect_err(|error| tracing::debug!(%error, "a connection is not encrypted"))?;
                    Box::new(made)
                }
            };
            Ok(Connection::new(io, place, idle))
        }
    };
    let made = accepted.map(ready).buffer_unordered(connections);
    made.filter_map(async |made: io::Result<Connection>| made.ok().map(Ok))
}

/// The next connection that comes about.
async fn accepted(listener: &Listener) -> Box<dyn address::Stream> {
    loop {
        match listener.accept().await {
            Ok(socket) => return socket,
            // Its client has gone already.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted for now");
                tokio::time::sleep(NO_ROOM).await;
            }
        }
    }
}

/// A connection.
pub(super) struct Connection {
    io: Box<dyn address::Stream>,
    calls: Calls,
    /// How long it may be without a call; zero is for ever.
    idle: Duration,
    heard: bool,
    /// When it is looked at next.
    looks: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

/// The calls of a connection.
#[derive(Debug, Clone)]
pub(super) struct Calls(Arc<Mutex<UnderWay>>);

#[derive(Debug)]
struct UnderWay {
    count: usize,
    /// When it last had one, or began.
    since: Instant,
}

impl Connection {
    fn new(io: Box<dyn address::Stream>, place: OwnedSemaphorePermit, idle: Duration) -> Self {
        let calls = Calls(Arc::new(Mutex::new(UnderWay { count: 0, since: Instant::now() })));
        let looks = Box::pin(tokio::time::sleep(FIRST_WORDS));
        Self { io, calls, idle, heard: false, looks, _place: place }
    }

    /// When it has been without a call for long; `None` is never.
    fn ends(&self) -> Option<Instant> {
        let since = self.calls.idle_since().unwrap_or_else(Instant::now);
        // A time that cannot be counted is for ever, too.
        since.checked_add(self.idle).filter(|_| !self.idle.is_zero())
    }

    /// Whether nothing more is to be read from it.
    fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.looks.as_mut().poll(context));
            if !self.heard {
                return Poll::Ready(());
            }
            let Some(ends) = self.ends() else { return Poll::Pending };
            if ends <= Instant::now() {
                return Poll::Ready(());
            }
            self.looks.as_mut().reset(ends);
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_read(context, buffer) {
            Poll::Ready(read) => {
                if !std::mem::replace(&mut self.heard, true)
                    && let Some(ends) = self.ends()
                {
                    self.looks.as_mut().reset(ends);
                }
                Poll::Ready(read)
            }
            // As if the client had ended it.
            Poll::Pending => self.poll_over(context).map(Ok),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }
}

impl Connected for Connection {
    type ConnectInfo = Calls;

    fn connect_info(&self) -> Calls {
        self.calls.clone()
    }
}

impl Calls {
    fn under_way(&self) -> std::sync::MutexGuard<'_, UnderWay> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when it has had none; `None` while it has some.
    fn idle_since(&self) -> Option<Instant> {
        let under_way = self.under_way();
        (under_way.count == 0).then_some(under_way.since)
    }

    fn begin(self) -> UnderWayCall {
        self.under_way().count += 1;
        UnderWayCall(self)
    }
}

/// A call that is under way until this is dropped.
struct UnderWayCall(Calls);

impl Drop for UnderWayCall {
    fn drop(&mut self) {
        let mut under_way = self.0.under_way();
        under_way.count -= 1;
        under_way.since = Instant::now();
    }
}

/// Wraps services in [`CountingService`].
#[derive(Debug, Clone, Copy)]
pub(super) struct CountingLayer;

/// A service whose calls count as such on their connections, until all of the answer is sent.
#[derive(Debug, Clone)]
pub(super) struct CountingService<S>(S);

impl<S> Layer<S> for CountingLayer {
    type Service = CountingService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CountingService(inner)
    }
}

impl<S> Service<http::Request<Body>> for CountingService<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let call = request.extensions().get::<Calls>().cloned().map(Calls::begin);
        let answer = self.0.call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| Body::new(Counted { body, _call: call }))) })
    }
}

/// A body that is a part of a call.
struct Counted {
    body: Body,
    _call: Option<UnderWayCall>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
