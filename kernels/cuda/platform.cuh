// The primitives that device code is written in: who am I, barriers, shuffles, scoped memory operations, matrix
// multiply. Compiled by nvcc they are the instructions below; compiled as C++ they come from twin/platform.hpp, where a
// CUDA thread is a fiber. Nothing else in this folder names a CUDA built-in.
//
// Every load of data that another block, the host or the copy engine writes while the kernel lives is an ordinary load
// after an acquire, or one of the operations here: never a non-coherent one (`__ldg`, `const __restrict__`), since the
// kernel never ends in between.
#pragma once

#include "abi.cuh"

namespace megaring {

constexpr u32 WARP = 32;
constexpr u32 THREADS = 256;  // of a block
constexpr u32 WARPS = THREADS / WARP;

}  // namespace megaring

#ifndef __CUDACC__
#include "twin/platform.hpp"
#else

#define MR_DEVICE __device__ __forceinline__
// A function that is too large to be worth its copies.
#define MR_DEVICE_CALL __device__ __noinline__
#define MR_UNROLL _Pragma("unroll")

namespace megaring {

MR_DEVICE u32 thread_index() { return threadIdx.x; }
MR_DEVICE u32 block_index() { return blockIdx.x; }
MR_DEVICE u32 lane_index() { return threadIdx.x % WARP; }
MR_DEVICE u32 warp_index() { return threadIdx.x / WARP; }

// The block's dynamic shared memory, 16-byte aligned.
MR_DEVICE u8* shared_memory() {
    extern __shared__ __align__(128) u8 megaring_shared[];
    return megaring_shared;
}

// A pointer read from memory, which points to device or pinned memory: its loads need not find that out each time.
template <typename T>
MR_DEVICE T* global(T* at) {
    __builtin_assume(__isGlobal(at));
    return at;
}

// A load of global memory that the thread's next loads need not wait for, and a store that nobody waits for. They may
// be of the same memory, for all that the compiler knows: a load behind a store waits.
template <typename T>
MR_DEVICE T load_global(const T* at) { return *at; }
template <typename T>
MR_DEVICE void store_global(T* at, T value) { *at = value; }
template <typename T>
MR_DEVICE void store_shared(T* at, T value) { *at = value; }

// All threads of the block arrive before one goes on, and see what the others wrote to shared and device memory.
MR_DEVICE void block_sync() { __syncthreads(); }
// The same for a warp. Every warp operation below needs all 32 lanes.
MR_DEVICE void warp_sync() { __syncwarp(); }

template <typename T>
MR_DEVICE T warp_shuffle(T value, u32 lane) { return __shfl_sync(0xFFFFFFFFu, value, static_cast<int>(lane)); }
template <typename T>
MR_DEVICE T warp_shuffle_xor(T value, u32 mask) { return __shfl_xor_sync(0xFFFFFFFFu, value, static_cast<int>(mask)); }
MR_DEVICE u32 warp_ballot(bool vote) { return __ballot_sync(0xFFFFFFFFu, vote); }
MR_DEVICE u32 popcount(u32 bits) { return static_cast<u32>(__popc(static_cast<int>(bits))); }
// Position of the lowest set bit; `bits` is not 0.
MR_DEVICE u32 lowest_bit(u32 bits) { return static_cast<u32>(__ffs(static_cast<int>(bits))) - 1; }

MR_DEVICE u32 shared_add(u32* at, u32 value) { return atomicAdd(at, value); }
MR_DEVICE u32 shared_or(u32* at, u32 value) { return atomicOr(at, value); }
MR_DEVICE i32 shared_max(i32* at, i32 value) { return atomicMax(at, value); }

// Relaxed read-modify-writes on device memory, seen by the whole device.
MR_DEVICE u32 device_add(u32* at, u32 value) { return atomicAdd(at, value); }
MR_DEVICE u64 device_add(u64* at, u64 value) {
    return atomicAdd(reinterpret_cast<unsigned long long*>(at), static_cast<unsigned long long>(value));
}
MR_DEVICE u32 device_or(u32* at, u32 value) { return atomicOr(at, value); }
MR_DEVICE void device_or(u64* at, u64 value) {
    atomicOr(reinterpret_cast<unsigned long long*>(at), static_cast<unsigned long long>(value));
}
// Adds, and does not wait for what was there.
MR_DEVICE void device_count(u64* at, u64 value) {
    asm volatile("red.relaxed.gpu.global.add.u64 [%0], %1;" ::"l"(at), "l"(value) : "memory");
}
// The same; releases what this thread has seen happen.
MR_DEVICE void device_count_release(u64* at, u64 value) {
    asm volatile("red.release.gpu.global.add.u64 [%0], %1;" ::"l"(at), "l"(value) : "memory");
}
MR_DEVICE void device_count_release(u32* at, u32 value) {
    asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(at), "r"(value) : "memory");
}
MR_DEVICE i32 device_max(i32* at, i32 value) { return atomicMax(at, value); }
MR_DEVICE u64 device_compare_exchange(u64* at, u64 expected, u64 value) {
    return atomicCAS(reinterpret_cast<unsigned long long*>(at), static_cast<unsigned long long>(expected),
                     static_cast<unsigned long long>(value));
}

// Adds; releases what this thread has seen happen, and acquires what earlier adders released.
MR_DEVICE u32 device_add_acq_rel(u32* at, u32 value) {
    u32 before;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;" : "=r"(before) : "l"(at), "r"(value) : "memory");
    return before;
}

MR_DEVICE u64 device_add_acq_rel(u64* at, u64 value) {
    u64 before;
    asm volatile("atom.add.acq_rel.gpu.global.u64 %0, [%1], %2;" : "=l"(before) : "l"(at), "l"(value) : "memory");
    return before;
}

template <typename T>
MR_DEVICE T device_load_relaxed(const T* at) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8);
    if constexpr (sizeof(T) == 4) {
        u32 value;
        asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
        return static_cast<T>(value);
    } else {
        u64 value;
        asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(at) : "memory");
        return static_cast<T>(value);
    }
}

// Adds, to claim a place that is free because of what the earlier claimers have seen. It needs no release and no
// acquire: where to write depends on what comes back, so nothing is written before, and what they saw had happened
// before they claimed.
// In the same turn it loads the words at `beside`; a `system_fence` behind it acquires what their writers released.
template <u32 COUNT>
MR_DEVICE u64 device_claim_beside(u64* at, u64 value, const u64* const (&beside)[COUNT], u64 (&seen)[COUNT]) {
    const u64 before = device_add(at, value);
    MR_UNROLL
    for (u32 word = 0; word < COUNT; ++word) seen[word] = device_load_relaxed(beside[word]);
    return before;
}

template <typename T>
MR_DEVICE T device_load_acquire(const T* at) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8);
    if constexpr (sizeof(T) == 4) {
        u32 value;
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
        return static_cast<T>(value);
    } else {
        u64 value;
        asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(at) : "memory");
        return static_cast<T>(value);
    }
}

template <typename T>
MR_DEVICE void device_store_release(T* at, T value) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8);
    if constexpr (sizeof(T) == 4) {
        asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(at), "r"(static_cast<u32>(value)) : "memory");
    } else {
        asm volatile("st.release.gpu.global.u64 [%0], %1;" ::"l"(at), "l"(static_cast<u64>(value)) : "memory");
    }
}

template <typename T>
MR_DEVICE void device_store_relaxed(T* at, T value) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8);
    if constexpr (sizeof(T) == 4) {
        asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(at), "r"(static_cast<u32>(value)) : "memory");
    } else {
        asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(at), "l"(static_cast<u64>(value)) : "memory");
    }
}

// Words that the host writes or reads, over PCIe. The load is relaxed: whoever acts on a changed value calls
// `system_acquire` first.
MR_DEVICE u64 system_load_relaxed(const u64* at) {
    u64 value;
    asm volatile("ld.relaxed.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(at) : "memory");
    return value;
}
// What relaxed loads bring that are looked at later: their turn over the bus goes on meanwhile.
template <typename T>
struct Awaited {
    T value;

    MR_DEVICE T get() const { return value; }
};
using Later = Awaited<u64>;
MR_DEVICE Later system_load_later(const u64* at) { return Later{system_load_relaxed(at)}; }
MR_DEVICE void system_store_relaxed(u64* at, u64 value) {
    asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(at), "l"(value) : "memory");
}
MR_DEVICE void system_store_release(u64* at, u64 value) {
    asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(at), "l"(value) : "memory");
}
// What the host wrote before it stored the value that a relaxed load of `at` has just returned is visible from here on.
MR_DEVICE void system_acquire(const u64* at) {
    static_cast<void>(at);
    asm volatile("fence.acq_rel.sys;" ::: "memory");
}
// The host sees what this thread wrote before it sees the stores of any thread that has learnt of it since, through a
// barrier or an atomic.
MR_DEVICE void system_fence() { asm volatile("fence.acq_rel.sys;" ::: "memory"); }

// A store that depends on what the warp has loaded: those loads are over before the host can see it. PTX has no order
// by dependency, but no GPU stores what it does not know yet.
MR_DEVICE void system_store_dependent(u64* at, u64 value) { system_store_relaxed(at, value); }

// Right behind a `system_fence` of the same thread: as good as a release. Of two such stores none is before the other.
MR_DEVICE void system_store_fenced(u64* at, u64 value) { system_store_relaxed(at, value); }

// The eight 16-byte pieces of a slot in pinned memory, by lane. A piece is one access, a slot is not. (Four words at
// once would be four accesses in no set order.)
struct alignas(16) Piece {
    u64 low, high;
};
MR_DEVICE Piece system_load_piece(const Piece* at) {
    Piece value;
    asm volatile("ld.relaxed.sys.global.v2.u64 {%0, %1}, [%2];"
                 : "=l"(value.low), "=l"(value.high)
                 : "l"(at)
                 : "memory");
    return value;
}
// A word, and a piece that the host may be writing meanwhile, in one turn over the bus.
struct WordAndPiece {
    u64 word;
    Piece piece;
};
using LaterBeside = Awaited<WordAndPiece>;
MR_DEVICE LaterBeside system_load_beside(const u64* at, const Piece* piece) {
    return LaterBeside{WordAndPiece{system_load_relaxed(at), system_load_piece(piece)}};
}
// Where time is virtual, a hop of a job ends here (twin/timed.hpp).
MR_DEVICE void mark(const void* at) { static_cast<void>(at); }
MR_DEVICE void system_store_piece(Slot* slot, u32 piece, Piece value) {
    Piece* at = reinterpret_cast<Piece*>(slot) + piece;
    asm volatile("st.relaxed.sys.global.v2.u64 [%0], {%1, %2};" ::"l"(at), "l"(value.low), "l"(value.high) : "memory");
}

// The device's clock in nanoseconds; its resolution is the hardware's, often 32 ns to 1 µs.
MR_DEVICE u64 clock_ns() {
    u64 now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now)::"memory");
    return now;
}
// Gives way for about this long.
MR_DEVICE void pause_ns(u32 duration) { __nanosleep(duration); }

MR_DEVICE float bits_to_float(u32 bits) { return __uint_as_float(bits); }
MR_DEVICE u32 float_to_bits(float value) { return __float_as_uint(value); }
MR_DEVICE double bits_to_double(u64 bits) { return __longlong_as_double(static_cast<long long>(bits)); }

// float64 without contraction, as the definitions of host/core/src/exact.rs need it.
MR_DEVICE double add_exactly(double a, double b) { return __dadd_rn(a, b); }
MR_DEVICE double multiply_exactly(double a, double b) { return __dmul_rn(a, b); }
MR_DEVICE double divide_exactly(double a, double b) { return __ddiv_rn(a, b); }
MR_DEVICE double root_exactly(double a) { return __dsqrt_rn(a); }
// a * b + c where a * b is exact in float64: one rounding or two make no difference.
MR_DEVICE double fused(double a, double b, double c) { return __fma_rn(a, b, c); }
MR_DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
MR_DEVICE float root(float a) { return __fsqrt_rn(a); }

// 16 x 8 integer sums += 16 x 32 unsigned codes times 32 x 8 signed codes, spread over the warp as mma.m16n8k32 has it:
// lane 4g + j holds of the rows g (a[0], a[2]) and g + 8 (a[1], a[3]) the elements 4j.. (a[0], a[1]) and 16 + 4j..
// (a[2], a[3]), of the column g the same elements (b[0], b[1]), and the sums of those rows and the columns 2j and 2j +
// 1. Exact while sums stay within 32 bits.
MR_DEVICE void multiply_codes(i32 (&sums)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    MR_UNROLL
    for (u32 half = 0; half < 2; ++half) {
        MR_UNROLL
        for (u32 part = 0; part < 2; ++part) {
            asm("mma.sync.aligned.m8n8k16.row.col.s32.u8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
                         : "+r"(sums[2 * half]), "+r"(sums[2 * half + 1])
                         : "r"(a[half + 2 * part]), "r"(b[part]));
        }
    }
#endif
}

}  // namespace megaring
#endif
