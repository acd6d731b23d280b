//! The device is lost under the backend's feet: the first time it is opened anew, the second time the backend is out of
//! service. Nothing hangs, no answer is wrong, and nothing is answered twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use megaring_bench::cases::Subject;
use megaring_core::corpus::CorpusView;
use megaring_core::operation::Reads;
use megaring_core::{Backend, BackendKind, BackendStatus, Capabilities, Error, Residency};
use megaring_datasets::Embeddings;
use megaring_engine::Terms;
use megaring_wgpu::{Loss, WgpuBackend};

use super::{best, subject_as};
use crate::calls::{call, count, is_true, settles, wanted};

/// The backend with the test's hand on it. It calls itself no emulation, so that large jobs go there by themselves.
struct Held {
    backend: Arc<WgpuBackend>,
    capabilities: Capabilities,
}

impl Backend for Held {
    fn kind(&self) -> BackendKind {
        self.backend.kind()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn prepare(&self, reads: Option<Reads<'_>>) -> Result<Residency, Error> {
        self.backend.prepare(reads)
    }

    fn health(&self) -> Result<(), String> {
        self.backend.health()
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.backend.counters()
    }

    fn shutdown(&self) {
        self.backend.shutdown();
    }
}

fn held() -> Option<(Subject, Arc<WgpuBackend>)> {
    let mut hand = None;
    let subject = subject_as(best(), |backend| {
        let backend = Arc::new(backend);
        hand = Some(backend.clone());
        let capabilities = Capabilities { emulated: false, ..backend.capabilities().clone() };
        Box::new(Held { backend, capabilities })
    });
    subject.zip(hand)
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::task::yield_now().await;
    }
}

/// Loses the device with calls under way, half of which insist on it, and sees that each is answered rightly or, of
/// those, refused.
async fn lose_under_load(
    subject: &Subject,
    backend: &WgpuBackend,
    (corpus, rows): (&Arc<CorpusView>, &megaring_datasets::Matrix),
) {
    let wanted = wanted(rows, ASKED);
    let before = count(subject, "submissions");
    let begin = |number: usize| {
        let terms = if number.is_multiple_of(2) { Terms::default() } else { subject.terms() };
        (number, call(subject, (corpus, rows), ASKED, terms))
    };
    let calls: Vec<_> = (0..CALLS).map(begin).collect();
    eventually("jobs are under way", || count(subject, "submissions") > before).await;
    backend.lose_device(Loss::Destroyed);
    for (number, call) in calls {
        let answered = tokio::time::timeout(Duration::from_secs(60), call).await.expect("nothing hangs");
        match answered.expect("no panic") {
            Ok(outcome) => assert!(is_true(outcome, &wanted), "call {number} is answered wrongly"),
            Err(error) => {
                assert!(number % 2 == 1, "call {number} did not insist: {error}");
                assert!(error.to_string().contains("wgpu"), "{error}");
            }
        }
    }
    settles(subject).await;
}

/// Queries of one call: enough that it goes to a GPU by itself.
const ASKED: usize = 200;
const CALLS: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_device_is_opened_anew_once_and_loses_no_job() {
    let Some((subject, backend)) = held() else { return };
    let rows = Embeddings { rows: 4_000, dim: 96, seed: 31, ..Embeddings::default() }.generate();
    let corpus = subject.store(&rows, &[1_500]).expect("room on disk");
    let wanted = wanted(&rows, ASKED);
    let usual = call(&subject, (&corpus, &rows), ASKED, Terms::default()).await.expect("no panic").expect("a good job");
    assert_eq!(usual.made.backend, BackendKind::Wgpu, "it is large enough for a GPU");
    lose_under_load(&subject, &backend, (&corpus, &rows)).await;
    eventually("the device is opened anew", || count(&subject, "rebuilds") == 1).await;
    backend.health().expect("it works again");
    // Its memory is new, too: what was resident is brought again.
    let again =
        call(&subject, (&corpus, &rows), ASKED, subject.terms()).await.expect("no panic").expect("it works again");
    assert_eq!(again.made.backend, BackendKind::Wgpu);
    assert!(is_true(again, &wanted));

    lose_under_load(&subject, &backend, (&corpus, &rows)).await;
    // The jobs that it had are answered, and perhaps done again elsewhere, before it says so.
    eventually("it is out of service", || backend.health().is_err()).await;
    let reason = backend.health().expect_err("twice is once too often");
    let states = subject.engine.backends();
    let (_, state) = states.iter().find(|(kind, _)| *kind == BackendKind::Wgpu).expect("told");
    assert!(matches!(state, BackendStatus::Unavailable { reason: told } if told.contains(&reason)), "{state:?}");
    match call(&subject, (&corpus, &rows), ASKED, subject.terms()).await.expect("no panic") {
        Err(Error::BackendUnavailable { kind: BackendKind::Wgpu, reason: told }) => assert_eq!(told, reason),
        other => panic!("{:?}", other.map(|outcome| outcome.made)),
    }
    let elsewhere =
        call(&subject, (&corpus, &rows), ASKED, Terms::default()).await.expect("no panic").expect("the CPU does it");
    assert_eq!(elsewhere.made.backend, BackendKind::Cpu);
    assert!(is_true(elsewhere, &wanted));
    assert_eq!(count(&subject, "rebuilds"), 1);
    settles(&subject).await;
}

/// A loss that nobody notices until the next job comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_lost_while_idle_costs_no_answer() {
    let Some((subject, backend)) = held() else { return };
    let rows = Embeddings { rows: 4_000, dim: 96, seed: 32, ..Embeddings::default() }.generate();
    let corpus = subject.store(&rows, &[]).expect("room on disk");
    let wanted = wanted(&rows, ASKED);
    for _ in 0..3 {
        backend.lose_device(Loss::Destroyed);
        let outcome =
            call(&subject, (&corpus, &rows), ASKED, Terms::default()).await.expect("no panic").expect("an answer");
        assert!(is_true(outcome, &wanted));
    }
    settles(&subject).await;
}
