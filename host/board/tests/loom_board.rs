//! Every interleaving, and every value that the memory model lets a load return, of the health's sequence lock, with
//! two words. The code is the board's own; each twin changes one constant of it, and loom must find the model broken.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test --release -p megaring-board --test loom_board`.
#![cfg(loom)]

use std::panic;
use std::sync::Arc;

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use megaring_board::seqlock::{Protocol, Sound, try_read, write};

/// A writer of some healths and a reader with some looks: what it takes is whole, and never older than what it has
/// seen.
fn model<P: Protocol + 'static>(healths: u64, looks: usize) {
    loom::model(move || {
        let sequence = Arc::new(AtomicU64::new(0));
        let words: Arc<[AtomicU64; 2]> = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let writer = {
            let (sequence, words) = (sequence.clone(), words.clone());
            thread::spawn(move || (1..=healths).for_each(|value| write::<P, 2>(&sequence, &words[..], [value; 2])))
        };
        let mut newest = 0;
        for _ in 0..looks {
            if let Some([one, other]) = try_read::<P, 2>(&sequence, &words[..]) {
                assert_eq!(one, other, "torn");
                assert!(one >= newest, "older than what was seen");
                newest = one;
            }
        }
        writer.join().unwrap();
        assert_eq!(try_read::<P, 2>(&sequence, &words[..]), Some([healths; 2]));
    });
}

/// Both are small enough to be gone through in seconds.
fn models<P: Protocol + 'static>() {
    model::<P>(2, 1);
    model::<P>(1, 2);
}

macro_rules! twin {
    ($name:ident, $($constant:tt)*) => {
        #[test]
        fn $name() {
            enum Twin {}
            impl Protocol for Twin { $($constant)* }
            assert!(panic::catch_unwind(models::<Twin>).is_err(), "the bug goes unnoticed");
        }
    };
}

#[test]
fn no_health_is_torn() {
    models::<Sound>();
}

twin!(words_that_overtake_the_odd_sequence_are_seen, const BEGIN: Option<Ordering> = None;);
twin!(words_behind_the_even_sequence_are_seen, const END: Ordering = Ordering::Relaxed;);
twin!(words_older_than_the_first_look_are_seen, const FIRST_LOOK: Ordering = Ordering::Relaxed;);
twin!(words_newer_than_the_second_look_are_seen, const SECOND_LOOK: Option<Ordering> = None;);
