//! The masks of texts, by every available instruction set, against substring searches.

use std::collections::{BTreeMap, VecDeque};

use megaring_simd::{KernelSet, KeywordAutomaton, Mask, SimdError};

use crate::common::Random;

const WORDS: [&str; 9] = ["a", "ab", "bab", "cccc", "abcab", "cab", "bc", "ca", "aaaa"];

/// The bit of word w: spread over both halves of the mask.
fn bit(word: usize) -> u32 {
    word as u32 * 15
}

/// The textbook construction (Aho, Corasick 1975), its accepting states numbered last.
fn automaton(words: &[&str], shift: u32) -> KeywordAutomaton {
    let mut class_of = [0u8; 256];
    for (class, byte) in (b'a'..=b'c').enumerate() {
        class_of[usize::from(byte)] = class as u8 + 1;
    }
    let mut goto: Vec<BTreeMap<usize, usize>> = vec![BTreeMap::new()];
    let mut output = vec![0u128];
    for (index, word) in words.iter().enumerate() {
        let mut state = 0;
        for byte in word.bytes() {
            let class = usize::from(class_of[usize::from(byte)]);
            let fresh = goto.len();
            state = *goto[state].entry(class).or_insert(fresh);
            if state == fresh {
                goto.push(BTreeMap::new());
                output.push(0);
            }
        }
        output[state] |= 1 << bit(index);
    }
    let mut delta = vec![[0usize; 4]; goto.len()];
    let mut fail = vec![0usize; goto.len()];
    let mut queue = VecDeque::from([0]);
    while let Some(state) = queue.pop_front() {
        output[state] |= output[fail[state]];
        let parent = delta[fail[state]];
        delta[state] = std::array::from_fn(|class| {
            let fallback = if state == 0 { 0 } else { parent[class] };
            let Some(&child) = goto[state].get(&class) else { return fallback };
            fail[child] = fallback;
            queue.push_back(child);
            child
        });
    }
    let mut order: Vec<usize> = (0..delta.len()).collect();
    order.sort_by_key(|state| (output[*state] != 0, *state));
    let rank: BTreeMap<usize, usize> = order.iter().enumerate().map(|(rank, state)| (*state, rank)).collect();
    let first_accepting = order.iter().filter(|state| output[**state] == 0).count();
    let mut next = vec![0u16; order.len() << shift];
    for (rank_of_state, state) in order.iter().enumerate() {
        for (class, target) in delta[*state].iter().enumerate() {
            next[(rank_of_state << shift) | class] = rank[target] as u16;
        }
    }
    let accept: Vec<u128> = order[first_accepting..].iter().map(|state| output[*state]).collect();
    KeywordAutomaton::new(class_of, shift, next, first_accepting as u16, &accept).expect("a whole automaton")
}

fn expected(words: &[&str], text: &[u8]) -> u128 {
    let found = |word: &str| text.windows(word.len()).any(|window| window == word.as_bytes());
    words.iter().enumerate().filter(|(_, word)| found(word)).fold(0, |mask, (index, _)| mask | 1 << bit(index))
}

fn check(words: &[&str], shift: u32, bytes: &[u8], offsets: &[u64]) {
    let automaton = automaton(words, shift);
    for set in KernelSet::available() {
        let mut masks = vec![Mask::from(u128::MAX); offsets.len() - 1];
        set.encode(&automaton, bytes, offsets, &mut masks).expect("offsets fit");
        for (text, mask) in masks.iter().enumerate() {
            let text_bytes = &bytes[offsets[text] as usize..offsets[text + 1] as usize];
            assert_eq!(mask.bits(), expected(words, text_bytes), "{} text {text} shift {shift}", set.isa());
        }
    }
}

#[test]
fn masks_equal_substring_searches() {
    let mut random = Random(3);
    for texts in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 50, 400] {
        let mut bytes = vec![b'c'];
        let mut offsets = vec![1];
        for _ in 0..texts {
            // Empty texts, short ones, and now and then one beyond the run that is noted at once.
            let length = match random.below(10) {
                0 | 1 => 0,
                2 => random.below(3000),
                _ => random.below(60),
            };
            let letters: &[u8] = [&b"abc"[..], b"abc ......", b"\xff\x00c"][random.below(3)];
            bytes.extend((0..length).map(|_| letters[random.below(letters.len())]));
            offsets.push(bytes.len() as u64);
        }
        for shift in [2, 3, 5, 8] {
            check(&WORDS, shift, &bytes, &offsets);
        }
    }
}

#[test]
fn a_text_does_not_see_its_neighbours() {
    check(&["ab"], 2, b"aabb", &[0, 1, 3, 4]);
    check(&["ab"], 2, b"aabb", &[0, 1, 2, 4]);
}

#[test]
fn bad_automata_are_errors() {
    let class_of = [0u8; 256];
    let make =
        |shift, next: Vec<u16>, first, accept: &[u128]| KeywordAutomaton::new(class_of, shift, next, first, accept);
    assert!(make(1, vec![0, 0], 1, &[]).is_ok());
    assert!(matches!(make(9, vec![0; 512], 1, &[]), Err(SimdError::TooLarge { .. })));
    assert!(matches!(make(1, vec![0, 1], 1, &[]), Err(SimdError::Index { what: "state", index: 1, count: 1 })));
    assert!(matches!(make(1, vec![0, 0, 0], 1, &[1]), Err(SimdError::Length { .. })));
    assert!(matches!(make(1, vec![], 0, &[]), Err(SimdError::Length { .. })));
    assert!(matches!(make(1, vec![0, 0], 2, &[]), Err(SimdError::Index { .. })));
    assert!(matches!(make(1, vec![0, 0], 0, &[]), Err(SimdError::Length { .. })));
    let mut beyond = class_of;
    beyond[200] = 2;
    let error = KeywordAutomaton::new(beyond, 1, vec![0, 0], 1, &[]);
    assert!(matches!(error, Err(SimdError::Index { what: "class", index: 2, count: 2 })));
}

#[test]
fn bad_offsets_are_errors() {
    let set = KernelSet::from_env().expect("an instruction set");
    let automaton = automaton(&WORDS, 2);
    let mut out = [Mask::default(); 2];
    let run = |offsets: &[u64], out: &mut [Mask]| set.encode(&automaton, b"abcd", offsets, out);
    assert_eq!(run(&[0, 3, 4], &mut out), Ok(()));
    assert_eq!(run(&[0, 3, 2], &mut out), Err(SimdError::Offsets { position: 2 }));
    assert_eq!(run(&[0, 3, 5], &mut out), Err(SimdError::Index { what: "text offset", index: 5, count: 4 }));
    assert!(matches!(run(&[0, 3], &mut out), Err(SimdError::Length { .. })));
    assert!(matches!(run(&[], &mut []), Err(SimdError::Length { .. })));
}
