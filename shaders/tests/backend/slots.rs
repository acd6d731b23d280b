//! Slots, good and bad.

use std::time::{SystemTime, UNIX_EPOCH};

use megaring_core::lists::{CandidateLists, Candidates};
use megaring_core::operation::{Reads, Shape};
use megaring_core::search::{FLAG_QUERY_ROWS, Queries, Search};
use megaring_core::{Backend, Lacking, Opcode, Operation};
use megaring_ring::{Descriptor, Status};
use megaring_wgpu::WgpuOptions;

use crate::rig::{Rig, Slot, encode, nop, options, search, slot};

#[test]
fn many_slots_under_way_are_each_answered_once() {
    let Some(rig) = Rig::start() else { return };
    let texts: Vec<String> = (0..200).map(|i| format!("memory {i}: {}", "a garden of love ".repeat(i % 7))).collect();
    for round in 0..5 {
        let slots: Vec<(Slot, &String)> =
            texts[40 * round..40 * (round + 1)].iter().map(|t| (encode(&[t]), t)).collect();
        let tickets: Vec<_> = slots.iter().map(|(slot, text)| (rig.submit(slot), text)).collect();
        for (ticket, text) in tickets {
            let outcome = ticket.wait();
            assert_eq!(outcome.completion.status, Status::Ok);
            assert_eq!(outcome.result(), rig.automaton.mask(text.as_bytes()).to_le_bytes(), "{text}");
        }
    }
    assert_eq!(rig.count("jobs"), 200);
    assert!(rig.count("submissions") <= 200);
    assert_eq!(rig.ring.outstanding(), 0);
}

#[test]
fn nops_and_jobs_of_all_sizes_share_the_ring() {
    let Some(rig) = Rig::start() else { return };
    let view = rig.corpus(500, 24);
    let text = "wisdom ".repeat(100_000);
    for _ in 0..3 {
        let (many, one) = (slot(&search(&view, 30, 5)), slot(&search(&view, 1, 7)));
        let slots = [nop(), encode(&[&text]), many, encode(&["love"]), nop(), one];
        let tickets: Vec<_> = slots.iter().map(|slot| rig.submit(slot)).collect();
        for (number, ticket) in tickets.into_iter().enumerate() {
            assert_eq!(ticket.wait().completion.status, Status::Ok, "slot {number}");
        }
    }
}

#[test]
fn a_corpus_nobody_prepared_is_streamed_and_one_that_was_is_not() {
    let Some(rig) = Rig::start_with(&WgpuOptions { part_bytes: 8 << 10, ..options() }) else { return };
    let view = rig.corpus(700, 32);
    let job = search(&view, 4, 3);
    let check = || {
        let outcome = rig.send(&slot(&job));
        assert_eq!(outcome.completion.status, Status::Ok);
        let lists = CandidateLists::read(outcome.result(), 4, view.rows()).expect("well-formed lists");
        let rows = |query| match lists.of(query) {
            Candidates::Listed(listed) => listed.iter().map(|c| c.row).collect::<Vec<_>>(),
            other => panic!("the screen tells rows apart: {other:?}"),
        };
        (0..4).for_each(|query| assert!(rows(query).contains(&(query as u32)), "a row is nearest to itself"));
    };
    check();
    assert_eq!((rig.count("streamed"), rig.count("uploads")), (1, 0));
    let held = rig.backend.prepare(job.reads()).expect("there is room");
    check();
    assert_eq!((rig.count("streamed"), rig.count("uploads")), (1, 1));
    drop(held);
}

#[test]
fn what_would_be_uploaded_is_what_a_corpus_lacks_that_was_never_brought() {
    let Some(rig) = Rig::start() else { return };
    let view = rig.corpus(700, 32);
    let shape = Shape { items: 1, k: 3, corpus: Some(view.clone()), ..Shape::default() };
    for opcode in [Opcode::Search, Opcode::Score] {
        let described = opcode.describe(&shape).expect("a whole shape");
        let lacking = rig.backend.lacking(Reads { corpus: &view, columns: described.columns });
        assert_eq!(lacking.bytes, rig.backend.upload_bytes(described.columns, 700, 32), "{opcode}");
        assert!(lacking.bytes > 700 * 32 && lacking.stays, "{opcode}: {lacking:?}");
    }
    let all = search(&view, 1, 350);
    let reads = all.reads().expect("it names a corpus");
    assert_eq!(rig.backend.lacking(reads), Lacking::default(), "every row is a candidate");
    assert!(rig.backend.prepare(Some(reads)).expect("nothing is to be done").guard.is_none());
    assert_eq!(rig.send(&slot(&all)).completion.status, Status::Ok);
    assert_eq!((rig.count("streamed"), rig.count("uploads")), (0, 0));
}

/// Rounds of a few cells and of many: a later round has more steps than the first.
#[test]
fn a_streamed_corpus_may_begin_with_a_small_segment() {
    let Some(rig) = Rig::start() else { return };
    let view = rig.corpus_of(&[16, 60_000], 8);
    let queries = Queries::Rows((0..400).map(|query| query % 16).collect());
    let many = Search { queries, ..search(&view, 16, 1600) };
    assert_eq!(rig.send(&slot(&many)).completion.status, Status::Ok);
    assert_eq!((rig.count("streamed"), rig.count("rebuilds")), (1, 0));
    assert!(rig.backend.health().is_ok());
}

#[test]
fn faulty_slots_are_answered_with_the_reason() {
    let Some(rig) = Rig::start() else { return };
    let view = rig.corpus(300, 8);
    let good = slot(&search(&view, 2, 3));
    let with = |change: &dyn Fn(&mut Descriptor)| {
        let mut descriptor = good.descriptor;
        change(&mut descriptor);
        Slot { descriptor, payload: good.payload.clone(), result: good.result }
    };
    let mut falling = encode(&["one", "two"]);
    falling.payload[8] = 200;
    let past = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64 - 1;
    for (what, slot, status) in [
        ("an unknown opcode", with(&|d| d.opcode = 99), Status::UnknownOpcode),
        ("another dimension", with(&|d| d.dim = 9), Status::BadDescriptor),
        ("an unknown metric", with(&|d| d.metric = 9), Status::BadDescriptor),
        ("queries by row", with(&|d| d.flags = FLAG_QUERY_ROWS), Status::BadDescriptor),
        ("k of 0", with(&|d| d.k = 0), Status::BadDescriptor),
        ("more queries than sent", with(&|d| d.items = 3), Status::BadDescriptor),
        ("an old version", with(&|d| d.corpus_generation = 0), Status::StaleCorpus),
        ("a passed deadline", with(&|d| d.deadline_ns = past), Status::DeadlineExceeded),
        ("no coordinates", with(&|d| d.opcode = Opcode::Nearest as u16), Status::BadDescriptor),
        ("offsets that fall", falling, Status::BadDescriptor),
        ("no room", Slot { result: 16, ..encode(&["a", "b"]) }, Status::ResultTooSmall),
        ("no room for lists", Slot { result: 8, ..slot(&search(&view, 2, 3)) }, Status::ResultTooSmall),
    ] {
        assert_eq!(rig.send(&slot).completion.status, status, "{what}");
    }
    assert_eq!(rig.send(&good).completion.status, Status::Ok, "the backend goes on");
    assert!(rig.backend.health().is_ok());
}

#[test]
fn what_is_in_the_ring_at_the_end_is_left_for_the_host_to_fail() {
    let Some(rig) = Rig::start() else { return };
    rig.backend.shutdown();
    let ticket = rig.submit(&nop());
    rig.ring.close();
    assert_eq!(rig.ring.fail_outstanding(Status::ShuttingDown), 1);
    assert_eq!(ticket.wait().completion.status, Status::ShuttingDown);
}
