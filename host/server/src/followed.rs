//! Files that may change while they are served: looked at now and then, and read anew where they have changed.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use megaring_core::Error;
use tokio::time::MissedTickBehavior;

/// How often files are looked at.
const LOOKS: Duration = Duration::from_secs(1);

/// What is read from files.
pub(crate) trait Followed: Send + Sync + 'static {
    /// What it is, in the plural.
    const NAME: &'static str;

    /// Reads the files anew.
    ///
    /// # Errors
    /// What is wrong with them; what was known before is known still, until they change again.
    fn reload(&self) -> Result<(), Error>;

    /// Whether they are others than those that were read last.
    fn has_changed(&self) -> bool;
}

/// How files look from outside, by which a change shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Stamp(Vec<Option<(u64, Option<SystemTime>)>>);

impl Stamp {
    pub(crate) fn of<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        let look = |file: &PathBuf| std::fs::metadata(file).ok().map(|found| (found.len(), found.modified().ok()));
        Self(files.into_iter().map(look).collect())
    }

    /// Whether all of them are there.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.iter().all(Option::is_some)
    }
}

/// Reads files anew, and tells the log what came of it.
pub(crate) fn reload<F: Followed>(files: &F) {
    match files.reload() {
        Ok(()) => tracing::info!("the {} are those of the file as it is now", F::NAME),
        Err(error) => tracing::error!(%error, "the {} stay as they were", F::NAME),
    }
}

/// Reads files anew whenever they have changed.
pub(crate) async fn follow<F: Followed>(files: &Arc<F>) -> Infallible {
    let mut ticks = tokio::time::interval(LOOKS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let files = files.clone();
        // A disk may take long. A look that panicked is the next one's.
        let _ = tokio::task::spawn_blocking(move || {
            if files.has_changed() {
                reload(&*files);
            }
        })
        .await;
    }
}
