//! The masks of texts, by every available instruction set, against substring searches.

use std::collections::{BTreeMap, VecDeque};

use megaring_core::encode::keyword::Automaton;
use megaring_core::encode::profile::{DEFAULT, Profile};
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
    for set in KernelSet::copies() {
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

/// The words of the default profile, and others that are hard on a filter: with others within them, sharing their first
/// letters, with other characters than letters, and as long as can be.
fn word_lists() -> Vec<Vec<String>> {
    let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let long = "abcdefghijklmnopqrstuvwxyz".repeat(3)[..64].to_owned();
    vec![
        Profile::parse(DEFAULT).expect("the default profile").words().to_vec(),
        own(&["abc", "abcd", "bcd", "xabc", "abc", "abcabc", "zzz", "k-key", "key", "it's kind", "iii"]),
        vec![long.clone(), long[1..].to_owned(), long[..17].to_owned(), "abc-9_x".to_owned()],
        (0..128_u8)
            .map(|n| format!("word{}", char::from(b'a' + n % 26).to_string().repeat(1 + usize::from(n / 26))))
            .collect(),
        // More words than three letters make windows, which differ in the fourth.
        (0..64).map(|n| (0..6).map(|bit| if n >> bit & 1 == 0 { 'k' } else { 'i' }).collect()).collect(),
    ]
}

/// Texts of the words themselves, of parts of them, in either case, with what folds to letters and what nearly does.
fn texts_of(words: &[String], random: &mut Random, texts: usize) -> (Vec<u8>, Vec<u64>) {
    let mut bytes = vec![b'k'; 3];
    let mut offsets = vec![3];
    for _ in 0..texts {
        for _ in 0..[0, 1, 3, 40, 400][random.below(5)] {
            let word = words[random.below(words.len())].as_bytes();
            let part = &word[random.below(word.len())..];
            let part = if random.below(2) == 0 { word } else { &part[..1 + random.below(part.len())] };
            match random.below(6) {
                0 => bytes.extend(part.to_ascii_uppercase()),
                1 => bytes.extend(part.iter().map(|byte| byte ^ if random.below(4) == 0 { 0x20 } else { 0 })),
                _ => bytes.extend(part),
            }
            let between: [&[u8]; 9] = [
                b"",
                b" ",
                b".",
                b"9",
                "\u{212A}".as_bytes(),
                "\u{130}".as_bytes(),
                "\u{e9}".as_bytes(),
                b"@",
                b"\x01",
            ];
            let rare = random.below(20) == 0;
            bytes.extend(between[if rare { random.below(9) } else { random.below(3) }]);
        }
        offsets.push(bytes.len() as u64);
    }
    (bytes, offsets)
}

#[test]
fn the_filter_finds_what_the_automaton_finds() {
    let mut random = Random(21);
    for words in word_lists() {
        let toml = profile_of(&words);
        let profile = Profile::parse(&toml).expect("a good profile");
        let built = Automaton::new(&profile);
        let tables = || {
            let (next, accept) = (built.next().to_vec(), built.accept());
            KeywordAutomaton::new(*built.class_of(), built.shift(), next, built.first_accepting(), accept)
        };
        let filtered = tables().expect("a whole automaton").with_words(&words);
        assert!(filtered.is_filtered());
        for texts in [0, 1, 2, 9, 300] {
            let (bytes, offsets) = texts_of(&words, &mut random, texts);
            let want: Vec<u128> =
                offsets.windows(2).map(|pair| built.mask(&bytes[pair[0] as usize..pair[1] as usize])).collect();
            for set in KernelSet::copies() {
                let mut masks = vec![Mask::from(u128::MAX); texts];
                set.encode(&filtered, &bytes, &offsets, &mut masks).expect("offsets fit");
                let found: Vec<u128> = masks.iter().map(|mask| mask.bits()).collect();
                assert!(found == want, "{} {} words, {texts} texts", set.isa(), words.len());
            }
        }
    }
}

/// A word at every distance from a text's ends, and from where a sweep's vectors, blocks and its copy of the end begin.
#[test]
fn the_filter_finds_a_word_wherever_it_stands() {
    let words = ["needle".to_owned(), "comprehensive-of-all-things".to_owned(), "cat".to_owned()];
    let built = Automaton::new(&Profile::parse(&profile_of(&words)).expect("a good profile"));
    let (next, accept) = (built.next().to_vec(), built.accept());
    let automaton = KeywordAutomaton::new(*built.class_of(), built.shift(), next, built.first_accepting(), accept);
    let automaton = automaton.expect("a whole automaton").with_words(&words);
    for len in [3, 6, 27, 64, 90, 2047, 2048, 2100, 2300, 4200, 4500] {
        for (bit, word) in words.iter().enumerate().filter(|(_, word)| word.len() <= len) {
            let step = if len > 2000 { 7 } else { 1 };
            for at in (0..=len - word.len()).step_by(step).chain([len - word.len()]) {
                let mut bytes = vec![b'e'; len];
                bytes[at..at + word.len()].copy_from_slice(word.as_bytes());
                let cuts = [1, word.len() / 2, word.len() - 1].map(|after| vec![0, (at + after) as u64, len as u64]);
                let cut = cuts.into_iter().map(|offsets| (offsets, false));
                for (offsets, found) in cut.chain([(vec![0, len as u64], true)]) {
                    for set in KernelSet::copies() {
                        let mut masks = vec![Mask::default(); offsets.len() - 1];
                        set.encode(&automaton, &bytes, &offsets, &mut masks).expect("offsets fit");
                        let want = if found { 1 << bit } else { 0 };
                        assert_eq!(masks[0].bits(), want, "{} {word} at {at} of {len}", set.isa());
                        assert_eq!(masks[masks.len() - 1].bits(), want, "{} {word} at {at} of {len}", set.isa());
                    }
                }
            }
        }
    }
}

/// The two letters outside ASCII whose lower case has an ASCII letter, at the end of a word and within.
#[test]
fn the_filter_leaves_texts_with_letters_that_fold_to_ascii_to_the_automaton() {
    let words = ["iii".to_owned(), "key".to_owned(), "bake".to_owned(), "kiwi".to_owned()];
    let built = Automaton::new(&Profile::parse(&profile_of(&words)).expect("a good profile"));
    let (next, accept) = (built.next().to_vec(), built.accept());
    let automaton = KeywordAutomaton::new(*built.class_of(), built.shift(), next, built.first_accepting(), accept);
    let automaton = automaton.expect("a whole automaton").with_words(&words);
    let before = "e".repeat(100);
    let texts =
        ["ii\u{130}", "\u{212A}ey", "ba\u{212A}e", "\u{212A}iw\u{130}", "\u{130}ii", "kiwi\u{2122}", "ba\u{e2}e"];
    let mut bytes = Vec::new();
    let mut offsets = vec![0];
    for text in texts.into_iter().flat_map(|text| [text, &before]) {
        bytes.extend(text.as_bytes());
        offsets.push(bytes.len() as u64);
    }
    for set in KernelSet::copies() {
        let mut masks = vec![Mask::default(); offsets.len() - 1];
        set.encode(&automaton, &bytes, &offsets, &mut masks).expect("offsets fit");
        let found: Vec<u128> = masks.iter().step_by(2).map(|mask| mask.bits()).collect();
        assert_eq!(found, [1, 2, 4, 8, 0, 8, 0], "{}", set.isa());
    }
}

#[test]
fn words_without_three_letters_in_a_row_are_the_automatons() {
    let automaton = || automaton(&WORDS, 2);
    assert!(!automaton().with_words(&WORDS).is_filtered());
    assert!(!automaton().with_words(&["a-b-c", "word"]).is_filtered());
    assert!(!automaton().with_words(&["x".repeat(65)]).is_filtered());
    assert!(automaton().with_words(&["word", "9word"]).is_filtered());
}

/// A profile with these words alone.
fn profile_of(words: &[String]) -> String {
    let poles = format!("logic = {words:?}\nemotion = []\nmicro = []\nmacro = []");
    format!("name = \"t\"\n[poles]\n{poles}\n[gardens]\n[elements]\nearth = [0.0, 0.0, 0.0, 1.0, 1.0]\n")
}
