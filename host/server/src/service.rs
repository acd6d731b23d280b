//! Step 1, the service: one short handler for each call of `megaring.v1`.
//!
//! A compute handler lists the steps in order: validate the message, run the job (admission, routing, submission, the
//! backend's work, reaping and finishing are [`Engine::run`]), reply. Handlers never block an async thread for long:
//! what touches more than [`LIGHT_BYTES`] of payload, and whatever touches the disk, runs on a thread for blocking
//! work. Dropping a handler's future, as tonic does for a cancelled call, drops the job and gives its memory back. A
//! panic becomes INTERNAL; the process goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use megaring_core::gate::{Cost, Role};
use megaring_core::{BackendKind, Error};
use megaring_corpus::Wanted;
use megaring_engine::calibration::Keeper;
use megaring_engine::charge::{Charge, Reserved};
use megaring_engine::{Engine, Terms};
use tokio::sync::watch;
use tonic::Request;

use crate::reply_limit::ReplyLimit;
use crate::server::Received;
use crate::tenants::{Identity, Tenants};

mod admin;
mod budgets;
mod compute;
mod corpora;
mod ledger;
mod long_search;
mod stream;

/// Payload that an async thread may convert by itself: some 50 µs of work.
pub const LIGHT_BYTES: usize = 256 << 10;

/// The handlers of all services. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    engine: Arc<Engine>,
    keeper: Arc<Keeper>,
    tenants: Arc<Tenants>,
    settings: Settings,
    /// Turns true when the server begins to drain.
    draining: watch::Receiver<bool>,
}

/// What a server sets for its handlers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The largest reply.
    pub reply_limit: ReplyLimit,
    /// Requests of one stream that are worked on at once; further ones are not read.
    pub stream_in_flight: usize,
}

/// When a call's answer stops being of use: put into a request's extensions by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(pub Instant);

/// A call that the gate let in: put into a request's extensions by the server.
#[derive(Clone)]
pub(crate) struct Passed {
    /// Its id in the table of calls.
    pub(crate) tool: u16,
    /// What it counts as.
    pub(crate) cost: Cost,
    pub(crate) identity: Identity,
}

impl Service {
    /// Handlers over an engine, what keeps its calibration, and those who may call. `draining` turns true once, when no
    /// new work is to be taken.
    #[must_use]
    pub fn new(
        engine: Arc<Engine>,
        keeper: Arc<Keeper>,
        tenants: Arc<Tenants>,
        settings: Settings,
        draining: watch::Receiver<bool>,
    ) -> Self {
        Self { engine, keeper, tenants, settings, draining }
    }

    /// Sets aside the price of a call that is no job of the engine's, where its tenant has a budget of prices.
    fn reserve(&self, caller: &Caller) -> Result<Option<Reserved>, Error> {
        let charge = caller.passed.identity.charge(caller.passed.cost).filter(Charge::has_price);
        let reserved = charge.map(|charge| charge.reserve(Duration::ZERO)).transpose();
        reserved.inspect_err(|refusal| {
            if let Error::Denied(denial) = refusal {
                let (tool, role) = caller.call();
                self.engine.telemetry().denied(caller.tenant(), tool, Some(role), 0, denial);
            }
        })
    }

    /// Charges it.
    fn settle(&self, caller: &Caller, reserved: Option<Reserved>) {
        if let Some(reserved) = reserved {
            self.engine.telemetry().charged(caller.tenant(), caller.call(), reserved.settle(Duration::ZERO));
        }
    }

    /// Does work that is no job of the engine's, at its price.
    async fn charged<T>(&self, caller: &Caller, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let reserved = self.reserve(caller)?;
        let made = work.await?;
        self.settle(caller, reserved);
        Ok(made)
    }

    /// For calls that never reach the engine's own gate.
    fn refuse_if_draining(&self) -> Result<(), Error> {
        if *self.draining.borrow() { Err(Error::Draining) } else { Ok(()) }
    }
}

/// Who calls, and until when.
#[derive(Clone)]
struct Caller {
    passed: Passed,
    deadline: Option<Instant>,
}

impl Caller {
    fn of<T>(request: &Request<T>) -> Result<Self, Error> {
        let deadline = request.extensions().get::<Deadline>().map(|deadline| deadline.0);
        let passed = request.extensions().get::<Passed>().cloned();
        let passed = passed.ok_or_else(|| Error::Internal("the gate was not asked".into()))?;
        Ok(Self { passed, deadline })
    }

    fn tenant(&self) -> &str {
        &self.passed.identity.tenant
    }

    /// What telemetry is told of the call.
    fn call(&self) -> (u16, Role) {
        (self.passed.tool, self.passed.identity.role)
    }

    /// The terms of a job.
    fn terms(&self, backend: Option<BackendKind>, max_answers: Option<usize>) -> Terms {
        let Passed { cost, identity, .. } = &self.passed;
        Terms {
            tenant: identity.tenant.clone(),
            deadline: self.deadline,
            backend,
            max_answers,
            passed: Some(self.call()),
            charge: identity.charge(*cost),
        }
    }
}

/// The room that the messages of a stream take.
fn received<T>(request: &Request<T>) -> Received {
    request.extensions().get::<Received>().cloned().unwrap_or_default()
}

/// Converts here what is light, elsewhere what is not. `bytes` is what `work` touches.
async fn convert<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    if bytes <= LIGHT_BYTES { work() } else { blocking(work).await }
}

/// Runs what may take long or touch the disk on a thread for blocking work. Dropping the future does not stop it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) => Err(Error::Internal(failed.to_string())),
    }
}

/// [`blocking`] for work that asks now and then whether it is wanted still: it is not once the future is dropped, at
/// the caller's deadline or as the caller leaves.
async fn blocking_while_wanted<T: Send + 'static>(
    work: impl FnOnce(Wanted<'_>) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    struct Wants(Arc<AtomicBool>);

    impl Drop for Wants {
        fn drop(&mut self) {
            self.0.store(false, Ordering::Relaxed);
        }
    }

    // Relaxed: nothing else is shared by it.
    let wants = Wants(Arc::new(AtomicBool::new(true)));
    let wanted = wants.0.clone();
    blocking(move || work(&|| wanted.load(Ordering::Relaxed))).await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use megaring_core::Error;

    use super::blocking_while_wanted;

    #[tokio::test]
    async fn work_learns_that_nobody_waits_for_it() {
        let (ended, end) = std::sync::mpsc::channel();
        let work = blocking_while_wanted(move |wanted| {
            while wanted() {
                std::thread::yield_now();
            }
            ended.send(()).map_err(|error| Error::Internal(error.to_string()))
        });
        assert!(tokio::time::timeout(Duration::from_millis(1), work).await.is_err());
        assert_eq!(end.recv_timeout(Duration::from_secs(60)), Ok(()), "it goes on");
        assert!(blocking_while_wanted(|wanted| Ok(wanted())).await.is_ok_and(|wanted| wanted));
    }
}
