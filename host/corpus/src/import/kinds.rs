//! The types that elements of a vector are stored in, all of them little-endian, and what becomes of them.

use half::bf16;
use megaring_core::Dtype;

/// A type, and how its bytes become float32.
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// What NumPy's headers and what SafeTensors calls it; NumPy has no bfloat16.
    pub(super) npy: &'static str,
    pub(super) tensor: &'static str,
    pub(super) size: usize,
    pub(super) decode: fn(&[u8]) -> Vec<f32>,
    /// Whether float32 has all its values.
    fits: bool,
}

/// A row of [`KINDS`]: a type whose values are converted one by one.
macro_rules! kind {
    ($type:ty, $name:literal, $npy:literal, $tensor:literal, $fits:literal, $convert:expr) => {
        Kind {
            name: $name,
            npy: $npy,
            tensor: $tensor,
            size: size_of::<$type>(),
            decode: |bytes| bytes.as_chunks().0.iter().map(|bytes| $convert(<$type>::from_le_bytes(*bytes))).collect(),
            fits: $fits,
        }
    };
}

pub(super) static FLOAT32: Kind = Kind {
    name: "float32",
    npy: "<f4",
    tensor: "F32",
    size: 4,
    decode: |bytes| Dtype::Float32.decode(bytes, 1.0),
    fits: true,
};
pub(super) static INT8: Kind = kind!(i8, "int8", "|i1", "I8", true, f32::from);
pub(super) static UINT8: Kind = kind!(u8, "uint8", "|u1", "U8", true, f32::from);
pub(super) static INT32: Kind = kind!(i32, "int32", "<i4", "I32", false, |value| value as f32);
static FLOAT16: Kind = kind!(half::f16, "float16", "<f2", "F16", true, half::f16::to_f32);
static BFLOAT16: Kind = kind!(bf16, "bfloat16", "", "BF16", true, bf16::to_f32);
static FLOAT64: Kind = kind!(f64, "float64", "<f8", "F64", false, |value| value as f32);
static INT16: Kind = kind!(i16, "int16", "<i2", "I16", true, f32::from);
static UINT16: Kind = kind!(u16, "uint16", "<u2", "U16", true, f32::from);
static UINT32: Kind = kind!(u32, "uint32", "<u4", "U32", false, |value| value as f32);
static INT64: Kind = kind!(i64, "int64", "<i8", "I64", false, |value| value as f32);
static UINT64: Kind = kind!(u64, "uint64", "<u8", "U64", false, |value| value as f32);

/// Every type.
pub(super) static KINDS: [&Kind; 12] =
    [&FLOAT32, &FLOAT16, &BFLOAT16, &FLOAT64, &INT8, &UINT8, &INT16, &UINT16, &INT32, &UINT32, &INT64, &UINT64];

impl Kind {
    /// What is to be said of a file of such values.
    pub(super) fn note(&self, file: &str) -> Option<String> {
        match (self.name, self.fits) {
            ("float32", _) => None,
            (name, true) => Some(format!("{file}: values were {name} and are stored as float32, which loses nothing")),
            (name, false) => Some(format!("{file}: values were {name} and are rounded to float32")),
        }
    }
}
