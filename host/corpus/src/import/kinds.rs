//! The types that elements of a vector are stored in, and what becomes of their little-endian bytes.

use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{ArrayRef, Float32Array, PrimitiveArray};
use arrow_buffer::Buffer;
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
    /// The same numbers as a column; Arrow has no bfloat16, either, so those are float32 there.
    pub(super) column: fn(Buffer) -> ArrayRef,
    /// Whether float32 has all its values.
    fits: bool,
}

/// A row of [`KINDS`]: a type whose values are converted one by one.
macro_rules! kind {
    ($type:ty, $name:literal, $npy:literal, $tensor:literal, $column:expr, $fits:literal, $convert:expr) => {
        Kind {
            name: $name,
            npy: $npy,
            tensor: $tensor,
            size: size_of::<$type>(),
            decode: |bytes| bytes.as_chunks().0.iter().map(|bytes| $convert(<$type>::from_le_bytes(*bytes))).collect(),
            column: $column,
            fits: $fits,
        }
    };
}

pub(super) static FLOAT32: Kind = Kind {
    name: "float32",
    npy: "<f4",
    tensor: "F32",
    size: 4,
    decode: |bytes| Dtype::Float32.decode(bytes, 1, 1.0),
    column: column::<Float32Type>,
    fits: true,
};
pub(super) static INT8: Kind = kind!(i8, "int8", "|i1", "I8", column::<Int8Type>, true, f32::from);
pub(super) static UINT8: Kind = kind!(u8, "uint8", "|u1", "U8", column::<UInt8Type>, true, f32::from);
pub(super) static INT32: Kind = kind!(i32, "int32", "<i4", "I32", column::<Int32Type>, false, |value| value as f32);
static FLOAT16: Kind = kind!(half::f16, "float16", "<f2", "F16", column::<Float16Type>, true, half::f16::to_f32);
static BFLOAT16: Kind = kind!(bf16, "bfloat16", "", "BF16", widened, true, bf16::to_f32);
static FLOAT64: Kind = kind!(f64, "float64", "<f8", "F64", column::<Float64Type>, false, |value| value as f32);
static INT16: Kind = kind!(i16, "int16", "<i2", "I16", column::<Int16Type>, true, f32::from);
static UINT16: Kind = kind!(u16, "uint16", "<u2", "U16", column::<UInt16Type>, true, f32::from);
static UINT32: Kind = kind!(u32, "uint32", "<u4", "U32", column::<UInt32Type>, false, |value| value as f32);
static INT64: Kind = kind!(i64, "int64", "<i8", "I64", column::<Int64Type>, false, |value| value as f32);
static UINT64: Kind = kind!(u64, "uint64", "<u8", "U64", column::<UInt64Type>, false, |value| value as f32);

fn column<T: ArrowPrimitiveType>(bytes: Buffer) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(bytes.into(), None))
}

fn widened(bytes: Buffer) -> ArrayRef {
    Arc::new(Float32Array::from((BFLOAT16.decode)(&bytes)))
}

/// Every type.
pub(super) static KINDS: [&Kind; 12] =
    [&FLOAT32, &FLOAT16, &BFLOAT16, &FLOAT64, &INT8, &UINT8, &INT16, &UINT16, &INT32, &UINT32, &INT64, &UINT64];

impl Kind {
    /// The type that NumPy calls so, and whether its bytes come in the other order.
    pub(super) fn of_npy(name: &str) -> Option<(&'static Self, bool)> {
        let of = |name: &str| KINDS.into_iter().find(|kind| !name.is_empty() && kind.npy == name);
        match name.strip_prefix('>') {
            Some(rest) => of(&format!("<{rest}")).map(|kind| (kind, true)),
            None => of(name).map(|kind| (kind, false)),
        }
    }

    /// What is to be said of a file of such values.
    pub(super) fn note(&self, file: &str) -> Option<String> {
        match (self.name, self.fits) {
            ("float32", _) => None,
            (name, true) => Some(format!("{file}: values were {name} and are stored as float32, which loses nothing")),
            (name, false) => Some(format!("{file}: values were {name} and are rounded to float32")),
        }
    }
}
