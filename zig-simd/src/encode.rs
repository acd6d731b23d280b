//! Encode: the words that each of many texts has, by a dense automaton over their bytes, or by a filter that finds the
//! few places where a word may stand (`filter.rs`).
//!
//! # Promises
//! A text's mask is the union of what is accepted by the states it visits, one after each byte; an empty text has the
//! mask 0. The automaton was checked when it was made: no byte of any text leads outside its tables.
//!
//! # Limits
//! Up to 128 keywords, 65,536 states, 256 classes. Folding of case is the automaton's business.

use crate::error::{SimdError, check_length};
use crate::filter::KeywordFilter;
use crate::kernels::KernelSet;
use crate::table::RawAutomaton;

/// The keywords found in one text: bit b of the 128 is keyword b.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Mask {
    /// Keywords 0 to 63.
    pub low: u64,
    /// Keywords 64 to 127.
    pub high: u64,
}

impl Mask {
    /// All 128 bits.
    pub fn bits(self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }
}

impl From<u128> for Mask {
    fn from(bits: u128) -> Mask {
        Mask { low: bits as u64, high: (bits >> 64) as u64 }
    }
}

/// A complete deterministic automaton whose accepting states come last.
#[derive(Debug, Clone)]
pub struct KeywordAutomaton {
    class_of: Box<[u8; 256]>,
    next: Vec<u16>,
    accept: Vec<Mask>,
    shift: u32,
    first_accepting: u32,
    filter: Option<KeywordFilter>,
}

const MAX_SHIFT: u32 = 8;
const MAX_STATES: usize = 1 << 16;

impl KeywordAutomaton {
    /// `next[(state << shift) | class_of[byte]]` is the state after `byte`, state 0 the root; the states from
    /// `first_accepting` on accept the keywords of `accept[state - first_accepting]`.
    ///
    /// # Errors
    /// A class of `class_of` beyond `1 << shift`, a `next` that is not a whole number of states or names one that does
    /// not exist, or an `accept` whose length is not the number of accepting states.
    pub fn new(
        class_of: [u8; 256],
        shift: u32,
        next: Vec<u16>,
        first_accepting: u16,
        accept: &[u128],
    ) -> Result<Self, SimdError> {
        if shift > MAX_SHIFT {
            return Err(SimdError::TooLarge { what: "the shift", found: shift as usize, limit: MAX_SHIFT as usize });
        }
        let classes = 1usize << shift;
        if let Some(&class) = class_of.iter().find(|class| usize::from(**class) >= classes) {
            return Err(SimdError::Index { what: "class", index: class.into(), count: classes });
        }
        let states = next.len().div_ceil(classes).max(1);
        check_length("the transitions", states * classes, next.len())?;
        if states > MAX_STATES {
            return Err(SimdError::TooLarge { what: "the number of states", found: states, limit: MAX_STATES });
        }
        if let Some(&state) = next.iter().find(|state| usize::from(**state) >= states) {
            return Err(SimdError::Index { what: "state", index: state.into(), count: states });
        }
        if usize::from(first_accepting) > states {
            return Err(SimdError::Index {
                what: "the first accepting state",
                index: first_accepting.into(),
                count: states,
            });
        }
        check_length("the accepted keywords", states - usize::from(first_accepting), accept.len())?;
        Ok(KeywordAutomaton {
            class_of: Box::new(class_of),
            next,
            accept: accept.iter().copied().map(Mask::from).collect(),
            shift,
            first_accepting: first_accepting.into(),
            filter: None,
        })
    }

    /// Lets kernels look for the automaton's words themselves, which is several times as fast, where all of them suit
    /// that. `words[b]` is the word of bit b. They are what the automaton accepts, and so are, in texts, their letters
    /// in either case, and the two other characters whose lower case has an ASCII letter.
    #[must_use]
    pub fn with_words(mut self, words: &[impl AsRef<str>]) -> Self {
        self.filter = KeywordFilter::new(words);
        self
    }

    /// Whether kernels may look for the words themselves.
    pub fn is_filtered(&self) -> bool {
        self.filter.is_some()
    }

    /// The number of states.
    pub fn states(&self) -> usize {
        self.next.len() >> self.shift
    }
}

impl KernelSet {
    /// out\[t\] = the words in text t, which is `bytes[offsets[t]..offsets[t + 1]]`: one offset more than there are
    /// texts.
    ///
    /// # Errors
    /// Offsets that fall or point beyond the bytes, or a number of them that does not fit `out`.
    pub fn encode(
        &self,
        automaton: &KeywordAutomaton,
        bytes: &[u8],
        offsets: &[u64],
        out: &mut [Mask],
    ) -> Result<(), SimdError> {
        check_length("the text offsets", out.len() + 1, offsets.len())?;
        if let Some(position) = offsets.windows(2).position(|pair| pair[0] > pair[1]) {
            return Err(SimdError::Offsets { position: position + 1 });
        }
        if let Some(&last) = offsets.last().filter(|last| **last > bytes.len() as u64) {
            return Err(SimdError::Index { what: "text offset", index: last as usize, count: bytes.len() });
        }
        let raw = RawAutomaton {
            class_of: automaton.class_of.as_ptr(),
            next: automaton.next.as_ptr(),
            accept: automaton.accept.as_ptr(),
            shift: automaton.shift,
            first_accepting: automaton.first_accepting,
        };
        let filter = automaton.filter.as_ref().map(KeywordFilter::raw);
        let filter = filter.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the offsets rise and end within `bytes`; `KeywordAutomaton::new` made sure that every class and every
        // transition stays within the tables, which `automaton` keeps alive. The filter is null, or its slots name
        // entries and these bytes of `rest` that are there (`KeywordFilter::new`), and it reads nothing beyond the
        // texts. `out` has a place per text and is borrowed exclusively. The CPU has the instructions because a
        // `KernelSet` exists.
        unsafe { (self.table.encode)(&raw, filter, bytes.as_ptr(), offsets.as_ptr(), out.len(), out.as_mut_ptr()) };
        Ok(())
    }
}
