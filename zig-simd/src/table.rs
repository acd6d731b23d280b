//! The C interface of one copy of the kernels: the same list as in src/exports.zig.

use std::ffi::c_void;

use megaring_core::exact::Overlap;

use crate::encode::Mask;
use crate::filter::RawFilter;
use crate::gate::{Decision, RawCall, RawGate};
use crate::nibbles::NibbleJob;
use crate::roofline::{Codes, Piece, QueryCodes, Sums};
use crate::screen::{RawQuantised, ScreenJob};
use crate::sweep::SweepJob;

/// query, rows, dim, ids, ids' count, out.
pub(crate) type GatherKernel = unsafe extern "C" fn(*const f32, *const f32, usize, *const u32, usize, *mut f64);

/// The same, of rows of bits.
pub(crate) type OverlapKernel = unsafe extern "C" fn(*const f32, *const f32, usize, *const u32, usize, *mut Overlap);

/// Returns the row reached.
pub(crate) type SweepKernel = unsafe extern "C" fn(*const SweepJob) -> usize;

/// What [`KernelTable::encode`] reads of an automaton; see src/encode.zig.
#[repr(C)]
pub(crate) struct RawAutomaton {
    pub(crate) class_of: *const u8,
    pub(crate) next: *const u16,
    pub(crate) accept: *const Mask,
    pub(crate) shift: u32,
    pub(crate) first_accepting: u32,
}

const _: () = assert!(size_of::<RawAutomaton>() == 3 * size_of::<*const c_void>() + 8);

macro_rules! kernels {
    ($abi_version:literal; $($name:ident: $function:ty,)*) => {
        /// Every kernel of one copy.
        #[repr(C)]
        pub(crate) struct KernelTable {
            $(pub(crate) $name: $function,)*
        }

        /// The table of one copy. Its symbol spells out version and names: a copy with another list is not linked.
        macro_rules! table_of {
            ($isa:ident) => {{
                // SAFETY: what bears these names and this version is the table that src/exports.zig makes of the same
                // list. It never changes.
                unsafe extern "C" {
                    #[link_name = concat!(
                        "megaring_simd_", stringify!($isa), "_", $abi_version, $("_", stringify!($name)),*
                    )]
                    safe static TABLE: $crate::table::KernelTable;
                }
                &TABLE
            }};
        }
        pub(crate) use table_of;
    };
}

// 12 is the version, raised with every change of a signature here and in src/exports.zig.
kernels! { 12;
    nop: unsafe extern "C" fn(),
    exact_dot: GatherKernel,
    exact_l2: GatherKernel,
    overlap: OverlapKernel,
    sweep_cosine: SweepKernel,
    sweep_dot: SweepKernel,
    sweep_l2: SweepKernel,
    sweep_hamming: SweepKernel,
    sweep_jaccard: SweepKernel,
    quantise: unsafe extern "C" fn(*const f32, usize, *mut i8, *mut RawQuantised),
    screen_i8: unsafe extern "C" fn(*const ScreenJob) -> usize,
    screen_nibbles: unsafe extern "C" fn(*mut NibbleJob) -> usize,
    encode: unsafe extern "C" fn(*const RawAutomaton, *const RawFilter, *const u8, *const u64, usize, *mut Mask),
    distances5: unsafe extern "C" fn(*const [*const f64; 5], *const [f64; 5], *const [f64; 5], usize, *mut f64),
    check: unsafe extern "C" fn(*const RawGate, *const RawCall, *mut Decision),
    multiply_adds: unsafe extern "C" fn(*const Codes, *const QueryCodes, usize, *mut Sums),
    read_pieces: unsafe extern "C" fn(*const Piece, usize, *mut Piece),
}
