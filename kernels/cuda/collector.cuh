// The fused top k of a screen, for a tile of queries in one block: it keeps the rows that can still be among the k
// best.
//
// With L the k-th largest lower bound seen, a row whose upper bound is below L cannot be in the answer: k rows are
// surely better. Rows that pass the threshold are appended to the query's cells in device memory; once there are many
// the list is tidied: the threshold rises to L and what is below it goes. A list that stays longer than the answer has
// room for overflows: then every row must be scored anyway.
#pragma once

#include "query.cuh"

namespace megaring {

constexpr u32 MOST_QUERIES = 64;

// A search's shared memory: a slab of the queries' codes (screen.cuh), then the tile's state.
constexpr u32 SLAB_STEPS = 12;
constexpr u32 STEP_WORDS = 2 * WARP;
constexpr u32 SLAB_BYTES = MOST_QUERIES / 8 * SLAB_STEPS * STEP_WORDS * sizeof(u32);

// One access of 16 bytes.
struct alignas(16) Cell {
    u32 row;
    float lower, upper;
    u32 unused = 0;
};

// What a chunk leaves behind for each of its queries, beside the cells.
struct alignas(16) Head {
    u32 count, overflow;
    float threshold;
    float best;     // the largest lower bound among the cells
    float highest;  // the largest upper bound
    u32 reserved[3];
};
static_assert(sizeof(Cell) == 16 && sizeof(Head) == 32);

// The tile's state in shared memory.
struct TileState {
    QueryParams queries[MOST_QUERIES];
    u32 counts[MOST_QUERIES];
    u32 marks[MOST_QUERIES];  // counts above are worth tidying
    u32 overflows[MOST_QUERIES];
    u32 histograms[WARPS][BINS];
};

// Found anew where it is needed, so that the compiler knows it for shared memory.
MR_DEVICE TileState& tile_state() { return *reinterpret_cast<TileState*>(shared_memory() + SLAB_BYTES); }

// A float32 as a signed integer of the same order, for a maximum by integers.
MR_DEVICE i32 ordered_int(float value) {
    const i32 bits = static_cast<i32>(float_to_bits(value));
    return bits ^ ((bits >> 31) & 0x7FFFFFFF);
}
MR_DEVICE float int_value(i32 bits) { return bits_to_float(static_cast<u32>(bits ^ ((bits >> 31) & 0x7FFFFFFF))); }

// Forgets the cells of a list that are below a threshold; how many stay. By one warp.
MR_DEVICE u32 drop_cells(Cell* list, u32 count, float threshold) {
    constexpr u32 AT_ONCE = 4;
    const u32 lane = lane_index();
    u32 kept = 0;
    for (u32 begin = 0; begin < count; begin += AT_ONCE * WARP) {
        Cell some[AT_ONCE];
        MR_UNROLL
        for (u32 at = 0; at < AT_ONCE; ++at) {
            some[at] = load_global(list + smaller(begin + at * WARP + lane, count - 1));
        }
        // Every lane has read before any writes; what is kept moves down.
        warp_sync();
        MR_UNROLL
        for (u32 at = 0; at < AT_ONCE; ++at) {
            const bool stays = begin + at * WARP + lane < count && some[at].upper >= threshold;
            const u32 stay = warp_ballot(stays);
            if (stays) store_global(list + kept + popcount(stay & ((1u << lane) - 1)), some[at]);
            kept += popcount(stay);
        }
    }
    warp_sync();
    return kept;
}

// Raises one list's threshold by what is known now and forgets what is below it. By one warp.
MR_DEVICE_CALL void tidy_list(u32 query, Cell* list, u32 room, u32 k, u32 capacity, i32* shared_threshold) {
    TileState& tile = tile_state();
    list = global(list);
    // The cells were written by other warps before the barrier, and by this one.
    u32 kept = smaller(tile.counts[query], room);
    float threshold = tile.queries[query].threshold;
    auto narrow = [&](u32 key) {
        const float found = relax(key_value(key), tile.queries[query].slack);
        if (key != 0 && found > threshold) threshold = found;
        kept = drop_cells(list, kept, threshold);
    };
    const auto each = [&](auto visit) {
        for (u32 at = lane_index(); at < kept; at += WARP) visit(ordered_key(load_global(&list[at].lower)));
    };
    const auto exactly = [&] { return kth_largest(WarpTeam{tile.histograms[warp_index()]}, k, each); };
    // A bound where k is small; exactly where it is not, or where the bound leaves so many that the list could
    // overflow.
    const bool is_small = k <= WARP;
    narrow(kept <= k ? 0 : is_small ? kth_bound(k, each) : exactly());
    if (is_small && kept > larger(k, capacity - capacity / 4)) narrow(exactly());
    const bool overflow = kept > capacity;
    if (lane_index() == 0) {
        tile.counts[query] = overflow ? 0 : kept;
        tile.marks[query] = smaller(larger(2 * k + 64, kept + k + 64), capacity);
        tile.overflows[query] |= overflow ? 1 : 0;
        tile.queries[query].threshold = overflow ? infinity() : threshold;
        if (shared_threshold != nullptr && !overflow) device_max(shared_threshold, ordered_int(threshold));
    }
    warp_sync();
}

struct Collector {
    Cell* cells;  // `room` for each of the tile's queries
    u32 room, k, capacity;
    i32* shared_thresholds;  // the best that any block has found for each query; null: there is no other block

    // A fresh list for query `query` of the tile.
    MR_DEVICE void open(u32 query, const QueryParams& params) const {
        TileState& tile = tile_state();
        tile.queries[query] = params;
        tile.counts[query] = 0;
        tile.marks[query] = smaller(2 * k + 64, capacity);
        tile.overflows[query] = params.screened ? 0 : 1;
    }

    // Goes on with a list that an earlier chunk of the same rows' share left.
    MR_DEVICE void reopen(u32 query, const QueryParams& params, const Head& head) const {
        TileState& tile = tile_state();
        open(query, params);
        tile.counts[query] = head.count;
        tile.marks[query] = smaller(larger(2 * k + 64, head.count + k), capacity);
        tile.overflows[query] |= head.overflow;
        tile.queries[query].threshold = head.overflow ? infinity() : head.threshold;
    }

    // Takes a row that passed. At most one row tile's rows come between two calls of `tidy_all`.
    MR_DEVICE void push(u32 query, const Cell& cell) const {
        const u32 at = shared_add(&tile_state().counts[query], 1);
        if (at < room) store_global(list(query) + at, cell);
    }

    // Tidies the lists that have grown long, a query to a warp at a time, after a look (if asked for) at what other
    // blocks have found out. Between two barriers of the block.
    MR_DEVICE void tidy_all(u32 queries, bool look) const {
        const TileState& tile = tile_state();
        if (look && shared_thresholds != nullptr) {
            const u32 query = warp_index() + WARPS * lane_index();
            if (query < queries) look_around(query);
            warp_sync();
        }
        for (u32 query = warp_index(); query < queries; query += WARPS) {
            if (tile.counts[query] <= tile.marks[query]) continue;
            tidy_list(query, list(query), room, k, capacity,
                      shared_thresholds == nullptr ? nullptr : shared_thresholds + query);
        }
    }

    // Writes the heads of the tile's queries. By all threads, each of whose warps has one list at a time, or four where
    // there are many; `for_merge` where there are other lists of the queries.
    MR_DEVICE void close(u32 queries, Head* heads, bool for_merge) const {
        constexpr u32 AT_ONCE = 4;
        const TileState& tile = tile_state();
        const u32 lanes = queries > WARPS ? WARP / 4 : WARP, together = WARP / lanes;
        for (u32 base = warp_index() * together; base < queries; base += WARPS * together) {
            const u32 query = base + lane_index() / lanes;
            const bool is_there = query < queries;
            float best = -infinity(), highest = -infinity();
            if (for_merge) {
                const u32 count = is_there ? tile.counts[query] : 0;
                for (u32 begin = lane_index() % lanes; begin < count; begin += AT_ONCE * lanes) {
                    Cell some[AT_ONCE];
                    MR_UNROLL
                    for (u32 at = 0; at < AT_ONCE; ++at) {
                        some[at] = load_global(list(query) + smaller(begin + at * lanes, count - 1));
                    }
                    MR_UNROLL
                    for (u32 at = 0; at < AT_ONCE; ++at) {
                        best = some[at].lower > best ? some[at].lower : best;
                        highest = some[at].upper > highest ? some[at].upper : highest;
                    }
                }
                for (u32 mask = 1; mask < lanes; mask *= 2) {
                    const float other = warp_shuffle_xor(best, mask), another = warp_shuffle_xor(highest, mask);
                    best = other > best ? other : best;
                    highest = another > highest ? another : highest;
                }
            }
            if (is_there && lane_index() % lanes == 0) {
                const float threshold = tile.queries[query].threshold;
                store_global(heads + query, Head{tile.counts[query], tile.overflows[query], threshold, best, highest, {}});
            }
        }
    }

  private:
    MR_DEVICE Cell* list(u32 query) const { return global(cells) + static_cast<u64>(query) * room; }

    MR_DEVICE void look_around(u32 query) const {
        const float found =
            int_value(static_cast<i32>(device_load_relaxed(reinterpret_cast<const u32*>(&shared_thresholds[query]))));
        float& threshold = tile_state().queries[query].threshold;
        if (found > threshold) threshold = found;
    }
};

}  // namespace megaring
