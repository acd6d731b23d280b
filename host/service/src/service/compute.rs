//! `megaring.v1.Compute`: the handlers that use the ring.

use megaring_core::Error;
use megaring_core::job::{Job, Terms};
use megaring_proto::v1 as pb;
use megaring_proto::v1::compute_server::Compute;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::stream::{Bounds, pipeline};
use super::{Caller, Service, convert};
use crate::error::{answered, rpc_status, status};
use crate::{reply, validate};

#[tonic::async_trait]
impl Compute for Service {
    type SearchStreamStream = BoxStream<pb::SearchStreamResponse>;
    type EncodeStreamStream = BoxStream<pb::EncodeStreamResponse>;

    async fn search(&self, request: Request<pb::SearchRequest>) -> Result<Response<pb::SearchResponse>, Status> {
        let caller = Caller::of(&request).map_err(|error| status(&error))?;
        answered(self.do_search(caller, request.into_inner())).await.map(Response::new)
    }

    async fn search_stream(
        &self,
        request: Request<Streaming<pb::SearchStreamRequest>>,
    ) -> Result<Response<Self::SearchStreamStream>, Status> {
        let caller = Caller::of(&request).map_err(|error| status(&error))?;
        let (service, bounds) = (self.clone(), self.bounds(&caller));
        Ok(Response::new(pipeline(request.into_inner(), bounds, move |message| {
            let (service, caller) = (service.clone(), caller.clone());
            async move {
                let search = message.search.unwrap_or_default();
                let result = match answered(bounded(caller.deadline, service.do_search(caller, search))).await {
                    Ok(response) => pb::search_stream_response::Result::Response(response),
                    Err(refusal) => pb::search_stream_response::Result::Error(rpc_status(&refusal)),
                };
                pb::SearchStreamResponse { request_id: message.request_id, result: Some(result) }
            }
        })))
    }

    async fn score(&self, request: Request<pb::ScoreRequest>) -> Result<Response<pb::ScoreResponse>, Status> {
        let caller = Caller::of(&request).map_err(|error| status(&error))?;
        answered(self.do_score(caller, request.into_inner())).await.map(Response::new)
    }

    async fn encode(&self, request: Request<pb::EncodeRequest>) -> Result<Response<pb::EncodeResponse>, Status> {
        let caller = Caller::of(&request).map_err(|error| status(&error))?;
        answered(self.do_encode(caller, request.into_inner())).await.map(Response::new)
    }

    async fn encode_stream(
        &self,
        request: Request<Streaming<pb::EncodeStreamRequest>>,
    ) -> Result<Response<Self::EncodeStreamStream>, Status> {
        let caller = Caller::of(&request).map_err(|error| status(&error))?;
        let (service, bounds) = (self.clone(), self.bounds(&caller));
        Ok(Response::new(pipeline(request.into_inner(), bounds, move |message| {
            let (service, caller) = (service.clone(), caller.clone());
            async move {
                let encode = message.encode.unwrap_or_default();
                let result = match answered(bounded(caller.deadline, service.do_encode(caller, encode))).await {
                    Ok(response) => pb::encode_stream_response::Result::Response(response),
                    Err(refusal) => pb::encode_stream_response::Result::Error(rpc_status(&refusal)),
                };
                pb::EncodeStreamResponse { request_id: message.request_id, result: Some(result) }
            }
        })))
    }

    async fn nearest(&self, request: Request<pb::NearestRequest>) -> Result<Response<pb::NearestResponse>, Status> {
        let caller = Caller::of(&request).map_err(|error| status(&error))?;
        answered(self.do_nearest(caller, request.into_inner())).await.map(Response::new)
    }
}

impl Service {
    async fn do_search(&self, caller: Caller, request: pb::SearchRequest) -> Result<pb::SearchResponse, Error> {
        let (limit, titles) = (self.settings.max_message_bytes, request.with_titles);
        // How many hits pass a threshold shows only as they are found: the search ends with the first that no reply could carry.
        let terms = Terms { max_hits: Some(limit / validate::LEAST_HIT_BYTES), ..caller.terms(request.backend)? };
        let corpus = self.engine.store().view(&request.corpus)?;
        let (bytes, view) = (vector_bytes(request.queries.as_ref()), corpus.clone());
        let job = convert(bytes, move || validate::search(request, view, limit)).await?;
        let hits = job.queries.rows.saturating_mul(job.k.min(corpus.rows()));
        let outcome = self.engine.run(Job::Search(job), terms).await?;
        convert(hits.saturating_mul(HIT_BYTES), move || reply::search(outcome, &corpus, titles, limit)).await
    }

    async fn do_score(&self, caller: Caller, request: pb::ScoreRequest) -> Result<pb::ScoreResponse, Error> {
        let limit = self.settings.max_message_bytes;
        let terms = caller.terms(request.backend)?;
        let corpus = self.engine.store().view(&request.corpus)?;
        let rows = request.rows.as_ref().map_or(0, |rows| rows.numbers.len() * size_of::<u32>());
        let (bytes, view) = (vector_bytes(request.queries.as_ref()) + rows, corpus.clone());
        let job = convert(bytes, move || validate::score(request, view, limit)).await?;
        let (queries, rows) = (job.queries.rows, job.rows.as_ref().map_or(corpus.rows(), Vec::len));
        let outcome = self.engine.run(Job::Score(job), terms).await?;
        convert(queries * rows * size_of::<f32>(), move || reply::score(outcome, &corpus, queries, limit)).await
    }

    async fn do_encode(&self, caller: Caller, request: pb::EncodeRequest) -> Result<pb::EncodeResponse, Error> {
        let (limit, masks) = (self.settings.max_message_bytes, request.with_masks);
        let terms = caller.terms(request.backend)?;
        let bytes = request.memories.iter().map(|memory| size_of::<pb::Memory>() + memory.content.len()).sum();
        let job = convert(bytes, move || validate::encode(request, limit)).await?;
        let memories = job.features.len();
        let outcome = self.engine.run(Job::Encode(job), terms).await?;
        let engine = self.engine.clone();
        convert(memories * ENCODED_BYTES, move || reply::encode(outcome, engine.profile(), masks, limit)).await
    }

    async fn do_nearest(&self, caller: Caller, request: pb::NearestRequest) -> Result<pb::NearestResponse, Error> {
        let (limit, titles) = (self.settings.max_message_bytes, request.with_titles);
        let terms = caller.terms(request.backend)?;
        let corpus = match &request.among {
            Some(pb::nearest_request::Among::Corpus(name)) => Some(self.engine.store().view(name)?),
            _ => None,
        };
        let (bytes, view) = (point_bytes(&request), corpus.clone());
        let job = convert(bytes, move || validate::nearest(request, view, limit)).await?;
        let found = job.queries.len().saturating_mul(job.k.min(job.points.len()));
        let outcome = self.engine.run(Job::Nearest(job), terms).await?;
        convert(found.saturating_mul(HIT_BYTES), move || reply::nearest(outcome, corpus.as_deref(), titles, limit))
            .await
    }

    fn bounds(&self, caller: &Caller) -> Bounds {
        Bounds { in_flight: self.settings.stream_in_flight, deadline: caller.deadline, draining: self.draining.clone() }
    }
}

/// What a hit takes in memory, id, score and a look at the corpus's labels included.
const HIT_BYTES: usize = 32;
/// What an encoded memory takes: coordinates, zone and mask.
const ENCODED_BYTES: usize = 64;

/// Puts a deadline over work inside a stream; a call that is no stream has the server's layer for that.
async fn bounded<T>(
    deadline: Option<std::time::Instant>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(deadline) = deadline else { return work.await };
    let passed = |_| Err(Error::DeadlineExceeded { stage: "worked on" });
    tokio::time::timeout_at(deadline.into(), work).await.unwrap_or_else(passed)
}

fn vector_bytes(vectors: Option<&pb::Vectors>) -> usize {
    vectors.map_or(0, |vectors| vectors.data.len())
}

fn point_bytes(request: &pb::NearestRequest) -> usize {
    let queries = request.queries.as_ref().map_or(0, |points| points.coordinates.len());
    let points = match &request.among {
        Some(pb::nearest_request::Among::Points(points)) => points.coordinates.len(),
        _ => 0,
    };
    (queries + points) * size_of::<f64>()
}
