//! What `megaring.v1.Ledger` answers: a record of the ledger as the wire has it.

use megaring_core::gate::{Reason, Role, tool_name};
use megaring_core::{BackendKind, Opcode};
use megaring_ledger::{Kind, Record};
use megaring_proto::v1 as pb;

use super::backend;

/// A record, with what can be read out of it.
#[must_use]
pub fn record(record: &Record) -> pb::Record {
    let (kind, entry) = (record.kind(), record.entry());
    let is_reservation = [Kind::RESERVED, Kind::SETTLED, Kind::RELEASED].contains(&kind);
    let is_counted = [Kind::APPENDED, Kind::DROPPED, Kind::LOST].contains(&kind);
    let made_by = BackendKind::ALL.into_iter().find(|kind| *kind as u8 == entry.backend);
    let operation = Opcode::from_u16(entry.opcode).map_or(pb::Operation::Unspecified, operation);
    let mut told = pb::Record {
        index: record.index(),
        bytes: record.bytes().to_vec(),
        kind: kind.name().and_then(record_kind).unwrap_or(pb::RecordKind::Unspecified).into(),
        unix_ns: record.timestamp_ns(),
        tenant_hash: record.tenant(),
        call: tool_name(entry.tool).unwrap_or_default().to_owned(),
        operation: operation.into(),
        role: Role::from_number(entry.role).map_or("", Role::name).to_owned(),
        reason: Reason::from_number(entry.reason).map_or("", Reason::name).to_owned(),
        backend: made_by.map_or(pb::Backend::Unspecified, backend).into(),
        reserved: entry.reserved,
        settled: entry.settled,
        ..pb::Record::default()
    };
    if is_reservation {
        told.reservation = entry.reservation;
    } else {
        (told.items, told.bytes_read) = (entry.items, entry.bytes);
        (told.measured_ns, told.predicted_ns) = (entry.measured_ns, entry.predicted_ns);
        told.count = if is_counted { entry.count } else { 0 };
    }
    told
}

fn operation(opcode: Opcode) -> pb::Operation {
    let name = crate::validate::operation_name(opcode);
    pb::Operation::from_str_name(&name).unwrap_or(pb::Operation::Unspecified)
}

fn record_kind(name: &str) -> Option<pb::RecordKind> {
    pb::RecordKind::from_str_name(&format!("RECORD_KIND_{}", name.to_ascii_uppercase()))
}
