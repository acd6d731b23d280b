// The screen of a run of row groups against a tile of queries: integer dot products on the matrix units, bounds, and
// what passes goes to the collector. No score matrix exists at any time.
//
// A group's codes lie as [quad][16 rows][4 elements]. The matrix instruction wants of lane 4g + j the rows g and g + 8
// at the quads j and j + 4 of each step of eight quads. Which row of the group is called g is ours to choose: row g of
// the instruction is row 2g of the group, row g + 8 is row 2g + 1, so both are one 8-byte load, and a warp's load
// covers 256 bytes without a gap. Queries' codes are laid out by the PREPARE phase as the lanes want them, and staged a
// slab of steps at a time into shared memory.
#pragma once

#include "collector.cuh"

namespace megaring {

// Steps of 32 elements whose rows a warp loads before it multiplies. One query is limited by the memory's latency: a
// whole slab's loads, 6 KiB a warp, shall be under way at once. Many queries are limited by the registers for their
// sums.
template <u32 TILES>
constexpr u32 LOADED_STEPS = TILES == 1 ? SLAB_STEPS : 2;

// Row tiles between two looks at the thresholds of other blocks: a look costs a load from the second-level cache.
constexpr u32 LOOK_EVERY = 4;

struct alignas(8) Pair {
    u32 first, second;
};

// Queries of a tile and where their codes are.
struct QueryTile {
    const u32* fragments;  // of the tile's first eight queries; the next eight follow `steps` steps on
    u32 count;             // queries
    u32 steps, quads;
    u32 metric;
};

// Columns of two neighbouring rows.
struct RowPair {
    float mul[2], add[2], e1[2], e2[2];
};
MR_DEVICE RowPair load_columns(const float* columns, u32 group, u32 g) {
    struct alignas(8) Two {
        float x, y;
    };
    const Two* at = reinterpret_cast<const Two*>(columns + static_cast<u64>(group) * GROUP_COLUMNS) + g;
    const Two mul = load_global(at), add = load_global(at + 8), e1 = load_global(at + 16), e2 = load_global(at + 24);
    return RowPair{{mul.x, mul.y}, {add.x, add.y}, {e1.x, e1.y}, {e2.x, e2.y}};
}

// Bounds of a group's rows for eight queries; those that pass are collected.
MR_DEVICE void keep(const Collector& collector, const RowPair& rows, const i32 (&sums)[4], u32 first_query,
                    u32 first_row) {
    const u32 j = lane_index() % 4;
    MR_UNROLL
    for (u32 at = 0; at < 2; ++at) {
        const u32 query = first_query + 2 * j + at;
        const QueryParams& params = tile_state().queries[query];
        const float scale = params.scale, a = params.a, b = params.b, threshold = params.threshold;
        MR_UNROLL
        for (u32 row = 0; row < 2; ++row) {
            const float score = static_cast<float>(sums[2 * row + at]) * scale * rows.mul[row] + rows.add[row];
            const float error = a * rows.e1[row] + b * rows.e2[row];
            const float upper = score + error;
            if (upper >= threshold) collector.push(query, Cell{first_row + row, score - error, upper});
        }
    }
}

// Stages the codes of the tile's queries for `steps` steps from `first_step` on. All threads, between two barriers.
MR_DEVICE void stage_slab(const QueryTile& queries, u32 first_step, u32 steps, u32* slab) {
    constexpr u32 TOGETHER = 4;
    const u32 each = steps * WARP, pairs = divide_up(queries.count, 8) * each;
    for (u32 base = thread_index(); base < pairs; base += TOGETHER * THREADS) {
        Pair held[TOGETHER];
        MR_UNROLL
        for (u32 at = 0; at < TOGETHER; ++at) {
            const u32 pair = smaller(base + at * THREADS, pairs - 1), tile = pair / each;
            const u32* from = queries.fragments + (static_cast<u64>(tile) * queries.steps + first_step) * STEP_WORDS;
            held[at] = load_global(reinterpret_cast<const Pair*>(from) + pair % each);
        }
        MR_UNROLL
        for (u32 at = 0; at < TOGETHER; ++at) {
            const u32 pair = base + at * THREADS;
            if (pair >= pairs) break;
            store_shared(reinterpret_cast<Pair*>(slab + pair / each * SLAB_STEPS * STEP_WORDS) + pair % each, held[at]);
        }
    }
}

// A lane's part of one step of a group: rows 2g and 2g + 1 at the quads j and j + 4.
MR_DEVICE void load_rows(const u8* codes, u32 quad, u32 quads, u32 (&rows)[4]) {
    const Pair* at =
        reinterpret_cast<const Pair*>(codes + static_cast<u64>(quad) * (4 * GROUP_ROWS)) + lane_index() / 4;
    // Quads past the last are not there to be read; the queries' codes are zero for them.
    const Pair low = quad < quads ? load_global(at) : Pair{0, 0};
    const Pair high = quad + 4 < quads ? load_global(at + 4 * GROUP_ROWS / 2) : Pair{0, 0};
    rows[0] = low.first, rows[1] = low.second;
    rows[2] = high.first, rows[3] = high.second;
}

// Adds the products of one slab. Groups that are not there repeat the last one's codes, and are not kept.
template <u32 GROUPS, u32 TILES>
MR_DEVICE void multiply_slab(const QueryTile& queries, const u8* const (&codes)[GROUPS], u32 first_step, u32 steps,
                             const u32* slab, i32 (&sums)[GROUPS][TILES][4]) {
    constexpr u32 LOADED = LOADED_STEPS<TILES>;
    const u32 lane = lane_index(), j = lane % 4;
    const u32 tiles = divide_up(queries.count, 8);
    for (u32 begin = 0; begin < steps; begin += LOADED) {
        u32 rows[LOADED][GROUPS][4];
        MR_UNROLL
        for (u32 step = 0; step < LOADED; ++step) {
            MR_UNROLL
            for (u32 group = 0; group < GROUPS; ++group) {
                load_rows(codes[group], 8 * (first_step + begin + step) + j, queries.quads, rows[step][group]);
            }
        }
        MR_UNROLL
        for (u32 step = 0; step < LOADED; ++step) {
            if (begin + step >= steps) break;
            MR_UNROLL
            for (u32 tile = 0; tile < TILES; ++tile) {
                if (tile >= tiles) break;
                const Pair pair =
                    reinterpret_cast<const Pair*>(slab + (tile * SLAB_STEPS + begin + step) * STEP_WORDS)[lane];
                const u32 codes_of_queries[2] = {pair.first, pair.second};
                MR_UNROLL
                for (u32 group = 0; group < GROUPS; ++group) {
                    multiply_codes(sums[group][tile], rows[step][group], codes_of_queries);
                }
            }
        }
    }
}

// Screens groups begin..end of a segment, GROUPS of them to a warp at a time, for up to 8 * TILES queries. All threads
// of the block. `slab` is shared memory; where all steps are one slab, it is staged already.
template <u32 GROUPS, u32 TILES>
MR_DEVICE void screen_groups(const QueryTile& queries, const Collector& collector, const Segment& segment, u32 begin,
                             u32 end, u32* slab) {
    const u32 g = lane_index() / 4, j = lane_index() % 4;
    const u64 group_bytes = static_cast<u64>(queries.quads) * (4 * GROUP_ROWS);
    const float* columns = global(segment.columns[queries.metric - 1]);
    const u32 tiles = divide_up(queries.count, 8);
    const bool one_slab = queries.steps <= SLAB_STEPS;
    for (u32 base = begin; base < end; base += WARPS * GROUPS) {
        const u32 first = base + warp_index() * GROUPS;
        i32 sums[GROUPS][TILES][4];
        const u8* codes[GROUPS];
        MR_UNROLL
        for (u32 group = 0; group < GROUPS; ++group) {
            codes[group] = global(segment.codes) + smaller(first + group, end - 1) * group_bytes;
            MR_UNROLL
            for (u32 tile = 0; tile < TILES; ++tile) {
                const QueryParams* params = tile_state().queries + 8 * tile + 2 * j;
                sums[group][tile][0] = sums[group][tile][2] = params[0].bias;
                sums[group][tile][1] = sums[group][tile][3] = params[1].bias;
            }
        }
        // One query is over before its columns would be there; many have no registers to keep them in.
        RowPair early[GROUPS];
        if constexpr (TILES == 1) {
            MR_UNROLL
            for (u32 group = 0; group < GROUPS; ++group) {
                early[group] = load_columns(columns, smaller(first + group, end - 1), g);
            }
        }
        for (u32 step = 0; step < queries.steps; step += SLAB_STEPS) {
            const u32 steps = smaller(queries.steps - step, SLAB_STEPS);
            if (!one_slab) {
                block_sync();
                stage_slab(queries, step, steps, slab);
                block_sync();
            }
            if (first < end) multiply_slab<GROUPS, TILES>(queries, codes, step, steps, slab, sums);
        }
        MR_UNROLL
        for (u32 group = 0; group < GROUPS; ++group) {
            if (first + group >= end) break;
            RowPair rows;
            if constexpr (TILES == 1) rows = early[group];
            else rows = load_columns(columns, first + group, g);
            const u32 row = segment.first_row + (first + group) * GROUP_ROWS + 2 * g;
            MR_UNROLL
            for (u32 tile = 0; tile < TILES; ++tile) {
                if (tile < tiles) keep(collector, rows, sums[group][tile], 8 * tile, row);
            }
        }
        block_sync();
        collector.tidy_all(queries.count, (base - begin) / (WARPS * GROUPS) % LOOK_EVERY == LOOK_EVERY - 1);
        block_sync();
    }
}

}  // namespace megaring
