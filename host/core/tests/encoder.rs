//! The encoder and its automaton: the golden file, one substring search per word, and profiles that must be refused.

use std::sync::LazyLock;

use megaring_core::encode::keyword::Automaton;
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_core::encode::{self, Features};
use megaring_datasets::{golden, memories, reference};
use proptest::prelude::*;

fn profile() -> Profile {
    Profile::parse(DEFAULT).expect("the default profile")
}

#[test]
fn the_golden_file_is_met() {
    let profile = profile();
    let automaton = Automaton::new(&profile);
    let cases = golden().expect("the golden file is embedded");
    assert_eq!(cases.len(), 644);
    for case in cases {
        let mask = automaton.mask(case.content.as_bytes());
        assert_eq!(mask, case.mask, "{}: mask", case.id);
        let features = Features {
            importance: case.importance,
            access_count: case.access_count,
            age_days: case.age_days,
            galactic_distance: case.galactic_distance,
        };
        let encoded = encode::encode(&profile, mask, case.content.len(), &features, &case.garden);
        assert_eq!(encoded.zone as u8, case.zone, "{}: zone", case.id);
        for (axis, (got, want)) in encoded.coordinates.iter().zip(case.coordinates).enumerate() {
            assert!((got - want).abs() <= 1e-12, "{}: axis {axis} is {got}, not {want}", case.id);
        }
    }
}

#[test]
fn the_compiled_in_profile_is_the_one_of_the_data_sets() {
    let twin = reference::Profile::whitemagic().expect("the lexicon is embedded");
    assert_eq!(profile().words(), twin.words);
    assert_eq!(profile().words().len(), 123);
}

#[test]
fn masks_equal_one_search_per_word_on_natural_text() {
    let profile = profile();
    let automaton = Automaton::new(&profile);
    let memories = memories(4_000, 21).expect("the sample is embedded");
    for index in 0..memories.len() {
        let content = memories.content(index);
        assert_eq!(
            automaton.mask(content.as_bytes()),
            reference::keyword_mask(content, profile.words()),
            "{content:?}"
        );
    }
}

fn tricky_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("row".to_owned()),
        Just("\u{212A}ey".to_owned()),
        Just("K".to_owned()),
        Just("\u{130}".to_owned()),
        Just("I".to_owned()),
        Just("i\u{307}".to_owned()),
        Just("\u{2124}".to_owned()),
        Just("\u{131}".to_owned()),
        Just("\u{17F}".to_owned()),
        Just("ä".to_owned()),
        "[a-zA-Z]{1,4}",
        proptest::sample::select(vec![
            "growth",
            "ecosystem",
            "token",
            "Vision",
            "STRUCT",
            "lin",
            "e",
            "desti",
            "ny",
            "k"
        ])
        .prop_map(str::to_owned),
    ];
    proptest::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

/// Words that end in the two letters with relatives outside ASCII, begin with them, contain and overlap each other.
fn tricky_profile() -> Profile {
    Profile::parse(
        r#"
        name = "tricky"
        [poles]
        logic = ["k", "i", "ki", "ik", "kk", "token", "row"]
        emotion = ["growth", "wth", "sk"]
        micro = []
        macro = ["row"]
        [gardens]
        [elements]
        earth = [0.0, 0.0, 0.0, 1.0, 1.0]
        "#,
    )
    .expect("a small profile")
}

/// Building the tables takes longer than a search.
static AUTOMATA: LazyLock<[(Profile, Automaton); 2]> =
    LazyLock::new(|| [profile(), tricky_profile()].map(|profile| (profile.clone(), Automaton::new(&profile))));

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn letters_with_relatives_outside_ascii_are_folded(text in tricky_text()) {
        for (profile, automaton) in AUTOMATA.iter() {
            let mask = automaton.mask(text.as_bytes());
            prop_assert_eq!(mask, reference::keyword_mask(&text, profile.words()), "{:?}", text);
        }
    }

    #[test]
    fn any_text_at_all_has_the_mask_of_the_searches(text in any::<String>()) {
        let [(profile, automaton), _] = &*AUTOMATA;
        prop_assert_eq!(automaton.mask(text.as_bytes()), reference::keyword_mask(&text, profile.words()));
    }
}

#[test]
fn a_word_in_two_poles_has_a_bit_in_each() {
    let profile = profile();
    let mask = Automaton::new(&profile).mask(b"A Vision");
    let [_, emotion, _, r#macro] = profile.poles();
    assert_eq!(((mask & emotion).count_ones(), (mask & r#macro).count_ones()), (1, 1));
}

#[test]
fn profiles_that_break_a_rule_are_refused_by_name() {
    let broken = [
        (DEFAULT.replace("\"algorithm\"", "\"\""), "poles"),
        (DEFAULT.replace("\"algorithm\"", "\"Algorithm\""), "poles"),
        (DEFAULT.replace("\"algorithm\"", "\"algorithmé\""), "poles"),
        (DEFAULT.replace("\"algorithm\"", &format!("\"{}\"", "x".repeat(65))), "poles"),
        (DEFAULT.replace("\"algorithm\",", &(0..9).map(|i| format!("\"w{i}\",")).collect::<String>()), "128"),
        (DEFAULT.replace("east = \"wood\"", "east = \"plastic\""), "gardens.east"),
        (DEFAULT.replace("wood = [0.1,", "wood = [nan,"), "elements.wood"),
        (DEFAULT.replace("micro = [", "nano = ["), "nano"),
        ("name = ".to_owned(), "not valid"),
    ];
    for (text, names) in broken {
        let error = Profile::parse(&text).expect_err(names).to_string();
        assert!(error.contains(names), "{error:?} does not name {names:?}");
    }
}
