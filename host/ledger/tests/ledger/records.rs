//! What a record keeps, and what of it can be asked for.

use megaring_ledger::{Entry, Error, Kind, Ledger, LedgerView, Options, Query, Reservation};
use megaring_ring::event_ring::Event;
use megaring_ring::slot::fnv1a64;

use crate::common::{event, filled, open, random};

#[test]
fn an_entry_lies_where_its_table_says() {
    let entry = Entry {
        opcode: 0x0102,
        tool: 0x0304,
        role: 5,
        reason: 6,
        status: 7,
        backend: 8,
        items: 0x10,
        bytes: 0x11,
        measured_ns: 0x12,
        predicted_ns: 0x13,
        reserved: 0x14,
        settled: 0x15,
        reservation: 0x16,
        count: 0x1718,
    };
    let mut bytes = vec![2, 1, 4, 3, 5, 6, 7, 8];
    for word in [0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x1718_u64] {
        bytes.extend(word.to_le_bytes());
    }
    let event = entry.event(Kind::SETTLED, 9, 10, 0.5).unwrap();
    assert_eq!((event.kind(), event.source(), event.timestamp_ns(), event.confidence()), (4, 9, 10, 0.5));
    assert_eq!(event.data(), bytes);
    assert_eq!(Entry::from(&event), entry);
    // Of data as it was before there was more, the rest is zero.
    let short = Entry::from_data(&bytes[..32]);
    assert_eq!((short.opcode, short.measured_ns, short.predicted_ns, short.count), (0x0102, 0x12, 0, 0));
}

#[test]
fn a_reservation_is_read_as_it_was_written() {
    let reservation = Reservation { id: 1, amount: u64::MAX, settled: 3, session: 4, recipient: 5, lasts_ns: 6 };
    let entry = Entry::of_reservation(&reservation);
    assert_eq!((entry.reservation(), entry.tool), (reservation, Entry::NO_TOOL));
    assert_eq!((entry.reserved, entry.settled, entry.reservation, entry.count), (u64::MAX, 3, 1, 4));
}

#[test]
fn numbers_without_a_name_are_shown_as_numbers() {
    assert_eq!(
        [Kind::ANSWERED, Kind::LOST, Kind(0), Kind(9)].map(|kind| kind.to_string()),
        ["answered", "lost", "0", "9"]
    );
}

#[test]
fn a_record_lies_where_its_table_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path());
    let (tenant, data) = (fnv1a64(b"tenant"), [7; 33]);
    let sent = Event::new(77, tenant, 123, 0.25, &data).unwrap();
    ledger.append(&[event(0), sent]).unwrap();
    let record = ledger.read(1..2).unwrap().next().unwrap().unwrap();
    let words: Vec<u64> = record.bytes().as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    assert_eq!(words[..6], [2, 77, tenant, 123, 0.25_f64.to_bits(), 33]);
    assert_eq!((&record.bytes()[48..81], &record.bytes()[81..120]), (&data[..], &[0; 39][..]));
    assert_eq!(words[15], u64::from(crc32c::crc32c(&record.bytes()[..120])));
    assert_eq!((record.kind(), record.data()), (Kind(77), &data[..]));
}

#[test]
fn an_event_that_does_not_fit_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path());
    let large = Event::new(1, 2, 3, 1.0, &[0; 73]).unwrap();
    let error = ledger.append(&[event(0), large]).unwrap_err();
    assert_eq!(error.appended, 0..0);
    assert!(matches!(error.source, Error::DataTooLong { position: 1, len: 73 }), "{error}");
    assert_eq!(ledger.size(), 0);
    assert_eq!(ledger.append(&[]).unwrap(), 0..0);
}

#[test]
fn a_query_finds_what_a_plain_filter_does() {
    let folder = filled(200);
    let view = LedgerView::open(folder.path()).unwrap();
    let mut state = 1;
    for _ in 0..300 {
        let mut maybe = |value: u64| random(&mut state).is_multiple_of(2).then(|| random(&mut state) % value);
        let time = |number| 1_700_000_000_000_000_000 + number * 1000;
        let query = Query {
            tenant: maybe(4),
            since_ns: maybe(200).map(time),
            until_ns: maybe(200).map(time),
            opcode: maybe(5).map(|opcode| opcode as u16),
            kind: maybe(9).map(Kind),
            limit: maybe(20).map(|limit| limit as usize),
        };
        let wanted = (0..200).filter(|&number| {
            let (event, entry) = (event(number), Entry::from(&event(number)));
            query.tenant.is_none_or(|tenant| tenant == event.source())
                && query.since_ns.is_none_or(|since| since <= event.timestamp_ns())
                && query.until_ns.is_none_or(|until| event.timestamp_ns() < until)
                && query.opcode.is_none_or(|opcode| opcode == entry.opcode)
                && query.kind.is_none_or(|kind| kind.0 == event.kind())
        });
        let wanted: Vec<u64> = wanted.take(query.limit.unwrap_or(usize::MAX)).collect();
        let found: Vec<u64> = view.query(query.clone()).map(|record| record.unwrap().index()).collect();
        assert_eq!(found, wanted, "{query:?}");
    }
}

#[test]
fn what_is_beyond_is_refused() {
    let folder = filled(20);
    let view = LedgerView::open(folder.path()).unwrap();
    let beyond = |error| matches!(error, Error::Beyond { .. });
    assert!(beyond(view.read(3..21).unwrap_err()) && beyond(view.root_at(21).unwrap_err()));
    assert!(beyond(view.inclusion(20, 20).unwrap_err()) && beyond(view.inclusion(7, 7).unwrap_err()));
    assert!(beyond(view.consistency(20, 21).unwrap_err()) && beyond(view.consistency(9, 8).unwrap_err()));
    for levels in [3, 25] {
        let refused = Ledger::open(tempfile::tempdir().unwrap().path(), Options { segment_levels: levels });
        assert!(matches!(refused.unwrap_err(), Error::SegmentSize(found) if found == levels));
    }
}
