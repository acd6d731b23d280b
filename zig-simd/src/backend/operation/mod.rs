//! The operations: how each one's jobs are checked, cut into chunks and done here.

mod checksum;
mod encode;
mod join;
mod lists;
mod nearest;
mod nop;
mod score;
mod search;
mod sweep;
mod texts;

use megaring_core::Opcode;
use megaring_core::operation::Serves;
use megaring_ring::Status;

pub(super) use self::search::Scratch;
use super::Context;
use super::plan::Inputs;
use crate::SimdError;

/// One job's work: chunks that any worker may take.
pub(crate) trait Work: Send + Sync {
    /// Does one chunk.
    ///
    /// # Errors
    /// What a kernel refuses; none that a planned job can cause.
    fn run(&self, chunk: usize, context: &Context, scratch: &mut Scratch) -> Result<(), SimdError>;

    /// Called once, after the last chunk.
    fn merge(&self, _: &Context) {}
}

/// Work with the number of its chunks.
pub(crate) type Planned = (Box<dyn Work>, u32);

/// Checks a slot and decides how to share its work.
type Plan = fn(&Inputs, &Context) -> Result<Planned, Status>;

/// What does an operation here.
pub(crate) fn serves(opcode: Opcode) -> Serves<Plan> {
    match opcode {
        Opcode::Nop => Serves::By(nop::plan),
        Opcode::Search => Serves::By(search::plan),
        Opcode::Score => Serves::By(score::plan),
        Opcode::Encode => Serves::By(encode::plan),
        Opcode::Nearest => Serves::By(nearest::plan),
        Opcode::Checksum => Serves::By(checksum::plan),
    }
}
