//! The keyword automaton: one pass over a text's bytes finds every word of a profile that stands in it, overlapping
//! ones too.
//!
//! A deterministic Aho-Corasick automaton over bytes. Matching is defined on the Unicode lower-case form of the text,
//! but the automaton reads the text as it is: ASCII capitals share a class with their small letters, and the only two
//! other characters whose lower case contains an ASCII letter get states of their own: U+212A (E2 84 AA), which is a
//! `k`, and U+0130 (C4 B0), which is an `i` followed by a combining dot. Backends run these tables, or find the
//! same words otherwise, so every backend finds the same masks.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::encode::profile::Profile;

/// A state number. 0 is the root; states from [`Automaton::first_accepting`] on have words.
pub type State = u16;

/// Tables of the automaton.
#[derive(Debug, Clone)]
pub struct Automaton {
    class_of: [u8; 256],
    shift: u32,
    next: Vec<State>,
    first_accepting: State,
    accept: Vec<u128>,
    words: Vec<String>,
}

impl Automaton {
    /// Builds the tables of a profile's words. At most 128 words of 64 bytes, so a state always fits 16 bits.
    #[must_use]
    pub fn new(profile: &Profile) -> Self {
        let trie = Trie::new(profile.words());
        let mut builder = Builder::new(&trie);
        builder.add_letters_outside_ascii(&trie);
        Self { words: profile.words().to_vec(), ..builder.finish() }
    }

    /// The words, in bit order.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// Class of each byte, the column of [`Self::next`].
    #[must_use]
    pub fn class_of(&self) -> &[u8; 256] {
        &self.class_of
    }

    /// Transitions: `next[(state << shift) | class]`.
    #[must_use]
    pub fn next(&self) -> &[State] {
        &self.next
    }

    /// Logarithm of the row length of [`Self::next`].
    #[must_use]
    pub fn shift(&self) -> u32 {
        self.shift
    }

    /// The first state with words; all from here on have some.
    #[must_use]
    pub fn first_accepting(&self) -> State {
        self.first_accepting
    }

    /// Words found on entering `first_accepting + i`.
    #[must_use]
    pub fn accept(&self) -> &[u128] {
        &self.accept
    }

    /// Number of states.
    #[must_use]
    pub fn states(&self) -> usize {
        self.next.len() >> self.shift
    }

    /// Bytes after which the state no longer depends on the state that reading began in: the fewest that suffice for
    /// every text. So a reader that starts at the root this far before a byte is, at that byte, in the state that a
    /// reader of the whole text is in.
    ///
    /// Follows every state beside the root until the two meet. They do, since a state stands for the letters read last,
    /// no more of them than the longest word has (one of up to three bytes each).
    #[must_use]
    pub fn warm_up(&self) -> usize {
        let mut apart: HashSet<(State, State)> = (1..self.states()).map(|state| (state as State, 0)).collect();
        let mut bytes = 0;
        while !apart.is_empty() {
            let step = |state: State| &self.next[usize::from(state) << self.shift..][..1 << self.shift];
            apart = apart
                .iter()
                .flat_map(|(one, other)| step(*one).iter().copied().zip(step(*other).iter().copied()))
                .filter(|(one, other)| one != other)
                .collect();
            bytes += 1;
        }
        bytes
    }

    /// The mask of one text: the tables' meaning, in the plainest way.
    #[must_use]
    pub fn mask(&self, text: &[u8]) -> u128 {
        let mut state = 0;
        let mut mask = 0;
        for byte in text {
            state = self.next[(usize::from(state) << self.shift) | usize::from(self.class_of[usize::from(*byte)])];
            if let Some(accepted) = state.checked_sub(self.first_accepting) {
                mask |= self.accept[usize::from(accepted)];
            }
        }
        mask
    }
}

/// Goto, failure and output functions of Aho and Corasick (1975), completed to a total transition function.
struct Trie {
    delta: Vec<BTreeMap<u8, usize>>,
    out: Vec<u128>,
}

impl Trie {
    fn new(words: &[String]) -> Self {
        let mut trie = Self { delta: vec![BTreeMap::new()], out: vec![0] };
        for (bit, word) in words.iter().enumerate() {
            let mut node = 0;
            for byte in word.bytes() {
                node = match trie.delta[node].get(&byte) {
                    Some(child) => *child,
                    None => trie.add_child(node, byte),
                };
            }
            trie.out[node] |= 1 << bit;
        }
        trie.complete();
        trie
    }

    fn add_child(&mut self, node: usize, byte: u8) -> usize {
        let child = self.delta.len();
        self.delta.push(BTreeMap::new());
        self.out.push(0);
        self.delta[node].insert(byte, child);
        child
    }

    /// Breadth-first: a node's missing edges are those of its longest proper suffix, whose row is complete already.
    fn complete(&mut self) {
        let mut queue: std::collections::VecDeque<(usize, usize)> = self.delta[0].values().map(|c| (*c, 0)).collect();
        while let Some((node, suffix)) = queue.pop_front() {
            self.out[node] |= self.out[suffix];
            let inherited = self.delta[suffix].clone();
            for (byte, child) in &self.delta[node] {
                queue.push_back((*child, inherited.get(byte).copied().unwrap_or(0)));
            }
            for (byte, target) in inherited {
                self.delta[node].entry(byte).or_insert(target);
            }
        }
    }

    fn step(&self, node: usize, byte: u8) -> usize {
        self.delta[node].get(&byte).copied().unwrap_or(0)
    }
}

/// Rows of the final table while it grows: byte to node, missing bytes lead to the root.
struct Builder {
    rows: Vec<HashMap<u8, usize>>,
    out: Vec<u128>,
}

impl Builder {
    fn new(trie: &Trie) -> Self {
        let rows = trie.delta.iter().map(|row| row.iter().map(|(byte, to)| (*byte, *to)).collect()).collect();
        Self { rows, out: trie.out.clone() }
    }

    /// After E2 84 the state must remember where a `k` would lead; after C4, where an `i` would. Few such targets
    /// exist, so few states are added. U+0130's combining dot is no word's byte: after its `i` the automaton is back at
    /// the root, words found.
    fn add_letters_outside_ascii(&mut self, trie: &Trie) {
        let mut kelvin: HashMap<usize, usize> = HashMap::new();
        let mut dotted: HashMap<usize, usize> = HashMap::new();
        for node in 0..trie.delta.len() {
            let k = trie.step(node, b'k');
            if k != 0 {
                let pending = *kelvin.entry(k).or_insert_with(|| self.chain(&[0x84, 0xAA], k));
                self.rows[node].insert(0xE2, pending);
            }
            let i = trie.step(node, b'i');
            if trie.out[i] != 0 {
                let pending = *dotted.entry(i).or_insert_with(|| {
                    let found = self.add(HashMap::new(), trie.out[i]);
                    self.chain(&[0xB0], found)
                });
                self.rows[node].insert(0xC4, pending);
            }
        }
        // A state that stands for "back at the root, words found" must go on as the root does.
        let root = self.rows[0].clone();
        for row in self.rows[trie.delta.len()..].iter_mut() {
            for (byte, to) in &root {
                row.entry(*byte).or_insert(*to);
            }
        }
    }

    /// States that read `bytes` one after the other and end in `target`; the first of them.
    fn chain(&mut self, bytes: &[u8], target: usize) -> usize {
        bytes.iter().rev().fold(target, |to, byte| self.add(HashMap::from([(*byte, to)]), 0))
    }

    fn add(&mut self, row: HashMap<u8, usize>, out: u128) -> usize {
        self.rows.push(row);
        self.out.push(out);
        self.rows.len() - 1
    }

    fn finish(self) -> Automaton {
        let (class_of, classes) = self.classes();
        let shift = usize::from(classes).next_power_of_two().trailing_zeros();
        let (silent, accepting): (Vec<usize>, Vec<usize>) = (0..self.rows.len()).partition(|node| self.out[*node] == 0);
        let order: Vec<usize> = silent.iter().chain(&accepting).copied().collect();
        let mut number = vec![0 as State; order.len()];
        for (state, node) in order.iter().enumerate() {
            number[*node] = state as State;
        }
        let mut next = vec![0 as State; order.len() << shift];
        for (state, node) in order.iter().enumerate() {
            for (byte, to) in &self.rows[*node] {
                next[(state << shift) | usize::from(class_of[usize::from(*byte)])] = number[*to];
            }
        }
        let accept = accepting.iter().map(|node| self.out[*node]).collect();
        Automaton { class_of, shift, next, first_accepting: silent.len() as State, accept, words: Vec::new() }
    }

    /// Class 0 is every byte no row knows, from which every state goes back to the root; the others get one class each,
    /// capitals with their small letters.
    fn classes(&self) -> ([u8; 256], u8) {
        let mut known = [false; 256];
        for byte in self.rows.iter().flat_map(HashMap::keys) {
            known[usize::from(*byte)] = true;
        }
        let mut class_of = [0; 256];
        let mut classes = 1;
        for byte in (0..=255_u8).filter(|byte| known[usize::from(*byte)]) {
            class_of[usize::from(byte)] = classes;
            class_of[usize::from(byte.to_ascii_uppercase())] = classes;
            classes += 1;
        }
        (class_of, classes)
    }
}
