//! One answer, whatever did the work: the real sample and generated corpora through the whole engine on the CPU, equal
//! to the naive float64 reference in ids, order and scores. Run once per instruction set by `cargo xtask test`, with
//! `MEGARING_ISA` set; each test here also goes through all of them by itself.

use megaring_core::{BackendKind, Metric};
use megaring_datasets::{memories, points, sample};
use megaring_simd::KernelSet;
use suite::Subject;

#[path = "support/suite.rs"]
mod suite;

/// An engine for each instruction set to test: the forced one, or all that this machine has.
fn subjects() -> impl Iterator<Item = Subject> {
    let sets = match std::env::var_os("MEGARING_ISA") {
        Some(_) => vec![KernelSet::from_env().expect("MEGARING_ISA names an available instruction set")],
        None => KernelSet::available(),
    };
    let names = sets.into_iter().map(|set| set.isa().name());
    names.map(|name| Subject::start(BackendKind::Cpu, name, Some(name), |_| Vec::new()))
}

#[test]
fn every_operation_is_answered() {
    subjects().for_each(|subject| suite::every_operation_is_answered(&subject));
}

#[test]
fn the_real_sample_is_searched_exactly_for_every_metric_k_and_batch() {
    let rows = sample().expect("the sample is embedded").embeddings;
    let truths = Metric::ALL.map(|metric| suite::truth(metric, &rows.values, &rows));
    let small = [1, 2, 3, 4, 5, 8, 15, 16, 17, 64, 65, 100, 511, 512, 513, 1000, 2047, 2048];
    for subject in subjects() {
        subject.store_rows("real", &rows, &[1000]);
        let cases = [(1, &small[..]), (10, &small), (100, &small), (rows.rows, &[1, 9, 600, 2048])];
        suite::rows_find_each_other(&subject, ("real", &rows), &truths, &cases);
    }
}

#[test]
fn generated_corpora_of_odd_shapes_are_searched_exactly() {
    for subject in subjects() {
        suite::odd_shapes_are_searched(&subject, &[(1, 1), (17, 7), (300, 8), (999, 128), (64, 1536), (40, 4096)]);
    }
}

#[test]
fn every_k_is_answered_and_thresholds_are_kept() {
    for subject in subjects() {
        suite::every_k_is_answered(&subject);
        suite::thresholds_are_kept(&subject);
    }
}

#[test]
fn score_matrices_are_the_definitions_bits() {
    let rows = sample().expect("the sample is embedded").embeddings.head(300);
    subjects().for_each(|subject| suite::score_matrices_are_the_definition(&subject, &rows, 70));
}

#[test]
fn memories_are_encoded_as_the_golden_file_and_the_reference_say() {
    let generated = memories(20_000, 6).expect("the sample is embedded");
    let want = suite::encoded(&generated);
    subjects().for_each(|subject| suite::memories_are_encoded(&subject, &generated, &want));
}

#[test]
fn nearest_points_are_those_of_the_reference_sent_or_stored() {
    let (cloud, queries) = (points(30_000, 12), points(40, 13));
    subjects().for_each(|subject| suite::nearest_points_are_found(&subject, &cloud, &queries, 20_000));
}
