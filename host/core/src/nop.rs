//! Nothing: answers at once, with nothing. Measures the path itself.
//!
//! | payload | result |
//! |---|---|
//! | empty | empty |

use crate::error::Error;
use crate::operation::{
    Answered, Class, Description, Exact, Finished, Limits, Listed, Opcode, Operation, Payload, Piece, Reads, Shape,
    Size, SlotFields,
};

/// An empty job. It has one piece, of no items.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nop;

impl Operation for Nop {
    fn opcode(&self) -> Opcode {
        Self::OPCODE
    }

    fn size(&self) -> Size {
        Size::default()
    }

    fn reads(&self) -> Option<Reads<'_>> {
        None
    }

    fn pieces(&self, _: &Limits) -> Vec<Piece> {
        vec![Piece { items: 0..0, payload: 0, result: 0 }]
    }

    fn write(&self, _: &Piece, _: &mut Payload<'_>, _: &mut SlotFields) {}
}

impl Answered for Nop {
    type Answer = ();
    const CLASS: Class = Class::Path;
    const ITEMS: &'static str = "jobs";

    fn describe(_: &Shape) -> Result<Description, Error> {
        Err(Error::field("operation", "an empty job has no size to ask about"))
    }

    fn is_light(&self, _: &Piece, _: &[u8]) -> bool {
        true
    }

    fn finish(&self, _: &Piece, _: &[u8], _: &Exact<'_>, (): &mut ()) -> Result<Finished, Error> {
        Ok(Finished { answers: 0, rows_rescored: 0, bytes_read: 0 })
    }
}
