//! `megaring.v1.Admin`: looking into the service, and having it measured.

use std::ops::ControlFlow;

use futures_util::StreamExt as _;
use megaring_core::Error;
use megaring_engine::calibration::{Effort, Progress, Turn};
use megaring_proto::v1 as pb;
use megaring_proto::v1::admin_server::Admin;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::Service;
use crate::error::{answered, status};
use crate::{reply, validate};

/// Messages of a calibration that wait for a client to read them; further ones are not sent, but for the last.
const UNREAD: usize = 16;

/// How gRPC's own retries suit this service. Compute alone: its calls change nothing, so that one whose answer was lost
/// may be sent again; an append may not.
const SERVICE_CONFIG: &str = include_str!("service_config.json");

#[tonic::async_trait]
impl Admin for Service {
    type CalibrateStream = BoxStream<pb::CalibrateProgress>;

    async fn backends(&self, _: Request<pb::BackendsRequest>) -> Result<Response<pb::BackendsResponse>, Status> {
        let states = self.engine.backends().into_iter().map(|(kind, status)| reply::backend_state(kind, status));
        let server_version = env!("CARGO_PKG_VERSION").into();
        let service_config = SERVICE_CONFIG.into();
        Ok(Response::new(pb::BackendsResponse { backends: states.collect(), server_version, service_config }))
    }

    async fn explain(&self, request: Request<pb::ExplainRequest>) -> Result<Response<pb::ExplainResponse>, Status> {
        let request = request.into_inner();
        answered(async { self.do_explain(&request) }).await.map(Response::new)
    }

    async fn calibrate(
        &self,
        request: Request<pb::CalibrateRequest>,
    ) -> Result<Response<Self::CalibrateStream>, Status> {
        let request = request.into_inner();
        let begin = || self.refuse_if_draining().and_then(|()| self.keeper.begin());
        let turn = begin().map_err(|error| status(&error))?;
        let (sender, messages) = channel(UNREAD);
        // Not awaited: it ends when it is done, or at its next step once the receiver of its messages is gone.
        tokio::spawn(async move {
            let (steps, last) = (sender.clone(), sender);
            let measuring = tokio::task::spawn_blocking(move || measure(turn, request, &steps));
            let made = answered(async { measuring.await.map_err(|failed| Error::Internal(failed.to_string()))? });
            // Where nobody is left to be told, nothing is lost.
            let _ = last.send(made.await).await;
        });
        Ok(Response::new(ReceiverStream::new(messages).boxed()))
    }
}

impl Service {
    fn do_explain(&self, request: &pb::ExplainRequest) -> Result<pb::ExplainResponse, Error> {
        let named = Some(&request.corpus).filter(|name| !name.is_empty());
        let corpus = named.map(|name| self.engine.store().view(name)).transpose()?;
        let question = validate::explain(request, corpus)?;
        Ok(reply::explain(&self.engine.router().explain(&question)))
    }
}

/// Measures, and tells of each step as long as somebody listens.
fn measure(
    turn: Turn,
    request: pb::CalibrateRequest,
    listener: &Sender<Result<pb::CalibrateProgress, Status>>,
) -> Result<pb::CalibrateProgress, Error> {
    let effort = if request.quick { Effort::Quick } else { Effort::Full };
    let mut tell = |progress: &Progress| match listener.try_send(Ok(reply::step(progress))) {
        Err(TrySendError::Closed(_)) => ControlFlow::Break(()),
        // One that reads slowly misses some.
        Ok(()) | Err(TrySendError::Full(_)) => ControlFlow::Continue(()),
    };
    turn.measure(effort, request.keep_noisy, &mut tell).map(reply::calibrated)
}
