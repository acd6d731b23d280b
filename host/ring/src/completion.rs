//! An answer as it travels in a completion slot.

use std::fmt;

use crate::{
    descriptor::{Region, check_whole},
    fault::SlotFault,
    slot::Slot,
};

/// The longest time on the device that a completion can tell: 48 bits of nanoseconds, 78 hours.
pub const MAX_DEVICE_NS: u64 = (1 << 48) - 1;

/// The answer to one ticket.
///
/// In the slot: `event_type` = opcode | kind of body << 16, `source_id` = ticket, `confidence_bits` = status |
/// device_ns << 16.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Completion {
    /// The ticket that this answers: the sequence of the job's submission slot.
    pub ticket: u64,
    /// The job's opcode.
    pub opcode: u16,
    /// How it went.
    pub status: Status,
    /// Nanoseconds on the device; longer than [`MAX_DEVICE_NS`] is cut to it.
    pub device_ns: u64,
    /// Unix nanoseconds at completion.
    pub timestamp_ns: u64,
    /// The answer, or where it lies.
    pub body: Body,
}

/// Where an answer is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Body {
    /// There is none.
    #[default]
    Empty,
    /// In the arena, within the job's result region.
    Arena(Region),
}

/// How a job went. Codes that this build does not know survive as [`Status::Unknown`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Status {
    /// 0: done.
    #[default]
    Ok,
    /// 1: given up because nobody wanted it any more.
    Cancelled,
    /// 2: its deadline passed first.
    DeadlineExceeded,
    /// 3: the slot or its regions were faulty.
    BadDescriptor,
    /// 4: the backend does not know the opcode.
    UnknownOpcode,
    /// 5: the corpus handle is of an older generation.
    StaleCorpus,
    /// 6: the backend failed or died.
    BackendFailed,
    /// 7: the ring is being shut down.
    ShuttingDown,
    /// 8: the answer does not fit the result region.
    ResultTooSmall,
    /// Any other code.
    Unknown(u16),
}

impl Completion {
    /// The answer as a slot with both copies of `sequence`.
    pub fn to_slot(&self, sequence: u64) -> Slot {
        let mut slot = Slot {
            sequence,
            event_type: 0,
            source_id: self.ticket,
            timestamp_ns: self.timestamp_ns,
            confidence_bits: u64::from(self.status.code()) | self.device_ns.min(MAX_DEVICE_NS) << 16,
            data_len: 0,
            data: [0; _],
        };
        let kind = self.body.store(&mut slot);
        slot.event_type = u64::from(self.opcode) | u64::from(kind) << 16;
        slot.set_second_sequence(sequence);
        slot
    }

    /// The answer in a slot, if the slot is whole.
    pub fn from_slot(slot: &Slot) -> Result<Self, SlotFault> {
        check_whole(slot)?;
        Ok(Self {
            ticket: slot.source_id,
            opcode: slot.event_type as u16,
            status: Status::from_code(slot.confidence_bits as u16),
            device_ns: slot.confidence_bits >> 16,
            timestamp_ns: slot.timestamp_ns,
            body: Body::load(slot)?,
        })
    }
}

impl Body {
    const EMPTY: u8 = 0;
    const ARENA: u8 = 1;

    fn store(&self, slot: &mut Slot) -> u8 {
        match self {
            Self::Empty => Self::EMPTY,
            Self::Arena(region) => {
                slot.put(0, region.offset.to_le_bytes());
                slot.put(8, region.len.to_le_bytes());
                slot.data_len = 16;
                Self::ARENA
            }
        }
    }

    fn load(slot: &Slot) -> Result<Self, SlotFault> {
        match ((slot.event_type >> 16) as u8, slot.data_len) {
            (Self::EMPTY, 0) => Ok(Self::Empty),
            (Self::ARENA, 16) => {
                let [offset, len] = [slot.get(0), slot.get(8)].map(u64::from_le_bytes);
                Ok(Self::Arena(Region { offset, len }))
            }
            (Self::EMPTY | Self::ARENA, len) => Err(SlotFault::DataLength { len }),
            (kind, _) => Err(SlotFault::BodyKind { kind }),
        }
    }
}

impl Status {
    /// The code in a completion slot.
    pub fn code(self) -> u16 {
        match self {
            Self::Ok => 0,
            Self::Cancelled => 1,
            Self::DeadlineExceeded => 2,
            Self::BadDescriptor => 3,
            Self::UnknownOpcode => 4,
            Self::StaleCorpus => 5,
            Self::BackendFailed => 6,
            Self::ShuttingDown => 7,
            Self::ResultTooSmall => 8,
            Self::Unknown(code) => code,
        }
    }

    /// The status of a code; every code has one.
    pub fn from_code(code: u16) -> Self {
        match code {
            0 => Self::Ok,
            1 => Self::Cancelled,
            2 => Self::DeadlineExceeded,
            3 => Self::BadDescriptor,
            4 => Self::UnknownOpcode,
            5 => Self::StaleCorpus,
            6 => Self::BackendFailed,
            7 => Self::ShuttingDown,
            8 => Self::ResultTooSmall,
            other => Self::Unknown(other),
        }
    }

    /// Whether the job was done.
    pub fn is_ok(self) -> bool {
        self == Self::Ok
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline exceeded",
            Self::BadDescriptor => "bad descriptor",
            Self::UnknownOpcode => "unknown opcode",
            Self::StaleCorpus => "stale corpus handle",
            Self::BackendFailed => "backend failed",
            Self::ShuttingDown => "shutting down",
            Self::ResultTooSmall => "result region too small",
            Self::Unknown(code) => return write!(f, "unknown status {code}"),
        })
    }
}
