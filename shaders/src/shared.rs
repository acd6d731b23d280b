//! What the dispatcher shares with those who prepare jobs: the device, what is resident, and whether the backend is in
//! service.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use megaring_core::corpus::CorpusTable;
use megaring_core::encode::keyword::Automaton;

use crate::WgpuOptions;
use crate::counters::Counters;
use crate::gpu::Gpu;
use crate::open::open;
use crate::plan::Resources;
use crate::residency::Residency;

/// Times that a lost device is opened anew.
const REBUILDS: u32 = 1;

/// See the module's text.
pub(crate) struct Shared {
    pub(crate) corpora: Arc<CorpusTable>,
    pub(crate) residency: Residency,
    pub(crate) counters: Arc<Counters>,
    options: WgpuOptions,
    automaton: Automaton,
    state: Mutex<State>,
}

struct State {
    gpu: Arc<Gpu>,
    rebuilds: u32,
    /// Why the backend is out of service.
    out: Option<String>,
}

impl Shared {
    pub(crate) fn new(
        gpu: Arc<Gpu>,
        options: WgpuOptions,
        corpora: Arc<CorpusTable>,
        automaton: Automaton,
        budget: usize,
    ) -> Self {
        let counters = Arc::new(Counters::default());
        let residency = Residency::new(budget, counters.clone());
        let state = Mutex::new(State { gpu, rebuilds: 0, out: None });
        Self { corpora, residency, counters, options, automaton, state }
    }

    /// The device in use.
    pub(crate) fn gpu(&self) -> Arc<Gpu> {
        self.lock().gpu.clone()
    }

    /// How long the device may take over a submission.
    pub(crate) fn patience(&self) -> Duration {
        self.options.patience
    }

    /// Whether the backend is in service.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) fn health(&self) -> Result<(), String> {
        self.lock().out.clone().map_or(Ok(()), Err)
    }

    /// Whether the backend is out of service.
    pub(crate) fn is_out(&self) -> bool {
        self.lock().out.is_some()
    }

    /// Takes the backend out of service.
    pub(crate) fn take_out(&self, reason: &str) {
        self.lock().out.get_or_insert_with(|| reason.to_owned());
    }

    /// Another device in the place of one that failed for `reason`.
    ///
    /// # Errors
    /// Why there is none: it has failed too often, or the adapter is gone.
    pub(crate) fn rebuild(&self, reason: &str) -> Result<(Arc<Gpu>, Resources), String> {
        self.residency.clear();
        if self.lock().rebuilds >= REBUILDS {
            return Err(format!("{reason} (again, after it had been opened anew)"));
        }
        let gpu = open(&self.options, &self.automaton).map_err(|error| format!("{reason}; and then: {error}"))?;
        let gpu = Arc::new(gpu);
        let resources =
            Resources::new(&gpu, &self.automaton).map_err(|error| format!("{reason}; and then: {error}"))?;
        let mut state = self.lock();
        state.rebuilds += 1;
        state.gpu = gpu.clone();
        self.counters.rebuilds.add(1);
        Ok((gpu, resources))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
