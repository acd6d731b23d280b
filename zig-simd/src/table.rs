//! The C interface of one copy of the kernels: the same table as in src/exports.zig.

use std::ffi::c_void;

use crate::encode::Mask;
use crate::roofline::{Codes, Piece, QueryCodes, Sums};
use crate::screen::ScreenJob;

/// The version of the table below; the Zig side writes its own into the first field, and a test compares them.
#[cfg(test)]
pub(crate) const ABI_VERSION: u64 = 4;

/// query, rows, dim, ids, ids' count, out.
pub(crate) type GatherKernel = unsafe extern "C" fn(*const f32, *const f32, usize, *const u32, usize, *mut f64);

/// What [`KernelTable::encode`] reads of an automaton; see src/encode.zig.
#[repr(C)]
pub(crate) struct RawAutomaton {
    pub(crate) class_of: *const u8,
    pub(crate) next: *const u16,
    pub(crate) accept: *const Mask,
    pub(crate) shift: u32,
    pub(crate) first_accepting: u32,
}

/// Every kernel of one copy.
#[repr(C)]
pub(crate) struct KernelTable {
    pub(crate) abi_version: u64,
    pub(crate) nop: unsafe extern "C" fn(),
    pub(crate) exact_dot: GatherKernel,
    pub(crate) exact_l2: GatherKernel,
    pub(crate) screen_i8: unsafe extern "C" fn(*const ScreenJob) -> usize,
    pub(crate) encode: unsafe extern "C" fn(*const RawAutomaton, *const u8, *const u64, usize, *mut Mask),
    pub(crate) distances5:
        unsafe extern "C" fn(*const [*const f64; 5], *const [f64; 5], *const [f64; 5], usize, *mut f64),
    pub(crate) multiply_adds: unsafe extern "C" fn(*const Codes, *const QueryCodes, usize, *mut Sums),
    pub(crate) read_pieces: unsafe extern "C" fn(*const Piece, usize, *mut Piece),
}

const _: () = assert!(size_of::<KernelTable>() == 8 + 8 * size_of::<*const c_void>());
const _: () = assert!(size_of::<RawAutomaton>() == 3 * size_of::<*const c_void>() + 8);

#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    pub(crate) static megaring_simd_baseline: KernelTable;
    pub(crate) static megaring_simd_avx2: KernelTable;
    pub(crate) static megaring_simd_avx512: KernelTable;
}

#[cfg(target_arch = "aarch64")]
unsafe extern "C" {
    pub(crate) static megaring_simd_neon: KernelTable;
}
