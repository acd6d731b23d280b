// The screen by the rows themselves, in float32: four times the bytes of the codes, and a bound so narrow that hardly a
// row too many is left. For corpora whose rows lie closer together than int8 codes can tell apart.
//
// The bound. A sum of products by fused multiply-adds and additions, in whatever order, of which no term takes part in
// more than m roundings, differs from the exact sum by at most g·Σ|q_i x_i| ≤ g·‖q‖‖x‖ with g = m·u / (1 - m·u), u =
// 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1). Here m = 4·ceil(dim / 128) + 5:
// a lane's own chain, then five additions across the lanes. What is done with the sum after that (factors, the norm's
// square root, -‖x‖²) is a handful of roundings more, each on terms no larger than ‖q‖‖x‖ or ‖x‖². So with r = 2·g +
// 32·u:
//
//   cosine: r        dot: r·‖q‖‖x‖        l2, of the goodness ‖q‖² - d²: r·(2·‖q‖‖x‖ + ‖x‖²)
//
// which leaves more than a factor of two to spare, float64's own roundings included but for the absolute part of l2
// (`QueryParams::slack`). Norms are within 2^±40, as for the codes: nothing overflows, and what underflows is far below
// u of the rest.
#pragma once

#include "screen.cuh"

namespace megaring {

// Queries that a block has at once, and rows that a warp has.
constexpr u32 FLOAT32_QUERIES = 8;
constexpr u32 FLOAT32_ROWS = 4;
static_assert(FLOAT32_QUERIES * FLOAT32_ROWS == WARP);
// Elements of the queries that are staged at once.
constexpr u32 FLOAT32_SLAB = SLAB_BYTES / sizeof(float) / FLOAT32_QUERIES;
// Steps of 128 elements whose rows a warp loads before it multiplies. One query is limited by the memory: 6 KiB a warp
// are under way at once. Several are limited by the registers for their sums.
template <u32 QUERIES>
constexpr u32 FLOAT32_STEPS = QUERIES == 1 ? 3 : 1;
constexpr u32 FLOAT32_STEP = 4 * WARP;
static_assert(FLOAT32_SLAB % (FLOAT32_STEPS<1> * FLOAT32_STEP) == 0);

MR_DEVICE double float32_bound(u32 dim) {
    const double unit = 1.0 / (1 << 24);
    const double roundings = 4.0 * divide_up(dim, FLOAT32_STEP) + 5.0;
    return 2.0 * roundings * unit / (1.0 - roundings * unit) + 32.0 * unit;
}

struct alignas(16) Quad {
    float x, y, z, w;
};

// Four elements of a row from `element` on; zeros past its end. Rows of another width than a multiple of four are not
// aligned for more.
MR_DEVICE Quad load_quad(const float* row, u32 element, u32 dim) {
    if (dim % 4 == 0) {
        return element < dim ? load_global(reinterpret_cast<const Quad*>(row + element)) : Quad{0, 0, 0, 0};
    }
    const auto one = [&](u32 at) { return at < dim ? load_global(row + at) : 0.0f; };
    return Quad{one(element), one(element + 1), one(element + 2), one(element + 3)};
}

// Stages the queries' elements from `first` on, zeros past their end. All threads; the caller has barriers around it.
MR_DEVICE void stage_queries(const float* queries, u32 count, u32 dim, u32 first, float* slab) {
    for (u32 query = 0; query < count; ++query) {
        for (u32 at = thread_index(); at < FLOAT32_SLAB; at += THREADS) {
            slab[query * FLOAT32_SLAB + at] =
                first + at < dim ? queries[static_cast<u64>(query) * dim + first + at] : 0.0f;
        }
    }
}

template <u32 QUERIES>
MR_DEVICE void add_products(const Quad (&rows)[FLOAT32_ROWS], const float* slab, u32 at,
                            float (&sums)[FLOAT32_ROWS * QUERIES]) {
    MR_UNROLL
    for (u32 query = 0; query < QUERIES; ++query) {
        const Quad values = *reinterpret_cast<const Quad*>(slab + query * FLOAT32_SLAB + at);
        MR_UNROLL
        for (u32 row = 0; row < FLOAT32_ROWS; ++row) {
            float& sum = sums[row * QUERIES + query];
            sum = fused(values.x, rows[row].x, sum);
            sum = fused(values.y, rows[row].y, sum);
            sum = fused(values.z, rows[row].z, sum);
            sum = fused(values.w, rows[row].w, sum);
        }
    }
}

// Adds up each of COUNT sums over 32 lanes; lane i gets the one of number i % COUNT. While there are several, a lane
// gives away the half that it will not have. (By recursion, since the sums must be indexed by constants to stay in
// registers.)
template <u32 HALF, u32 COUNT>
MR_DEVICE float transpose_sums(float (&sums)[COUNT]) {
    const bool upper = lane_index() & HALF;
    MR_UNROLL
    for (u32 at = 0; at < HALF; ++at) {
        const float give = upper ? sums[at] : sums[at + HALF];
        const float stay = upper ? sums[at + HALF] : sums[at];
        sums[at] = stay + warp_shuffle_xor(give, HALF);
    }
    if constexpr (HALF > 1) return transpose_sums<HALF / 2>(sums);
    float sum = sums[0];
    MR_UNROLL
    for (u32 mask = COUNT; mask < WARP; mask *= 2) sum += warp_shuffle_xor(sum, mask);
    return sum;
}

// The bounds of one row for one query.
MR_DEVICE void keep_float32(const Collector& collector, u32 metric, u32 query, u32 row, float sum, double norm2) {
    const QueryParams& params = tile_state().queries[query];
    const float square = static_cast<float>(norm2), norm = root(square);
    const float mul = metric == METRIC_COSINE ? (square == 0.0f ? 0.0f : 1.0f / norm) : 1.0f;
    const float add = metric == METRIC_L2 ? -square : 0.0f;
    const float e1 = metric == METRIC_COSINE ? 1.0f : norm, e2 = metric == METRIC_L2 ? square : 0.0f;
    const float score = sum * params.scale * mul + add;
    const float error = params.a * e1 + params.b * e2;
    const float upper = score + error;
    if (upper >= params.threshold) collector.push(query, Cell{row, score - error, upper});
}

// Screens rows begin..end of a segment for up to QUERIES queries. All threads of the block.
template <u32 QUERIES>
MR_DEVICE void screen_rows(const float* raw, u32 count, u32 dim, u32 metric, const Collector& collector,
                           const Segment& segment, u32 begin, u32 end, float* slab) {
    constexpr u32 STEPS = FLOAT32_STEPS<QUERIES>, SUMS = FLOAT32_ROWS * QUERIES;
    const u32 lane = lane_index();
    const bool one_slab = dim <= FLOAT32_SLAB;
    if (one_slab) {
        block_sync();
        stage_queries(raw, count, dim, 0, slab);
        block_sync();
    }
    for (u32 base = begin; base < end; base += WARPS * FLOAT32_ROWS) {
        const u32 first = base + warp_index() * FLOAT32_ROWS;
        const float* at[FLOAT32_ROWS];
        MR_UNROLL
        for (u32 row = 0; row < FLOAT32_ROWS; ++row) {
            at[row] = global(segment.rows) + static_cast<u64>(smaller(first + row, end - 1)) * dim;
        }
        float sums[SUMS] = {};
        for (u32 from = 0; from < dim; from += FLOAT32_SLAB) {
            if (!one_slab) {
                block_sync();
                stage_queries(raw, count, dim, from, slab);
                block_sync();
            }
            const u32 to = smaller(dim, from + FLOAT32_SLAB);
            for (u32 begun = from; first < end && begun < to; begun += STEPS * FLOAT32_STEP) {
                const u32 element = begun + 4 * lane;
                Quad rows[STEPS][FLOAT32_ROWS];
                MR_UNROLL
                for (u32 step = 0; step < STEPS; ++step) {
                    MR_UNROLL
                    for (u32 row = 0; row < FLOAT32_ROWS; ++row) {
                        rows[step][row] = load_quad(at[row], element + step * FLOAT32_STEP, dim);
                    }
                }
                MR_UNROLL
                for (u32 step = 0; step < STEPS; ++step) {
                    add_products<QUERIES>(rows[step], slab, element - from + step * FLOAT32_STEP, sums);
                }
            }
        }
        const float sum = transpose_sums<SUMS / 2>(sums);
        const u32 row = first + lane / QUERIES, query = lane % QUERIES;
        if (lane < SUMS && row < end && query < count) {
            keep_float32(collector, metric, query, segment.first_row + row, sum, global(segment.norms2)[row]);
        }
        block_sync();
        collector.tidy_all(count, (base - begin) / (WARPS * FLOAT32_ROWS) % (4 * LOOK_EVERY) == 0);
        block_sync();
    }
}

}  // namespace megaring
