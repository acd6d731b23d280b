// The k-th largest of many float32 keys: exactly, by radix, for any k, by a warp or a whole block; or for a small k a
// bound that is below it by little, in a fraction of the time, by a warp.
#pragma once

#include "platform.cuh"

namespace megaring {

constexpr u32 BINS = 256;

// A float as an integer of the same order; NaN does not occur.
MR_DEVICE u32 ordered_key(float value) {
    const u32 bits = float_to_bits(value);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
MR_DEVICE float key_value(u32 key) { return bits_to_float(key & 0x80000000u ? key & 0x7FFFFFFFu : ~key); }

// Threads that select together, with a histogram of BINS words in shared memory that is theirs.
struct WarpTeam {
    u32* histogram;
    static constexpr u32 SIZE = WARP;
    MR_DEVICE u32 rank() const { return lane_index(); }
    MR_DEVICE void sync() const { warp_sync(); }
};
struct BlockTeam {
    u32* histogram;
    static constexpr u32 SIZE = THREADS;
    MR_DEVICE u32 rank() const { return thread_index(); }
    MR_DEVICE void sync() const { block_sync(); }
};

// The bin that holds the `wanted`-th largest key, counted from the top; `wanted` becomes its rank within the bin. All
// lanes of each warp.
MR_DEVICE u32 bin_from_top(const u32* histogram, u32* wanted) {
    constexpr u32 EACH = BINS / WARP;
    const u32 lane = lane_index();
    const u32 top = BINS - 1 - lane * EACH;
    u32 mine = 0;
    for (u32 bin = 0; bin < EACH; ++bin) mine += histogram[top - bin];
    u32 before = mine;
    for (u32 step = 1; step < WARP; step *= 2) {
        const u32 other = warp_shuffle(before, lane >= step ? lane - step : lane);
        if (lane >= step) before += other;
    }
    before -= mine;
    const bool here = before < *wanted && *wanted <= before + mine;
    const u32 owner = lowest_bit(warp_ballot(here) | 0x80000000u);
    u32 bin = top, rest = *wanted - before;
    if (here) {
        while (histogram[bin] < rest) rest -= histogram[bin--];
    }
    *wanted = warp_shuffle(rest, owner);
    return warp_shuffle(bin, owner);
}

// The k-th largest of the keys that `each(visit)` shows: four passes of eight bits, each a histogram and a walk down
// from its top. Every thread of the team calls it and sees its own share of the keys. There are at least k in all, and
// k is at least 1.
template <typename Team, typename Each>
MR_DEVICE u32 kth_largest(const Team& team, u32 k, Each each) {
    u32 prefix = 0, mask = 0;
    for (u32 shift = 32; shift > 0;) {
        shift -= 8;
        for (u32 bin = team.rank(); bin < BINS; bin += Team::SIZE) team.histogram[bin] = 0;
        team.sync();
        each([&](u32 key) {
            if ((key & mask) == prefix) shared_add(&team.histogram[key >> shift & (BINS - 1)], 1);
        });
        team.sync();
        prefix |= bin_from_top(team.histogram, &k) << shift;
        mask |= (BINS - 1) << shift;
        team.sync();
    }
    return prefix;
}

// A key that at least k of those that `each(visit)` shows reach; 0, which all reach, where none is known. By one warp,
// each lane seeing its own share: k lanes reach the k-th best of their best. Of many keys in any order that is seldom
// far below the k-th largest, the less so the smaller k is. Of a k above `WARP` nothing is known.
template <typename Each>
MR_DEVICE u32 kth_bound(u32 k, Each each) {
    u32 best = 0;
    each([&](u32 key) { best = key > best ? key : best; });
    u32 above = 0, level = 0;
    MR_UNROLL
    for (u32 lane = 0; lane < WARP; ++lane) {
        const u32 other = warp_shuffle(best, lane);
        above += other > best ? 1 : 0;
        level += other >= best ? 1 : 0;
    }
    const u32 kth = warp_ballot(above < k && k <= level);
    return kth == 0 ? 0 : warp_shuffle(best, lowest_bit(kth));
}

}  // namespace megaring
