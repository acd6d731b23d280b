//! The cases of every operation ([`megaring_bench::cases`]) as tests, one for each, by its name. Who includes this says
//! on which `subjects()`, and by what `SCALE`.

use std::io::Write;

use megaring_bench::cases::{Cases, Scale, Subject};

/// An operation's cases on a subject. What its backend does not serve is a skip that says so.
pub(crate) fn check<O: Cases>(subject: &Subject, scale: Scale) {
    match subject.refusal(O::OPCODE).expect("the backend is there") {
        None => _ = subject.check::<O>(scale).unwrap_or_else(|difference| panic!("{difference}")),
        Some(reason) => skipped(&format!("{}: {reason}", subject.name)),
    }
}

/// Says that something is left out.
pub(crate) fn skipped(what: &str) {
    // Past the capture of tests that pass: it is to be counted.
    _ = writeln!(std::io::stdout(), "\nskipped: {what}");
}

macro_rules! every_operation {
    ($($number:literal $module:ident::$operation:ident,)*) => {$(
        #[test]
        fn $module() {
            crate::subjects().for_each(|subject| check::<megaring_core::$module::$operation>(&subject, crate::SCALE));
        }
    )*};
}

megaring_core::operations!(every_operation);
