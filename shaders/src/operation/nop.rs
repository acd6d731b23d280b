//! Nop: answers at once, with nothing, and without the device.

use super::{Delivery, Handler, Operation, Part};
use crate::plan::{Planned, Source};
use crate::script::{Script, Sizes};
use crate::self_test::Trial;

pub(crate) const HANDLER: Handler = Handler { plan: |_, _| Ok(Planned::new(Nop, Source::Nothing)), self_test };

struct Nop;

impl Operation for Nop {
    fn sizes(&self) -> Sizes {
        Sizes::default()
    }

    fn fill(&self, _: &mut [u8]) {}

    fn round(&mut self, _: &[Part], _: bool) -> Script {
        Script::default()
    }

    fn delivery(&self) -> Delivery {
        Box::new(|_, _| {})
    }
}

/// A submission without a step comes to its end.
fn self_test(trial: &Trial<'_>) -> Result<(), String> {
    trial.run(&mut Nop, &[], 0).map(|_| ())
}
