//! What the board and the health service are told, several times a second: one truth for both.
//!
//! A service is NOT_SERVING while the server drains, and while a ledger that is required cannot be written; `Compute`
//! is as well while the board has nothing but open breakers, for then no job could be done.

use std::convert::Infallible;
use std::sync::Arc;

use megaring_board::{BreakerState, Page};
use megaring_core::gate;
use megaring_engine::Engine;
use megaring_engine::health::{INTERVAL, Monitor};
use megaring_proto::v1::admin_server::AdminServer;
use megaring_proto::v1::budgets_server::BudgetsServer;
use megaring_proto::v1::compute_server::ComputeServer;
use megaring_proto::v1::corpora_server::CorporaServer;
use megaring_proto::v1::ledger_server::LedgerServer;
use tokio::sync::{Mutex, watch};
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::service::Service;

const COMPUTE: &str = <ComputeServer<Service> as NamedService>::NAME;
/// The services that health knows, the empty name standing for the server as a whole.
const SERVICES: [&str; 6] = [
    "",
    COMPUTE,
    <CorporaServer<Service> as NamedService>::NAME,
    <AdminServer<Service> as NamedService>::NAME,
    <LedgerServer<Service> as NamedService>::NAME,
    <BudgetsServer<Service> as NamedService>::NAME,
];

/// What is told of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    serves: bool,
    computes: bool,
}

/// Tells how the server is.
pub(super) struct Teller {
    pub(super) engine: Arc<Engine>,
    pub(super) health: Mutex<HealthReporter>,
    pub(super) requires_ledger: bool,
}

impl Teller {
    /// Tells the board and the health service, again and again; the latter until the server drains.
    pub(super) async fn tell(&self, mut monitor: Monitor, draining: watch::Receiver<bool>) -> Infallible {
        let (mut ticks, mut told) = (tokio::time::interval(INTERVAL), None);
        loop {
            ticks.tick().await;
            monitor.tell(&self.engine);
            let found = self.look();
            if told != Some(found) {
                let health = self.health.lock().await;
                if !*draining.borrow() {
                    report(&health, found).await;
                    told = Some(found);
                }
            }
        }
    }

    /// Tells the health service for the first time.
    pub(super) async fn begin(&self) {
        report(&*self.health.lock().await, self.look()).await;
    }

    /// Tells that nothing new is taken. The server is draining already, so that nobody says otherwise after this.
    pub(super) async fn end(&self) {
        report(&*self.health.lock().await, Told { serves: false, computes: false }).await;
    }

    /// Ends the streams of those who watch the health, which would otherwise keep their connections open.
    pub(super) async fn forget(&self) {
        let mut health = self.health.lock().await;
        for name in SERVICES {
            health.clear_service_status(name).await;
        }
    }

    fn look(&self) -> Told {
        let recorder = self.engine.recorder().filter(|_| self.requires_ledger);
        let serves = recorder.is_none_or(|recorder| recorder.state().fault.is_none());
        Told { serves, computes: serves && computes(self.engine.board(), self.engine.board().now_ns()) }
    }
}

async fn report(health: &HealthReporter, Told { serves, computes }: Told) {
    for name in SERVICES {
        let is_well = if name == COMPUTE { computes } else { serves };
        let status = if is_well { ServingStatus::Serving } else { ServingStatus::NotServing };
        health.set_service_status(name, status).await;
    }
}

/// Whether there is a breaker that lets jobs pass.
fn computes(board: &Page, now_ns: u64) -> bool {
    gate::breakers().any(|(slot, ..)| {
        let state = board.breaker(slot).state(now_ns);
        matches!(state, BreakerState::Closed | BreakerState::HalfOpen)
    })
}
