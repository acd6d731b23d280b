//! Checksum: an invocation to a string.

use bytemuck::{Pod, Zeroable};
use megaring_core::checksum::Checksums;
use megaring_ring::Status;

use super::texts::Texts;
use super::{Delivery, Handler, Operation, Part, same_layout};
use crate::plan::{Context, Inputs, Planned, Source};
use crate::script::{Script, Sizes};
use crate::self_test::Trial;
use crate::stage::Stage;

pub(crate) const HANDLER: Handler = Handler { plan, self_test };

/// Work of a byte: a look-up in a table, and its share of a product of 64 bits.
const BYTE_WORK: u64 = 16;
/// Invocations of a workgroup.
const WORKGROUP: u32 = 64;
/// Workgroups that a dispatch may have.
const MOST_WORKGROUPS: u32 = 65_535;
const RESULT_BYTES: usize = size_of::<[u64; 2]>();

/// Twin of the shader's.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ChecksumParams {
    strings: u32,
}

same_layout!(checksum_params: ChecksumParams { strings });

fn plan<'a>(inputs: &Inputs<'a>, _: &Context<'_>) -> Result<Planned<'a>, Status> {
    let contents = Texts::of(inputs)?;
    inputs.check_room(RESULT_BYTES)?;
    Ok(Planned::new(Checksum { contents }, Source::Parts(Vec::new())))
}

/// A job.
struct Checksum<'a> {
    contents: Texts<'a>,
}

impl Operation for Checksum<'_> {
    fn sizes(&self) -> Sizes {
        Sizes { input: self.contents.input(), scratch: 0, output: self.contents.len() * RESULT_BYTES }
    }

    fn fill(&self, input: &mut [u8]) {
        self.contents.fill(input);
    }

    /// There are no parts.
    fn round(&mut self, _: &[Part], _first: bool) -> Script {
        let strings = self.contents.len() as u32;
        let workgroups = strings.div_ceil(WORKGROUP).min(MOST_WORKGROUPS);
        let params = ChecksumParams { strings };
        let mut script = Script::default();
        let work = BYTE_WORK * u64::from(self.contents.bytes());
        script.dispatch(Stage::Checksum, None, &params, [workgroups, 1, 1], work);
        script
    }

    fn delivery(&self) -> Delivery {
        Box::new(|output, result| result[..output.len()].copy_from_slice(output))
    }
}

/// Strings of every length up to several stripes, at every offset in a word.
fn self_test(trial: &Trial<'_>) -> Result<(), String> {
    let bytes: Vec<u8> = (0..150_u32).map(|at| (at * 167 + 13) as u8).collect();
    let each: Vec<&[u8]> = (0..bytes.len()).map(|len| &bytes[bytes.len() - len..]).collect();
    let mut texts = megaring_core::texts::Texts::default();
    each.iter().for_each(|content| texts.push(content));
    let refused = |status| format!("the job was refused: {status:?}");
    let contents = Texts::new(&texts.offsets, &texts.bytes).map_err(refused)?;
    let found = trial.run(&mut Checksum { contents }, &[], each.len() * RESULT_BYTES)?;
    let want = each.iter().flat_map(|content| Checksums::of(content).words()).flat_map(u64::to_le_bytes);
    if found.iter().copied().eq(want) { Ok(()) } else { Err("checksums differ from the definition".into()) }
}
