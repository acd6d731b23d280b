//! What the router would do for a job, told to people: each backend's time, part by part, the choice and its reason.

use std::time::Duration;

use megaring_core::job::Shape;
use megaring_core::{BackendKind, Lacking};

use super::book::Basis;
use super::choice::{Ask, Lanes, Why};
use super::{Router, is_cold};
use crate::cost::Parts;
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

/// Parts of the time until the answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Times {
    /// Where the numbers are from.
    pub basis: Basis,
    /// The job itself by the model alone.
    pub model: Duration,
    /// The job itself, with what outcomes have taught since.
    pub alone: Duration,
    /// What is under way there has to be waited for.
    pub wait: Duration,
    /// Bringing what the device lacks.
    pub upload: Duration,
}

impl Times {
    /// Until the answer.
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
    /// Why.
    pub reason: String,
}

impl Router {
    /// What a job of this shape would be done by, and why. `lacking` says what a device would have to be brought first; `None` asks for a corpus
    /// that no device has.
    #[must_use]
    pub fn explain(
        &self,
        shape: &Shape,
        wish: Option<BackendKind>,
        lacking: Option<&dyn Fn(usize) -> Lacking>,
    ) -> Forecast {
        let cold = |lane: usize| is_cold(self.lanes[lane].kind(), shape);
        let lacking = lacking.unwrap_or(&cold);
        let able = (0..self.books.len()).filter(|lane| self.is_able(*lane, shape, wish));
        let able = able.fold(Lanes::default(), Lanes::with);
        let ask = Ask { shape: *shape, corpus: None, able, lacking, now_ns: self.now_ns(), left_ns: f64::INFINITY };
        let chosen = match wish {
            Some(_) => self.chooser.first(&self.books, &ask).map(|choice| (choice.lane, choice.why)),
            None => self.chooser.preview(&self.books, &ask),
        };
        let running = (0..self.books.len()).map(|lane| self.prospect(lane, &ask));
        let absent = self.absent.iter().map(|(kind, reason)| {
            let (device, times) = (String::new(), Err(reason.clone()));
            Prospect { kind: *kind, device, times, reserve: None }
        });
        let reason = match chosen {
            Some((_, why)) => why.text().to_owned(),
            None => self.absence(wish.unwrap_or(BackendKind::Cpu), shape),
        };
        Forecast { prospects: running.chain(absent).collect(), chosen: chosen.map(|(lane, _)| lane), reason }
    }

    fn prospect(&self, index: usize, ask: &Ask<'_>) -> Prospect {
        let (lane, book, shape) = (&self.lanes[index], &self.books[index], &ask.shape);
        let (kind, able) = (lane.kind(), lane.capabilities());
        let fault = match lane.fault() {
            Some(fault) => Some(format!("out of service: {fault}")),
            None if !able.operations.contains(&shape.opcode) => {
                Some(format!("it does not serve {}", shape.opcode.name()))
            }
            None => None,
        };
        let duration = |ns: f64| Duration::from_nanos(ns as u64);
        let times = fault.map_or_else(
            || {
                let quote = book.quote(shape, &Parts::of(shape), Cell::of(shape));
                Ok(Times {
                    basis: book.belief().basis(shape.opcode),
                    model: duration(quote.line_ns),
                    alone: duration(quote.ns),
                    wait: duration(book.wait_ns(ask.now_ns)),
                    upload: duration(book.upload_ns((ask.lacking)(index).bytes)),
                })
            },
            Err,
        );
        let reserve = if able.emulated {
            Some("a program on the processor stands in for the device: it does only what names this backend".to_owned())
        } else if book.cooling.is_on(ask.now_ns) {
            Some("it failed a job a moment ago and is left alone for a while".to_owned())
        } else {
            None
        };
        Prospect { kind, device: able.device.clone(), times, reserve }
    }
}

impl Why {
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
