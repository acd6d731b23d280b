//! `megaring.v1.Admin`: looking into the service, and having it measured.

use std::ops::ControlFlow;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use megaring_core::Error;
use megaring_engine::calibration::{Effort, Progress, Turn};
use megaring_proto::v1 as pb;
use megaring_proto::v1::admin_server::Admin;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::{IntervalStream, ReceiverStream};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::Service;
use crate::error::{answered, status};
use crate::{reply, validate};

/// Messages of a calibration that wait for a client to read them; further ones are not sent, but for the last.
const UNREAD: usize = 16;

/// The board is not told of more often.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);

/// How gRPC's own retries suit this service. Compute alone: its calls change nothing, so that one whose answer was lost
/// may be sent again; an append may not.
const SERVICE_CONFIG: &str = include_str!("service_config.json");

#[tonic::async_trait]
impl Admin for Service {
    type BoardStream = BoxStream<pb::BoardResponse>;
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

    async fn board(&self, request: Request<pb::BoardRequest>) -> Result<Response<Self::BoardStream>, Status> {
        answered(async { self.do_board(request.into_inner()) }).await.map(Response::new)
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
    /// The board as it is now, and then every so often.
    fn do_board(&self, request: pb::BoardRequest) -> Result<BoxStream<pb::BoardResponse>, Error> {
        let interval = Duration::from_millis(request.interval_ms.into());
        if !interval.is_zero() && interval < LEAST_INTERVAL {
            let reason = format!(
                "{}; ask for {} at least, or 0 for one message",
                request.interval_ms,
                LEAST_INTERVAL.as_millis()
            );
            return Err(Error::field("interval_ms", reason));
        }
        self.refuse_if_draining()?;
        let board = self.engine.board().clone();
        let moment = move || Ok(reply::board(&board, board.now_ns()));
        if interval.is_zero() {
            return Ok(stream::once(async move { moment() }).boxed());
        }
        let mut draining = self.draining.clone();
        let drained = async move {
            // A sender that is gone means the same.
            let _ = draining.wait_for(|draining| *draining).await;
        };
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let moments = IntervalStream::new(ticks).map(move |_| moment()).take_until(drained);
        Ok(moments.chain(stream::once(async { Err(status(&Error::Draining)) })).boxed())
    }

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
