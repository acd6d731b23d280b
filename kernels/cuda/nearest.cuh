// Nearest: for each query the k nearest points in 5-D and whatever may tie with the last of them; the host takes the
// square roots and orders.
//
//   PREPARE  a chunk copies a run of the payload into scratch
//   WORK     a chunk is one query against a share of the points: what can be among the k nearest is collected
//   FINISH   a chunk is one query: its shares' lists become the answer's list
//
// Squared distances are the definition's bits (host/core/src/nearest.rs), in float64. They are compared as float32,
// rounded to nearest. Rounding is monotone, so with K the k-th smallest rounded distance, and d the k-th smallest
// distance itself, K is d rounded. The answer may hold rows up to widen(d) = the number after d * (1 + 1e-15): two
// distances so near may share a square root. Widening moves d by less than 2e-15 of it, or within what float32 rounds
// to 0, which is far less than the distance of two rounding boundaries of float32. So it crosses at most one boundary:
// widen(d) rounded is at most the float32 after K. Every row that the answer may hold has a rounded distance of at most
// that, and every such row is kept. Beyond float32's range rows round to infinity, which ties them: they are all kept.
#pragma once

#include "lists.cuh"
#include "select.cuh"
#include "stage.cuh"

namespace megaring {

constexpr u32 AXES = 5;
constexpr u32 POINT_BYTES = AXES * sizeof(double);
constexpr u32 POINTS_EACH = 4;  // of a thread at a time: so many loads are under way
constexpr u32 POINT_TILE = POINTS_EACH * THREADS;
// A share of the points is at least this many, if there are as many: about 5 µs.
constexpr u32 LEAST_POINTS = 4 * POINT_TILE;
// So that chunks stay within 32 bits.
constexpr u32 MOST_POINT_QUERIES = 1u << 30;

struct NearestPlan {
    const Segment* segments;  // null: the points travel in the payload
    u64 payload, limits, heads, cells, buffers;  // byte offsets in the scratch area
    u64 payload_bytes;
    u32 segment_count;
    u32 items, rows, k;
    u32 capacity, splits, every_row;
    u32 kept, room;  // cells that a split leaves behind, and that it has room for while it collects
    u32 buffers_shared;
};

// A point that may be near enough.
struct alignas(8) NearPoint {
    u32 key;  // larger is nearer
    u32 row;
};

// What a share of the points leaves behind for a query, beside its cells.
struct NearHead {
    u32 count, overflow;
};

// Shared memory: this, then the cells while they are collected, if they fit.
struct NearState {
    u32 count, written, overflow;
    i32 limit;
    u32 histogram[BINS];
};
static_assert(sizeof(NearState) % sizeof(NearPoint) == 0);

// A squared distance as a key: the bits of its float32, turned around. The topmost bit is always set (also for what is
// no number, which no checked input brings about), so keys have the same order as signed and as unsigned integers.
constexpr u32 LEAST_KEY = 0x80000000u;
MR_DEVICE u32 nearness(double squared) { return ~(float_to_bits(static_cast<float>(squared)) & 0x7FFFFFFFu); }
// The smallest key of interest, given the k-th largest: one float32 further away.
MR_DEVICE u32 key_limit(u32 kth) { return larger(kth - 1, LEAST_KEY); }

// Lays the scratch area for a number of shares; false if it does not fit.
MR_DEVICE bool lay_nearest(const KernelParams& params, NearestPlan& plan, u32 splits) {
    const u64 lists = u64(plan.items) * splits;
    plan.splits = splits;
    plan.kept = smaller(plan.rows / splits + 1, plan.capacity);
    // Room for the k nearest, as many newcomers, and the next tile.
    const u64 room = 2 * u64(plan.k) + 2 * POINT_TILE;
    const u32 shared = (params.shared_bytes - MAILBOX_BYTES - u32(sizeof(NearState))) / u32(sizeof(NearPoint));
    plan.buffers_shared = room <= shared;
    plan.room = static_cast<u32>(room);
    Layout layout;
    plan.payload = layout.take(align_to_piece(plan.payload_bytes));
    plan.limits = layout.take(plan.items * u64(sizeof(i32)));
    plan.heads = layout.take(lists * sizeof(NearHead));
    plan.cells = layout.take(lists * plan.kept * sizeof(NearPoint));
    plan.buffers = layout.take(plan.buffers_shared ? 0 : params.workers * room * sizeof(NearPoint));
    return room <= 0xFFFFFFFFu && layout.used <= params.scratch_bytes;
}

// `corpus` is null where the points travel in the payload.
MR_DEVICE Status plan_nearest(const KernelParams& params, JobRecord& job, const Corpus* corpus) {
    const Descriptor& descriptor = descriptor_of(job);
    NearestPlan& plan = plan_in<NearestPlan>(job);
    const u32 items = descriptor.items, sent = corpus == nullptr ? descriptor.dim : 0;
    plan.payload_bytes = (u64(items) + 1 + sent) * POINT_BYTES;
    if (descriptor.k == 0 || items > MOST_POINT_QUERIES || descriptor.payload_len < plan.payload_bytes) {
        return STATUS_BAD_DESCRIPTOR;
    }
    if (descriptor.result_len < items * u64(sizeof(ListHeader))) return STATUS_RESULT_TOO_SMALL;
    plan.items = items;
    plan.k = descriptor.k;
    plan.rows = corpus == nullptr ? sent : corpus->rows;
    plan.segments = corpus == nullptr ? nullptr : corpus->segments;
    plan.segment_count = corpus == nullptr ? 0 : corpus->segment_count;
    plan.every_row = 0;
    if (items == 0) return plan_every_row(job, &plan.every_row);
    plan.capacity = list_capacity(items, descriptor.result_len);
    // A point does not say whether its row is hidden.
    const bool all = wants_every_row(plan.k, plan.rows) || plan.k > plan.capacity || descriptor.flags & FLAG_HIDDEN;
    if (all) return plan_every_row(job, &plan.every_row);
    if (corpus != nullptr && !(corpus->flags & CORPUS_COORDINATES)) return STATUS_STALE_CORPUS;
    u32 splits = smaller(larger(4 * params.workers / items, 1), larger(plan.rows / LEAST_POINTS, 1));
    while (!lay_nearest(params, plan, splits)) {
        if (splits == 1) return plan_every_row(job, &plan.every_row);
        splits /= 2;
    }
    job.prepare_end = static_cast<u32>((plan.payload_bytes + STAGE_BYTES - 1) / STAGE_BYTES);
    job.work_end = job.prepare_end + items * splits;
    job.total = job.work_end + items;
    return STATUS_OK;
}

MR_DEVICE void prepare_nearest(const KernelParams& params, JobRecord& job, u32 chunk) {
    const NearestPlan& plan = plan_in<NearestPlan>(job);
    copy_chunk(job.scratch + plan.payload, payload_of(params, job), 0, align_to_piece(plan.payload_bytes), chunk);
    if (chunk != 0) return;
    i32* limits = reinterpret_cast<i32*>(job.scratch + plan.limits);
    for (u32 query = thread_index(); query < plan.items; query += THREADS) {
        store_global(limits + query, static_cast<i32>(LEAST_KEY));
    }
}

// A query with its weights.
struct Probe {
    double at[AXES], weights[AXES];

    MR_DEVICE double squared(const double (&point)[AXES]) const {
        double sum = 0.0;
        MR_UNROLL
        for (u32 axis = 0; axis < AXES; ++axis) {
            const double difference = multiply_exactly(weights[axis], add_exactly(point[axis], -at[axis]));
            const double square = multiply_exactly(difference, difference);
            sum = axis == 0 ? square : add_exactly(sum, square);
        }
        return sum;
    }
};

// Points begin..end of five columns of `length`; the first of the columns is row `first`.
struct PointRun {
    const double* columns;
    u32 length, first, begin, end;
};

// The points begin..end of all, run by run.
template <typename Visit>
MR_DEVICE void each_point_run(const NearestPlan& plan, const u8* scratch, u32 begin, u32 end, Visit visit) {
    if (plan.segments == nullptr) {
        const double* sent = reinterpret_cast<const double*>(scratch + plan.payload) + (u64(plan.items) + 1) * AXES;
        return visit(PointRun{sent, plan.rows, 0, begin, end});
    }
    for (u32 at = 0; at < plan.segment_count; ++at) {
        const Segment& segment = plan.segments[at];
        const u32 first = segment.first_row;
        const u32 from = begin > first ? begin - first : 0,
                  to = end > first ? smaller(end - first, segment.row_count) : 0;
        if (from < to) visit(PointRun{segment.coordinates, segment.row_count, first, from, to});
    }
}

// The nearest of a share of the points to one query, by one block. With L the key limit that any k points give, a point
// below it is not wanted: k are surely nearer, and it does not tie with the last of them. That holds for limits that
// other blocks found, too.
class NearScan {
  public:
    MR_DEVICE NearScan(const NearestPlan& plan, u8* scratch, u32 query) : plan_(plan) {
        state_ = reinterpret_cast<NearState*>(shared_memory());
        shared_limit_ = reinterpret_cast<i32*>(scratch + plan.limits) + query;
        const u64 buffer = u64(block_index() - 1) * plan.room;
        if (plan.buffers_shared) cells_ = reinterpret_cast<NearPoint*>(state_ + 1);
        else cells_ = reinterpret_cast<NearPoint*>(scratch + plan.buffers) + buffer;
        const double* payload = reinterpret_cast<const double*>(scratch + plan.payload);
        MR_UNROLL
        for (u32 axis = 0; axis < AXES; ++axis) {
            probe_.at[axis] = load_global(payload + u64(query) * AXES + axis);
            probe_.weights[axis] = load_global(payload + u64(plan.items) * AXES + axis);
        }
        if (thread_index() == 0) {
            state_->count = state_->overflow = 0;
            state_->limit = static_cast<i32>(device_load_relaxed(reinterpret_cast<const u32*>(shared_limit_)));
        }
        block_sync();
        limit_ = static_cast<u32>(state_->limit);
    }

    MR_DEVICE void scan(const PointRun& run) {
        for (u32 begin = run.begin; begin < run.end; begin += smaller(run.end - begin, POINT_TILE)) {
            u32 keys[POINTS_EACH];
            MR_UNROLL
            for (u32 i = 0; i < POINTS_EACH; ++i) {
                // The last tile's padding gets a key below every limit.
                const u32 at = begin + i * THREADS + thread_index();
                keys[i] = run.end - begin > i * THREADS + thread_index() ? key_of(run, at) : 0;
            }
            make_room();
            MR_UNROLL
            for (u32 i = 0; i < POINTS_EACH; ++i) {
                const u32 row = run.first + begin + i * THREADS + thread_index();
                if (keys[i] >= limit_) cells_[shared_add(&state_->count, 1)] = NearPoint{keys[i], row};
            }
        }
    }

    // Leaves behind what is left.
    MR_DEVICE void close(NearPoint* cells, NearHead* head) {
        block_sync();
        if (state_->count > smaller(plan_.kept, 2 * plan_.k + 64)) tidy();
        const u32 count = state_->count;
        const bool fits = state_->overflow == 0 && count <= plan_.kept;
        for (u32 at = thread_index(); fits && at < count; at += THREADS) store_global(cells + at, cells_[at]);
        if (thread_index() == 0) store_global(head, fits ? NearHead{count, 0} : NearHead{0, 1});
        // The next share begins anew in the same memory.
        block_sync();
    }

  private:
    MR_DEVICE u32 key_of(const PointRun& run, u32 at) const {
        double point[AXES];
        MR_UNROLL
        for (u32 axis = 0; axis < AXES; ++axis) {
            point[axis] = load_global(run.columns + u64(axis) * run.length + at);
        }
        return nearness(probe_.squared(point));
    }

    // Makes room for a tile's points. Where too many tie, the list has overflowed: what it collects from here on is of
    // no use.
    MR_DEVICE void make_room() {
        block_sync();
        u32 count = state_->count;
        block_sync();
        if (count + POINT_TILE <= plan_.room) return;
        tidy();
        count = state_->count;
        block_sync();
        if (count + POINT_TILE <= plan_.room) return;
        if (thread_index() == 0) state_->overflow = 1, state_->count = 0;
        block_sync();
    }

    MR_DEVICE void tidy() {
        const u32 count = state_->count;
        const BlockTeam team{state_->histogram};
        const u32 kth = kth_largest(team, plan_.k, [&](auto visit) {
            for (u32 at = thread_index(); at < count; at += THREADS) visit(cells_[at].key);
        });
        share_limit(key_limit(kth));
        compact(count);
    }

    // Tells the other blocks a limit, and learns theirs.
    MR_DEVICE void share_limit(u32 found) {
        if (thread_index() == 0) {
            const i32 mine = static_cast<i32>(found), before = device_max(shared_limit_, mine);
            state_->limit = mine > before ? mine : before;
            state_->count = 0;
        }
        block_sync();
        limit_ = static_cast<u32>(state_->limit);
    }

    // Moves what is still of interest to the front. All have read a run of cells before any writes, and writes stay
    // behind the reads.
    MR_DEVICE void compact(u32 count) {
        for (u32 begin = 0; begin < count; begin += THREADS) {
            const u32 at = begin + thread_index();
            const NearPoint point = at < count ? cells_[at] : NearPoint{0, 0};
            block_sync();
            if (point.key >= limit_) cells_[shared_add(&state_->count, 1)] = point;
        }
        block_sync();
    }

    const NearestPlan& plan_;
    NearState* state_;
    i32* shared_limit_;
    NearPoint* cells_;
    Probe probe_;
    u32 limit_;
};

MR_DEVICE NearPoint* near_cells(const NearestPlan& plan, u8* scratch, u32 query, u32 split) {
    return reinterpret_cast<NearPoint*>(scratch + plan.cells) + (u64(split) * plan.items + query) * plan.kept;
}
MR_DEVICE NearHead* near_head(const NearestPlan& plan, u8* scratch, u32 query, u32 split) {
    return reinterpret_cast<NearHead*>(scratch + plan.heads) + u64(split) * plan.items + query;
}

// Queries of the same share follow each other, so its points are in the cache.
MR_DEVICE_CALL void work_nearest(JobRecord& job, u32 chunk) {
    const NearestPlan& plan = plan_in<NearestPlan>(job);
    const u32 query = chunk % plan.items, split = chunk / plan.items;
    NearScan scan(plan, job.scratch, query);
    each_point_run(plan, job.scratch, cut(plan.rows, plan.splits, split), cut(plan.rows, plan.splits, split + 1),
                   [&](const PointRun& run) { scan.scan(run); });
    scan.close(near_cells(plan, job.scratch, query, split), near_head(plan, job.scratch, query, split));
}

// A query's cells of all shares, a warp to a share.
template <typename Visit>
MR_DEVICE void each_near_cell(const NearestPlan& plan, u8* scratch, u32 query, Visit visit) {
    for (u32 split = warp_index(); split < plan.splits; split += WARPS) {
        const u32 count = load_global(&near_head(plan, scratch, query, split)->count);
        const NearPoint* cells = near_cells(plan, scratch, query, split);
        for (u32 at = lane_index(); at < count; at += WARP) visit(load_global(cells + at));
    }
}

MR_DEVICE_CALL void finish_nearest(const KernelParams& params, JobRecord& job, u32 query) {
    const NearestPlan& plan = plan_in<NearestPlan>(job);
    u8* result = result_of(params, job);
    if (plan.every_row) return write_every_row(result, plan.items);
    NearState* state = reinterpret_cast<NearState*>(shared_memory());
    if (thread_index() == 0) state->count = state->written = state->overflow = 0;
    block_sync();
    for (u32 split = thread_index(); split < plan.splits; split += THREADS) {
        const NearHead head = load_global(near_head(plan, job.scratch, query, split));
        shared_add(&state->count, head.count);
        shared_or(&state->overflow, head.overflow);
    }
    block_sync();
    u32 limit = 0;
    if (state->count > plan.k) {
        limit = key_limit(kth_largest(BlockTeam{state->histogram}, plan.k, [&](auto visit) {
            each_near_cell(plan, job.scratch, query, [&](const NearPoint& point) { visit(point.key); });
        }));
    }
    Candidate* list =
        reinterpret_cast<Candidate*>(result + plan.items * u64(sizeof(ListHeader))) + u64(query) * plan.capacity;
    each_near_cell(plan, job.scratch, query, [&](const NearPoint& point) {
        if (point.key < limit) return;
        const u32 at = shared_add(&state->written, 1);
        if (at < plan.capacity) store_global(list + at, Candidate{point.row, 0.0f});
    });
    block_sync();
    const bool listed = state->overflow == 0 && state->written <= plan.capacity;
    if (thread_index() == 0) {
        store_global(reinterpret_cast<ListHeader*>(result) + query,
                     listed ? ListHeader{state->written, 0} : ListHeader{0, EVERY_ROW});
    }
}

template <>
struct Operation<Opcode::nearest> {
    static constexpr bool AT_ONCE = false;

    static MR_DEVICE Status plan(const KernelParams& params, JobRecord& job, StreamPlace&) {
        const Descriptor& descriptor = descriptor_of(job);
        if (descriptor.flags & FLAG_POINTS) return plan_nearest(params, job, nullptr);
        const Corpus* corpus = find_corpus(params, descriptor.corpus, descriptor.corpus_generation);
        return corpus == nullptr ? STATUS_STALE_CORPUS : plan_nearest(params, job, corpus);
    }

    static MR_DEVICE void run(const KernelParams& params, JobRecord& job, Phase phase, u32 chunk) {
        if (phase == PHASE_PREPARE) prepare_nearest(params, job, chunk);
        else if (phase == PHASE_WORK) work_nearest(job, chunk);
        else finish_nearest(params, job, chunk);
    }
};

}  // namespace megaring
