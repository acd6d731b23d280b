//! Nothing, many times.

use megaring_core::nop::Nop;

use super::{Cases, Check, Workload};
use crate::{Bench, Failure};

impl Cases for Nop {
    type Part = ();

    fn cases(check: &mut Check<'_, Self>) -> Result<(), Failure> {
        (0..check.scale.of([5, 20, 100, 2_000])).try_for_each(|number| check.case(number, Self, &[()]))
    }

    fn parts((): &()) -> Vec<()> {
        vec![()]
    }

    fn workloads(_: &Bench) -> Result<Vec<Workload<Self>>, Failure> {
        Ok(vec![Workload { name: "empty job".into(), elements: 1, job: Box::new(|_| Self) }])
    }
}
