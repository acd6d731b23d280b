//! Many callers at once: the answers are those of the definition, bit by bit, whoever shared a batch with whom.

use megaring_datasets::reference;

use super::*;

const METRICS: [(Metric, reference::Metric); 3] = [
    (Metric::Dot, reference::Metric::Dot),
    (Metric::Cosine, reference::Metric::Cosine),
    (Metric::L2, reference::Metric::L2),
];

fn expected(rig: &Rig, job: &SearchJob, metric: reference::Metric) -> Vec<Vec<(u32, u32)>> {
    let found = reference::search(metric, &job.queries.values, &rig.rows.values, DIM, job.k, job.threshold);
    let hit = |hit: &reference::Hit| (hit.row, hit.reported().to_bits());
    found.iter().map(|hits| hits.iter().map(hit).collect()).collect()
}

/// Each caller asks in turn for another metric, k and number of queries, on the CPU.
async fn ask(rig: &Rig, callers: usize, rounds: usize, terms: Terms) -> u64 {
    let calls: Vec<_> = (0..callers)
        .map(|caller| {
            let jobs: Vec<_> = (0..rounds)
                .map(|round| {
                    let (metric, named) = METRICS[round / 4 % 3];
                    let job = SearchJob { metric, ..rig.search(caller * 1_000 + round, 1 + (caller + round) % 3) };
                    let expected = expected(rig, &job, named);
                    (job, expected)
                })
                .collect();
            let (engine, terms) = (rig.engine.clone(), terms.clone());
            tokio::spawn(async move {
                for (job, expected) in jobs {
                    let truth = engine.run_blocking(Job::Search(job.clone()), wish(BackendKind::Cpu));
                    let outcome = engine.run(Job::Search(job), terms.clone()).await.expect("a good job");
                    let found = hits(&outcome);
                    let shown = |hit: &Hit| (hit.row, (hit.score as f32).to_bits());
                    let numbers: Vec<Vec<_>> = found.iter().map(|hits| hits.iter().map(shown).collect()).collect();
                    assert!(numbers == expected, "not the reference's");
                    assert!(found == hits(&truth.expect("a good job")), "not that of a call alone");
                }
            })
        })
        .collect();
    for call in calls {
        call.await.expect("the answers are right");
    }
    rig.engine.metrics().snapshot().jobs_gathered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn crowds_are_answered_as_callers_alone() {
    let rig = rig(Duration::from_millis(1));
    let gathered = ask(&rig, 24, 24, Terms::default()).await;
    let on_the_cpu = ask(&rig, 24, 24, wish(BackendKind::Cpu)).await;
    let on_the_fake = ask(&rig, 24, 12, wish(BackendKind::Cuda)).await;
    println!("{gathered}, {}, {} gathered", on_the_cpu - gathered, on_the_fake - on_the_cpu);
    assert!(on_the_fake > 0, "nobody ever gathered");
    rig.settles().await;
}
