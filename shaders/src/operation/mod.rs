//! The operations: from a job's slot to steps on the device, and from what they leave behind to the slot's result.
//!
//! | operation | input | scratch | output |
//! |---|---|---|---|
//! | checksum | offsets, strings | state of long strings | checksums |
//! | encode | offsets, text | | masks |
//! | nearest | what lists take, queries | thresholds, cells | lists |
//! | score | queries, their norms, named rows and columns | sums | scores |
//! | search | what lists take, coefficients and codes of the queries | thresholds, cells | lists |
//! | search of bits | what lists take, queries | thresholds, cells | lists |

mod bits;
mod checksum;
pub(crate) mod encode;
mod lists;
pub(crate) mod nearest;
mod nop;
mod score;
mod search;
mod texts;

use std::ops::Range;

use megaring_core::Opcode;
use megaring_core::operation::Serves;
use megaring_ring::Status;

use crate::plan::{Context, Inputs, Planned};
use crate::self_test::Trial;

/// How the shaders' structs are laid out, by name, as naga has it.
mod layout {
    include!(concat!(env!("OUT_DIR"), "/layout.rs"));
}

/// Proves that a struct has the layout of its twin in the shaders.
macro_rules! same_layout {
    ($twin:ident: $rust:ty { $($member:ident),+ $(,)? }) => {
        const _: () = {
            assert!(size_of::<$rust>() == $crate::operation::layout::$twin::size());
            $(assert!(std::mem::offset_of!($rust, $member) == $crate::operation::layout::$twin::$member());)+
        };
    };
}
pub(crate) use same_layout;

use crate::script::{Script, Sizes};

/// What an operation has to offer.
pub(crate) struct Handler {
    /// Checks a slot and makes its work.
    pub(crate) plan: Plan,
    /// Does some small work that is hard for it and compares the device's answer with the definition; the error says
    /// what differs.
    pub(crate) self_test: fn(&Trial<'_>) -> Result<(), String>,
}

type Plan = for<'a> fn(&Inputs<'a>, &Context<'_>) -> Result<Planned<'a>, Status>;

/// What does an operation here.
pub(crate) fn serves(opcode: Opcode) -> Serves<Handler> {
    match opcode {
        Opcode::Nop => Serves::By(nop::HANDLER),
        Opcode::Search => Serves::By(search::HANDLER),
        Opcode::Score => Serves::By(score::HANDLER),
        Opcode::Encode => Serves::By(encode::HANDLER),
        Opcode::Nearest => Serves::By(nearest::HANDLER),
        Opcode::Checksum => Serves::By(checksum::HANDLER),
    }
}

/// A part of a corpus on the device: rows of one segment, as many as fit a binding.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// What a stage binds as group 1.
    pub(crate) binding: wgpu::BindGroup,
    /// Its rows, by their numbers in the corpus. Its groups of 16 begin anew with it.
    pub(crate) rows: Range<usize>,
}

/// Most rows of a round.
pub(crate) const ROUND_ROWS: usize = 4 << 20;

/// Parts by rounds of at most [`ROUND_ROWS`] rows; one empty round where there is no part. A single part has fewer rows
/// (`cut.rs`).
pub(crate) fn rounds(parts: &[Part]) -> Vec<&[Part]> {
    let mut rounds = Vec::new();
    let (mut begin, mut rows) = (0, 0);
    for (place, part) in parts.iter().enumerate() {
        if rows + part.rows.len() > ROUND_ROWS && place > begin {
            rounds.push(&parts[begin..place]);
            (begin, rows) = (place, 0);
        }
        rows += part.rows.len();
    }
    rounds.push(&parts[begin..]);
    rounds
}

/// A job as steps on the device.
///
/// `input` is uploaded before the first round. A resident corpus is one round of all its parts (or a few, see
/// [`rounds`]). A streamed one has a round for each part, in order; scratch and output stay as they are in between.
pub(crate) trait Operation {
    /// What the buffers must hold at least.
    fn sizes(&self) -> Sizes;

    /// Fills the input; `input` is as long as [`Sizes::input`] says.
    fn fill(&self, input: &mut [u8]);

    /// The steps of a round. `first` in the job's first one.
    fn round(&mut self, parts: &[Part], first: bool) -> Script;

    /// Makes the slot's result of the output. It outlives the operation, and the payload that an operation may borrow
    /// from, so it owns what it needs.
    fn delivery(&self) -> Delivery;
}

/// Makes a slot's result (second) of the output (first), which is as long as [`Sizes::output`] says.
pub(crate) type Delivery = Box<dyn Fn(&[u8], &mut [u8]) + Send>;
