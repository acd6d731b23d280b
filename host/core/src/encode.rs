//! The 5-D holographic encoder: from a keyword mask and a few numbers to a point and a zone. Backends find the mask
//! ([`keyword`]); everything after it is computed here, in float64, with a portable exponential, so that coordinates
//! are the same bits on every machine.
//!
//! | axis | from |
//! |---|---|
//! | x | logic (-1) against emotion (+1) words |
//! | y | micro (-1) against macro (+1) words |
//! | z | age: 1 - 2 / (1 + exp(-days / 180)), and 1 where age is not positive |
//! | w | importance, accesses and length, at most 2.5 |
//! | v | vitality: nearness, accesses and importance, within [0, 1] |
//!
//! | payload | result |
//! |---|---|
//! | `items + 1` offsets u64, then the bytes ([`crate::texts`]) | `items` masks of two u64, low half first |

use rayon::prelude::*;

use self::profile::{Element, Profile};
use crate::error::Error;
use crate::operation::{
    Answered, Class, Description, Exact, Finished, Limits, Listed, Opcode, Operation, Payload, Piece, Reads, Shape,
    Size, SlotFields, misshapen,
};
use crate::texts::Texts;

pub mod keyword;
pub mod profile;

/// Memories to encode. All parts are of one length.
#[derive(Debug, Clone, Default)]
pub struct Encode {
    /// Contents.
    pub texts: Texts,
    /// Numbers of each memory.
    pub features: Vec<Features>,
    /// Garden of each memory, possibly empty.
    pub gardens: Vec<String>,
}

/// Memories that one task encodes.
const PARALLEL_MEMORIES: usize = 512;
/// Memories of a piece that are encoded within some 100 µs.
const LIGHT_MEMORIES: usize = 256;

impl Operation for Encode {
    fn opcode(&self) -> Opcode {
        Self::OPCODE
    }

    fn size(&self) -> Size {
        self.texts.size()
    }

    fn reads(&self) -> Option<Reads<'_>> {
        None
    }

    fn pieces(&self, limits: &Limits) -> Vec<Piece> {
        self.texts.pieces(size_of::<[u64; 2]>(), limits)
    }

    fn write(&self, piece: &Piece, payload: &mut Payload<'_>, _: &mut SlotFields) {
        self.texts.write(piece, payload);
    }
}

impl Answered for Encode {
    type Answer = Vec<Encoded>;
    const CLASS: Class = Class::Text;
    const ITEMS: &'static str = "memories";

    fn describe(shape: &Shape) -> Result<Description, Error> {
        Texts::describe(shape)
    }

    fn is_light(&self, piece: &Piece, _: &[u8]) -> bool {
        piece.items.len() <= LIGHT_MEMORIES
    }

    fn finish(
        &self,
        piece: &Piece,
        result: &[u8],
        by: &Exact<'_>,
        answer: &mut Vec<Encoded>,
    ) -> Result<Finished, Error> {
        let masks: &[[u64; 2]] = bytemuck::try_cast_slice(result).map_err(|_| misshapen())?;
        let masks = masks.get(..piece.items.len()).ok_or_else(misshapen)?;
        let one = |(item, [low, high]): (usize, &[u64; 2])| {
            let mask = u128::from(*high) << 64 | u128::from(*low);
            let memory = piece.items.start + item;
            let bytes = self.texts.byte_len(memory);
            encode(by.profile, mask, bytes, &self.features[memory], &self.gardens[memory])
        };
        // At once for all pieces: a vector that grows is copied, and its memory made anew.
        answer.reserve_exact(self.texts.len() - piece.items.start);
        answer.par_extend(masks.par_iter().enumerate().with_min_len(PARALLEL_MEMORIES).map(one));
        let bytes_read = Texts::piece_bytes(piece);
        Ok(Finished { answers: masks.len(), rows_rescored: 0, bytes_read })
    }
}

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
    /// All of them, by their numbers.
    pub const ALL: [Self; 5] = [Self::Core, Self::InnerRim, Self::MidBand, Self::OuterRim, Self::FarEdge];

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
