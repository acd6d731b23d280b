// Score: the exact scores of all pairs of queries and rows, float64 with the definition's bits
// (host/core/src/exact.rs).
//
//   PREPARE  a chunk copies a run of queries (or of row numbers) into scratch, and takes the queries' squared norms
//   FINISH   a chunk is a run of tiles: four queries (or the one there is) by 64 columns of the answer
//
// Eight lanes of a warp are the definition's eight lanes, so a warp has four groups, each with two rows at a time. A
// row's elements are read and widened once for all queries of the tile; the queries lie widened in shared memory. Tiles
// of the same rows follow each other, so rows come from memory once and then from the cache.
#pragma once

#include "stage.cuh"

namespace megaring {

constexpr u32 LANES = 8;  // of the definition
constexpr u32 GROUPS = WARP / LANES;
constexpr u32 ROWS_AT_ONCE = 2;  // with more, the sums leave the registers
constexpr u32 MOST_TOGETHER = 4;  // queries of a tile
constexpr u32 TILE_COLUMNS = WARPS * GROUPS * ROWS_AT_ONCE;

struct ScorePlan {
    const Segment* segments;
    u64 payload, norms2;  // byte offsets in the scratch area: a copy of the payload, each query's squared norm; NOWHERE: no room
    u64 payload_bytes;
    u64 tiles;  // of cells
    u32 segment_count;
    u32 items, dim, metric;
    u32 rows, width, all_rows;
    u32 query_tiles, slice;
    u32 query_chunks, queries_per_chunk;
};

// Shared memory: what a tile needs beside its queries, which have the rest.
struct ScoreState {
    double norms2[MOST_TOGETHER];
    float scores[MOST_TOGETHER][TILE_COLUMNS];
};

MR_DEVICE u32 definition_lane() { return lane_index() % LANES; }

// One more element of a lane's sum.
template <bool SQUARES>
MR_DEVICE double add_element(double a, double b, double sum) {
    if constexpr (SQUARES) {
        const double difference = add_exactly(a, -b);
        return add_exactly(sum, multiply_exactly(difference, difference));
    } else {
        return fused(a, b, sum);
    }
}

// ((l0+l4)+(l2+l6)) + ((l1+l5)+(l3+l7)), the same in all eight lanes: a sum of two does not depend on their order.
MR_DEVICE double combine_lanes(double sum) {
    sum = add_exactly(sum, warp_shuffle_xor(sum, 4));
    sum = add_exactly(sum, warp_shuffle_xor(sum, 2));
    return add_exactly(sum, warp_shuffle_xor(sum, 1));
}

// The squared norm of a query, by each group of eight lanes for its own. All lanes of the warp.
MR_DEVICE double query_norm2(const float* query, u32 dim) {
    double sum = 0.0;
    for (u32 at = definition_lane(); at < dim; at += LANES) {
        const double value = load_global(query + at);
        sum = fused(value, value, sum);
    }
    return combine_lanes(sum);
}

MR_DEVICE double cosine_of(double dot, double norm2_a, double norm2_b) {
    if (norm2_a == 0.0 || norm2_b == 0.0) return 0.0;
    const double cosine = divide_exactly(dot, root_exactly(multiply_exactly(norm2_a, norm2_b)));
    return cosine < -1.0 ? -1.0 : cosine > 1.0 ? 1.0 : cosine;
}

// As replies carry it: finite where the score is.
MR_DEVICE float reported(double score) {
    const float largest = bits_to_float(0x7F7FFFFFu);
    const float rounded = static_cast<float>(score);
    return rounded < -largest ? -largest : rounded > largest ? largest : rounded;
}

MR_DEVICE void lay_score(const KernelParams& params, ScorePlan& plan) {
    Layout layout;
    plan.norms2 = plan.payload = NOWHERE;
    if (plan.metric == METRIC_COSINE) {
        plan.norms2 = take_if_room(layout, plan.items * u64(sizeof(double)), params.scratch_bytes);
    }
    plan.payload = take_if_room(layout, align_to_piece(plan.payload_bytes), params.scratch_bytes);
}

MR_DEVICE Status plan_score(const KernelParams& params, JobRecord& job, const Corpus& corpus) {
    const Descriptor& descriptor = descriptor_of(job);
    ScorePlan& plan = plan_in<ScorePlan>(job);
    const u32 items = descriptor.items;
    if (descriptor.dim != corpus.dim) return STATUS_BAD_DESCRIPTOR;
    if (!(corpus.flags & CORPUS_ROWS)) return STATUS_STALE_CORPUS;
    if (!is_metric(descriptor.metric)) return STATUS_BAD_DESCRIPTOR;
    plan.all_rows = descriptor.flags & FLAG_ALL_ROWS;
    plan.width = plan.all_rows ? corpus.rows : descriptor.k;
    // Compared in elements of four bytes, of which there are less than 2^63.
    const u64 values = u64(items) * descriptor.dim, named = plan.all_rows ? 0 : descriptor.k;
    const u64 cells = u64(items) * plan.width;
    if (values > descriptor.payload_len / sizeof(float) || named > descriptor.payload_len / sizeof(u32) - values) {
        return STATUS_BAD_DESCRIPTOR;
    }
    if (named > 0 && corpus.rows == 0) return STATUS_BAD_DESCRIPTOR;
    if (cells > descriptor.result_len / sizeof(float)) return STATUS_RESULT_TOO_SMALL;
    plan.segments = corpus.segments;
    plan.segment_count = corpus.segment_count;
    plan.payload_bytes = (values + named) * sizeof(float);
    plan.items = items;
    plan.dim = descriptor.dim;
    plan.metric = descriptor.metric;
    plan.rows = corpus.rows;
    lay_score(params, plan);
    // As much of the queries as fits is in shared memory at a time.
    const u32 room = (params.shared_bytes - MAILBOX_BYTES - sizeof(ScoreState)) / (MOST_TOGETHER * sizeof(double));
    plan.slice = smaller(align_up(plan.dim, LANES), room / LANES * LANES);
    plan.query_tiles = items <= 1 ? items : divide_up(items, MOST_TOGETHER);
    plan.tiles = u64(plan.query_tiles) * divide_up(plan.width, TILE_COLUMNS);
    // A run of queries begins at a whole piece: at a multiple of four.
    plan.queries_per_chunk = align_up(larger(STAGE_BYTES / sizeof(float) / larger(plan.dim, 1), 1), 4);
    const bool copies = plan.payload != NOWHERE;
    plan.query_chunks = copies || plan.norms2 != NOWHERE ? divide_up(items, plan.queries_per_chunk) : 0;
    const u64 named_bytes = align_to_piece(plan.payload_bytes) - align_to_piece(values * sizeof(float));
    job.prepare_end =
        plan.query_chunks + (copies ? static_cast<u32>((named_bytes + STAGE_BYTES - 1) / STAGE_BYTES) : 0);
    job.work_end = job.prepare_end;
    const u64 most = 8 * u64(params.workers);
    job.total = job.work_end + static_cast<u32>(plan.tiles < most ? (plan.tiles > 0 ? plan.tiles : 1) : most);
    return STATUS_OK;
}

// Where the job's payload is read from once PREPARE is over.
MR_DEVICE const u8* score_payload(const KernelParams& params, const JobRecord& job) {
    const u64 staged = plan_in<ScorePlan>(job).payload;
    return staged == NOWHERE ? payload_of(params, job) : job.scratch + staged;
}

MR_DEVICE_CALL void prepare_score(const KernelParams& params, JobRecord& job, u32 chunk) {
    const ScorePlan& plan = plan_in<ScorePlan>(job);
    const u8* from = payload_of(params, job);
    const u64 row_bytes = plan.dim * u64(sizeof(float));
    const u64 queries_end = align_to_piece(plan.items * row_bytes);
    if (chunk >= plan.query_chunks) {
        copy_chunk(job.scratch + plan.payload, from, queries_end, align_to_piece(plan.payload_bytes),
                   chunk - plan.query_chunks);
        return;
    }
    const u32 first = chunk * plan.queries_per_chunk;
    const u32 count = smaller(plan.items - first, plan.queries_per_chunk);
    const u64 begin = first * row_bytes;
    if (plan.payload != NOWHERE) {
        copy_pieces(job.scratch + plan.payload, from, begin,
                    first + count == plan.items ? queries_end : begin + count * row_bytes);
    }
    if (plan.norms2 == NOWHERE) return;
    // The copies of other threads are read below.
    block_sync();
    const float* queries = reinterpret_cast<const float*>(score_payload(params, job)) + u64(first) * plan.dim;
    double* norms2 = reinterpret_cast<double*>(job.scratch + plan.norms2) + first;
    const u32 group = thread_index() / LANES;
    for (u32 at = 0; at < count; at += WARPS * GROUPS) {
        const u32 query = smaller(at + group, count - 1);
        const double norm2 = query_norm2(queries + u64(query) * plan.dim, plan.dim);
        if (at + group < count && definition_lane() == 0) store_global(norms2 + query, norm2);
    }
}

// A run of tiles, by one block.
class Scorer {
  public:
    MR_DEVICE Scorer(const KernelParams& params, JobRecord& job)
        : job_(job),
          plan_(plan_in<ScorePlan>(job)),
          payload_(score_payload(params, job)),
          out_(reinterpret_cast<float*>(result_of(params, job))) {
        state_ = reinterpret_cast<ScoreState*>(shared_memory());
        staged_ = reinterpret_cast<double*>(shared_memory() + sizeof(ScoreState));
    }

    MR_DEVICE void run(u64 tile) {
        const u32 query = static_cast<u32>(tile % plan_.query_tiles) * (plan_.items == 1 ? 1 : MOST_TOGETHER);
        const u32 column = static_cast<u32>(tile / plan_.query_tiles) * TILE_COLUMNS;
        if (is_of_bits(plan_.metric)) score_bits(query, column);
        else if (plan_.metric == METRIC_L2) run_tile<true>(query, column);
        else run_tile<false>(query, column);
    }

  private:
    template <bool SQUARES>
    MR_DEVICE void run_tile(u32 query, u32 column) {
        if (plan_.items == 1) score_tile<SQUARES, 1>(query, column);
        else score_tile<SQUARES, MOST_TOGETHER>(query, column);
    }

    template <bool SQUARES, u32 QUERIES>
    MR_DEVICE void score_tile(u32 query, u32 column) {
        // The last tile is padded with its last column, which is scored again and not written.
        const u32 mine = column + thread_index() / LANES * ROWS_AT_ONCE;
        const Place first = place_of(smaller(mine, plan_.width - 1)),
                    second = place_of(smaller(mine + 1, plan_.width - 1));
        double sums[ROWS_AT_ONCE][QUERIES] = {};
        for (u32 begin = 0; begin < plan_.dim; begin += plan_.slice) {
            const u32 length = smaller(plan_.dim - begin, plan_.slice);
            stage<QUERIES>(query, begin, length);
            for (u32 at = definition_lane(); at < length; at += LANES) {
                const double a = load_global(first.row + begin + at), b = load_global(second.row + begin + at);
                MR_UNROLL
                for (u32 q = 0; q < QUERIES; ++q) {
                    const double value = staged_[q * plan_.slice + at];
                    // In this order: l2 is the same either way, but the definition has the query first.
                    sums[0][q] = add_element<SQUARES>(value, a, sums[0][q]);
                    sums[1][q] = add_element<SQUARES>(value, b, sums[1][q]);
                }
            }
        }
        finish<QUERIES>(sums, first, second);
        write<QUERIES>(query, column);
    }

    // Rows of bits: a group of lanes counts the words of a row and a query, and the score is exact either way.
    MR_DEVICE void score_bits(u32 query, u32 column) {
        const u32 group = thread_index() / LANES;
        const u32 queries = smaller(plan_.items - query, MOST_TOGETHER);
        for (u32 q = 0; q < queries; ++q) {
            const u32* asked = reinterpret_cast<const u32*>(payload_) + u64(query + q) * plan_.dim;
            for (u32 at = 0; at < ROWS_AT_ONCE; ++at) {
                const u32 mine = group * ROWS_AT_ONCE + at;
                const Place place = place_of(smaller(column + mine, plan_.width - 1));
                const u32* words = reinterpret_cast<const u32*>(place.row);
                u32 both = 0, either = 0;
                for (u32 word = definition_lane(); word < plan_.dim; word += LANES) {
                    const u32 a = load_global(asked + word), b = load_global(words + word);
                    both += popcount(a & b), either += popcount(a | b);
                }
                for (u32 mask = 1; mask < LANES; mask *= 2) {
                    both += warp_shuffle_xor(both, mask), either += warp_shuffle_xor(either, mask);
                }
                double score = static_cast<double>(either - both);
                if (plan_.metric == METRIC_JACCARD) score = either == 0 ? 1.0 : divide_exactly(both, either);
                if (definition_lane() == 0) state_->scores[q][mine] = reported(score);
            }
        }
        block_sync();
        write<MOST_TOGETHER>(query, column);
    }

    // A row, and its squared norm.
    struct Place {
        const float* row;
        const double* norm2;
    };
    MR_DEVICE Place place_of(u32 column) {
        u32 row = column;
        if (!plan_.all_rows) {
            row = load_global(reinterpret_cast<const u32*>(payload_) + u64(plan_.items) * plan_.dim + column);
            if (row >= plan_.rows) {
                fail(job_, STATUS_BAD_DESCRIPTOR);
                row = 0;
            }
        }
        const Segment& segment = segment_of(plan_.segments, plan_.segment_count, row);
        const u32 local = row - segment.first_row;
        return Place{segment.rows + u64(local) * plan_.dim, segment.norms2 + local};
    }

    // Brings a slice of the tile's queries, widened, into shared memory, unless it is there. The last tile is padded
    // with its last query.
    template <u32 QUERIES>
    MR_DEVICE void stage(u32 query, u32 begin, u32 length) {
        if (query == staged_query_ && begin == staged_begin_) return;
        staged_query_ = query;
        staged_begin_ = begin;
        block_sync();
        const float* queries = reinterpret_cast<const float*>(payload_);
        MR_UNROLL
        for (u32 q = 0; q < QUERIES; ++q) {
            const float* from = queries + u64(smaller(query + q, plan_.items - 1)) * plan_.dim + begin;
            for (u32 at = thread_index(); at < length; at += THREADS) {
                store_shared(staged_ + q * plan_.slice + at, double(load_global(from + at)));
            }
        }
        if (begin == 0 && plan_.metric == METRIC_COSINE && warp_index() == 0) stage_norms2<QUERIES>(query);
        block_sync();
    }

    // By the first warp, a group of lanes for each query.
    template <u32 QUERIES>
    MR_DEVICE void stage_norms2(u32 query) {
        const u32 q = lane_index() / LANES;
        const u32 from = smaller(query + q, plan_.items - 1);
        double norm2;
        if (plan_.norms2 != NOWHERE) norm2 = load_global(reinterpret_cast<const double*>(job_.scratch + plan_.norms2) + from);
        else norm2 = query_norm2(reinterpret_cast<const float*>(payload_) + u64(from) * plan_.dim, plan_.dim);
        if (q < QUERIES && definition_lane() == 0) state_->norms2[q] = norm2;
    }

    // From sums to scores in shared memory. Lane 2q + r of a group scores query q and row r.
    template <u32 QUERIES>
    MR_DEVICE void finish(double (&sums)[ROWS_AT_ONCE][QUERIES], const Place& first, const Place& second) {
        const u32 lane = definition_lane();
        double score = 0.0;
        MR_UNROLL
        for (u32 pair = 0; pair < ROWS_AT_ONCE * QUERIES; ++pair) {
            const double sum = combine_lanes(sums[pair % ROWS_AT_ONCE][pair / ROWS_AT_ONCE]);
            if (lane == pair) score = sum;
        }
        if (lane < ROWS_AT_ONCE * QUERIES) {
            const u32 query = lane / ROWS_AT_ONCE, row = lane % ROWS_AT_ONCE;
            if (plan_.metric == METRIC_COSINE) {
                score = cosine_of(score, state_->norms2[query], load_global((row == 0 ? first : second).norm2));
            }
            state_->scores[query][thread_index() / LANES * ROWS_AT_ONCE + row] = reported(score);
        }
        block_sync();
    }

    // The tile's scores, 256 bytes of a query's row together.
    template <u32 QUERIES>
    MR_DEVICE void write(u32 query, u32 column) {
        const u32 mine = column + thread_index() % TILE_COLUMNS;
        for (u32 q = thread_index() / TILE_COLUMNS; q < QUERIES; q += THREADS / TILE_COLUMNS) {
            if (query + q < plan_.items && mine < plan_.width) {
                store_global(out_ + u64(query + q) * plan_.width + mine, state_->scores[q][mine - column]);
            }
        }
        block_sync();
    }

    JobRecord& job_;
    const ScorePlan& plan_;
    const u8* payload_;
    float* out_;
    ScoreState* state_;
    double* staged_;
    u32 staged_query_ = ~u32(0), staged_begin_ = 0;
};

MR_DEVICE_CALL void finish_score(const KernelParams& params, JobRecord& job, u32 chunk) {
    const u32 chunks = job.total - job.work_end;
    const u64 tiles = plan_in<ScorePlan>(job).tiles, end = cut_long(tiles, chunks, chunk + 1);
    Scorer scorer(params, job);
    for (u64 tile = cut_long(tiles, chunks, chunk); tile < end; ++tile) scorer.run(tile);
}

template <>
struct Operation<Opcode::score> {
    static constexpr bool AT_ONCE = false;

    static MR_DEVICE Status plan(const KernelParams& params, JobRecord& job, StreamPlace&) {
        const Descriptor& descriptor = descriptor_of(job);
        const Corpus* corpus = find_corpus(params, descriptor.corpus, descriptor.corpus_generation);
        return corpus == nullptr ? STATUS_STALE_CORPUS : plan_score(params, job, *corpus);
    }

    static MR_DEVICE void run(const KernelParams& params, JobRecord& job, Phase phase, u32 chunk) {
        if (phase == PHASE_PREPARE) prepare_score(params, job, chunk);
        else finish_score(params, job, chunk);
    }
};

}  // namespace megaring
