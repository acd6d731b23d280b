//! How far before a byte a reader must start to be in the right state there: far enough, and no further than needed.

use megaring_core::encode::keyword::{Automaton, State};
use megaring_core::encode::profile::{DEFAULT, Profile};
use proptest::prelude::*;

fn automaton_of(words: &[String]) -> Automaton {
    let text = format!(
        "name = \"any\"\n[poles]\nlogic = {words:?}\nemotion = []\nmicro = []\nmacro = []\n[gardens]\n[elements]\nearth = [0.0, 0.0, 0.0, 1.0, 1.0]\n"
    );
    Automaton::new(&Profile::parse(&text).expect("a small profile"))
}

/// The state after `bytes`, reading from `state` on.
fn read(automaton: &Automaton, state: State, bytes: &[u8]) -> State {
    bytes.iter().fold(state, |state, byte| {
        let class = usize::from(automaton.class_of()[usize::from(*byte)]);
        automaton.next()[usize::from(state) << automaton.shift() | class]
    })
}

/// Words over few letters, two of them those with relatives outside ASCII, so that they overlap and contain each other.
fn words() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec("[kia]{1,6}", 1..6)
}

/// Bytes that are words, halves of letters outside ASCII, and what stands between words: also what is no UTF-8.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(proptest::sample::select(b"kKiIaAb \xE2\x84\xAA\xC4\xB0".to_vec()), 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_reader_that_starts_early_enough_is_in_the_state_of_the_whole_text(words in words(), text in bytes()) {
        let automaton = automaton_of(&words);
        let warm_up = automaton.warm_up();
        for end in warm_up..=text.len() {
            for start in 0..=end - warm_up {
                let late = read(&automaton, 0, &text[start..end]);
                prop_assert_eq!(late, read(&automaton, 0, &text[..end]), "{} of {:?}", warm_up, &text[..end]);
            }
        }
    }

    #[test]
    fn one_byte_less_would_not_do(words in words()) {
        let automaton = automaton_of(&words);
        let warm_up = automaton.warm_up();
        let misled = |text: Vec<u8>| {
            (warm_up..=text.len()).any(|end| {
                let late = read(&automaton, 0, &text[end - (warm_up - 1)..end]);
                late != read(&automaton, 0, &text[..end])
            })
        };
        let differs = words.iter().any(|word| misled(spelled_longest(word)));
        prop_assert!(differs, "{} bytes for {:?}", warm_up, words);
    }
}

/// A word in the longest characters that stand for its letters: every k three bytes, an i at the end two.
fn spelled_longest(word: &str) -> Vec<u8> {
    let mut spelled = word.replace('k', "\u{212A}");
    if spelled.ends_with('i') {
        spelled.pop();
        spelled.push('\u{130}');
    }
    spelled.into_bytes()
}

#[test]
fn the_default_profile_needs_no_more_than_its_longest_word() {
    let profile = Profile::parse(DEFAULT).expect("the default profile");
    let longest = profile.words().iter().map(String::len).max().expect("words");
    let warm_up = Automaton::new(&profile).warm_up();
    assert!((longest..3 * longest).contains(&warm_up), "{warm_up} bytes for words of {longest} letters");
}

#[test]
fn the_longest_words_there_can_be_are_dealt_with() {
    let words: Vec<String> = (1..=64).map(|length| "k".repeat(length)).collect();
    assert_eq!(automaton_of(&words).warm_up(), 3 * 64);
}
