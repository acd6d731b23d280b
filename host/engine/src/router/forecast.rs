//! What the router would do for a job, for people to read: each backend's time, part by part, the choice and its
//! reason.

use std::sync::Arc;
use std::time::Duration;

use megaring_core::corpus::CorpusView;
use megaring_core::operation::{Description, Reads};
use megaring_core::{BackendKind, Lacking, Opcode};

use super::Router;
use super::choice::{Reason, RouteRequest};
use super::ledger::Basis;
use crate::cost::Workload;
use crate::router::corrections::Cell;

/// What a backend would take for a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Prospect {
    /// The backend.
    pub kind: BackendKind,
    /// Its device; empty where it does not run.
    pub device: String,
    /// What it would take, or why it is not asked.
    pub times: Result<Times, String>,
    /// Why it gets no jobs of callers who do not insist on it, although it could do this one.
    pub reserve: Option<String>,
}

/// The parts of the time until the answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Times {
    /// Where the numbers are from.
    pub basis: Basis,
    /// The job itself by the model alone.
    pub model: Duration,
    /// The job itself, with what outcomes have taught since.
    pub alone: Duration,
    /// What is in flight there has to be waited for.
    pub wait: Duration,
    /// Bringing what the device lacks.
    pub upload: Duration,
}

impl Times {
    /// The sum of the parts.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.alone.saturating_add(self.wait).saturating_add(self.upload)
    }
}

/// What the router would do.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// Every kind of backend.
    pub prospects: Vec<Prospect>,
    /// The place in `prospects` of the one that would get the job; none where none can do it.
    pub chosen: Option<usize>,
    /// Why that one.
    pub reason: String,
}

/// A question to the router by somebody who has no job at hand, only its description.
#[derive(Clone)]
pub struct Question {
    /// What would be done.
    pub opcode: Opcode,
    /// How much of it.
    pub description: Description,
    /// The corpus that it would read; none where only its size is known.
    pub corpus: Option<Arc<CorpusView>>,
    /// The backend that would be forced.
    pub wish: Option<BackendKind>,
    /// Whether what devices lack counts: of a corpus that is named what they lack now, otherwise all of it. A corpus
    /// that no device can keep is brought for each job, so that always counts.
    pub cold: bool,
}

impl Router {
    /// What would do the job, and why.
    #[must_use]
    pub fn explain(&self, question: &Question) -> Forecast {
        let Question { opcode, description, corpus, wish, cold } = question;
        let Description { size, columns, rows, dim, .. } = *description;
        let lacking = |lane: usize| {
            let backend = self.lanes[lane].backend();
            match corpus {
                Some(corpus) => {
                    let lacking = backend.lacking(Reads { corpus, columns });
                    if *cold || !lacking.stays { lacking } else { Lacking::default() }
                }
                None if *cold => Lacking { bytes: backend.upload_bytes(columns, rows, dim), stays: true },
                None => Lacking::default(),
            }
        };
        let (wish, load) = (*wish, Workload { opcode: *opcode, size });
        let able = self.able(&load, wish, &[]);
        let request =
            RouteRequest { load, corpus: None, able, lacking: &lacking, now_ns: self.now_ns(), left_ns: f64::INFINITY };
        let chosen = match wish {
            Some(_) => self.chooser.first(&self.ledgers, &request).map(|choice| (choice.lane, choice.reason)),
            None => self.chooser.preview(&self.ledgers, &request),
        };
        let running = (0..self.ledgers.len()).map(|lane| self.prospect(lane, &request));
        let absent = self.absent.iter().map(|(kind, reason)| {
            let (device, times) = (String::new(), Err(reason.clone()));
            Prospect { kind: *kind, device, times, reserve: None }
        });
        let reason = match chosen {
            Some((_, reason)) => reason.text().to_owned(),
            None => self.absence(wish.unwrap_or(BackendKind::Cpu), &load),
        };
        Forecast { prospects: running.chain(absent).collect(), chosen: chosen.map(|(lane, _)| lane), reason }
    }

    fn prospect(&self, index: usize, request: &RouteRequest<'_>) -> Prospect {
        let (lane, ledger, load) = (&self.lanes[index], &self.ledgers[index], &request.load);
        let (kind, able) = (lane.kind(), lane.capabilities());
        let fault = match lane.fault() {
            Some(fault) => Some(format!("out of service: {fault}")),
            None => able.operations.refusal(load.opcode),
        };
        let duration = |ns: f64| Duration::from_nanos(ns as u64);
        let times = fault.map_or_else(
            || {
                let estimate = ledger.estimate(load, Cell::of(load));
                Ok(Times {
                    basis: ledger.estimates().basis(load.opcode),
                    model: duration(estimate.line_ns),
                    alone: duration(estimate.ns),
                    wait: duration(ledger.wait_ns(request.now_ns)),
                    upload: duration(ledger.upload_ns((request.lacking)(index).bytes)),
                })
            },
            Err,
        );
        let reserve = if able.emulated {
            Some("a program on the processor stands in for the device: it does only what names this backend".to_owned())
        } else if ledger.is_open(load.opcode, request.now_ns) {
            Some("it has been failing such jobs and is left alone for a while".to_owned())
        } else {
            None
        };
        Prospect { kind, device: able.device.clone(), times, reserve }
    }
}

impl Reason {
    /// In plain words.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Wish => "the caller asked for it",
            Self::Only => "no other backend that works can do it",
            Self::Soonest => "it answers soonest",
            Self::Habit => "jobs of this size go there, and no other backend is clearly sooner",
            Self::Upload => {
                "with the corpus on the device it answers soonest, and the corpus is asked for often enough"
            }
            Self::Trial => "to see whether it is still slower than the best",
        }
    }
}
