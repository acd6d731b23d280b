//! `megaring serve`: the server in the foreground. The first SIGINT or SIGTERM drains, a second one ends at once;
//! SIGHUP reads tenants and certificates anew.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use megaring_corpus::Access;
use megaring_engine::Engine;
use megaring_engine::recorder::Recorder;
use megaring_server::{Drained, ServeError, Server};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::config::{Calibrating, Settings};
use crate::console::{Failure, Output, counted, duration_text, message, shown};

/// How long threads that still read or write files may take after the server has ended.
const LINGER: Duration = Duration::from_secs(2);

pub(crate) fn run(settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    let store = settings.store(Access::Exclusive)?;
    let engine = settings.setup()?.start(store)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Work(format!("the system refused threads: {error}")))?;
    let ended = runtime.block_on(async {
        // Before the address is told: whoever reads it may send a signal at once.
        let mut signals =
            Signals::listen().map_err(|error| Failure::Work(format!("signals cannot be awaited: {error}")))?;
        let server = bind(settings, &engine)?;
        let turn = server.keeper().prepare(settings.calibrate == Calibrating::Auto);
        announce(&server, settings, output)?;
        if let Some(turn) = turn {
            // It ends by itself when the server drains, and is not waited for any longer than other threads.
            drop(tokio::task::spawn_blocking(move || turn.measure_quietly()));
        }
        serve(server, &mut signals, settings.drain_timeout).await
    });
    runtime.shutdown_timeout(LINGER);
    let drained = ended?;
    // What happened last is kept, too.
    engine.recorder().inspect(|recorder| recorder.end());
    let kept = engine.recorder().map(Recorder::state);
    let sums = engine.metrics().snapshot();
    let record = json!({
        "event": "ended",
        "drained": drained == Drained::Fully,
        "jobs_answered": sums.jobs_answered,
        "jobs_refused": sums.jobs_refused,
        "jobs_batched": sums.jobs_batched,
        "items_answered": sums.items_answered,
        "failovers": sums.failovers,
        "counters": counters(&engine),
        "ledger_lost": kept.as_ref().map(|kept| kept.lost),
        "ledger_fault": kept.as_ref().and_then(|kept| kept.fault.clone()),
    });
    output.answer(&record, || {
        let (jobs, items) = (counted(sums.jobs_answered, "job", "jobs"), counted(sums.items_answered, "item", "items"));
        let again = match sums.failovers {
            0 => String::new(),
            times => format!(", {times} begun anew on another backend"),
        };
        format!("ended after {jobs} of {items}; {} refused{again}", sums.jobs_refused)
    })?;
    match drained {
        Drained::Fully => Ok(()),
        Drained::CutOff => {
            let limit = duration_text(settings.drain_timeout);
            Err(Failure::Work(format!("calls under way were cut off, since they were not done within {limit}")))
        }
    }
}

/// Listens on the first address that this machine has, of those that the setting stands for.
fn bind(settings: &Settings, engine: &Arc<Engine>) -> Result<Server, Failure> {
    let mut refused = None;
    for address in settings.listen_addresses()? {
        match Server::bind(settings.server_config(address)?, engine.clone()) {
            Ok(server) => return Ok(server),
            Err(error @ (ServeError::InUse(_) | ServeError::Tenants(_) | ServeError::Tls(_))) => {
                return Err(Failure::work(error));
            }
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(match refused {
        Some(error) => Failure::work(error),
        None => Failure::Work(format!("listen: {} names no address", settings.listen)),
    })
}

/// What the backends counted, by kind and name.
fn counters(engine: &Engine) -> Value {
    let counts = |counters: Vec<(&'static str, u64)>| {
        Value::Object(counters.into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect())
    };
    let backends = engine.counters().into_iter();
    Value::Object(backends.map(|(kind, counters)| (kind.name().to_owned(), counts(counters))).collect())
}

fn announce(server: &Server, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    let address = server.address();
    let data = settings.data.display().to_string();
    let record =
        json!({ "event": "listening", "address": address.to_string(), "data": data, "pid": std::process::id() });
    output.answer(&record, || format!("listening on {address}, data in {}", shown(&settings.data)))?;
    output.flush()
}

async fn serve(server: Server, signals: &mut Signals, limit: Duration) -> Result<Drained, Failure> {
    let (stop, stopped) = oneshot::channel::<()>();
    let reload = server.reload();
    let serving = server.serve(async {
        // A sender that is gone means the same as one that sent.
        let _ = stopped.await;
    });
    tokio::pin!(serving);
    loop {
        tokio::select! {
            ended = &mut serving => return ended.map_err(Failure::work),
            signal = signals.next() => match signal {
                Signal::End => break,
                Signal::Reload => {
                    let reload = reload.clone();
                    // One that panicked is told of already.
                    let _ = tokio::task::spawn_blocking(move || reload.reload()).await;
                }
            },
        }
    }
    message(&format!("draining, {} at most; a second signal ends at once", duration_text(limit)));
    drop(stop);
    loop {
        tokio::select! {
            ended = &mut serving => return ended.map_err(Failure::work),
            signal = signals.next() => if signal == Signal::End {
                return Err(Failure::work("ended by a second signal; calls under way were cut off"));
            },
        }
    }
}

/// What the system wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    /// SIGINT or SIGTERM, or Ctrl-C where there are no signals.
    End,
    /// SIGHUP.
    #[cfg_attr(not(unix), expect(dead_code, reason = "there is no such signal"))]
    Reload,
}

struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hang_up: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::End,
            _ = self.terminate.recv() => Signal::End,
            _ = self.hang_up.recv() => Signal::Reload,
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without a way to be told, it runs until it is killed.
            std::future::pending::<()>().await;
        }
        Signal::End
    }
}
