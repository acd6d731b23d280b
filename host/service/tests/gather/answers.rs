//! Many callers at once: the answers are those of the definition, bit by bit, whoever shared a batch with whom.

use megaring_datasets::reference;

use super::*;

const METRICS: [(Metric, reference::Metric); 3] = [
    (Metric::Dot, reference::Metric::Dot),
    (Metric::Cosine, reference::Metric::Cosine),
    (Metric::L2, reference::Metric::L2),
];

fn expected(rig: &Rig, job: &Search, metric: reference::Metric) -> Vec<Vec<(u32, u32)>> {
    let queries = (0..job.queries.len()).map(|query| job.queries.of(query, &job.corpus)).collect::<Vec<_>>().concat();
    let found = reference::search(metric, &queries, &rig.rows.values, DIM, job.k, job.threshold);
    let hit = |hit: &reference::Hit| (hit.row, hit.reported().to_bits());
    found.iter().map(|hits| hits.iter().map(hit).collect()).collect()
}

/// Callers who ask in turn for another metric and number of queries, and check what they get.
fn crowd(rig: &Rig, callers: usize, rounds: usize, terms: &Terms) -> Vec<JoinHandle<()>> {
    let jobs = |caller| {
        (0..rounds).map(move |round| {
            let (metric, named) = METRICS[round / 4 % 3];
            let job = Search { metric, ..rig.search(caller * 1_000 + round, 1 + (caller + round) % 3) };
            // Some name rows of the corpus.
            let rows = || (0..job.queries.len()).map(|query| ((caller * 37 + round + query) % ROWS) as u32).collect();
            let queries = if (caller + round) % 5 == 0 { Queries::Rows(rows()) } else { job.queries.clone() };
            let job = Search { queries, ..job };
            (expected(rig, &job, named), rig.truth(job.clone()), job)
        })
    };
    let jobs: Vec<Vec<_>> = (0..callers).map(|caller| jobs(caller).collect()).collect();
    let ask = |jobs| {
        let (engine, terms) = (rig.engine.clone(), terms.clone());
        tokio::spawn(async move {
            for (expected, truth, job) in jobs {
                let found = hits(&engine.run_batched(job, terms.clone()).await.expect("a good job"));
                let shown = |hit: &Hit| (hit.row, (hit.score as f32).to_bits());
                let numbers: Vec<Vec<_>> = found.iter().map(|hits| hits.iter().map(shown).collect()).collect();
                assert!(numbers == expected, "not the reference's");
                assert!(found == truth, "not that of a call alone");
            }
        })
    };
    jobs.into_iter().map(ask).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn crowds_are_answered_as_callers_alone() {
    let rig = rig(LONG);
    for terms in [Terms::default(), wish(BackendKind::Cpu)] {
        for call in crowd(&rig, 20, 24, &terms) {
            call.await.expect("the answers are right");
        }
    }
    // All but a few are sure to gather before the first is answered.
    let gathered = rig.engine.metrics().snapshot().jobs_batched;
    rig.fake.set(fake::Mode::Keep);
    let calls = crowd(&rig, 20, 12, &wish(BackendKind::Cuda));
    rig.admits(20).await;
    rig.let_go();
    for call in calls {
        call.await.expect("the answers are right");
    }
    let on_the_fake = rig.engine.metrics().snapshot().jobs_batched - gathered;
    assert!(on_the_fake >= 10, "{on_the_fake} gathered");
    rig.settles().await;
}
