// A query made ready for the int8 screen: `QueryScreen` of host/core/src/screen.rs, which has the proof, by one warp.
#pragma once

#include "job.cuh"
#include "select.cuh"

namespace megaring {

// What the screen needs of a query beside its codes. The first four are read together for every row.
struct alignas(16) QueryParams {
    float scale;      // t, over the norm for cosine
    float a, b;       // coefficients of the columns e1 and e2
    float threshold;  // upper bounds below it are of no interest; infinite for a query that cannot be screened
    double slack;     // what a*e1 + b*e2 does not cover, in units of the goodness
    i32 bias;         // -128 times the sum of the codes: rows' codes are stored with 128 added
    u32 screened;
};
static_assert(sizeof(QueryParams) == 32);

constexpr u32 GROUP_ROWS = 16;
constexpr u32 GROUP_COLUMNS = 4 * GROUP_ROWS;

constexpr float LARGEST = 3.40282347e38f;
constexpr double SLACK = 1.0 / (1 << 18);
constexpr double L2_SLACK = 1.0 / (u64(1) << 36);

MR_DEVICE float infinity() { return bits_to_float(0x7F800000u); }

// The next float32 up or down; what is infinite or the largest stays finite on the way down.
MR_DEVICE float next_up(float value) {
    const u32 bits = float_to_bits(value);
    if ((bits & 0x7FFFFFFFu) == 0) return bits_to_float(1);
    if (bits == 0x7F800000u) return value;
    return bits_to_float(bits & 0x80000000u ? bits - 1 : bits + 1);
}
MR_DEVICE float next_down(float value) { return -next_up(-value); }
// A float32 that is not below (not above) a float64.
MR_DEVICE float round_up(double value) { return next_up(static_cast<float>(value)); }
MR_DEVICE float round_down(double value) { return next_down(static_cast<float>(value)); }

MR_DEVICE bool is_tame(double norm2) {
    const double two_80 = static_cast<double>(u64(1) << 40) * static_cast<double>(u64(1) << 40);
    return norm2 == 0.0 || (norm2 >= 1.0 / two_80 && norm2 <= two_80);
}

// The threshold that a k-th largest lower bound amounts to.
MR_DEVICE float relax(float kth_lower, double slack) {
    return slack == 0.0 ? kth_lower : round_down(static_cast<double>(kth_lower) - 2.0 * slack);
}

template <typename T, typename Join>
MR_DEVICE T warp_reduce(T value, Join join) {
    for (u32 step = WARP / 2; step > 0; step /= 2) value = join(value, warp_shuffle_xor(value, step));
    return value;
}
MR_DEVICE double warp_sum(double value) { return warp_reduce(value, [](double a, double b) { return a + b; }); }
MR_DEVICE i32 warp_sum(i32 value) { return warp_reduce(value, [](i32 a, i32 b) { return a + b; }); }
MR_DEVICE float warp_max(float value) { return warp_reduce(value, [](float a, float b) { return a < b ? b : a; }); }

// Brings a query from pinned memory into scratch: its bytes cross the bus once. Returns this lane's part of the sums.
struct Loaded {
    double norm2;
    float largest;
};
MR_DEVICE Loaded load_query(const float* from, float* to, u32 dim) {
    Loaded loaded{0.0, 0.0f};
    auto take = [&](float value) {
        loaded.norm2 = fused(static_cast<double>(value), static_cast<double>(value), loaded.norm2);
        const float size = value < 0 ? -value : value;
        loaded.largest = size > loaded.largest ? size : loaded.largest;
    };
    struct alignas(16) Four {
        float x, y, z, w;
    };
    // All loads are under way before the first store: the two may be of the same memory, for all that the compiler
    // knows, and each turn over the bus would wait for the one before.
    if (dim % 4 == 0) {
        constexpr u32 TOGETHER = 4;
        for (u32 base = 4 * lane_index(); base < dim; base += TOGETHER * 4 * WARP) {
            Four held[TOGETHER];
            MR_UNROLL
            for (u32 at = 0; at < TOGETHER; ++at) {
                const u32 element = base + at * 4 * WARP;
                held[at] = element < dim ? load_global(reinterpret_cast<const Four*>(from + element)) : Four{0, 0, 0, 0};
            }
            MR_UNROLL
            for (u32 at = 0; at < TOGETHER; ++at) {
                const u32 element = base + at * 4 * WARP;
                if (element < dim) store_global(reinterpret_cast<Four*>(to + element), held[at]);
                take(held[at].x), take(held[at].y), take(held[at].z), take(held[at].w);
            }
        }
    } else {
        constexpr u32 TOGETHER = 8;
        for (u32 base = lane_index(); base < dim; base += TOGETHER * WARP) {
            float held[TOGETHER];
            MR_UNROLL
            for (u32 at = 0; at < TOGETHER; ++at) {
                held[at] = base + at * WARP < dim ? load_global(from + base + at * WARP) : 0.0f;
            }
            MR_UNROLL
            for (u32 at = 0; at < TOGETHER; ++at) {
                if (base + at * WARP < dim) store_global(to + base + at * WARP, held[at]);
                take(held[at]);
            }
        }
    }
    warp_sync();
    return loaded;
}

// Nearest integer of a value within ±127.5, through the mantissa.
MR_DEVICE i32 round_code(float value) {
    const float magic = 12582912.0f;  // 1.5 * 2^23: the unit in the last place is 1
    const i32 rounded = static_cast<i32>(float_to_bits(value + magic)) - static_cast<i32>(float_to_bits(magic));
    return rounded > 127 ? 127 : rounded < -127 ? -127 : rounded;
}

// Writes a loaded query's codes into its column of a tile of eight (`fragments`, see search.cuh), and returns what was
// lost and kept. A query that is not `screened` gets zeros.
struct Coded {
    double lost, kept;
    i32 sum;
};
MR_DEVICE Coded code_query(const float* values, u32 dim, u32 steps, u32 column, bool screened, float largest,
                           u32* fragments) {
    const float scale = largest / 127.0f, inverse = 127.0f / largest;
    Coded coded{0.0, 0.0, 0};
    constexpr u32 TOGETHER = 3;
    for (u32 base = lane_index(); base < 8 * steps; base += TOGETHER * WARP) {
        float held[TOGETHER][4];
        MR_UNROLL
        for (u32 at = 0; at < TOGETHER; ++at) {
            MR_UNROLL
            for (u32 part = 0; part < 4; ++part) {
                const u32 element = 4 * (base + at * WARP) + part;
                held[at][part] = screened && element < dim ? load_global(values + element) : 0.0f;
            }
        }
        MR_UNROLL
        for (u32 at = 0; at < TOGETHER; ++at) {
            const u32 quad = base + at * WARP;
            if (quad >= 8 * steps) break;
            u32 word = 0;
            MR_UNROLL
            for (u32 part = 0; part < 4; ++part) {
                if (!screened) continue;
                const float value = held[at][part];
                const i32 code = round_code(value * inverse);
                const double kept = static_cast<double>(scale) * code, lost = static_cast<double>(value) - kept;
                coded.kept += kept * kept;
                coded.lost += lost * lost;
                coded.sum += code;
                word |= (static_cast<u32>(code) & 0xFF) << (8 * part);
            }
            const u32 step = quad / 8, half = quad % 8 / 4, lane = 4 * column + quad % 4;
            store_global(fragments + (step * WARP + lane) * 2 + half, word);
        }
    }
    return Coded{warp_sum(coded.lost), warp_sum(coded.kept), warp_sum(coded.sum)};
}

MR_DEVICE double goodness(u32 metric, double score) { return is_distance(metric) ? -score : score; }

// The caller's threshold as an upper bound that rows of interest reach. It is at least the lowest finite number, which
// the padding of a group does not reach.
MR_DEVICE float first_threshold(u32 metric, double norm2, double slack, double threshold) {
    const double wanted = goodness(metric, threshold);
    const float first = round_down(wanted + (metric == METRIC_L2 ? norm2 : 0.0) - 2.0 * slack);
    return wanted < -1e300 || first < -LARGEST ? -LARGEST : first;
}

// Bounds of a query whose norm, codes and losses are known. All lanes compute the same.
MR_DEVICE QueryParams query_params(u32 metric, double norm2, double max_norm, double threshold, float largest,
                                   const Coded& coded) {
    const double up = 1.0 + 1e-9;
    const double residual = root_exactly(coded.lost) * up, kept = root_exactly(coded.kept) * up;
    const double unit = metric == METRIC_COSINE ? root_exactly(norm2) : 1.0;
    const double small = metric == METRIC_L2 ? SLACK * max_norm : 0.0;
    QueryParams params;
    params.scale = static_cast<float>(static_cast<double>(largest / 127.0f) / unit);
    params.a = round_up(kept * (1.0 + SLACK) / unit);
    params.b = round_up((residual + SLACK * kept) / unit + small);
    params.slack = metric == METRIC_L2 ? norm2 * L2_SLACK : 0.0;
    params.bias = -128 * coded.sum;
    params.screened = 1;
    params.threshold = first_threshold(metric, norm2, params.slack, threshold);
    return params;
}

// Of a query that no row is screened for.
MR_DEVICE QueryParams unscreened() { return QueryParams{0.0f, 0.0f, 0.0f, infinity(), 0.0, 0, 0}; }

// What the columns of a corpus's row say of it, four numbers of its group of 16.
struct RowColumns {
    float mul, add, e1, e2;
};

// A query that is a row of the corpus has its codes there already: they go into its column of a tile of eight, as those
// of `code_query` do.
struct CodedRow {
    i32 sum, squares;
};
MR_DEVICE CodedRow code_row(const u8* group, u32 row, u32 quads, u32 steps, u32 column, u32* fragments) {
    constexpr u32 TOGETHER = 3, BIAS = 0x80808080;
    const u32* words = reinterpret_cast<const u32*>(group) + row;
    CodedRow coded{0, 0};
    for (u32 base = lane_index(); base < 8 * steps; base += TOGETHER * WARP) {
        u32 held[TOGETHER];
        MR_UNROLL
        for (u32 at = 0; at < TOGETHER; ++at) {
            const u32 quad = base + at * WARP;
            held[at] = (quad < quads ? load_global(words + static_cast<u64>(quad) * GROUP_ROWS) : BIAS) ^ BIAS;
        }
        MR_UNROLL
        for (u32 at = 0; at < TOGETHER; ++at) {
            const u32 quad = base + at * WARP;
            if (quad >= 8 * steps) break;
            MR_UNROLL
            for (u32 part = 0; part < 4; ++part) {
                const i32 code = static_cast<i8>(held[at] >> (8 * part));
                coded.sum += code;
                coded.squares += code * code;
            }
            const u32 step = quad / 8, half = quad % 8 / 4, lane = 4 * column + quad % 4;
            store_global(fragments + (step * WARP + lane) * 2 + half, held[at]);
        }
    }
    return CodedRow{warp_sum(coded.sum), warp_sum(coded.squares)};
}

// Its bounds, by what its columns say: s, ‖e‖ and ‖x‖² of `columns` in host/core/src/screen.rs are the t, ‖f‖ and ‖q‖²
// of a query, already over ‖q‖ for cosine. They are float32, so what must not be too small gets SPARE more.
MR_DEVICE QueryParams row_params(u32 metric, const RowColumns& row, double max_norm, double threshold,
                                 const CodedRow& coded) {
    constexpr double SPARE = 1.0 / (1 << 22);
    const bool l2 = metric == METRIC_L2;
    const double scale = l2 ? row.mul / 2.0 : row.mul, norm2 = l2 ? -static_cast<double>(row.add) : 0.0;
    const double kept = scale * root_exactly(static_cast<double>(coded.squares)) * (1.0 + SPARE);
    const double residual = l2 ? row.e1 / 2.0 : row.e1;
    QueryParams params;
    params.scale = static_cast<float>(scale);
    params.a = round_up(kept * (1.0 + SLACK));
    params.b = round_up(residual + SLACK * kept + (l2 ? SLACK * max_norm : 0.0));
    params.slack = norm2 * (1.0 + SPARE) * L2_SLACK;
    params.bias = -128 * coded.sum;
    params.screened = 1;
    params.threshold = first_threshold(metric, norm2 * (1.0 - SPARE), params.slack, threshold);
    return params;
}

// The same for the float32 screen, see screen_float32.cuh.
MR_DEVICE QueryParams float32_params(u32 metric, double norm2, double threshold, double relative) {
    const double norm = root_exactly(norm2);
    QueryParams params;
    params.scale = metric == METRIC_COSINE ? static_cast<float>(1.0 / norm) : metric == METRIC_L2 ? 2.0f : 1.0f;
    const double error = metric == METRIC_COSINE ? relative
                         : metric == METRIC_DOT  ? relative * norm
                                                 : 2.0 * relative * norm;
    params.a = round_up(error);
    params.b = metric == METRIC_L2 ? round_up(relative) : 0.0f;
    params.slack = metric == METRIC_L2 ? norm2 * L2_SLACK : 0.0;
    params.bias = 0;
    params.screened = 1;
    params.threshold = first_threshold(metric, norm2, params.slack, threshold);
    return params;
}

}  // namespace megaring
