//! The record: one slot of the event ring as the ledger keeps it, and the typed form of its data.

use std::fmt;

use bytemuck::{Pod, Zeroable};
use megaring_ring::event_ring::{Event, EventError};
use megaring_ring::slot::{EVENT_DATA_BYTES, JOB_DATA_BYTES, SLOT_BYTES, Slot};

use crate::error::Flaw;
use crate::merkle::{self, Hash};

/// Bytes of a record.
pub const RECORD_BYTES: usize = SLOT_BYTES;

/// Bytes of data that a record carries: those of an event's, but for the last eight, which hold the check.
pub const RECORD_DATA_BYTES: usize = JOB_DATA_BYTES;

/// Where the check lies in a record, which is also what it covers.
const CHECKED: usize = SLOT_BYTES - 8;

/// One event as kept: a little-endian [`Slot`] with a check of its own.
///
/// | bytes | |
/// |---|---|
/// | 0..8 | sequence: the record's index in the ledger + 1 |
/// | 8..16 | kind of event ([`Kind`]) |
/// | 16..24 | FNV-1a 64 of the tenant's name |
/// | 24..32 | Unix time of the event in nanoseconds |
/// | 32..40 | confidence, 0..1, as float64 bits |
/// | 40..48 | bytes used in the data, at most 72 |
/// | 48..120 | the data ([`Entry`]), zero behind its end |
/// | 120..124 | CRC-32C of the bytes 0..120 |
/// | 124..128 | zero |
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Record {
    slot: Slot,
}

impl Record {
    /// The record that keeps `event` at `index`. Data beyond [`RECORD_DATA_BYTES`] has no place in it: callers have
    /// refused such an event before.
    pub(crate) fn seal(index: u64, event: &Event) -> Self {
        let kept = &event.data()[..event.data().len().min(RECORD_DATA_BYTES)];
        let mut data = [0; EVENT_DATA_BYTES];
        data[..kept.len()].copy_from_slice(kept);
        let mut record = Self {
            slot: Slot {
                sequence: index.wrapping_add(1),
                event_type: event.kind(),
                source_id: event.source(),
                timestamp_ns: event.timestamp_ns(),
                confidence_bits: event.confidence().to_bits(),
                data_len: kept.len() as u64,
                data,
            },
        };
        let check = crc32c::crc32c(&record.bytes()[..CHECKED]);
        record.slot.data[RECORD_DATA_BYTES..][..4].copy_from_slice(&check.to_le_bytes());
        record
    }

    /// The record that these bytes are, whole or not.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Self {
        bytemuck::pod_read_unaligned(bytes)
    }

    /// The bytes on disk, over which the leaf of the Merkle tree is computed.
    #[must_use]
    pub fn bytes(&self) -> &[u8; RECORD_BYTES] {
        bytemuck::cast_ref(self)
    }

    /// Whether this is the record of `index`, as it was written.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, index: u64) -> Result<(), Flaw> {
        let (kept, rest) = self.slot.data[RECORD_DATA_BYTES..].split_at(4);
        if crc32c::crc32c(&self.bytes()[..CHECKED]).to_le_bytes() != kept || rest != [0; 4] {
            return Err(Flaw::Check);
        }
        if self.slot.sequence != index.wrapping_add(1) {
            return Err(Flaw::Sequence { found: self.slot.sequence });
        }
        if self.slot.data_len > RECORD_DATA_BYTES as u64 {
            return Err(Flaw::DataLength { found: self.slot.data_len });
        }
        Ok(())
    }

    /// Its index in the ledger, which is the index of its leaf.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.slot.sequence.wrapping_sub(1)
    }

    /// What kind of event it keeps.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind(self.slot.event_type)
    }

    /// FNV-1a 64 of the tenant's name ([`megaring_ring::slot::fnv1a64`]).
    #[must_use]
    pub fn tenant(&self) -> u64 {
        self.slot.source_id
    }

    /// Unix time of the event in nanoseconds.
    #[must_use]
    pub fn timestamp_ns(&self) -> u64 {
        self.slot.timestamp_ns
    }

    /// How sure the source was, from 0 to 1.
    #[must_use]
    pub fn confidence(&self) -> f64 {
        f64::from_bits(self.slot.confidence_bits)
    }

    /// The event's data, at most [`RECORD_DATA_BYTES`] bytes.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.slot.data[..self.slot.data_len.min(RECORD_DATA_BYTES as u64) as usize]
    }

    /// The data in its typed form.
    #[must_use]
    pub fn entry(&self) -> Entry {
        Entry::from_data(self.data())
    }

    /// The hash of its leaf.
    #[must_use]
    pub fn leaf_hash(&self) -> Hash {
        merkle::leaf_hash(self.bytes())
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("index", &self.index())
            .field("kind", &format_args!("{}", self.kind()))
            .field("tenant", &format_args!("{:#018x}", self.tenant()))
            .field("timestamp_ns", &self.timestamp_ns())
            .field("confidence", &self.confidence())
            .field("data", &self.data())
            .finish()
    }
}

/// What kind of event a record keeps: a number, some of which have names. Others are kept and shown as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind(pub u64);

impl Kind {
    /// A job was answered.
    pub const ANSWERED: Self = Self(1);
    /// A job was refused; [`Entry::reason`] says by what.
    pub const REFUSED: Self = Self(2);
    /// An amount was set aside for a job to come.
    pub const RESERVED: Self = Self(3);
    /// A reservation was settled at what the job took.
    pub const SETTLED: Self = Self(4);
    /// A reservation was given back unused.
    pub const RELEASED: Self = Self(5);
    /// Rows were appended to a corpus.
    pub const APPENDED: Self = Self(6);
    /// Something kept was dropped.
    pub const DROPPED: Self = Self(7);
    /// Events were lost before they could be kept; [`Entry::count`] says how many.
    pub const LOST: Self = Self(8);

    /// The name, where the number has one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        const NAMES: [&str; 8] =
            ["answered", "refused", "reserved", "settled", "released", "appended", "dropped", "lost"];
        NAMES.get(usize::try_from(self.0.checked_sub(1)?).ok()?).copied()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        named(f, self.name(), self.0)
    }
}

fn named(f: &mut fmt::Formatter<'_>, name: Option<&str>, number: u64) -> fmt::Result {
    match name {
        Some(name) => f.pad(name),
        None => f.pad_integral(true, "", &number.to_string()),
    }
}

/// The typed form of an event's data: 72 bytes, little-endian.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..2 | `opcode` | operation of the job, 0 for none |
/// | 2..4 | `tool` | number of the tool, 65,535 for none |
/// | 4 | `role` | role of the caller |
/// | 5 | `reason` | why it was refused: a number that the ledger does not look at, 0 for none |
/// | 6 | `status` | status code of gRPC |
/// | 7 | `backend` | what did the work, 255 for none |
/// | 8..16 | `items` | items of the job |
/// | 16..24 | `bytes` | bytes read at least once |
/// | 24..32 | `measured_ns` | nanoseconds that it took |
/// | 32..40 | `predicted_ns` | nanoseconds that it was predicted to take |
/// | 40..48 | `reserved` | amount that was set aside |
/// | 48..56 | `settled` | amount that was charged |
/// | 56..64 | `reservation` | number of the reservation |
/// | 64..72 | `count` | how many, such as of lost events; where an amount was charged, FNV-1a 64 of the session's name |
///
/// Records of reservations ([`Reservation`]) have in `count` the session, in `items` the FNV-1a 64 of the recipient's
/// name, and in `predicted_ns` how long the amount is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Entry {
    /// Operation of the job; 0 for none.
    pub opcode: u16,
    /// Number of the tool; [`Self::NO_TOOL`] for none.
    pub tool: u16,
    /// Role of the caller.
    pub role: u8,
    /// Why it was refused; 0 where it was not.
    pub reason: u8,
    /// Status code of gRPC.
    pub status: u8,
    /// What did the work; [`Self::NO_BACKEND`] for nothing.
    pub backend: u8,
    /// Items of the job.
    pub items: u64,
    /// Bytes that are read at least once.
    pub bytes: u64,
    /// Nanoseconds that the job took.
    pub measured_ns: u64,
    /// Nanoseconds that the job was predicted to take.
    pub predicted_ns: u64,
    /// Amount that was set aside.
    pub reserved: u64,
    /// Amount that was charged.
    pub settled: u64,
    /// Id of the reservation.
    pub reservation: u64,
    /// How many, such as of lost events; where an amount was charged, the session.
    pub count: u64,
}

/// What an entry says of an amount that is set aside for a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reservation {
    /// Its number.
    pub id: u64,
    /// What is set aside.
    pub amount: u64,
    /// What was charged.
    pub settled: u64,
    /// FNV-1a 64 of the session's name.
    pub session: u64,
    /// FNV-1a 64 of the recipient's name.
    pub recipient: u64,
    /// How long it is set aside, in nanoseconds.
    pub lasts_ns: u64,
}

impl Entry {
    /// [`Entry::tool`] where there is none.
    pub const NO_TOOL: u16 = u16::MAX;
    /// [`Entry::backend`] where there is none.
    pub const NO_BACKEND: u8 = u8::MAX;

    /// The entry that an event's data is. Of data that is shorter, as earlier events have it, the rest is zero.
    #[must_use]
    pub fn from_data(data: &[u8]) -> Self {
        let mut entry = Self::zeroed();
        let len = data.len().min(RECORD_DATA_BYTES);
        bytemuck::bytes_of_mut(&mut entry)[..len].copy_from_slice(&data[..len]);
        entry
    }

    /// The entry of a record of kind [`Kind::RESERVED`], [`Kind::SETTLED`] or [`Kind::RELEASED`].
    #[must_use]
    pub fn of_reservation(reservation: &Reservation) -> Self {
        let &Reservation { id, amount, settled, session, recipient, lasts_ns } = reservation;
        Self {
            reservation: id,
            reserved: amount,
            settled,
            count: session,
            items: recipient,
            predicted_ns: lasts_ns,
            ..Self::default()
        }
    }

    /// What the entry of such a record says.
    #[must_use]
    pub fn reservation(&self) -> Reservation {
        Reservation {
            id: self.reservation,
            amount: self.reserved,
            settled: self.settled,
            session: self.count,
            recipient: self.items,
            lasts_ns: self.predicted_ns,
        }
    }

    /// The event of `kind` that carries this entry, of the tenant with the FNV-1a 64 `tenant`, at `timestamp_ns` (Unix
    /// time in nanoseconds), as sure as `confidence` (0..1).
    ///
    /// # Errors
    /// [`EventError::Confidence`].
    pub fn event(&self, kind: Kind, tenant: u64, timestamp_ns: u64, confidence: f64) -> Result<Event, EventError> {
        Event::new(kind.0, tenant, timestamp_ns, confidence, bytemuck::bytes_of(self))
    }
}

impl Default for Entry {
    /// Nothing, with neither tool nor backend.
    fn default() -> Self {
        Self { tool: Self::NO_TOOL, backend: Self::NO_BACKEND, ..Self::zeroed() }
    }
}

impl From<&Event> for Entry {
    fn from(event: &Event) -> Self {
        Self::from_data(event.data())
    }
}

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Record>() == RECORD_BYTES && size_of::<Entry>() == RECORD_DATA_BYTES);
    assert!(offset_of!(Slot, data) + RECORD_DATA_BYTES == CHECKED);
    assert!(offset_of!(Entry, opcode) == 0 && offset_of!(Entry, tool) == 2);
    assert!(offset_of!(Entry, role) == 4 && offset_of!(Entry, reason) == 5);
    assert!(offset_of!(Entry, status) == 6 && offset_of!(Entry, backend) == 7);
    assert!(offset_of!(Entry, items) == 8 && offset_of!(Entry, bytes) == 16);
    assert!(offset_of!(Entry, measured_ns) == 24 && offset_of!(Entry, predicted_ns) == 32);
    assert!(offset_of!(Entry, reserved) == 40 && offset_of!(Entry, settled) == 48);
    assert!(offset_of!(Entry, reservation) == 56 && offset_of!(Entry, count) == 64);
};
