//! The 5-D encoder: keywords to a mask, the mask and four numbers to a point.

use std::ops::Range;

use super::profile::Profile;

/// The encoder's input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Memory<'a> {
    /// UTF-8 text, possibly empty.
    pub content: &'a str,
    /// Usually within [0, 1], yet any finite number is legal.
    pub importance: f64,
    /// How often it was read.
    pub access_count: u32,
    /// Age in days; 0 or less is "now".
    pub age_days: f64,
    /// Distance from the centre; taken within [0, 1].
    pub galactic_distance: f64,
    /// Name of a garden in any case; empty is no garden.
    pub garden: &'a str,
}

/// The encoder's output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Encoded {
    /// Bit `i` is set where word `i` of the profile is present.
    pub mask: u128,
    /// x, y, z, w, v.
    pub coordinates: [f64; 5],
    /// 0 core, 1 inner rim, 2 mid band, 3 outer rim, 4 far edge.
    pub zone: u8,
}

/// Bit `i` is set where `words[i]` stands anywhere in the lower-case form of `content`.
///
/// # Panics
/// If there are more than 128 words.
pub fn keyword_mask<S: AsRef<str>>(content: &str, words: &[S]) -> u128 {
    assert!(words.len() <= 128, "{} words; a mask holds 128", words.len());
    let lower = content.to_lowercase();
    let present = words.iter().enumerate().filter(|(_, word)| lower.contains(word.as_ref()));
    present.fold(0, |mask, (bit, _)| mask | 1 << bit)
}

/// The point of `memory` under `profile`, step by step as the encoder is defined.
///
/// The numbers must be finite; what a service answers otherwise is not defined here.
pub fn encode(memory: &Memory<'_>, profile: &Profile) -> Encoded {
    let mask = keyword_mask(memory.content, &profile.words);
    let mut x = balance(count(mask, &profile.logic), count(mask, &profile.emotion));
    let mut y = balance(count(mask, &profile.micro), count(mask, &profile.macro_));
    let mut z = time(memory.age_days);
    let mut w = importance(memory);
    let mut v = vitality(memory);

    if !memory.garden.is_empty() {
        let element = profile.gardens.get(&memory.garden.to_lowercase()).unwrap_or(&profile.earth);
        x = (x + element.biases[0]).clamp(-1.0, 1.0);
        y = (y + element.biases[1]).clamp(-1.0, 1.0);
        z = (z + element.biases[2]).clamp(-1.0, 1.0);
        w *= element.factors[0];
        v *= element.factors[1];
    }
    w = w.min(2.5);
    v = v.clamp(0.0, 1.0);
    Encoded { mask, coordinates: [x, y, z, w, v], zone: zone(v) }
}

fn count(mask: u128, bits: &Range<usize>) -> f64 {
    bits.clone().filter(|bit| mask >> bit & 1 == 1).count() as f64
}

/// From -1 (all `low`) to +1 (all `high`), 0 where both are 0.
fn balance(low: f64, high: f64) -> f64 {
    if low + high == 0.0 { 0.0 } else { (high - low) / (high + low) }
}

fn time(age_days: f64) -> f64 {
    if age_days <= 0.0 { 1.0 } else { (1.0 - 2.0 / (1.0 + (-age_days / 180.0).exp())).clamp(-1.0, 1.0) }
}

fn importance(memory: &Memory<'_>) -> f64 {
    let read = (f64::from(memory.access_count) / 10.0).min(0.5);
    let long = match memory.content.len() {
        501.. => 0.2,
        201..=500 => 0.1,
        _ => 0.0,
    };
    (memory.importance.max(0.5) + read + long).min(2.5)
}

fn vitality(memory: &Memory<'_>) -> f64 {
    let near = 1.0 - memory.galactic_distance.clamp(0.0, 1.0);
    let read = (f64::from(memory.access_count) / 20.0).min(0.3);
    let weight = 0.2 * (memory.importance - 0.5).max(0.0);
    (near + read + weight).clamp(0.0, 1.0)
}

fn zone(v: f64) -> u8 {
    match v {
        v if v >= 0.85 => 0,
        v if v >= 0.60 => 1,
        v if v >= 0.35 => 2,
        v if v >= 0.15 => 3,
        _ => 4,
    }
}
