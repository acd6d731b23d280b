//! The bytes of a slot, spelled out: what a device or another process relies on. And what a configuration may say.
#![cfg(not(loom))]

use std::time::Duration;

use megaring_ring::{
    Body, Completion, Descriptor, JobRing, Memory, MemoryError, Region, RingConfig, RingError, RingFull, RingLayout,
    SlotFault, Status, SubmissionQueue, WaitStrategy, fnv1a64, slot_check,
};

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

#[test]
fn a_job_has_its_fields_where_the_abi_says() {
    let job = Descriptor {
        opcode: 0x0102,
        tenant: 3,
        timestamp_ns: 4,
        threshold: 0.5,
        corpus: 6,
        corpus_generation: 7,
        payload: Region { offset: 8, len: 9 },
        result: Region { offset: 10, len: 11 },
        arena_generation: 12,
        items: 13,
        k: 14,
        metric: 15,
        dtype: 16,
        flags: 0x1718,
        deadline_ns: 19,
        dim: 20,
    };
    let slot = job.to_slot(99);
    let bytes = bytemuck::bytes_of(&slot);
    assert_eq!([0, 16, 24, 40, 120].map(|at| word(bytes, at)), [99, 3, 4, 72, 99]);
    assert_eq!(word(bytes, 8), 1 << 32 | 0x0102);
    assert_eq!(f64::from_bits(word(bytes, 32)), 0.5);
    let data = &bytes[48..];
    assert_eq!([0, 4, 24, 28, 32, 64].map(|at| half(data, at)), [6, 7, 12, 13, 14, 20]);
    // Of all that, as a device checks it.
    assert_eq!(half(data, 68), slot_check(&slot));
    assert_eq!([8, 16, 40, 48, 56].map(|at| word(data, at)), [8, 9, 19, 10, 11]);
    assert_eq!(data[36..40], [15, 16, 0x18, 0x17]);
}

#[test]
fn a_completion_has_its_fields_where_the_abi_says() {
    let answer = Completion {
        ticket: 5,
        opcode: 2,
        status: Status::Cancelled,
        device_ns: 1 << 50,
        timestamp_ns: 8,
        body: Body::Arena(Region { offset: 128, len: 4 }),
    };
    let slot = answer.to_slot(1);
    let bytes = bytemuck::bytes_of(&slot);
    assert_eq!([0, 8, 16, 24, 40, 120].map(|at| word(bytes, at)), [1, 1 << 16 | 2, 5, 8, 16, 1]);
    assert_eq!(word(bytes, 32), ((1 << 48) - 1) << 16 | 1, "a time past 48 bits is cut to the longest");
    assert_eq!([48, 56].map(|at| word(bytes, at)), [128, 4]);
    let empty = Completion::default().to_slot(1);
    assert_eq!((empty.event_type, empty.data_len), (0, 0));
}

#[test]
fn what_is_not_of_this_abi_is_refused() {
    let good = Descriptor::default().to_slot(3);
    let mut other = good;
    other.event_type = 2 << 32;
    assert_eq!(Descriptor::from_slot(&other), Err(SlotFault::Abi { expected: 1, found: 2 }));
    other = good;
    other.set_second_sequence(4);
    assert_eq!(Descriptor::from_slot(&other), Err(SlotFault::Torn { first: 3, second: 4 }));
    other = good;
    for len in [64, 73] {
        other.data_len = len;
        assert_eq!(Descriptor::from_slot(&other), Err(SlotFault::DataLength { len }));
    }
    let mut answer = Completion::default().to_slot(3);
    answer.event_type = 2 << 16;
    assert_eq!(Completion::from_slot(&answer), Err(SlotFault::BodyKind { kind: 2 }));
    answer.event_type = 1 << 16;
    answer.data_len = 9;
    assert_eq!(Completion::from_slot(&answer), Err(SlotFault::DataLength { len: 9 }));
}

#[test]
fn every_status_survives_its_code() {
    for code in 0..=u16::MAX {
        assert_eq!(Status::from_code(code).code(), code);
    }
    assert_eq!(Status::from_code(8), Status::ResultTooSmall);
    assert_eq!(Status::from_code(9), Status::Unknown(9));
}

/// Test vectors of `draft-eastlake-fnv`, FNV-1a 64.
#[test]
fn names_are_hashed_by_fnv_1a() {
    assert_eq!(fnv1a64(b""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(fnv1a64(b"a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(fnv1a64(b"foobar"), 0x8594_4171_f739_67e8);
}

#[test]
fn wait_strategies_are_read_and_written() {
    let hybrid = |micros| WaitStrategy::HybridSpin(Duration::from_micros(micros));
    let known = [
        ("busy-spin", WaitStrategy::BusySpin),
        ("yield", WaitStrategy::Yield),
        ("park", WaitStrategy::Park),
        ("hybrid-spin:50us", hybrid(50)),
        ("hybrid-spin:2ms", hybrid(2000)),
        ("hybrid-spin:3s", hybrid(3_000_000)),
        ("hybrid-spin:1500ns", WaitStrategy::HybridSpin(Duration::from_nanos(1500))),
    ];
    for (text, strategy) in known {
        assert_eq!(text.parse(), Ok(strategy));
        assert_eq!(strategy.to_string(), text);
    }
    assert_eq!("hybrid-spin".parse(), Ok(WaitStrategy::default()));
    assert_eq!("hybrid-spin:7µs".parse(), Ok(hybrid(7)));
    for wrong in [
        "",
        "spin",
        "hybrid-spin:",
        "hybrid-spin:us",
        "hybrid-spin:5",
        "hybrid-spin:5m",
        "hybrid-spin:-5us",
        "hybrid-spin:99999999999999999999s",
        "Park",
    ] {
        let error = wrong.parse::<WaitStrategy>().expect_err(wrong);
        assert!(error.to_string().contains("hybrid-spin:50us"), "the message says what would be right");
    }
}

#[test]
fn a_ring_that_cannot_be_is_refused() {
    let with = |change: fn(&mut RingConfig)| {
        let mut config = RingConfig { capacity: 4, arena_bytes: 1024, block_bytes: 128, wait: WaitStrategy::Park };
        change(&mut config);
        JobRing::new(config)
    };
    assert!(with(|_| ()).is_ok());
    assert!(matches!(with(|config| config.capacity = 3), Err(RingError::Capacity(3))));
    assert!(matches!(with(|config| config.capacity = 0), Err(RingError::Capacity(0))));
    assert!(matches!(with(|config| config.block_bytes = 100), Err(RingError::Block(100))));
    assert!(matches!(with(|config| config.block_bytes = 0), Err(RingError::Block(0))));
    assert!(matches!(with(|config| config.arena_bytes = 0), Err(RingError::Arena(0))));
    assert!(matches!(with(|config| config.arena_bytes = usize::MAX), Err(RingError::Arena(_))));
    let config = RingConfig { capacity: 4, arena_bytes: 1024, block_bytes: 128, wait: WaitStrategy::Park };
    let short = Memory::heap(4096).expect("memory");
    let refused = JobRing::with_memory(config, short, 0);
    assert!(matches!(refused, Err(RingError::Memory(MemoryError::TooSmall { .. }))));
}

#[test]
fn a_full_queue_hands_the_job_back() {
    let queue = SubmissionQueue::<megaring_ring::protocol::Sound>::new(2, u64::MAX).expect("a queue");
    let job = |dim| Descriptor { dim, ..Descriptor::default() };
    assert_eq!([1, 2].map(|dim| queue.try_push(job(dim))), [Ok(u64::MAX), Ok(0)]);
    assert_eq!(queue.try_push(job(3)), Err(RingFull(job(3))));
    assert_eq!(queue.poll(1).expect("a sound tail").len(), 1);
    assert_eq!(queue.try_push(job(3)), Ok(1));
}

#[test]
fn nothing_in_the_layout_shares_a_line() {
    let layout = RingLayout::of(&RingConfig::default()).expect("the default is sound");
    let (jobs, answers) = (layout.submissions, layout.completions);
    let mut lines = [
        jobs.tail,
        jobs.head,
        answers.tail,
        answers.head,
        layout.host_heartbeat,
        layout.device_heartbeat,
        layout.control,
        layout.report,
    ];
    lines.sort_unstable();
    assert!(lines.windows(2).all(|pair| pair[1] - pair[0] >= 128));
    assert!(jobs.slots >= lines[7] + 128);
    assert_eq!(answers.slots, jobs.slots + jobs.capacity * 128);
    assert_eq!(answers.capacity, 2 * jobs.capacity);
    assert!(layout.runs >= answers.slots + answers.capacity * 128 && layout.runs.is_multiple_of(128));
    let config = RingConfig::default();
    let blocks = config.arena_bytes / config.block_bytes;
    assert!(layout.arena >= layout.runs + blocks * 8 && layout.arena.is_multiple_of(4096));
    assert_eq!(layout.len, layout.arena + config.arena_bytes);
}

/// A ring in a file: another mapping of it sees the slots.
#[test]
fn a_ring_can_lie_in_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ring");
    let config = RingConfig { capacity: 4, arena_bytes: 1024, block_bytes: 128, wait: WaitStrategy::Park };
    let layout = RingLayout::of(&config).expect("a layout");
    let memory = Memory::create_file(&path, layout.len).expect("a file");
    let ring = JobRing::with_memory(config, memory, 40).expect("a ring");
    let _ticket =
        ring.submit(ring.try_reserve(8, 8).expect("an empty ring"), Descriptor { dim: 77, ..Descriptor::default() });
    let bytes = std::fs::read(&path).expect("the file");
    assert_eq!((word(&bytes, layout.submissions.tail), word(&bytes, layout.submissions.head)), (41, 40));
    assert_eq!((word(&bytes, layout.submissions.slots), half(&bytes, layout.submissions.slots + 48 + 64)), (41, 77));
    assert!(!Memory::open_file_read_only(&path).expect("the file").is_writable());
    assert_eq!(Memory::open_file(&path).expect("the file").len(), layout.len);
    assert!(matches!(Memory::open_file(&folder.path().join("none")), Err(MemoryError::Map { .. })));
    assert!(matches!(Memory::heap(0), Err(MemoryError::Empty)));
}
