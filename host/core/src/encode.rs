//! The 5-D holographic encoder: from a keyword mask and a few numbers to a point and a zone. Backends find the mask
//! ([`crate::keyword`]); everything after it is computed here, in float64, with a portable exponential, so that coordinates are the
//! same bits on every machine.
//!
//! | axis | from |
//! |---|---|
//! | x | logic (-1) against emotion (+1) words |
//! | y | micro (-1) against macro (+1) words |
//! | z | age: 1 - 2 / (1 + exp(-days / 180)), and 1 where age is not positive |
//! | w | importance, accesses and length, at most 2.5 |
//! | v | vitality: nearness, accesses and importance, within [0, 1] |

use crate::profile::{Element, Profile};

/// What is known of a memory beside its text. Missing numbers are 0. All are finite.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Features {
    /// Importance, usually 0 to 1.
    pub importance: f64,
    /// How often it was read.
    pub access_count: u32,
    /// Days since it was made.
    pub age_days: f64,
    /// Distance from the centre, 0 to 1.
    pub galactic_distance: f64,
}

/// Rings around the centre, by vitality.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Zone {
    /// v of 0.85 and more.
    Core = 0,
    /// v of 0.60 and more.
    InnerRim = 1,
    /// v of 0.35 and more.
    MidBand = 2,
    /// v of 0.15 and more.
    OuterRim = 3,
    /// The rest.
    FarEdge = 4,
}

impl Zone {
    /// The zone of a vitality.
    #[must_use]
    pub fn of(vitality: f64) -> Self {
        match vitality {
            v if v >= 0.85 => Self::Core,
            v if v >= 0.60 => Self::InnerRim,
            v if v >= 0.35 => Self::MidBand,
            v if v >= 0.15 => Self::OuterRim,
            _ => Self::FarEdge,
        }
    }

    /// The zone's name as people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::InnerRim => "inner rim",
            Self::MidBand => "mid band",
            Self::OuterRim => "outer rim",
            Self::FarEdge => "far edge",
        }
    }
}

/// An encoded memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Encoded {
    /// Bit i: the profile's i-th word stands in the text.
    pub mask: u128,
    /// x, y, z, w, v.
    pub coordinates: [f64; 5],
    /// Zone of v.
    pub zone: Zone,
}

/// Largest w.
const MAX_IMPORTANCE: f64 = 2.5;
/// Days over which z falls most of its way.
const AGE_SCALE: f64 = 180.0;

/// Encodes one memory from its mask. `content_bytes` is the length of its UTF-8 text.
#[must_use]
pub fn encode(profile: &Profile, mask: u128, content_bytes: usize, features: &Features, garden: &str) -> Encoded {
    let [logic, emotion, micro, r#macro] = profile.poles().map(|pole| (mask & pole).count_ones());
    let mut x = balance(logic, emotion);
    let mut y = balance(micro, r#macro);
    let mut z = age(features.age_days);
    let mut w = importance(features, content_bytes);
    let mut v = vitality(features);
    if let Some(Element { bias, importance, vitality }) = profile.element(garden) {
        x = (x + bias[0]).clamp(-1.0, 1.0);
        y = (y + bias[1]).clamp(-1.0, 1.0);
        z = (z + bias[2]).clamp(-1.0, 1.0);
        w *= importance;
        v *= vitality;
    }
    w = w.min(MAX_IMPORTANCE);
    v = v.clamp(0.0, 1.0);
    Encoded { mask, coordinates: [x, y, z, w, v], zone: Zone::of(v) }
}

/// (positive - negative) / (positive + negative), 0 where both are 0.
fn balance(negative: u32, positive: u32) -> f64 {
    if negative + positive == 0 {
        return 0.0;
    }
    (f64::from(positive) - f64::from(negative)) / f64::from(positive + negative)
}

fn age(days: f64) -> f64 {
    if days <= 0.0 {
        return 1.0;
    }
    (1.0 - 2.0 / (1.0 + libm::exp(-days / AGE_SCALE))).clamp(-1.0, 1.0)
}

fn importance(features: &Features, content_bytes: usize) -> f64 {
    let length = match content_bytes {
        501.. => 0.2,
        201..=500 => 0.1,
        _ => 0.0,
    };
    let w = features.importance.max(0.5) + (f64::from(features.access_count) / 10.0).min(0.5) + length;
    w.min(MAX_IMPORTANCE)
}

fn vitality(features: &Features) -> f64 {
    let near = 1.0 - features.galactic_distance.clamp(0.0, 1.0);
    let accessed = (f64::from(features.access_count) / 20.0).min(0.3);
    let important = 0.2 * (features.importance - 0.5).max(0.0);
    (near + accessed + important).clamp(0.0, 1.0)
}
