//! Leases never overlap, a region is only resolved for the generation it was leased in, and what is given back can be
//! leased again.

use proptest::prelude::*;

use super::*;

const BLOCK: usize = 256;
const BLOCKS: usize = 150;

fn arena() -> Arena {
    let memory = Memory::heap(BLOCK * BLOCKS + 4096).expect("memory");
    Arena::lay(&memory, 128, 4096, BLOCK, BLOCKS).expect("arena")
}

fn descriptor(lease: &Lease) -> Descriptor {
    Descriptor {
        payload: lease.payload,
        result: lease.result,
        arena_generation: lease.generation,
        ..Descriptor::default()
    }
}

/// The blocks of a lease.
fn blocks(lease: &Lease) -> std::ops::Range<u32> {
    lease.first..lease.first + lease.blocks
}

proptest! {
    /// Against a model that holds the live leases: none overlap, every live one resolves, every released one is stale,
    /// and a lease is refused only when no free run is long enough.
    #[test]
    fn leases_never_overlap_and_stale_ones_are_caught(
        steps in prop::collection::vec((any::<bool>(), 0usize..5_000, 0usize..5_000, any::<prop::sample::Index>()), 1..200)
    ) {
        let arena = arena();
        let mut live: Vec<Lease> = Vec::new();
        let mut stale: Vec<Descriptor> = Vec::new();
        for (take, payload, result, which) in steps {
            if take || live.is_empty() {
                let wanted = (payload.next_multiple_of(REGION_ALIGN) + result).div_ceil(BLOCK).max(1);
                match arena.lease(payload, result) {
                    Some(lease) => {
                        prop_assert_eq!(blocks(&lease).len(), wanted);
                        live.push(lease);
                    }
                    None => {
                        let taken = |block: &u32| live.iter().any(|lease| blocks(lease).contains(block));
                        let mut longest = 0;
                        let mut run = 0;
                        for block in 0..BLOCKS as u32 {
                            run = if taken(&block) { 0 } else { run + 1 };
                            longest = longest.max(run);
                        }
                        prop_assert!(longest < wanted, "a run of {} was free, {} were wanted", longest, wanted);
                    }
                }
            } else {
                let lease = live.swap_remove(which.index(live.len()));
                stale.push(descriptor(&lease));
                arena.release(lease);
            }
            for (at, lease) in live.iter().enumerate() {
                for other in &live[at + 1..] {
                    prop_assert!(blocks(lease).end <= other.first || blocks(other).end <= lease.first);
                }
                let resolved = arena.resolve(&descriptor(lease)).expect("a live lease resolves");
                prop_assert_eq!(resolved.payload.len() as u64, lease.payload.len);
                prop_assert_eq!(resolved.result.len() as u64, lease.result.len);
                prop_assert!(resolved.payload.cast::<u8>().addr().get().is_multiple_of(REGION_ALIGN));
                prop_assert!(resolved.result.cast::<u8>().addr().get().is_multiple_of(REGION_ALIGN));
            }
            for descriptor in &stale {
                prop_assert!(arena.resolve(descriptor).is_err());
            }
            let leased: usize = live.iter().map(|lease| blocks(lease).len()).sum();
            prop_assert_eq!(arena.free_bytes(), (BLOCKS - leased) * BLOCK);
        }
    }

    /// Whatever numbers a slot brings, what resolves lies in the run that was leased.
    #[test]
    fn no_region_reaches_out_of_its_run(payload in region(), result in region(), generation in 0u32..3) {
        let arena = arena();
        let (first, second) = (arena.lease(3 * BLOCK, 100).expect("free"), arena.lease(10, 10).expect("free"));
        let asked = Descriptor { payload, result, arena_generation: generation, ..Descriptor::default() };
        if arena.resolve(&asked).is_ok() {
            prop_assert_eq!(generation, 1);
            let whole = [&first, &second].map(|lease| Region {
                offset: u64::from(lease.first) * BLOCK as u64,
                len: u64::from(lease.blocks) * BLOCK as u64,
            });
            prop_assert!(whole.iter().any(|run| run.contains(&payload) && run.contains(&result)));
            prop_assert!(payload.offset + payload.len <= result.offset);
        }
    }
}

fn region() -> impl Strategy<Value = Region> {
    let number = prop_oneof![0u64..2_000, (0u64..8).prop_map(|block| block * BLOCK as u64), any::<u64>()];
    (number.clone(), number).prop_map(|(offset, len)| Region { offset, len })
}

#[test]
fn a_run_that_begins_elsewhere_is_refused() {
    let arena = arena();
    let lease = arena.lease(2 * BLOCK, 64).expect("free");
    let mut inside = descriptor(&lease);
    inside.payload.offset += BLOCK as u64;
    inside.payload.len -= BLOCK as u64;
    assert!(matches!(arena.resolve(&inside), Err(SlotFault::Generation { .. })));
    let mut endless = descriptor(&lease);
    endless.payload.len = u64::MAX - 1;
    assert_eq!(arena.resolve(&endless), Err(SlotFault::Region { offset: 0, len: u64::MAX - 1 }));
    let mut overlapping = descriptor(&lease);
    overlapping.result.offset -= 1;
    assert!(matches!(arena.resolve(&overlapping), Err(SlotFault::Region { .. })));
}

#[test]
fn the_whole_arena_is_one_lease() {
    let arena = arena();
    let lease = arena.lease(BLOCK * BLOCKS, 0).expect("all blocks are free");
    assert!(arena.lease(0, 0).is_none());
    arena.release(lease);
    assert!(arena.lease(0, 0).is_some());
}
