//! The pool against what it promises, on random sequences of taking, giving and growing.

use megaring_cuda::device::DevicePtr;
use megaring_cuda::pool::{Budget, Pool, SPAN_ALIGN, Span, rounded};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Take(Vec<usize>),
    Give(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sizes = prop::collection::vec(0_usize..20_000, 1..5);
    let step = prop_oneof![3 => sizes.prop_map(Step::Take), 2 => (0_usize..64).prop_map(Step::Give)];
    prop::collection::vec(step, 1..120)
}

/// A pool that begins with a chunk of `first` bytes, like one whose device gave less than it was asked for.
fn pool(budget: usize, first: usize) -> (Pool, Vec<(u64, usize)>) {
    let mut pool = Pool::new(Budget { bytes: budget, least_chunk: 1000 });
    let first = rounded(first).min(pool.budget());
    pool.add(DevicePtr(1 << 20), first);
    (pool, vec![(1 << 20, first)])
}

fn grow(pool: &mut Pool, chunks: &mut Vec<(u64, usize)>, lacking: usize) -> bool {
    let Some(bytes) = pool.growth(lacking) else { return false };
    assert!(bytes >= rounded(lacking) && pool.bytes() + bytes <= pool.budget());
    // Chunks that touch must not be joined: they are allocations of their own.
    let base = chunks.iter().map(|(base, len)| base + *len as u64).max().unwrap_or(1 << 20);
    pool.add(DevicePtr(base), bytes);
    chunks.push((base, bytes));
    true
}

fn check(pool: &Pool, chunks: &[(u64, usize)], held: &[Span]) {
    let mut spans: Vec<(u64, u64)> =
        held.iter().filter(|s| s.bytes() > 0).map(|s| (s.at().0, s.at().0 + s.bytes() as u64)).collect();
    spans.sort_unstable();
    for pair in spans.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "{pair:?} overlap");
    }
    for (begin, end) in &spans {
        assert_eq!(begin % SPAN_ALIGN as u64, 0);
        let inside = |(base, len): &(u64, usize)| base <= begin && *end <= base + *len as u64;
        assert!(chunks.iter().any(inside), "{begin:x}..{end:x} lies in no chunk");
    }
    assert_eq!(pool.used(), held.iter().map(Span::bytes).sum::<usize>());
    assert!(pool.bytes() <= pool.budget() && pool.used() <= pool.bytes());
}

proptest! {
    #[test]
    fn spans_lie_apart_within_the_budget_and_all_come_back(
        budget in 4_096_usize..400_000,
        first in 256_usize..40_000,
        steps in steps(),
    ) {
        let (mut pool, mut chunks) = pool(budget, first);
        let mut held: Vec<Span> = Vec::new();
        for step in steps {
            match step {
                Step::Take(sizes) => match pool.take_all(&sizes) {
                    Ok(spans) => {
                        for (span, size) in spans.iter().zip(&sizes) {
                            prop_assert_eq!(span.bytes(), rounded(*size));
                            prop_assert_eq!(span.at().is_null(), *size == 0);
                        }
                        held.extend(spans);
                    }
                    Err(lacking) => {
                        check(&pool, &chunks, &held);
                        prop_assert!(lacking > 0);
                        if grow(&mut pool, &mut chunks, lacking) {
                            let spans = pool.take_all(&sizes);
                            prop_assert!(spans.is_ok(), "what was lacking was added");
                            held.extend(spans.unwrap());
                        }
                    }
                },
                Step::Give(index) if !held.is_empty() => pool.give(held.swap_remove(index % held.len())),
                Step::Give(_) => {}
            }
            check(&pool, &chunks, &held);
        }
        held.drain(..).for_each(|span| pool.give(span));
        let whole: Vec<usize> = chunks.iter().map(|(_, bytes)| *bytes).collect();
        prop_assert!(pool.take_all(&whole).is_ok(), "gaps are joined again");
    }

    #[test]
    fn holds_says_what_an_empty_pool_would_do(
        budget in 4_096_usize..200_000,
        first in 256_usize..40_000,
        sizes in prop::collection::vec(1_usize..60_000, 1..8),
        filler in prop::collection::vec(1_usize..9_000, 0..6),
    ) {
        let (empty, chunks) = pool(budget, first);
        let mut filled = empty.clone();
        let _held = filled.take_all(&filler);
        let promised = filled.holds(&sizes);
        let (mut empty, mut chunks) = (empty, chunks);
        let fits = match empty.take_all(&sizes) {
            Ok(_) => true,
            Err(lacking) => grow(&mut empty, &mut chunks, lacking) && empty.take_all(&sizes).is_ok(),
        };
        prop_assert_eq!(promised, fits);
    }
}

#[test]
fn growth_doubles_up_to_the_budget_and_ends_when_told() {
    let mib = 1 << 20;
    let mut pool = Pool::new(Budget::of(1500 * mib));
    let mut base = 1 << 40;
    let mut sizes = Vec::new();
    while let Some(bytes) = pool.growth(1) {
        pool.add(DevicePtr(base), bytes);
        base += bytes as u64;
        sizes.push(bytes / mib);
    }
    assert_eq!(sizes, [256, 256, 512, 476]);
    assert_eq!(pool.growth(0), None);
    let mut pool = Pool::new(Budget::of(1500 * mib));
    assert_eq!(pool.growth(700 * mib), Some(700 * mib), "one large part is a chunk of its own size");
    assert_eq!(pool.growth(1501 * mib), None);
    pool.add(DevicePtr(1 << 40), 256 * mib);
    pool.stop_growing();
    assert_eq!((pool.growth(1), pool.budget()), (None, 256 * mib));
    assert!(pool.holds(&[200 * mib, 56 * mib]) && !pool.holds(&[200 * mib, 57 * mib]));
}
