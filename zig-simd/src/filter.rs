//! The tables of the keyword filter (src/filter.zig): which window of each word is looked for, in which bucket.
//!
//! A window whose letters are rare in texts, in a bucket whose other windows make no common letters of them, is seldom
//! found by chance, and whatever is found has to be confirmed. So windows and buckets are chosen greedily: each word in
//! turn takes the ones that add least to the rate at which a bucket's windows are met in a text, which is reckoned
//! letter by letter from how often pairs of letters stand together in English.

use std::collections::HashMap;

use crate::encode::Mask;
use crate::isa::CpuFeatures;

/// Letters in a window.
const WINDOW: usize = 4;
/// Letters that have to be known of one.
const KEY: usize = 3;
const BUCKETS: usize = 8;
/// Bytes compared at once.
const HEAD: usize = 16;
/// The longest word, and the most of them: as many as a mask has bits.
const MAX_WORD: usize = 64;
const MAX_WORDS: usize = 128;
/// Times that every word is put where it is best beside the others.
const ROUNDS: usize = 3;
const SLOT_BITS: u32 = 10;
/// What the kernel for AVX-512 uses where it is there.
const BYTE_PERMUTES: CpuFeatures = CpuFeatures::AVX512VBMI.with(CpuFeatures::AVX512VBMI2);

/// Letters a to z, and 0 for anything else.
const LETTERS: usize = 27;

/// How often one letter (row) comes before another (column) in technical English, as the logarithm to base 2 of a count
/// among half a million pairs (a digit to base 17). Counted in the documentation of Python's standard library.
const PAIRS: [&[u8; LETTERS]; LETTERS] = [
    b"gdcccccaad79bcccc8cdebac987",
    b"c3aba4792a38cbc092cbc987794",
    b"99475b340892a549627759141a3",
    b"ab285b55ba0aa53c5597b932060",
    b"d9679c473b42835a32896933370",
    b"eb7bc9a86844aac7a9dcc698b84",
    b"c90658840b00843b32957905060",
    b"c7343b178901758630896933023",
    b"bb113d202b02655a20858500250",
    b"899aaab93507badb949cc390808",
    b"640009000200000500120700010",
    b"a7334a150800506260273416020",
    b"bb659c833b04b35b7069aa561a2",
    b"ab935c223904794aa0486803050",
    b"db5bcb8c5937868b735bc983282",
    b"c89ab7b808189bd9a0c9ab99643",
    b"ab366b536903a34a91a7a863090",
    b"500230000000003020232900000",
    b"db599d893b0779ab70aaa987191",
    b"e9494c669a26766aa45bca55280",
    b"db586c71dc06975c81baab48693",
    b"88887a770801aab790bab400300",
    b"7a040b000900030620043100000",
    b"99033802ab00627920874004002",
    b"98382841370036127023a220341",
    b"c24456441700666890489026023",
    b"440108300700120400012000022",
];

/// What the kernel reads of a word; the same as `Entry` in src/filter.zig.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Entry {
    word: [u8; HEAD],
    fold: [u8; HEAD],
    bits: Mask,
    rest: u32,
    len: u8,
    before: u8,
    more: u8,
    reserved: u8,
    compared: u16,
    unused: [u8; 6],
}

/// The windows that begin with the same three letters; the same as `Slot` in src/filter.zig.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
struct Slot {
    letters: u32,
    /// The number of the first entry, and [`ALL_FOUR`].
    entry: u32,
}

/// Of a slot whose entries all have the same fourth letter.
const ALL_FOUR: u32 = 0xff00_0000;

/// What the kernel reads of a filter; the same as `Filter` in src/filter.zig.
#[repr(C)]
pub(crate) struct RawFilter {
    tables: [[[u8; 16]; 2]; WINDOW],
    slots: *const Slot,
    entries: *const Entry,
    rest: *const u8,
    exact: *const [[u8; 128]; WINDOW],
    multiplier: u32,
    shift: u32,
    has_byte_permutes: u32,
    unused: u32,
}

const _: () = assert!(size_of::<Entry>() == 64);
const _: () = assert!(size_of::<RawFilter>() == 128 + 4 * size_of::<usize>() + 16);

/// Tables for up to 128 words of up to 64 bytes.
#[derive(Debug, Clone)]
pub(crate) struct KeywordFilter {
    tables: [[[u8; 16]; 2]; WINDOW],
    exact: Box<[[u8; 128]; WINDOW]>,
    /// 1 << [`SLOT_BITS`].
    slots: Vec<Slot>,
    entries: Vec<Entry>,
    rest: Vec<u8>,
    multiplier: u32,
}

/// Where a word is looked for.
#[derive(Debug, Clone, Copy)]
struct Window {
    before: usize,
    bucket: usize,
}

impl KeywordFilter {
    /// `None` where a word has no three letters in a row, or there are too many of them or too long ones: the automaton
    /// is for such. Words are lower-case ASCII.
    pub(crate) fn new(words: &[impl AsRef<str>]) -> Option<Self> {
        // A word may stand in several places of the list.
        let mut bits: HashMap<&[u8], u128> = HashMap::new();
        let mut distinct: Vec<&[u8]> = Vec::new();
        if words.len() > MAX_WORDS {
            return None;
        }
        for (bit, word) in words.iter().enumerate() {
            let word = word.as_ref().as_bytes();
            let is_known = bits.insert(word, bits.get(word).copied().unwrap_or(0) | 1 << bit).is_some();
            if !is_known {
                distinct.push(word);
            }
        }
        let windows = Chooser::new(&distinct).choose()?;
        Self::lay(&distinct, &bits, &windows)
    }

    fn lay(words: &[&[u8]], bits: &HashMap<&[u8], u128>, windows: &[Window]) -> Option<Self> {
        let mut tables = [[[0; 16]; 2]; WINDOW];
        let mut exact = Box::new([[0; 128]; WINDOW]);
        let mut keyed: Vec<(u32, usize)> = Vec::new();
        for (number, (word, window)) in words.iter().zip(windows).enumerate() {
            for (place, letter) in letters(word, window.before).into_iter().enumerate() {
                let is_met = |byte: usize| letter == 0 || byte & 31 == letter;
                for low in (0..32).filter(|low| is_met(*low)) {
                    tables[place][low / 16][low % 16] |= 1 << window.bucket;
                }
                for byte in (0..128).filter(|byte| is_met(*byte) && (letter == 0 || byte & 64 != 0)) {
                    exact[place][byte] |= 1 << window.bucket;
                }
            }
            let four: [u32; WINDOW] =
                std::array::from_fn(|i| word.get(window.before + i).copied().map_or(0, u32::from));
            keyed.push((four.iter().rev().fold(0, |letters, letter| letters << 8 | letter), number));
        }
        keyed.sort_unstable_by_key(|(letters, _)| (key(*letters), *letters));
        let (mut entries, mut rest, mut first) = (Vec::new(), Vec::new(), Vec::new());
        for same in keyed.chunk_by(|x, y| key(x.0) == key(y.0)) {
            let letters = same[0].0;
            let is_one = same.iter().all(|(other, _)| *other == letters);
            let all_four = is_one && ((letters >> 24) as u8).is_ascii_lowercase();
            first.push(Slot { letters, entry: entries.len() as u32 | if all_four { ALL_FOUR } else { 0 } });
            for (&(_, number), more) in same.iter().zip((0..same.len()).rev()) {
                let (before, bits) = (windows[number].before, bits[words[number]].into());
                entries.push(entry(words[number], bits, before, more as u8, &mut rest));
            }
        }
        let (multiplier, slots) = scatter(&first)?;
        Some(Self { tables, exact, slots, entries, rest, multiplier })
    }

    pub(crate) fn raw(&self) -> RawFilter {
        RawFilter {
            tables: self.tables,
            slots: self.slots.as_ptr(),
            entries: self.entries.as_ptr(),
            rest: self.rest.as_ptr(),
            exact: &raw const *self.exact,
            multiplier: self.multiplier,
            shift: u32::BITS - SLOT_BITS,
            has_byte_permutes: u32::from(CpuFeatures::of_this_cpu().contains(BYTE_PERMUTES)),
            unused: 0,
        }
    }
}

fn entry(word: &[u8], bits: Mask, before: usize, more: u8, rest: &mut Vec<u8>) -> Entry {
    let fold = |byte: &u8| if byte.is_ascii_lowercase() { 0x20 } else { 0 };
    let (head, tail) = word.split_at(word.len().min(HEAD));
    let mut entry = Entry {
        word: [0; HEAD],
        fold: [0; HEAD],
        bits,
        rest: rest.len() as u32,
        len: word.len() as u8,
        before: before as u8,
        more,
        reserved: 0,
        compared: u16::MAX >> (HEAD - head.len()),
        unused: [0; 6],
    };
    entry.word[..head.len()].copy_from_slice(head);
    entry.fold.iter_mut().zip(head).for_each(|(place, byte)| *place = fold(byte));
    rest.extend_from_slice(tail);
    rest.extend(tail.iter().map(fold));
    entry
}

/// A multiplier that gives every key a slot of its own, and the slots.
fn scatter(first: &[Slot]) -> Option<(u32, Vec<Slot>)> {
    let mut multiplier = 0x9e37_79b1_u32;
    for _ in 0..100_000 {
        let mut slots = vec![Slot::default(); 1 << SLOT_BITS];
        let is_alone = first.iter().all(|windows| {
            let at = key(windows.letters).wrapping_mul(multiplier) >> (u32::BITS - SLOT_BITS);
            let slot = &mut slots[at as usize];
            let is_free = *slot == Slot::default();
            *slot = *windows;
            is_free
        });
        if is_alone {
            return Some((multiplier, slots));
        }
        // Odd numbers, one after the other of a linear congruential generator (Knuth's constants).
        multiplier = multiplier.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) | 1;
    }
    None
}

/// The letters by which a window is looked up.
fn key(letters: u32) -> u32 {
    letters & 0xff_ffff
}

/// The letters of a window, 1 to 26; 0 where any byte will do.
fn letters(word: &[u8], before: usize) -> [usize; WINDOW] {
    std::array::from_fn(|place| match word.get(before + place) {
        Some(byte) if byte.is_ascii_lowercase() => usize::from(byte - b'a') + 1,
        _ => 0,
    })
}

/// Which letters a bucket takes at each place.
type Letters = [[bool; LETTERS]; WINDOW];

/// Puts words into buckets.
struct Chooser<'a> {
    words: &'a [&'a [u8]],
    /// How often a letter is met, and how often another one after it.
    share: [f32; LETTERS],
    then: [[f32; LETTERS]; LETTERS],
    windows: Vec<Option<Window>>,
}

impl<'a> Chooser<'a> {
    fn new(words: &'a [&'a [u8]]) -> Self {
        let count = |digit: u8| f32::powi(2.0, char::from(digit).to_digit(17).unwrap_or(0) as i32) - 0.5;
        let counts = PAIRS.map(|row| row.map(count));
        let sums = counts.map(|row| row.iter().sum::<f32>());
        let all: f32 = sums.iter().sum();
        let then = std::array::from_fn(|a| counts[a].map(|count| count / sums[a]));
        Self { words, share: sums.map(|sum| sum / all), then, windows: vec![None; words.len()] }
    }

    fn choose(mut self) -> Option<Vec<Window>> {
        let mut order: Vec<usize> = (0..self.words.len()).collect();
        // Short words have the least choice.
        order.sort_by_key(|word| self.words[*word].len());
        for _ in 0..ROUNDS {
            for &word in &order {
                self.windows[word] = None;
                self.windows[word] = Some(self.best(word)?);
            }
        }
        self.windows.into_iter().collect()
    }

    /// The window and bucket that add least to what has to be confirmed, as the other words lie now.
    fn best(&self, word: usize) -> Option<Window> {
        let text = self.words[word];
        let buckets: [Letters; BUCKETS] = std::array::from_fn(|bucket| self.letters_of(bucket));
        let rates = buckets.map(|letters| self.rate(&letters));
        let is_window = |before: &usize| text[*before..*before + KEY].iter().all(u8::is_ascii_lowercase);
        let places = (0..(text.len() + 1).saturating_sub(KEY)).filter(is_window).filter(|_| text.len() <= MAX_WORD);
        let all = places.flat_map(|before| (0..BUCKETS).map(move |bucket| Window { before, bucket }));
        let cost = |window: &Window| {
            let mut letters = buckets[window.bucket];
            add(&mut letters, text, window.before);
            let more = self.rate(&letters) - rates[window.bucket];
            // Words with the same key are compared one after the other.
            let key = &text[window.before..window.before + KEY];
            let is_shared =
                self.words.iter().zip(&self.windows).any(|(other, window)| {
                    window.is_some_and(|window| &other[window.before..window.before + KEY] == key)
                });
            if is_shared { more + 1.0 } else { more }
        };
        all.map(|window| (cost(&window), window)).min_by(|x, y| x.0.total_cmp(&y.0)).map(|(_, window)| window)
    }

    fn letters_of(&self, bucket: usize) -> Letters {
        let mut letters = [[false; LETTERS]; WINDOW];
        for (word, window) in self.words.iter().zip(&self.windows) {
            if let Some(window) = window.filter(|window| window.bucket == bucket) {
                add(&mut letters, word, window.before);
            }
        }
        letters
    }

    /// How often these letters are met one after the other, for each byte of a text.
    fn rate(&self, letters: &Letters) -> f32 {
        let mut met: [f32; LETTERS] = std::array::from_fn(|a| if letters[0][a] { self.share[a] } else { 0.0 });
        for taken in &letters[1..] {
            let mut next = [0.0; LETTERS];
            for (share, then) in met.iter().zip(&self.then).filter(|(share, _)| **share > 0.0) {
                next.iter_mut().zip(then).for_each(|(next, then)| *next += share * then);
            }
            met = std::array::from_fn(|b| if taken[b] { next[b] } else { 0.0 });
        }
        met.iter().sum()
    }
}

fn add(letters: &mut Letters, word: &[u8], before: usize) {
    for (taken, letter) in letters.iter_mut().zip(self::letters(word, before)) {
        match letter {
            0 => *taken = [true; LETTERS],
            letter => taken[letter] = true,
        }
    }
}
