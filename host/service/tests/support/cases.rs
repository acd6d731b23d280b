//! A few cases of each operation, under the name of its stem. What takes longer is in `suite.rs`.

use std::io::Write;

use megaring_core::nop::Nop;
use megaring_core::{BackendStatus, Opcode};
use megaring_datasets::{memories, points, sample};

use super::Subject;

/// Every operation on the backend of a subject. One without cases does not compile; one that the backend does not serve
/// is a skip that says so.
pub(crate) fn every_operation_is_answered(subject: &Subject) {
    macro_rules! each {
        ($($number:literal $module:ident::$operation:ident,)*) => {$(
            match refusal(subject, Opcode::$operation) {
                None => $module(subject),
                // Past the capture of tests that pass: it is to be counted.
                Some(reason) => _ = writeln!(std::io::stdout(), "\nskipped: {}: {reason}", subject.name),
            }
        )*};
    }
    megaring_core::operations!(each);
}

fn refusal(subject: &Subject, opcode: Opcode) -> Option<String> {
    let backends = subject.engine.backends();
    let (_, status) = backends.iter().find(|(kind, _)| *kind == subject.backend).expect("the backend is known");
    match status {
        BackendStatus::Available(capabilities) => capabilities.operations.refusal(opcode),
        BackendStatus::Unavailable { reason } => panic!("{}: {reason}", subject.name),
    }
}

fn nop(subject: &Subject) {
    subject.run(Nop);
}

fn search(subject: &Subject) {
    super::odd_shapes_are_searched(subject, &[(1, 3), (200, 12)]);
}

fn score(subject: &Subject) {
    let rows = sample().expect("the sample is embedded").embeddings.head(300);
    super::score_matrices_are_the_definition(subject, &rows, 2);
}

fn encode(subject: &Subject) {
    let generated = memories(40, 3).expect("the sample is embedded");
    super::memories_are_encoded(subject, &generated, &super::encoded(&generated));
}

fn nearest(subject: &Subject) {
    super::nearest_points_are_found(subject, &points(300, 5), &points(3, 6), 150);
}
