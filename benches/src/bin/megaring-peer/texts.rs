//! The encoder: memories for everybody, megaring's masks, and those of the aho-corasick crate on as many threads.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use megaring_bench::{Failure, encode_job};
use megaring_core::encode::Encode;
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_core::texts::Texts;
use megaring_datasets::memories;
use megaring_engine::{Engine, Terms};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::micros;

/// What to encode.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    by: By,
    /// The number of the set of each repetition.
    sets: Vec<usize>,
    /// Where the last repetition's masks are written, 16 bytes each, the lowest first.
    #[serde(default)]
    out: Option<PathBuf>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum By {
    Megaring,
    AhoCorasick,
}

/// Sets of memories.
pub(crate) struct Loaded {
    jobs: Vec<Encode>,
    rival: Rival,
}

impl Loaded {
    /// Makes the sets. Each one's texts are written as `texts-N` and the places where they begin, and the last ends, as
    /// `offsets-N`: 8 bytes each, the lowest first.
    pub(crate) fn new(sets: u64, count: usize, folder: &Path) -> Result<Self, Failure> {
        let rival = Rival::new(&Profile::parse(DEFAULT)?)?;
        let mut jobs = Vec::new();
        for set in 0..sets {
            let job = encode_job(memories(count, 1 + set)?.iter());
            fs::write(folder.join(format!("texts-{set}")), &job.texts.bytes)?;
            let offsets: Vec<u8> = job.texts.offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
            fs::write(folder.join(format!("offsets-{set}")), offsets)?;
            jobs.push(job);
        }
        Ok(Self { jobs, rival })
    }

    /// What others need to know to do the same.
    pub(crate) fn about(&self) -> Value {
        let bytes: Vec<usize> = self.jobs.iter().map(|job| job.texts.bytes.len()).collect();
        json!({ "bytes": bytes, "words": self.rival.words, "patterns": self.rival.patterns })
    }

    /// Encodes once for each set named. megaring makes masks, coordinates and zones, the other masks alone.
    pub(crate) fn masks(&self, engine: &Arc<Engine>, ask: &Ask) -> Result<Value, Failure> {
        let (mut took, mut masks) = (Vec::new(), Vec::new());
        for &set in &ask.sets {
            let job = self.jobs.get(set).ok_or_else(|| format!("there is no set {set}"))?;
            let begun;
            masks = match ask.by {
                By::Megaring => {
                    let job = job.clone();
                    begun = Instant::now();
                    let answer = engine.run_blocking(job, Terms::default())?.answer;
                    took.push(micros(begun));
                    let encoded = answer;
                    encoded.iter().map(|one| one.mask).collect()
                }
                By::AhoCorasick => {
                    begun = Instant::now();
                    let masks = self.rival.masks(&job.texts);
                    took.push(micros(begun));
                    masks
                }
            };
        }
        if let Some(out) = &ask.out {
            fs::write(out, masks.iter().flat_map(|mask| mask.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        Ok(json!({ "us": took }))
    }
}

/// The aho-corasick crate: a DFA by order (by itself it takes one for few patterns only), all matches, also those that
/// overlap.
struct Rival {
    automaton: AhoCorasick,
    /// Words of the profile.
    words: usize,
    /// What to look for, and the word's bit.
    patterns: Vec<(String, u32)>,
}

/// Texts that a thread takes at a time.
const TEXTS_AT_A_TIME: usize = 256;

impl Rival {
    fn new(profile: &Profile) -> Result<Self, Failure> {
        let words = profile.words();
        let patterns: Vec<(String, u32)> = words
            .iter()
            .zip(0..)
            .flat_map(|(word, bit)| spellings(word).into_iter().map(move |one| (one, bit)))
            .collect();
        let automaton = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::DFA))
            .ascii_case_insensitive(true)
            .build(patterns.iter().map(|(pattern, _)| pattern))?;
        Ok(Self { automaton, words: words.len(), patterns })
    }

    fn masks(&self, texts: &Texts) -> Vec<u128> {
        let count = texts.len();
        let mut masks = vec![0; count];
        masks.par_chunks_mut(TEXTS_AT_A_TIME).enumerate().for_each(|(chunk, masks)| {
            for (mask, bounds) in masks.iter_mut().zip(texts.offsets[chunk * TEXTS_AT_A_TIME..].windows(2)) {
                *mask = self.mask(&texts.bytes[bounds[0] as usize..bounds[1] as usize]);
            }
        });
        masks
    }

    fn mask(&self, text: &[u8]) -> u128 {
        let found = self.automaton.find_overlapping_iter(text);
        found.fold(0, |mask, found| mask | 1 << self.patterns[found.pattern().as_usize()].1)
    }
}

/// A word as it may stand in a text, capitals of ASCII apart. Two other characters have a lower case with a letter of
/// ASCII in it: the Kelvin sign, a `k`, and the dotted capital I, an `i` with a dot behind it, which only ends words.
fn spellings(word: &str) -> Vec<String> {
    let mut made = vec![String::new()];
    for (at, letter) in word.char_indices() {
        let others: &[char] = match letter {
            'k' => &['k', '\u{212a}'],
            'i' if at + 1 == word.len() => &['i', '\u{130}'],
            _ => &[letter],
        };
        made = made.iter().flat_map(|begun| others.iter().map(move |other| format!("{begun}{other}"))).collect();
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_every_spelling() {
        assert_eq!(spellings("tree"), ["tree"]);
        assert_eq!(spellings("kick").len(), 4);
        assert_eq!(spellings("ini"), ["ini", "in\u{130}"]);
    }

    #[test]
    fn the_other_side_finds_what_the_golden_cases_tell() {
        let rival = Rival::new(&Profile::parse(DEFAULT).expect("it is compiled in")).expect("words make a DFA");
        let cases = megaring_datasets::golden().expect("they are compiled in");
        for case in &cases {
            assert_eq!(rival.mask(case.content.as_bytes()), case.mask, "{}", case.id);
        }
        let mut texts = Texts::default();
        cases.iter().for_each(|case| texts.push(&case.content));
        assert!(cases.len() > 2 * TEXTS_AT_A_TIME, "more than a thread's share");
        assert!(rival.masks(&texts).iter().eq(cases.iter().map(|case| &case.mask)));
    }
}
