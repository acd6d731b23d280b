//! A running engine's calibration: where it is kept, that only one is made at a time, and what a server does about it
//! when it starts.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use megaring_core::Error;

use super::{Calibration, Effort, Fingerprint, Found, Progress, check_writable, load, measure, save};
use crate::engine::Engine;

/// Keeps an engine's calibration.
pub struct Keeper {
    engine: Arc<Engine>,
    file: Option<PathBuf>,
    is_measuring: AtomicBool,
}

/// The right to measure: nobody else has it as long as this lives.
pub struct Turn {
    keeper: Arc<Keeper>,
}

/// A calibration that was made, and what became of it.
#[derive(Debug)]
pub struct Calibrated {
    /// What was found.
    pub calibration: Calibration,
    /// What became of it.
    pub kept: Kept,
}

/// What became of a calibration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// The router goes by it, and will after a restart.
    Saved(PathBuf),
    /// The router goes by it until the process ends; why no longer.
    Unsaved(String),
    /// It is of no use, which is told: the router goes by what it went by before.
    Refused(String),
}

impl Keeper {
    /// Of an engine. Without a file, calibrations end with the process.
    #[must_use]
    pub fn new(engine: Arc<Engine>, file: Option<PathBuf>) -> Arc<Self> {
        Arc::new(Self { engine, file, is_measuring: AtomicBool::new(false) })
    }

    /// Reads the file, and goes by it where it holds for this machine.
    pub fn restore(&self) -> Found {
        let found = self.file.as_deref().map_or(Found::Nothing, |file| load(file, &Fingerprint::of(&self.engine)));
        if let Found::Good(calibration) = &found {
            calibration.apply(self.engine.router());
        }
        found
    }

    /// Whether a calibration could be saved, to be asked before the time is spent on making one.
    ///
    /// # Errors
    /// [`Error::Storage`] that names the file.
    pub fn check_writable(&self) -> Result<(), Error> {
        self.file.as_deref().map_or(Ok(()), check_writable)
    }

    /// Takes the turn.
    ///
    /// # Errors
    /// [`Error::UnderWay`] where somebody has it.
    pub fn begin(self: &Arc<Self>) -> Result<Turn, Error> {
        if self.is_measuring.swap(true, Ordering::AcqRel) {
            return Err(Error::UnderWay { what: "a calibration" });
        }
        Ok(Turn { keeper: self.clone() })
    }

    /// What a server begins with: a calibration that is there, or the turn to make one where that is of use. Says which
    /// in the log.
    #[must_use]
    pub fn prepare(self: &Arc<Self>, by_itself: bool) -> Option<Turn> {
        let found = self.restore();
        if let Found::Broken(reason) = &found {
            tracing::warn!(%reason, "the calibration cannot be read");
        }
        let Some(want) = found.want() else {
            tracing::info!("backends are chosen by what was measured on this machine");
            return None;
        };
        let lanes = self.engine.router().lanes().iter();
        if lanes.filter(|lane| !lane.capabilities().emulated).count() < 2 {
            tracing::info!("only one backend runs, so there is nothing to choose between and nothing to measure");
            return None;
        }
        if !by_itself {
            tracing::info!(reason = %want, "backends are chosen by assumed costs: `megaring calibrate` measures them");
            return None;
        }
        tracing::info!(reason = %want, "backends are measured meanwhile, which takes some ten seconds");
        self.begin().ok()
    }
}

impl Turn {
    /// Measures; what is good is gone by and saved, and with `anyway` what is not good, too.
    ///
    /// # Errors
    /// As [`measure`]; nothing is changed then.
    pub fn measure(
        self,
        effort: Effort,
        anyway: bool,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Calibrated, Error> {
        let Keeper { engine, .. } = &*self.keeper;
        let calibration = measure(engine, effort, progress)?;
        Ok(self.keep(calibration, anyway))
    }

    /// Measures quickly and tells the log: for a server that has begun to serve already.
    pub fn measure_quietly(self) {
        match self.measure(Effort::Quick, false, &mut |_| ControlFlow::Continue(())) {
            Ok(Calibrated { calibration, kept }) => {
                let Calibration { took_s, doubts, .. } = &calibration;
                match kept {
                    Kept::Saved(file) => {
                        tracing::info!(took_s, ?doubts, file = %file.display(), "backends were measured");
                    }
                    Kept::Unsaved(reason) => {
                        tracing::warn!(took_s, ?doubts, %reason, "backends were measured; that cannot be saved");
                    }
                    Kept::Refused(reason) => {
                        tracing::warn!(%reason, "what was measured is not kept: `megaring calibrate` tries again");
                    }
                }
            }
            Err(Error::Cancelled | Error::Draining) => tracing::info!("measuring ended early: the server drains"),
            Err(error) => tracing::warn!(%error, "backends cannot be measured"),
        }
    }

    /// Decides what becomes of a calibration, and does it.
    #[must_use]
    pub fn keep(self, calibration: Calibration, anyway: bool) -> Calibrated {
        let Keeper { engine, file, .. } = &*self.keeper;
        if let Some(reason) = calibration.unfit().filter(|_| !anyway || calibration.backends.is_empty()) {
            return Calibrated { calibration, kept: Kept::Refused(reason) };
        }
        calibration.apply(engine.router());
        let kept = match file.as_deref().map(|file| (file, save(file, &calibration))) {
            Some((file, Ok(()))) => Kept::Saved(file.to_owned()),
            Some((_, Err(error))) => Kept::Unsaved(error.to_string()),
            None => Kept::Unsaved("no file is set for it".into()),
        };
        Calibrated { calibration, kept }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.keeper.is_measuring.store(false, Ordering::Release);
    }
}
