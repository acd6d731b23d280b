// The screen of rows of bits: what a query and a row have in common is counted, so that a bound is the score itself but
// for the rounding of a quotient. Rows are words of 32 bits, and lie where those of float32 values do.
//
// A thread has a row, so that rows of any width keep every lane busy; the lines that its lanes touch are read again
// from the cache until they are used up. The queries' words lie in shared memory, where all lanes read the same one.
#pragma once

#include "screen.cuh"

namespace megaring {

// Queries that a block has at once.
constexpr u32 BITS_QUERIES = 8;
// Words of each that are staged at once.
constexpr u32 BITS_SLAB = SLAB_BYTES / sizeof(u32) / BITS_QUERIES;
// Words of a row that a thread loads before it counts.
constexpr u32 BITS_TOGETHER = 4;
static_assert(BITS_SLAB % BITS_TOGETHER == 0);
static_assert(THREADS == 2 * WARPS * GROUP_ROWS, "as many rows come between two looks at the lists as they have room for");
// A quotient of counts, rounded, is off by less than this, and so is a bound made of it.
constexpr float SHARE_ERROR = 1.0f / (1 << 22);

// Stages the queries' words from `first` on, zeros past their end, which count for nothing. All threads; the caller has
// barriers around it.
MR_DEVICE void stage_bits(const u32* queries, u32 count, u32 width, u32 first, u32* slab) {
    for (u32 query = 0; query < count; ++query) {
        for (u32 at = thread_index(); at < BITS_SLAB; at += THREADS) {
            slab[query * BITS_SLAB + at] =
                first + at < width ? load_global(queries + static_cast<u64>(query) * width + first + at) : 0;
        }
    }
}

// What a row and a query have in common, so far: of a Hamming distance the bits that one has alone, of a Jaccard index
// those that both have, and above them those that either has. Rows have at most 2^15 bits.
template <bool SHARE>
MR_DEVICE u32 count_word(u32 a, u32 b) {
    return SHARE ? popcount(a & b) + (popcount(a | b) << 16) : popcount(a ^ b);
}

// The bounds of one row for one query.
template <bool SHARE>
MR_DEVICE void keep_bits(const Collector& collector, u32 query, u32 row, u32 counted) {
    float score = -static_cast<float>(counted), error = 0.0f;
    if constexpr (SHARE) {
        const u32 both = counted & 0xFFFF, either = counted >> 16;
        score = either == 0 ? 1.0f : static_cast<float>(both) / static_cast<float>(either);
        error = SHARE_ERROR;
    }
    const float upper = score + error;
    if (upper >= tile_state().queries[query].threshold) collector.push(query, Cell{row, score - error, upper});
}

// Screens rows begin..end of a segment for up to QUERIES queries. All threads of the block.
template <bool SHARE, u32 QUERIES>
MR_DEVICE void screen_bits(const u32* queries, u32 count, u32 width, const Collector& collector, const Segment& segment,
                           u32 begin, u32 end, u32* slab) {
    const bool one_slab = width <= BITS_SLAB;
    if (one_slab) {
        block_sync();
        stage_bits(queries, count, width, 0, slab);
        block_sync();
    }
    for (u32 base = begin; base < end; base += THREADS) {
        const u32 row = base + thread_index(), there = smaller(row, end - 1);
        const u32* words = reinterpret_cast<const u32*>(global(segment.rows)) + static_cast<u64>(there) * width;
        u32 counts[QUERIES] = {};
        for (u32 from = 0; from < width; from += BITS_SLAB) {
            if (!one_slab) {
                block_sync();
                stage_bits(queries, count, width, from, slab);
                block_sync();
            }
            const u32 to = smaller(width, from + BITS_SLAB);
            for (u32 at = from; at < to; at += BITS_TOGETHER) {
                u32 held[BITS_TOGETHER];
                MR_UNROLL
                for (u32 word = 0; word < BITS_TOGETHER; ++word) {
                    held[word] = at + word < to ? load_global(words + at + word) : 0;
                }
                MR_UNROLL
                for (u32 query = 0; query < QUERIES; ++query) {
                    MR_UNROLL
                    for (u32 word = 0; word < BITS_TOGETHER; ++word) {
                        counts[query] += count_word<SHARE>(slab[query * BITS_SLAB + at - from + word], held[word]);
                    }
                }
            }
        }
        // A hidden row has the add of padding.
        const float* adds = global(segment.columns[0]) + GROUP_ROWS;
        const u64 place = static_cast<u64>(there / GROUP_ROWS) * GROUP_COLUMNS + there % GROUP_ROWS;
        const bool shows = row < end && load_global(adds + place) == 0.0f;
        MR_UNROLL
        for (u32 query = 0; query < QUERIES; ++query) {
            if (shows && query < count) keep_bits<SHARE>(collector, query, segment.first_row + row, counts[query]);
        }
        block_sync();
        collector.tidy_all(count, (base - begin) / THREADS % LOOK_EVERY == 0);
        block_sync();
    }
}

// The same for as many queries as there are, by either metric.
MR_DEVICE void screen_bits_of(u32 metric, const float* raw, u32 count, u32 width, const Collector& collector,
                              const Segment& segment, u32 begin, u32 end, u32* slab) {
    const u32* queries = reinterpret_cast<const u32*>(raw);
    const auto screen = [&](auto run) { run(queries, count, width, collector, segment, begin, end, slab); };
    if (metric == METRIC_JACCARD) {
        if (count == 1) screen(screen_bits<true, 1>);
        else screen(screen_bits<true, BITS_QUERIES>);
    } else {
        if (count == 1) screen(screen_bits<false, 1>);
        else screen(screen_bits<false, BITS_QUERIES>);
    }
}

// A query needs nothing but its threshold.
MR_DEVICE QueryParams bits_params(u32 metric, double threshold) {
    QueryParams params = unscreened();
    params.screened = 1;
    params.threshold = first_threshold(metric, 0.0, 0.0, threshold);
    return params;
}

}  // namespace megaring
