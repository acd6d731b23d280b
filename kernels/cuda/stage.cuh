// Payloads lie in pinned memory: what a job reads more than once is copied into its scratch area first, so that it
// crosses the bus once.
#pragma once

#include "plan.cuh"

namespace megaring {

// In place of an offset in the scratch area: there was no room for the part.
constexpr u64 NOWHERE = ~u64(0);
constexpr u32 PIECE_BYTES = sizeof(Piece);
// Bytes of a PREPARE chunk that only copies: enough to fill the bus for a while, little enough to share out.
constexpr u32 STAGE_BYTES = 64 << 10;

MR_DEVICE u64 align_to_piece(u64 bytes) { return (bytes + PIECE_BYTES - 1) / PIECE_BYTES * PIECE_BYTES; }

// Takes a part of a layout if it fits, and otherwise nothing.
MR_DEVICE u64 take_if_room(Layout& layout, u64 bytes, u64 limit) {
    Layout after = layout;
    const u64 at = after.take(bytes);
    if (after.used > limit) return NOWHERE;
    layout = after;
    return at;
}

// Copies the bytes begin..end, multiples of 16, by a whole block. A payload may be read up to the next multiple of 16:
// regions are aligned to 128. Each thread has several loads under way before it stores any, since the bus is slow.
MR_DEVICE void copy_pieces(u8* to, const u8* from, u64 begin, u64 end) {
    constexpr u32 EACH = 4;
    Piece* target = reinterpret_cast<Piece*>(to);
    const Piece* source = reinterpret_cast<const Piece*>(from);
    const u64 last = end / PIECE_BYTES;
    for (u64 at = begin / PIECE_BYTES + thread_index(); at < last; at += EACH * THREADS) {
        Piece held[EACH];
        MR_UNROLL
        for (u32 i = 0; i < EACH; ++i) {
            if (at + i * THREADS < last) held[i] = load_global(source + at + i * THREADS);
        }
        MR_UNROLL
        for (u32 i = 0; i < EACH; ++i) {
            if (at + i * THREADS < last) store_global(target + at + i * THREADS, held[i]);
        }
    }
}

// Chunk `chunk` of a copy that is nothing but a copy.
MR_DEVICE void copy_chunk(u8* to, const u8* from, u64 begin, u64 end, u32 chunk) {
    const u64 first = begin + u64(chunk) * STAGE_BYTES;
    copy_pieces(to, from, first, end - first < STAGE_BYTES ? end : first + STAGE_BYTES);
}

// `part` of `parts` almost equal cuts of a length beyond 32 bits: where it begins.
MR_DEVICE u64 cut_long(u64 length, u32 parts, u32 part) {
    return length / parts * part + length % parts * part / parts;
}

// The segment that holds a row: the last that does not begin behind it. There is one.
MR_DEVICE const Segment& segment_of(const Segment* segments, u32 count, u32 row) {
    u32 low = 0;
    while (count > 1) {
        const u32 half = count / 2;
        if (segments[low + half].first_row <= row) low += half;
        count -= half;
    }
    return segments[low];
}

}  // namespace megaring
