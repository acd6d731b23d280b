//! Checksum: an invocation to a string, as many bytes of it in a dispatch as a small GPU reads in a tenth of a second.

use bytemuck::{Pod, Zeroable};
use megaring_core::checksum::Checksums;
use megaring_ring::Status;

use super::texts::Texts;
use super::{Delivery, Handler, Operation, Part, same_layout};
use crate::plan::{Context, Inputs, Planned, Source};
use crate::script::{MOST_WORK, Script, Sizes};
use crate::self_test::Trial;
use crate::stage::Stage;

pub(crate) const HANDLER: Handler = Handler { plan, self_test };

/// Work of a byte: a look-up in a table, and its share of a product of 64 bits.
const BYTE_WORK: u64 = 16;
/// Bytes of a string in a dispatch: what one invocation reads while a whole GPU does [`MOST_WORK`].
const WINDOW: u32 = 1 << 20;
/// Bytes that the shader takes at once.
const STRIPE: u32 = 32;
/// Invocations of a workgroup.
const WORKGROUP: u32 = 64;
/// Workgroups that a dispatch may have.
const MOST_WORKGROUPS: u32 = 65_535;
const RESULT_BYTES: usize = size_of::<[u64; 2]>();
/// State of a string that goes on in the next dispatch: the four lanes of its hash, and its CRC.
const STATE_BYTES: usize = size_of::<[u64; 5]>();

/// Twin of the shader's.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ChecksumParams {
    strings: u32,
    window_begin: u32,
    window: u32,
}

same_layout!(checksum_params: ChecksumParams { strings, window_begin, window });

fn plan<'a>(inputs: &Inputs<'a>, _: &Context<'_>) -> Result<Planned<'a>, Status> {
    let contents = Texts::of(inputs)?;
    inputs.check_room(RESULT_BYTES)?;
    Ok(Planned::new(Checksum { contents, window: WINDOW }, Source::Parts(Vec::new())))
}

/// A job.
struct Checksum<'a> {
    contents: Texts<'a>,
    /// Bytes of a string in a dispatch, a multiple of [`STRIPE`].
    window: u32,
}

impl Checksum<'_> {
    /// Bytes from the window's first that a string has in it.
    fn in_window(&self, len: u32, begin: u32) -> u32 {
        len.saturating_sub(begin).min(self.window)
    }
}

impl Operation for Checksum<'_> {
    fn sizes(&self) -> Sizes {
        let strings = self.contents.len();
        let going_on = if self.contents.longest() > self.window { strings } else { 0 };
        Sizes { input: self.contents.input(), scratch: going_on * STATE_BYTES, output: strings * RESULT_BYTES }
    }

    fn fill(&self, input: &mut [u8]) {
        self.contents.fill(input);
    }

    /// There are no parts.
    fn round(&mut self, _: &[Part], _first: bool) -> Script {
        let strings = self.contents.len() as u32;
        let workgroups = strings.div_ceil(WORKGROUP).min(MOST_WORKGROUPS);
        let longest = self.contents.longest();
        let mut script = Script::default();
        for window_begin in (0..longest.max(1)).step_by(self.window as usize) {
            let in_window = |len| u64::from(self.in_window(len, window_begin));
            let bytes: u64 = self.contents.lengths().map(in_window).sum();
            // All others wait for the longest string's invocation.
            let work = (BYTE_WORK * bytes).max(MOST_WORK / u64::from(WINDOW) * in_window(longest));
            let params = ChecksumParams { strings, window_begin, window: self.window };
            script.dispatch(Stage::Checksum, None, &params, [workgroups, 1, 1], work);
        }
        script
    }

    fn delivery(&self) -> Delivery {
        Box::new(|output, result| result[..output.len()].copy_from_slice(output))
    }
}

/// Strings of every length up to several stripes, at every offset in a word, in windows of two.
fn self_test(trial: &Trial<'_>) -> Result<(), String> {
    let bytes: Vec<u8> = (0..150_u32).map(|at| (at * 167 + 13) as u8).collect();
    let each: Vec<&[u8]> = (0..bytes.len()).map(|len| &bytes[bytes.len() - len..]).collect();
    let mut texts = megaring_core::texts::Texts::default();
    each.iter().for_each(|content| texts.push(content));
    let refused = |status| format!("the job was refused: {status:?}");
    let contents = Texts::new(&texts.offsets, &texts.bytes).map_err(refused)?;
    let mut job = Checksum { contents, window: 2 * STRIPE };
    let found = trial.run(&mut job, &[], each.len() * RESULT_BYTES)?;
    let want = each.iter().flat_map(|content| Checksums::of(content).words()).flat_map(u64::to_le_bytes);
    if found.iter().copied().eq(want) { Ok(()) } else { Err("checksums differ from the definition".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::Step;

    #[test]
    fn no_dispatch_takes_longer_than_a_device_may() {
        let len = 3 * WINDOW as usize + 1;
        let bytes = vec![0; len + 1];
        let offsets = [0, 1, len as u64 + 1];
        let contents = Texts::new(&offsets, &bytes).expect("offsets rise");
        let script = Checksum { contents, window: WINDOW }.round(&[], true);
        let work = script.steps.iter().map(|step| match step {
            Step::Dispatch(dispatch) => dispatch.work,
            Step::ClearOutput(_) => panic!("nothing is cleared"),
        });
        let work: Vec<u64> = work.collect();
        assert_eq!(work, [MOST_WORK, MOST_WORK, MOST_WORK, MOST_WORK / u64::from(WINDOW)]);
    }
}
