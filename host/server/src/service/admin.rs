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

use super::compute::bounded;
use super::stream::{drained, passed};
use super::{Caller, Service, blocking};
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
        answered(async { self.do_board(Caller::of(&request)?, request.into_inner()) }).await.map(Response::new)
    }

    async fn calibrate(
        &self,
        request: Request<pb::CalibrateRequest>,
    ) -> Result<Response<Self::CalibrateStream>, Status> {
        let begin = || {
            let caller = Caller::of(&request)?;
            self.refuse_if_draining()?;
            Ok((caller.deadline, self.keeper.begin()?))
        };
        let (deadline, turn) = begin().map_err(|error: Error| status(&error))?;
        let request = request.into_inner();
        let (sender, messages) = channel(UNREAD);
        // Not awaited: it ends when it is done, or at its next step once the receiver of its messages is gone, as it is
        // after the deadline.
        tokio::spawn(async move {
            let (steps, last) = (sender.clone(), sender);
            let made = answered(bounded(deadline, blocking(move || measure(turn, request, &steps))));
            // Where nobody is left to be told, nothing is lost.
            let _ = last.send(made.await).await;
        });
        Ok(Response::new(ReceiverStream::new(messages).boxed()))
    }
}

impl Service {
    /// The board as it is now, and then every so often, until the caller leaves, its deadline passes or the server
    /// drains.
    fn do_board(&self, caller: Caller, request: pb::BoardRequest) -> Result<BoxStream<pb::BoardResponse>, Error> {
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
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let moments = IntervalStream::new(ticks).map(move |_| moment());
        let mut draining = self.draining.clone();
        let end = async move {
            let end = tokio::select! {
                () = drained(&mut draining) => Error::Draining,
                () = passed(caller.deadline) => Error::DeadlineExceeded { stage: "watched" },
            };
            Err(status(&end))
        };
        // The first error is the last that a stream says.
        Ok(stream::select(moments, stream::once(end)).boxed())
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
