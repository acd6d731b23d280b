//! Streams both ways: several requests under way at once, replies in the order of the requests.
//!
//! When as many requests are under way as the bound allows, no further message is read, and HTTP/2 flow control holds
//! the client back: nothing is buffered without limit and nothing is lost. What ends a stream (an unreadable message,
//! the deadline, draining) comes in its place, after the replies to everything read before it.

use std::time::Instant;

use futures_util::future::Either;
use futures_util::{FutureExt as _, Stream, StreamExt as _, future, stream};
use megaring_core::Error;
use tokio::sync::watch;
use tonic::codegen::BoxStream;
use tonic::{Status, Streaming};

use crate::error::{of_compressed, status};
use crate::server::Received;

/// What bounds a stream.
pub(super) struct Bounds {
    /// Requests under way at once; 0 counts as 1.
    pub(super) in_flight: usize,
    /// When the whole call ends.
    pub(super) deadline: Option<Instant>,
    /// Turns true when no further request is to be read.
    pub(super) draining: watch::Receiver<bool>,
    /// The room that requests take until they are answered.
    pub(super) received: Received,
}

/// Answers every request of a stream. `answer` does not fail: an error is a kind of reply.
pub(super) fn pipeline<Q, A, F>(
    requests: Streaming<Q>,
    bounds: Bounds,
    answer: impl Fn(Q) -> F + Send + 'static,
) -> BoxStream<A>
where
    Q: Send + 'static,
    A: Send + 'static,
    F: Future<Output = A> + Send + 'static,
{
    let (in_flight, received) = (bounds.in_flight.max(1), bounds.received.clone());
    let replies = until_end(requests, bounds).map(move |request| match request {
        Ok(request) => {
            let room = received.next();
            Either::Left(answer(request).map(|reply| {
                drop(room);
                Ok(reply)
            }))
        }
        Err(end) => Either::Right(future::ready(Err(end))),
    });
    replies.buffered(in_flight).boxed()
}

/// The requests, and last the reason for which no more are read, where that is not the client's own end.
fn until_end<Q: Send + 'static>(
    requests: Streaming<Q>,
    bounds: Bounds,
) -> impl Stream<Item = Result<Q, Status>> + Send {
    stream::unfold(Some((requests, bounds)), |state| async move {
        let (mut requests, mut bounds) = state?;
        let next = next_or_end(&mut requests, &mut bounds).await?;
        let rest = next.is_ok().then_some((requests, bounds));
        Some((next, rest))
    })
}

async fn next_or_end<Q>(requests: &mut Streaming<Q>, bounds: &mut Bounds) -> Option<Result<Q, Status>> {
    let deadline = bounds.deadline;
    tokio::select! {
        biased;
        () = drained(&mut bounds.draining) => Some(Err(status(&Error::Draining))),
        () = passed(deadline) => Some(Err(status(&Error::DeadlineExceeded { stage: "waiting for requests" }))),
        next = requests.next() => Some(next?.map_err(of_compressed)),
    }
}

/// A server that went away without draining counts as drained.
pub(super) async fn drained(draining: &mut watch::Receiver<bool>) {
    // The error says that the sender is gone.
    let _ = draining.wait_for(|draining| *draining).await;
}

pub(super) async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => future::pending().await,
    }
}
