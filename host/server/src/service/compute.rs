//! `megaring.v1.Compute`: the handlers that use the ring. All calls take one way ([`Service::answer`]), and so do all
//! streams both ways ([`Service::stream`]) and all long answers ([`Service::long_search`]).

use std::sync::Arc;

use megaring_core::corpus::CorpusView;
use megaring_core::{Answered, Error};
use megaring_engine::Terms;
use megaring_engine::admission::Demand;
use megaring_proto::RpcStatus;
use megaring_proto::v1 as pb;
use megaring_proto::v1::compute_server::Compute;
use prost::Message as _;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::stream::{Bounds, pipeline};
use super::{Caller, Service, blocking, blocking_while_wanted, convert, received};
use crate::call::{Call, Named, Validated, unnamed};
use crate::error::{answered, rpc_status, status};
use crate::validate;

#[tonic::async_trait]
impl Compute for Service {
    type SearchStreamStream = BoxStream<pb::SearchStreamResponse>;
    type SearchRangeStream = BoxStream<pb::SearchRangeResponse>;
    type JoinStream = BoxStream<pb::JoinResponse>;
    type EncodeStreamStream = BoxStream<pb::EncodeStreamResponse>;

    async fn search(&self, request: Request<pb::SearchRequest>) -> Result<Response<pb::SearchResponse>, Status> {
        self.unary(request).await
    }

    async fn search_stream(
        &self,
        request: Request<Streaming<pb::SearchStreamRequest>>,
    ) -> Result<Response<Self::SearchStreamStream>, Status> {
        self.stream(request)
    }

    async fn search_range(
        &self,
        request: Request<pb::SearchRangeRequest>,
    ) -> Result<Response<Self::SearchRangeStream>, Status> {
        self.long_search(request).await
    }

    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<Self::JoinStream>, Status> {
        self.long_search(request).await
    }

    async fn score(&self, request: Request<pb::ScoreRequest>) -> Result<Response<pb::ScoreResponse>, Status> {
        self.unary(request).await
    }

    async fn encode(&self, request: Request<pb::EncodeRequest>) -> Result<Response<pb::EncodeResponse>, Status> {
        self.unary(request).await
    }

    async fn encode_stream(
        &self,
        request: Request<Streaming<pb::EncodeStreamRequest>>,
    ) -> Result<Response<Self::EncodeStreamStream>, Status> {
        self.stream(request)
    }

    async fn nearest(&self, request: Request<pb::NearestRequest>) -> Result<Response<pb::NearestResponse>, Status> {
        self.unary(request).await
    }

    async fn checksum(&self, request: Request<pb::ChecksumRequest>) -> Result<Response<pb::ChecksumResponse>, Status> {
        self.unary(request).await
    }
}

/// A message of a stream both ways: a call under a number of its client's.
trait Streamed: Send + 'static {
    type Call: Call;
    type Reply: Send + 'static;

    fn into_call(self) -> (u64, Self::Call);

    fn reply(request_id: u64, result: Result<<Self::Call as Call>::Response, RpcStatus>) -> Self::Reply;
}

/// A message of a stream, by the names of its request, its call, its response and its response's oneof.
macro_rules! streamed {
    ($request:ident { $field:ident: $call:ident }, $response:ident, $module:ident) => {
        impl Streamed for pb::$request {
            type Call = pb::$call;
            type Reply = pb::$response;

            fn into_call(self) -> (u64, Self::Call) {
                (self.request_id, self.$field.unwrap_or_default())
            }

            fn reply(request_id: u64, result: Result<<pb::$call as Call>::Response, RpcStatus>) -> Self::Reply {
                use pb::$module::Result as Reply;
                let result = result.map_or_else(Reply::Error, Reply::Response);
                pb::$response { request_id, result: Some(result) }
            }
        }
    };
}

streamed!(SearchStreamRequest { search: SearchRequest }, SearchStreamResponse, search_stream_response);
streamed!(EncodeStreamRequest { encode: EncodeRequest }, EncodeStreamResponse, encode_stream_response);

impl Service {
    async fn unary<C: Call>(&self, request: Request<C>) -> Result<Response<C::Response>, Status> {
        let caller = Caller::of(&request).map_err(|error| status(&error))?;
        answered(self.answer(caller, request.into_inner())).await.map(Response::new)
    }

    fn stream<S: Streamed>(&self, request: Request<Streaming<S>>) -> Result<Response<BoxStream<S::Reply>>, Status> {
        let caller = Caller::of(&request).map_err(|error| status(&error))?;
        let service = self.clone();
        let (in_flight, draining) = (self.settings.stream_in_flight, self.draining.clone());
        let received = received(&request);
        let bounds = Bounds { in_flight, deadline: caller.deadline, draining, received };
        Ok(Response::new(pipeline(request.into_inner(), bounds, move |message: S| {
            let (service, caller) = (service.clone(), caller.clone());
            async move {
                let (request_id, call) = message.into_call();
                let result = answered(bounded(caller.deadline, service.answer(caller, call))).await;
                S::reply(request_id, result.map_err(|refusal| rpc_status(&refusal)))
            }
        })))
    }

    /// Validates a call, has its job done, and replies.
    async fn answer<C: Call>(&self, caller: Caller, mut call: C) -> Result<C::Response, Error> {
        let limit = self.settings.reply_limit;
        let backend = validate::backend(call.backend())?;
        let terms = caller.terms(backend, C::max_answers(limit));
        // An empty name is one that was left out.
        let name = call.corpus().filter(|name| !name.is_empty()).map(str::to_owned);
        let corpus = match (name, call.take_filter()) {
            (None, None) => None,
            (None, Some(_)) => return Err(Error::field("filter", "there is no corpus that it could be about")),
            (Some(name), filter) => Some(self.named(name, filter, call.prefix_dim(), &terms).await?),
        };
        let bytes = call.payload_bytes();
        let Validated { job, reply_bytes, reply } = convert(bytes, move || call.validate(corpus, limit)).await?;
        let outcome = C::run(&self.engine, job, terms).await?;
        let engine = self.engine.clone();
        convert(reply_bytes, move || limit.check(C::Operation::ITEMS, reply(outcome, &engine)?)).await
    }
}

impl Service {
    /// The corpus of a name, what a filter leaves of it, and a prefix of its rows.
    pub(super) async fn named(
        &self,
        name: String,
        filter: Option<pb::Filter>,
        prefix_dim: Option<u32>,
        terms: &Terms,
    ) -> Result<Named, Error> {
        let named = self.selected(name, filter, terms).await?;
        let Some(dim) = prefix_dim else { return Ok(named) };
        let store = self.engine.store().clone();
        let is_there = |view: &Arc<CorpusView>| store.has_prefix(view, dim as usize);
        if is_there(&named.chosen) && named.gathered.as_ref().is_none_or(is_there) {
            return blocking(move || named.cut(&store, dim, &|| true)).await;
        }
        // To make one takes as much as to work a filter out.
        let permit = self.engine.filters().admit(terms, Demand { bytes: 0, waiting_bytes: size_of::<u32>() }).await?;
        blocking_while_wanted(move |wanted| {
            let _permit = permit;
            named.cut(&store, dim, wanted)
        })
        .await
    }

    /// The corpus of a name, and what a filter leaves of it. What was worked out before is there at once; else it is
    /// bounded how much is worked out at a time, and it ends where nobody waits for it any more.
    async fn selected(&self, name: String, filter: Option<pb::Filter>, terms: &Terms) -> Result<Named, Error> {
        if name.is_empty() {
            return Err(unnamed());
        }
        let store = self.engine.store().clone();
        let Some(filter) = filter else { return store.view(&name).map(Named::whole) };
        let waiting_bytes = filter.encoded_len();
        let (view, selection, known) = blocking(move || {
            let (view, selection) = (store.view(&name)?, validate::selection(Some(filter))?);
            let known = store.selected(&view, &selection);
            Ok((view, selection, known))
        })
        .await?;
        if let Some(known) = known {
            return Ok(Named::new(view, known));
        }
        let permit = self.engine.filters().admit(terms, Demand { bytes: 0, waiting_bytes }).await?;
        let store = self.engine.store().clone();
        blocking_while_wanted(move |wanted| {
            let _permit = permit;
            let selected = store.select_while(&view, &selection, wanted)?;
            Ok(Named::new(view, selected))
        })
        .await
    }
}

/// Puts a deadline over work inside a stream; a call that is no stream has the server's layer for that.
pub(super) async fn bounded<T>(
    deadline: Option<std::time::Instant>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(deadline) = deadline else { return work.await };
    let passed = |_| Err(Error::DeadlineExceeded { stage: "worked on" });
    tokio::time::timeout_at(deadline.into(), work).await.unwrap_or_else(passed)
}
