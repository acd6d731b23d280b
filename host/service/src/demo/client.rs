//! A gRPC client as any program would write it, on a thread of its own over a TCP connection.

use std::time::{Duration, Instant};

use megaring_proto::v1 as pb;
use megaring_proto::v1::compute_client::ComputeClient;
use megaring_proto::v1::{encode_stream_response, search_stream_response};
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::Endpoint;

use super::host::Host;
use crate::console::Failure;
use crate::remote::{Caller, Line};

/// A connected client.
pub(super) struct Client {
    runtime: Runtime,
    compute: ComputeClient<Line>,
}

impl Client {
    pub(super) fn connect(host: &Host, message_limit: usize) -> Result<Self, Failure> {
        let address = host.address();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::Work(format!("the system refused a client: {error}")))?;
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(Failure::work)?.tcp_nodelay(true);
        let channel = runtime
            .block_on(endpoint.connect())
            .map_err(|error| Failure::Work(format!("no connection to {address}: {error}")))?;
        let caller = Caller::new(Some(&host.tokens().admin), None)?;
        let compute = ComputeClient::new(Line::new(channel, caller));
        let compute = compute.max_decoding_message_size(message_limit).max_encoding_message_size(message_limit);
        Ok(Self { runtime, compute })
    }

    /// One search, and the time from sending it to having the reply decoded.
    pub(super) fn search(&mut self, request: pb::SearchRequest) -> Result<(pb::SearchResponse, Duration), Failure> {
        let begun = Instant::now();
        let reply = self.runtime.block_on(self.compute.search(request)).map_err(refused)?;
        Ok((reply.into_inner(), begun.elapsed()))
    }

    /// Many searches over one stream, sent without waiting.
    pub(super) fn search_stream(
        &mut self,
        requests: Vec<pb::SearchRequest>,
    ) -> Result<(Vec<pb::SearchResponse>, Duration), Failure> {
        let requests: Vec<_> = (0..)
            .zip(requests)
            .map(|(request_id, search)| pb::SearchStreamRequest { request_id, search: Some(search) })
            .collect();
        let mut answers = Vec::with_capacity(requests.len());
        let begun = Instant::now();
        let (runtime, compute) = (&self.runtime, &mut self.compute);
        runtime.block_on(async {
            let mut replies = compute.search_stream(tokio_stream::iter(requests)).await.map_err(refused)?.into_inner();
            while let Some(reply) = replies.message().await.map_err(refused)? {
                check_order(reply.request_id, answers.len())?;
                answers.push(match reply.result {
                    Some(search_stream_response::Result::Response(response)) => response,
                    Some(search_stream_response::Result::Error(error)) => return Err(failed(&error)),
                    None => return Err(Failure::work("the server sent a reply without content")),
                });
            }
            Ok(())
        })?;
        Ok((answers, begun.elapsed()))
    }

    /// Many batches of memories over one stream, sent without waiting.
    pub(super) fn encode_stream(
        &mut self,
        requests: Vec<pb::EncodeRequest>,
    ) -> Result<(Vec<pb::EncodeResponse>, Duration), Failure> {
        let requests: Vec<_> = (0..)
            .zip(requests)
            .map(|(request_id, encode)| pb::EncodeStreamRequest { request_id, encode: Some(encode) })
            .collect();
        let mut answers = Vec::with_capacity(requests.len());
        let begun = Instant::now();
        let (runtime, compute) = (&self.runtime, &mut self.compute);
        runtime.block_on(async {
            let mut replies = compute.encode_stream(tokio_stream::iter(requests)).await.map_err(refused)?.into_inner();
            while let Some(reply) = replies.message().await.map_err(refused)? {
                check_order(reply.request_id, answers.len())?;
                answers.push(match reply.result {
                    Some(encode_stream_response::Result::Response(response)) => response,
                    Some(encode_stream_response::Result::Error(error)) => return Err(failed(&error)),
                    None => return Err(Failure::work("the server sent a reply without content")),
                });
            }
            Ok(())
        })?;
        Ok((answers, begun.elapsed()))
    }
}

fn refused(status: Status) -> Failure {
    Failure::Work(format!("the server answered {:?}: {}", status.code(), status.message()))
}

fn failed(error: &megaring_proto::RpcStatus) -> Failure {
    Failure::Work(format!("the server answered code {}: {}", error.code, error.message))
}

fn check_order(request_id: u64, expected: usize) -> Result<(), Failure> {
    if request_id == expected as u64 {
        return Ok(());
    }
    Err(Failure::Work(format!("reply {request_id} of a stream came where reply {expected} was due")))
}
