//! From the settings to a device that has proved itself.

use megaring_core::keyword::Automaton;

use crate::backend::WgpuOptions;
use crate::gpu::{Gpu, GpuOptions};
use crate::stage::Traits;
use crate::{Unavailable, adapter, self_test};

/// Opens the adapter that the options ask for, with as much of what it offers as passes the self-test.
///
/// # Errors
/// Why no adapter can be used.
pub(crate) fn open(options: &WgpuOptions, automaton: &Automaton) -> Result<Gpu, Unavailable> {
    let adapter = adapter::choose(options.adapter.as_deref())?;
    let all = Traits { subgroups: options.subgroups, float64: options.float64 };
    let mut refused = None;
    for traits in fallbacks(all) {
        let way = GpuOptions { traits, mappable: options.mappable, part_bytes: options.part_bytes };
        match Gpu::open(&adapter, way).and_then(|gpu| self_test::run_all(&gpu, automaton).map(|()| gpu)) {
            Ok(gpu) => return Ok(gpu),
            Err(reason) => {
                tracing::warn!(adapter = adapter.get_info().name, ?traits, %reason, "an adapter failed its self-test");
                refused.get_or_insert(reason);
            }
        }
    }
    Err(refused.unwrap_or_else(|| Unavailable::new("no adapter was tried")))
}

/// The traits to try, best first, each only once.
fn fallbacks(all: Traits) -> Vec<Traits> {
    let ways = [
        all,
        Traits { float64: false, ..all },
        Traits { subgroups: false, ..all },
        Traits { subgroups: false, float64: false },
    ];
    let mut distinct = Vec::new();
    for way in ways {
        if !distinct.contains(&way) {
            distinct.push(way);
        }
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fallbacks_begin_with_all_and_end_with_the_core() {
        let (all, core) = (Traits { subgroups: true, float64: true }, Traits { subgroups: false, float64: false });
        let ways = fallbacks(all);
        assert_eq!((ways.first(), ways.last(), ways.len()), (Some(&all), Some(&core), 4));
        assert_eq!(fallbacks(core), [core]);
    }
}
