//! Memories of natural length and vocabulary, remixed from the sentences of the real sample.
//!
//! A memory is a run of sentences from one or more docstrings, cut at a word boundary, now and then with a reflection
//! in between (about one memory in ten), because docstrings alone hardly touch the emotion and macro poles. A few in a
//! hundred hold text beyond ASCII, including the two letters whose lower-case form gains an ASCII letter. The same
//! number and seed always give the same memories, whatever the number of threads.

use rayon::prelude::*;

use crate::draw::Draw;
use crate::reference::Memory;
use crate::{DataError, sample};

/// Memories in columns: one text with offsets, and one column per feature, so that batches are slices.
#[derive(Debug, Clone, PartialEq)]
pub struct Memories {
    text: String,
    /// `len() + 1` byte offsets into `text`, rising, on character boundaries, the first 0.
    offsets: Vec<usize>,
    importance: Vec<f64>,
    access_count: Vec<u32>,
    age_days: Vec<f64>,
    galactic_distance: Vec<f64>,
    gardens: Vec<&'static str>,
}

impl Memories {
    /// Number of memories.
    pub fn len(&self) -> usize {
        self.importance.len()
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.importance.is_empty()
    }

    /// The content of memory `index`.
    ///
    /// # Panics
    /// If there is no such memory.
    pub fn content(&self, index: usize) -> &str {
        &self.text[self.offsets[index]..self.offsets[index + 1]]
    }

    /// Memory `index` as the encoder takes it.
    ///
    /// # Panics
    /// If there is no such memory.
    pub fn get(&self, index: usize) -> Memory<'_> {
        Memory {
            content: self.content(index),
            importance: self.importance[index],
            access_count: self.access_count[index],
            age_days: self.age_days[index],
            galactic_distance: self.galactic_distance[index],
            garden: self.gardens[index],
        }
    }

    /// All memories in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Memory<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// All contents, one after the other without separators.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// `len() + 1` byte offsets into [`text`](Self::text): content `i` is `offsets[i]..offsets[i + 1]`.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// Within [0, 1].
    pub fn importance(&self) -> &[f64] {
        &self.importance
    }

    /// Mostly small, with a long tail.
    pub fn access_count(&self) -> &[u32] {
        &self.access_count
    }

    /// Days, 0 or more.
    pub fn age_days(&self) -> &[f64] {
        &self.age_days
    }

    /// Within [0, 1].
    pub fn galactic_distance(&self) -> &[f64] {
        &self.galactic_distance
    }

    /// Known and unknown names in mixed case; empty for about two memories in five.
    pub fn gardens(&self) -> &[&'static str] {
        &self.gardens
    }
}

/// `n` memories. Lengths are log-normal: mean about 360 bytes, median about 210, at most 10,000; one in 500 is empty.
///
/// # Errors
/// Only if the sample compiled in is damaged.
pub fn memories(n: usize, seed: u64) -> Result<Memories, DataError> {
    let records = sample::records()?;
    let docstrings: Vec<Vec<&str>> = records.iter().map(|record| sentences(&record.content)).collect();
    let drawn: Vec<(String, Features)> = (0..n)
        .into_par_iter()
        .map(|index| {
            let mut draw = Draw::new(seed, "memories", index as u64);
            (content(&mut draw, &docstrings), features(&mut draw))
        })
        .collect();
    Ok(collect(&drawn))
}

struct Features {
    importance: f64,
    access_count: u32,
    age_days: f64,
    galactic_distance: f64,
    garden: &'static str,
}

/// Longest content in bytes.
const LONGEST: usize = 10_000;

/// Written for this crate, so that each word of the default profile occurs at some natural rate.
const REFLECTIONS: [&str; 28] = [
    "I feel grateful for the people who read this before me.",
    "We believe the small steps matter, and I trust the process.",
    "My hope is that the next version brings some peace.",
    "There was fear at first, then anger, and a little sadness; joy came later.",
    "I love this idea and I hate that it took so long.",
    "What a surprise: the anticipation was worse than the talk itself.",
    "Last night I had a dream about the journey home.",
    "A wish for tomorrow: stay creative and follow the intuition.",
    "Her passion can inspire and motivate a whole team.",
    "The vision is clear, the roadmap is not.",
    "It has a soul, a spirit of its own, and a heart of gold.",
    "There is beauty in the balance, and harmony in leaving things out.",
    "Wisdom is an insight that survived a night's sleep.",
    "An epiphany in the shower, a revelation over coffee.",
    "I wonder about the meaning of it, and about its purpose.",
    "Perhaps it was destiny; growth will transform us either way.",
    "Think global, start local, keep the detail specific.",
    "A universal philosophy needs a broad and comprehensive view.",
    "The platform is an ecosystem, not only infrastructure for the enterprise.",
    "A holistic paradigm sounds strategic until someone has to build it.",
    "His worldview held that a civilization is measured by its gardens.",
    "Under the night sky the cosmos looks like a framework without an architecture.",
    "Each pixel, each atom, each living cell is a trivial and particular thing.",
    "The individual token is a minor symbol in a narrow field.",
    "Deploy on Monday, debug on Tuesday, compile the notes on Wednesday.",
    "The algorithm walks the tree, the graph and the stack, edge by edge, node by node.",
    "The schema of that database had one table, one column, and an index nobody could query.",
    "A boolean, an enum and a struct meet in a hash; the interface held, the binary did not.",
];

/// Beyond ASCII: accents, other scripts, emoji, letters that lower-case to more or fewer bytes.
const FOREIGN: [&str; 14] = [
    "Café déjà vu, naïve façade.",
    "Größe und Maß: ÄÖÜ stay what they are.",
    "記憶の断片を集める。",
    "我们在花园里散步。",
    "기억은 별처럼 흩어진다.",
    "Память — это сад.",
    "Η ΜΝΗΜΗ ΕΙΝΑΙ ΚΗΠΟΣ.",
    "ذاكرة الحديقة",
    "peace 😀 love 🌱 and a 🚀",
    "👩‍💻 wrote this, ❤️ and all",
    "“Quoted”, ‘so to speak’ … or not",
    "the ﬁeld of ligatures",
    "at 300 \u{212a}elvin, \u{212a}ey and to\u{212a}en",
    "İstanbul: the vİsion",
];

const GARDENS: [&str; 20] = [
    "wood",
    "east",
    "fire",
    "south",
    "earth",
    "center",
    "metal",
    "west",
    "water",
    "north",
    "Wood",
    "FIRE",
    "Center",
    "WEST",
    "North",
    "joy",
    "Sangha",
    "the garden of practice",
    "mystery",
    "Fire ",
];

/// The sentences of a text: split after a full stop before white space, and at blank lines.
fn sentences(text: &str) -> Vec<&str> {
    let paragraphs = text.split("\n\n").flat_map(|paragraph| paragraph.split_inclusive(". "));
    paragraphs.map(str::trim).filter(|sentence| !sentence.is_empty()).collect()
}

fn content(draw: &mut Draw, docstrings: &[Vec<&str>]) -> String {
    if draw.chance(0.002) {
        return String::new();
    }
    let target = (draw.log_normal(216.0, 1.03) as usize).clamp(1, LONGEST);
    let mut text = String::with_capacity(target + 512);
    let reflects = draw.chance(0.1);
    if draw.chance(0.03) {
        text.push_str(draw.pick(&FOREIGN));
    } else if reflects {
        text.push_str(draw.pick(&REFLECTIONS));
    }
    while text.len() < target {
        append_run(draw, docstrings, target, &mut text);
        if reflects && draw.chance(0.3) {
            append(&mut text, draw.pick(&REFLECTIONS), " ");
        }
    }
    if draw.chance(0.004) {
        text = text.to_uppercase();
    }
    truncate_at_word(&mut text, target);
    text
}

/// Appends one to five sentences that follow each other in one docstring, up to the target length.
fn append_run(draw: &mut Draw, docstrings: &[Vec<&str>], target: usize, text: &mut String) {
    let docstring = &docstrings[draw.below(docstrings.len())];
    let first = draw.below(docstring.len());
    let separator = if draw.chance(0.25) { "\n\n" } else { " " };
    for sentence in docstring.iter().skip(first).take(1 + draw.below(5)) {
        append(text, sentence, separator);
        if text.len() >= target {
            break;
        }
    }
}

fn append(text: &mut String, sentence: &str, separator: &str) {
    if !text.is_empty() {
        text.push_str(separator);
    }
    text.push_str(sentence);
}

/// Cuts `text` to at most `target` bytes, after the last whole word where there is one.
fn truncate_at_word(text: &mut String, target: usize) {
    if text.len() > target {
        let cut = text.floor_char_boundary(target);
        let word_end = text[..cut].rfind(char::is_whitespace).unwrap_or(cut);
        text.truncate(word_end);
    }
}

fn features(draw: &mut Draw) -> Features {
    // A third keep the default importance of 0.5; the others come in steps of 0.01, as people and scorers give them.
    let importance = if draw.chance(0.33) { 0.5 } else { (draw.between(0.1, 1.0) * 100.0).round() / 100.0 };
    let access_count = if draw.chance(0.35) { 0 } else { draw.log_normal(3.0, 1.2).min(100_000.0) as u32 };
    let age_days = if draw.chance(0.01) { 0.0 } else { draw.log_normal(120.0, 1.4) };
    let galactic_distance = match draw.unit() {
        edge if edge < 0.02 => 0.0,
        edge if edge < 0.04 => 1.0,
        _ => draw.unit(),
    };
    let garden = if draw.chance(0.4) { "" } else { draw.pick(&GARDENS) };
    Features { importance, access_count, age_days, galactic_distance, garden }
}

fn collect(drawn: &[(String, Features)]) -> Memories {
    let mut text = String::with_capacity(drawn.iter().map(|(content, _)| content.len()).sum());
    let mut offsets = vec![0];
    for (content, _) in drawn {
        text.push_str(content);
        offsets.push(text.len());
    }
    Memories {
        text,
        offsets,
        importance: drawn.iter().map(|(_, features)| features.importance).collect(),
        access_count: drawn.iter().map(|(_, features)| features.access_count).collect(),
        age_days: drawn.iter().map(|(_, features)| features.age_days).collect(),
        galactic_distance: drawn.iter().map(|(_, features)| features.galactic_distance).collect(),
        gardens: drawn.iter().map(|(_, features)| features.garden).collect(),
    }
}
