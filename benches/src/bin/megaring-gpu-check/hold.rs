//! A host under load that someone else kills.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use megaring_bench::any::Job;
use megaring_bench::cases::Subject;
use megaring_core::Metric;
use megaring_core::corpus::CorpusView;
use megaring_core::nop::Nop;
use megaring_cuda::CudaMode;
use serde_json::json;

use crate::corpora::{self, generated};
use crate::machine::{Machine, Wanted, Way, store};
use crate::{Done, Report, object, say};

/// Threads that ask.
const THREADS: usize = 4;
/// Answers after which it is under load.
const WARM: u64 = 200;
/// Nobody forgets it for longer.
const LONGEST: Duration = Duration::from_secs(300);

/// Says `"under_load"` with the number of answers once a second. Only an error, or five minutes, end it.
pub(crate) fn run(machine: Machine) -> Done {
    let (_folder, store) = store()?;
    let subject = machine.subject(&Wanted::usual(Way::Cuda(CudaMode::Persistent)), &store)?;
    let corpus = corpora::corpus(store.table(), generated(machine.sized(5_562, 60), machine.sized(384, 16), 1), &[]);
    let answers = AtomicU64::new(0);
    let begun = Instant::now();
    let failure = std::thread::scope(|scope| {
        let (subject, corpus, answers) = (&subject, &corpus, &answers);
        let asker = |thread| scope.spawn(move || ask(subject, corpus, thread, answers, begun));
        let askers: Vec<_> = (0..THREADS).map(asker).collect();
        let mut told = begun;
        while !askers.iter().any(std::thread::ScopedJoinHandle::is_finished) {
            let count = answers.load(Ordering::Relaxed);
            if count >= machine.sized(WARM, 8) && told.elapsed() > Duration::from_millis(200) {
                told = Instant::now();
                say(machine, object(json!({ "under_load": true, "answers": count })));
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let ends = askers.into_iter().map(|asker| asker.join().unwrap_or_else(|_| Err("a thread panicked".into())));
        ends.collect::<Result<Vec<()>, String>>().err()
    });
    let ok = failure.is_none();
    Ok(Report::new(json!({ "answers": answers.into_inner(), "failure": failure }), ok))
}

fn ask(
    subject: &Subject,
    corpus: &Arc<CorpusView>,
    thread: usize,
    answers: &AtomicU64,
    begun: Instant,
) -> Result<(), String> {
    let mut start = thread;
    while begun.elapsed() < LONGEST {
        start = (start + 7) % (corpus.rows() - 8);
        let job = match start % 4 {
            0 => Job::Nop(Nop),
            _ => corpora::search(corpus, corpora::own_queries(corpus, start, 8), Metric::Cosine, 10),
        };
        job.run(&subject.engine, subject.terms()).map_err(|error| error.to_string())?;
        answers.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
