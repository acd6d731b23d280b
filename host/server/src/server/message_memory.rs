//! Memory for messages: what all calls together have sent, and have not been answered yet, is bounded.
//!
//! A message is counted before any of it is read, by the length that it announces, and by what it may become where it
//! is compressed. One for which there is no room waits for the answers to those of its own call that came before it;
//! where all are answered, it ends its call with RESOURCE_EXHAUSTED. It waits for nobody else: messages that wait
//! unread fill the window of their connection, and would keep those from arriving in whole that they wait for. A
//! message that begins and does not go on ends its call as well, for it holds what others could have.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use http_body::{Frame, SizeHint};
use megaring_core::Error;
use tokio::time::Sleep;
use tonic::Status;
use tonic::codegen::http::HeaderMap;

use crate::error::status;

/// Bytes before a message: whether it is compressed, and its length.
pub(super) const PREFIX_BYTES: usize = 5;
/// How long a message may be without a further byte.
const STALLS: Duration = Duration::from_secs(20);
/// When a new try is worthwhile where there is no room.
const RETRY: Duration = Duration::from_millis(100);
/// What a byte of gzip may become: DEFLATE has 258 bytes in two bits at the best.
const GZIP_EXPANSION: u64 = 1032;

/// Room for messages.
#[derive(Debug)]
pub(super) struct MessageMemory {
    taken: AtomicU64,
    /// Bytes.
    most: u64,
    /// Of any one message, once it is decompressed.
    most_each: u64,
}

/// Room that a message has, until this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    memory: Arc<MessageMemory>,
    bytes: u64,
    call: Arc<Call>,
}

/// The room of a call's messages, from the reading of each to its answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Received {
    call: Arc<Call>,
    /// In the order in which they came.
    taken: Arc<Mutex<VecDeque<Taken>>>,
    /// Whether messages are answered one by one, so that the next one may wait for that.
    is_stream: bool,
}

/// What a call has under way.
#[derive(Debug, Default)]
struct Call {
    messages: AtomicUsize,
    /// Who reads the next one.
    reader: AtomicWaker,
}

impl Received {
    /// That of a call whose messages are answered one by one.
    pub(super) fn of_stream() -> Self {
        Self { is_stream: true, ..Self::default() }
    }

    /// That of the next message.
    pub(crate) fn next(&self) -> Option<Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Takes room for a message, perhaps once another of the call is answered.
    fn poll_take(&self, memory: &Arc<MessageMemory>, bytes: u64, context: &Context<'_>) -> Poll<Result<(), Error>> {
        // Before looking, so that no answer is missed.
        self.call.reader.register(context.waker());
        let taken = match memory.take(bytes) {
            // Acquire: what the last answer has given back is seen by the second look.
            Err(_) if self.is_stream && self.call.messages.load(Ordering::Acquire) > 0 => return Poll::Pending,
            Err(_) => memory.take(bytes),
            taken => taken,
        };
        Poll::Ready(taken.map(|()| {
            self.call.messages.fetch_add(1, Ordering::Relaxed);
            let taken = Taken { memory: memory.clone(), bytes, call: self.call.clone() };
            self.taken.lock().unwrap_or_else(PoisonError::into_inner).push_back(taken);
        }))
    }
}

impl MessageMemory {
    /// Room for one message at least.
    pub(super) fn new(most: u64, most_each: u64) -> Arc<Self> {
        Arc::new(Self { taken: AtomicU64::new(0), most: most.max(most_each), most_each })
    }

    fn take(&self, bytes: u64) -> Result<(), Error> {
        // Relaxed: it counts, and nothing else is told by it.
        let room = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= self.most);
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room);
        let full = |_| Error::Exhausted { what: "the memory for messages", retry_after: RETRY };
        taken.map_err(full).map(drop)
    }

    /// What a message of so many bytes takes. One that is too long is refused by its decoder, unread.
    fn needed(&self, length: u64, expansion: u64) -> u64 {
        if length > self.most_each { 0 } else { length.saturating_mul(expansion).min(self.most_each) }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.memory.taken.fetch_sub(self.bytes, Ordering::Relaxed);
        self.call.messages.fetch_sub(1, Ordering::Release);
        self.call.reader.wake();
    }
}

/// How many bytes one of a compressed message may become.
fn expansion(headers: &HeaderMap) -> u64 {
    match headers.get("grpc-encoding").map(|encoding| encoding.as_bytes()) {
        None | Some(b"identity") => 1,
        Some(b"gzip") => GZIP_EXPANSION,
        // A block of zstd is 128 KiB of one byte.
        Some(_) => u64::MAX,
    }
}

/// A request's body whose messages are counted.
pub(super) struct Counted<B> {
    body: B,
    memory: Arc<MessageMemory>,
    received: Received,
    expansion: u64,
    /// What has arrived and was not yet looked at.
    data: Bytes,
    /// The beginning of a message's prefix.
    prefix: BytesMut,
    /// Bytes to come of the message whose prefix was handed on.
    left: u64,
    /// Runs while a message is incomplete and nothing comes.
    stall: Option<Pin<Box<Sleep>>>,
}

impl<B> Counted<B> {
    /// The messages of a call with these headers; their room is held in `received`.
    pub(super) fn new(body: B, headers: &HeaderMap, memory: Arc<MessageMemory>, received: Received) -> Self {
        let expansion = expansion(headers);
        let (data, prefix) = (Bytes::new(), BytesMut::with_capacity(PREFIX_BYTES));
        Self { body, memory, received, expansion, data, prefix, left: 0, stall: None }
    }

    /// What can be handed on of the data that is here: a prefix once its message has room, or a part of a message.
    fn poll_next(&mut self, context: &Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        if self.left > 0 {
            let count = self.data.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= count as u64;
            return Poll::Ready((count > 0).then(|| Ok(self.data.split_to(count))));
        }
        let count = self.data.len().min(PREFIX_BYTES - self.prefix.len());
        self.prefix.extend_from_slice(&self.data.split_to(count));
        let Some(&[compressed, ref length @ ..]) = self.prefix.first_chunk::<PREFIX_BYTES>() else {
            return Poll::Ready(None);
        };
        let length = u32::from_be_bytes(*length).into();
        let needed = self.memory.needed(length, if compressed == 0 { 1 } else { self.expansion });
        let taken = ready!(self.received.poll_take(&self.memory, needed, context));
        Poll::Ready(Some(taken.map(|()| {
            self.left = length;
            self.prefix.split().freeze()
        })))
    }

    fn is_within_a_message(&self) -> bool {
        self.left > 0 || !self.prefix.is_empty()
    }
}

impl<B: http_body::Body<Data = Bytes, Error = Status> + Unpin> http_body::Body for Counted<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(next) = ready!(this.poll_next(context)) {
                return Poll::Ready(Some(next.map(Frame::data).map_err(|error| status(&error))));
            }
            match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    this.stall = None;
                    match frame.into_data() {
                        Ok(data) => this.data = data,
                        Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                    }
                }
                // A prefix that is not whole ends with the body; its decoder says so.
                Poll::Ready(None) if !this.prefix.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(this.prefix.split().freeze()))));
                }
                Poll::Ready(end) => return Poll::Ready(end),
                Poll::Pending if this.is_within_a_message() => {
                    let stall = this.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALLS)));
                    ready!(stall.as_mut().poll(context));
                    let late = Error::DeadlineExceeded { stage: "waiting for the rest of a message" };
                    return Poll::Ready(Some(Err(status(&late))));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty() && self.prefix.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Nobody asks a request's body, whose length gRPC does not know either.
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use bytes::Bytes;
    use http_body::Body as _;
    use tonic::Code;
    use tonic::codegen::http::HeaderMap;

    use super::{Counted, MessageMemory, Received};

    type Tested = Result<(), Box<dyn std::error::Error>>;

    /// A body that comes in pieces of these sizes, over and over.
    fn body(bytes: &[u8], sizes: &[usize]) -> tonic::body::Body {
        let (mut rest, mut pieces) = (bytes, Vec::new());
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, more) = rest.split_at((*size).min(rest.len()));
            pieces.push(Ok::<_, tonic::Status>(http_body::Frame::data(Bytes::copy_from_slice(piece))));
            rest = more;
        }
        tonic::body::Body::new(Pieces(pieces.into_iter()))
    }

    struct Pieces(std::vec::IntoIter<Result<http_body::Frame<Bytes>, tonic::Status>>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = tonic::Status;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, tonic::Status>>> {
            std::task::Poll::Ready(self.0.next())
        }
    }

    fn message(compressed: bool, length: usize) -> Vec<u8> {
        let mut bytes = vec![u8::from(compressed)];
        bytes.extend((length as u32).to_be_bytes());
        bytes.extend((0..length).map(|at| at as u8));
        bytes
    }

    async fn read(
        bytes: &[u8],
        sizes: &[usize],
        headers: &HeaderMap,
        memory: &Arc<MessageMemory>,
        received: &Received,
    ) -> Result<Vec<u8>, tonic::Status> {
        let mut counted = Box::pin(Counted::new(body(bytes, sizes), headers, memory.clone(), received.clone()));
        let mut whole = Vec::new();
        while let Some(frame) = std::future::poll_fn(|context| counted.as_mut().poll_frame(context)).await {
            whole.extend_from_slice(&frame?.into_data().unwrap_or_default());
        }
        Ok(whole)
    }

    #[tokio::test]
    async fn messages_are_handed_on_as_they_are_and_counted_until_they_are_answered() -> Tested {
        let memory = MessageMemory::new(1000, 400);
        let bytes = [message(false, 0), message(false, 300), message(false, 7), message(false, 400)].concat();
        for sizes in [&[1][..], &[4, 1, 3], &[5], &[9, 2], &[1000]] {
            let received = Received::default();
            let whole = read(&bytes, sizes, &HeaderMap::new(), &memory, &received).await?;
            assert_eq!(whole, bytes, "{sizes:?}");
            assert_eq!(memory.taken.load(Ordering::Relaxed), 707);
            let each: Vec<u64> = std::iter::from_fn(|| received.next()).map(|taken| taken.bytes).collect();
            assert_eq!(each, [0, 300, 7, 400]);
            assert_eq!(memory.taken.load(Ordering::Relaxed), 0, "all are answered");
        }
        let torn = &bytes[..bytes.len() - 401];
        let whole = read(torn, &[3], &HeaderMap::new(), &memory, &Received::default()).await?;
        assert_eq!(whole, torn, "what is not whole is its decoder's affair");
        Ok(())
    }

    #[tokio::test]
    async fn one_waits_for_the_answers_to_those_before_it() -> Tested {
        let memory = MessageMemory::new(0, 400);
        let received = Received::of_stream();
        let bytes = [message(false, 400), message(false, 300), message(false, 100), message(false, 1)].concat();
        let headers = HeaderMap::new();
        let reading = read(&bytes, &[64], &headers, &memory, &received);
        let mut answered = Vec::new();
        let answering = async {
            while answered.len() < 4 {
                tokio::task::yield_now().await;
                answered.extend(received.next().map(|taken| taken.bytes));
            }
        };
        let (whole, ()) = futures_util::future::join(reading, answering).await;
        assert_eq!(whole?, bytes);
        assert_eq!(answered, [400, 300, 100, 1]);
        Ok(())
    }

    #[tokio::test]
    async fn one_for_which_there_is_no_room_is_refused_before_it_is_read() -> Tested {
        let memory = MessageMemory::new(1000, 400);
        let (held, later) = (Received::default(), Received::default());
        let three = [message(false, 400), message(false, 400), message(false, 200)].concat();
        read(&three, &[64], &HeaderMap::new(), &memory, &held).await?;
        let refused = read(&message(false, 1), &[64], &HeaderMap::new(), &memory, &later).await;
        assert!(refused.is_err_and(|refused| refused.code() == Code::ResourceExhausted));
        drop(held.next());
        read(&message(false, 400), &[64], &HeaderMap::new(), &memory, &later).await?;
        Ok(())
    }

    #[tokio::test]
    async fn compressed_ones_count_as_what_they_may_become() -> Tested {
        let memory = MessageMemory::new(0, 1 << 20);
        for (encoding, compressed, taken) in [
            ("identity", false, 10),
            ("gzip", false, 10),
            ("gzip", true, 10_320),
            ("zstd", true, 1 << 20),
            ("zstd", false, 10),
        ] {
            let headers = HeaderMap::from_iter([("grpc-encoding".parse()?, encoding.parse()?)]);
            let received = Received::default();
            read(&message(compressed, 10), &[64], &headers, &memory, &received).await?;
            assert_eq!(memory.taken.load(Ordering::Relaxed), taken, "{encoding}");
        }
        let received = Received::default();
        let long = message(false, 2 << 20);
        read(&long, &[1 << 16], &HeaderMap::new(), &memory, &received).await?;
        assert_eq!(memory.taken.load(Ordering::Relaxed), 0);
        Ok(())
    }
}
