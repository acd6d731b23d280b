// platform.cuh for C++: a CUDA thread is a fiber, a block is an OS thread, device and pinned memory are this process's.
// Scoped operations become those of std::atomic_ref, which are at least as strong between threads as the device's are
// between blocks; what is weaker on the device (a relaxed load, an ordinary store) is no stronger here, so
// ThreadSanitizer sees a release or an acquire that is missing.
#pragma once

#include <atomic>
#include <bit>
#include <chrono>
#include <cmath>
#include <functional>
#include <thread>

#include "../abi.cuh"
#include "timeline.hpp"

#define MR_DEVICE inline
#define MR_DEVICE_CALL inline
#define MR_UNROLL

namespace megaring {
namespace twin {

// Ordering that can be left out, so that a test can see that it would be missed. Set before anything runs.
struct Bugs {
    bool missing_acquire = false;         // of what came before a changed tail, or a slot's sequence
    bool missing_block_barrier = false;   // threads of a block meet without seeing what the others wrote
    bool missing_device_release = false;  // of a job record before the number that tells of it
};
inline Bugs& bugs() {
    static Bugs all;
    return all;
}

// The word that takes long to be stored, as a test may wish, and what is done meanwhile: a store may be late, and what
// must be behind it waits.
struct SlowStore {
    std::atomic<const u64*> at{nullptr};
    std::function<void()> meanwhile;
};
inline SlowStore& slow_store() {
    static SlowStore store;
    return store;
}
inline void dawdle(const u64* at) {
    SlowStore& slow = slow_store();
    if (slow.at.load(std::memory_order_acquire) == at) slow.meanwhile();
}

// Where the fibers of a block, or the lanes of a warp, meet.
class Barrier {
  public:
    Barrier(u32 members, u64 Costs::*cost) : members_(members), cost_(cost) {}

    void meet(Scheduler& scheduler, Timeline* timeline, bool ordered = true) {
        if (timeline != nullptr) timeline->settle();
        // The chain of these additions is what orders the members' accesses; the lists are the scheduler's business.
        // Two meetings in a row have one counter each: a thread that is late to leave the first must not learn what
        // others did on their way to the second.
        std::atomic<u32>& order = order_[round()];
        order.fetch_add(1, ordered ? std::memory_order_release : std::memory_order_relaxed);
        if (join(scheduler, timeline)) scheduler.block();
        order.load(ordered ? std::memory_order_acquire : std::memory_order_relaxed);
    }

  private:
    u32 round() const {
        Unwatched unwatched;
        return round_;
    }

    // True for who has to wait.
    bool join(Scheduler& scheduler, const Timeline* timeline) {
        Unwatched unwatched;
        Fiber& last = scheduler.current();
        if (waiting_.size() + 1 < members_) {
            waiting_.push_back(&last);
            return true;
        }
        if (timeline != nullptr) {
            for (const Fiber* fiber : waiting_) last.clock = std::max(last.clock, fiber->clock);
            last.clock += timeline->costs.*cost_;
            for (Fiber* fiber : waiting_) fiber->clock = last.clock;
        }
        for (Fiber* fiber : waiting_) scheduler.wake(fiber);
        waiting_.clear();
        round_ ^= 1;
        return false;
    }

    u32 members_;
    u64 Costs::*cost_;
    u32 round_ = 0;
    std::vector<Fiber*> waiting_;
    std::atomic<u32> order_[2] = {0, 0};
};

struct Warp {
    Barrier barrier{WARP, &Costs::warp_operation};
    u64 exchange[2][WARP][3] = {};
};

struct Block {
    u32 index = 0;
    Scheduler* scheduler = nullptr;
    u8* shared = nullptr;
    // Where time is virtual; null where it is this machine's.
    Timeline* timeline = nullptr;
    u64 host_stored_at = 0;
    // The block that is to stand still at its next barrier, as a test may wish; the grid's.
    const std::atomic<u32>* stalled = nullptr;
    Barrier barrier{THREADS, &Costs::block_barrier};
    Warp warps[WARPS];
    // Which half of its warp's exchange a lane uses next: with two halves one meeting a turn is enough.
    u8 turn[THREADS] = {};
};

inline Block*& current_block() {
    thread_local Block* block = nullptr;
    return block;
}

inline void enter_block(void* block) { current_block() = static_cast<Block*>(block); }

inline u32 thread() {
    Unwatched unwatched;
    return current_block()->scheduler->current().index;
}

inline void meet(Barrier& barrier, bool ordered = true) {
    Block& block = *current_block();
    barrier.meet(*block.scheduler, block.timeline, ordered);
}

// What an operation costs where time is virtual. One by which blocks, or host and device, learn of each other happens
// once those have caught up whose clocks are behind.
template <typename Act>
auto on_device(Act act, u64 Costs::*before = nullptr) {
    Timeline* timeline = current_block()->timeline;
    if (timeline == nullptr) return act();
    timeline->settle();
    if (before != nullptr) timeline->spend(timeline->costs.*before);
    timeline->meet();
    const auto result = act();
    timeline->spend(timeline->costs.cache_hit);
    return result;
}
template <typename Act>
auto over_the_bus(Act act) {
    Timeline* timeline = current_block()->timeline;
    if (timeline == nullptr) return act();
    timeline->settle();
    timeline->spend(timeline->costs.bus_read / 2);
    timeline->meet();
    const auto result = act();
    timeline->spend(timeline->costs.bus_read / 2);
    return result;
}
template <typename Act>
void store_at(const void* at, u64 bytes, Act act) {
    Block& block = *current_block();
    if (block.timeline != nullptr) {
        block.timeline->meet();
        block.timeline->store(at, bytes, &block.host_stored_at);
    }
    act();
}
// Of the system, or else of the device.
inline void fence(bool of_system) {
    Block& block = *current_block();
    if (block.timeline == nullptr) return;
    block.timeline->settle();
    block.timeline->spend(of_system ? block.timeline->fence(block.host_stored_at) : block.timeline->costs.device_fence);
}
inline void note(const void* at, u64 value) {
    if (Timeline* timeline = current_block()->timeline) timeline->note(at, value);
}
inline void spend(u64 Costs::*cost) {
    if (Timeline* timeline = current_block()->timeline) {
        timeline->settle();
        timeline->spend(timeline->costs.*cost);
    }
}

// Every lane puts three words up and, after the meeting, may look at those of all lanes. That orders nothing else: who
// wants others to see what he wrote, or to have read before he writes, calls `warp_sync`.
class Exchange {
  public:
    explicit Exchange(u64 a, u64 b = 0, u64 c = 0) {
        Block& block = *current_block();
        const u32 self = thread();
        Warp& warp = block.warps[self / WARP];
        half_ = warp.exchange[block.turn[self]];
        block.turn[self] ^= 1;
        put(self % WARP, 0, a), put(self % WARP, 1, b), put(self % WARP, 2, c);
        meet(warp.barrier, false);
    }

    u64 of(u32 lane, u32 word = 0) const {
        return std::atomic_ref(half_[lane][word]).load(std::memory_order_relaxed);
    }

  private:
    void put(u32 lane, u32 word, u64 value) {
        std::atomic_ref(half_[lane][word]).store(value, std::memory_order_relaxed);
    }

    u64 (*half_)[3];
};

template <typename T>
u64 to_word(T value) {
    if constexpr (sizeof(T) == 8) return std::bit_cast<u64>(value);
    else return std::bit_cast<u32>(value);
}
template <typename T>
T from_word(u64 word) {
    if constexpr (sizeof(T) == 8) return std::bit_cast<T>(word);
    else return std::bit_cast<T>(static_cast<u32>(word));
}

}  // namespace twin

MR_DEVICE u32 thread_index() { return twin::thread(); }
MR_DEVICE u32 block_index() { return twin::current_block()->index; }
MR_DEVICE u32 lane_index() { return thread_index() % WARP; }
MR_DEVICE u32 warp_index() { return thread_index() / WARP; }
MR_DEVICE u8* shared_memory() { return twin::current_block()->shared; }

template <typename T>
MR_DEVICE T* global(T* at) { return at; }

MR_DEVICE void block_sync() {
    const twin::Block& block = *twin::current_block();
    while (block.stalled != nullptr && block.stalled->load(std::memory_order_relaxed) == block.index) {
        std::this_thread::yield();
    }
    twin::meet(twin::current_block()->barrier, !twin::bugs().missing_block_barrier);
}
MR_DEVICE void warp_sync() { twin::meet(twin::current_block()->warps[warp_index()].barrier); }

template <typename T>
MR_DEVICE T warp_shuffle(T value, u32 lane) {
    return twin::from_word<T>(twin::Exchange(twin::to_word(value)).of(lane % WARP));
}
template <typename T>
MR_DEVICE T warp_shuffle_xor(T value, u32 mask) { return warp_shuffle(value, lane_index() ^ mask); }
MR_DEVICE u32 warp_ballot(bool vote) {
    const twin::Exchange votes(vote);
    u32 bits = 0;
    for (u32 lane = 0; lane < WARP; ++lane) bits |= static_cast<u32>(votes.of(lane)) << lane;
    return bits;
}
MR_DEVICE u32 popcount(u32 bits) { return static_cast<u32>(std::popcount(bits)); }
MR_DEVICE u32 lowest_bit(u32 bits) { return static_cast<u32>(std::countr_zero(bits)); }

// A load of global memory that the thread's next loads need not wait for, and a store that nobody waits for.
template <typename T>
MR_DEVICE T load_global(const T* at) {
    if (twin::Timeline* timeline = twin::current_block()->timeline) timeline->load(at, sizeof(T));
    return *at;
}
template <typename T>
MR_DEVICE void store_global(T* at, T value) {
    twin::Block& block = *twin::current_block();
    if (block.timeline != nullptr) block.timeline->store(at, sizeof(T), &block.host_stored_at);
    *at = value;
}

template <typename T>
MR_DEVICE void store_shared(T* at, T value) {
    twin::spend(&twin::Costs::issue);
    *at = value;
}

template <typename T>
MR_DEVICE T fetch_max(T* at, T value) {
    std::atomic_ref<T> cell(*at);
    T before = cell.load(std::memory_order_relaxed);
    while (before < value && !cell.compare_exchange_weak(before, value, std::memory_order_relaxed)) {}
    return before;
}
template <typename T>
MR_DEVICE T fetch_add(T* at, T value, std::memory_order order) {
    const T before = std::atomic_ref(*at).fetch_add(value, order);
    twin::note(at, before + value);
    return before;
}

MR_DEVICE u32 shared_add(u32* at, u32 value) {
    twin::spend(&twin::Costs::shared_atomic);
    return std::atomic_ref(*at).fetch_add(value, std::memory_order_relaxed);
}
MR_DEVICE u32 shared_or(u32* at, u32 value) {
    twin::spend(&twin::Costs::shared_atomic);
    return std::atomic_ref(*at).fetch_or(value, std::memory_order_relaxed);
}
MR_DEVICE i32 shared_max(i32* at, i32 value) {
    twin::spend(&twin::Costs::shared_atomic);
    return fetch_max(at, value);
}
MR_DEVICE u32 device_add(u32* at, u32 value) {
    return twin::on_device([&] { return fetch_add(at, value, std::memory_order_relaxed); });
}
MR_DEVICE u64 device_add(u64* at, u64 value) {
    return twin::on_device([&] { return fetch_add(at, value, std::memory_order_relaxed); });
}
// C++ has no order by dependency that would do; an acquire and a release say the same.
template <u32 COUNT>
MR_DEVICE u64 device_claim_beside(u64* at, u64 value, const u64* const (&beside)[COUNT], u64 (&seen)[COUNT]) {
    return twin::on_device([&] {
        const u64 before = fetch_add(at, value, std::memory_order_acq_rel);
        for (u32 word = 0; word < COUNT; ++word) {
            seen[word] = std::atomic_ref(*const_cast<u64*>(beside[word])).load(std::memory_order_acquire);
        }
        return before;
    });
}
MR_DEVICE u32 device_or(u32* at, u32 value) {
    return twin::on_device([&] { return std::atomic_ref(*at).fetch_or(value, std::memory_order_relaxed); });
}
MR_DEVICE void device_or(u64* at, u64 value) {
    twin::on_device([&] { return std::atomic_ref(*at).fetch_or(value, std::memory_order_relaxed); });
}
template <typename T>
MR_DEVICE void count(T* at, T value, std::memory_order order) {
    T before = 0;
    twin::store_at(at, sizeof(T), [&] { before = std::atomic_ref(*at).fetch_add(value, order); });
    twin::note(at, before + value);
}
MR_DEVICE void device_count(u64* at, u64 value) { count(at, value, std::memory_order_relaxed); }
template <typename T>
MR_DEVICE void device_count_release(T* at, T value) {
    twin::fence(false);
    count(at, value, twin::bugs().missing_device_release ? std::memory_order_relaxed : std::memory_order_release);
}
MR_DEVICE i32 device_max(i32* at, i32 value) {
    return twin::on_device([&] { return fetch_max(at, value); });
}
MR_DEVICE u64 device_compare_exchange(u64* at, u64 expected, u64 value) {
    return twin::on_device([&] {
        std::atomic_ref(*at).compare_exchange_strong(expected, value, std::memory_order_relaxed);
        return expected;
    });
}
template <typename T>
MR_DEVICE T device_add_acq_rel(T* at, T value) {
    return twin::on_device([&] { return fetch_add(at, value, std::memory_order_acq_rel); },
                           &twin::Costs::device_fence);
}

// std::atomic_ref of a const type came with a later standard; nothing is written through it here.
template <typename T>
MR_DEVICE T load(const T* at, std::memory_order order) { return std::atomic_ref(*const_cast<T*>(at)).load(order); }

template <typename T>
MR_DEVICE T device_load_relaxed(const T* at) {
    return twin::on_device([&] { return load(at, std::memory_order_relaxed); });
}
template <typename T>
MR_DEVICE T device_load_acquire(const T* at) {
    return twin::on_device([&] { return load(at, std::memory_order_acquire); });
}
template <typename T>
MR_DEVICE void device_store_release(T* at, T value) {
    twin::fence(false);
    twin::store_at(at, sizeof(T), [&] {
        std::atomic_ref(*at).store(
            value, twin::bugs().missing_device_release ? std::memory_order_relaxed : std::memory_order_release);
    });
    twin::note(at, value);
}
template <typename T>
MR_DEVICE void device_store_relaxed(T* at, T value) {
    twin::store_at(at, sizeof(T), [&] { std::atomic_ref(*at).store(value, std::memory_order_relaxed); });
}

MR_DEVICE u64 system_load_relaxed(const u64* at) {
    return twin::over_the_bus([&] { return load(at, std::memory_order_relaxed); });
}
// A value that is under way while time is virtual, and is there at once where it is not.
template <typename T>
class Awaited {
  public:
    Awaited() = default;
    template <typename Sample>
    explicit Awaited(Sample sample) : value_(std::make_shared<T>()) {
        twin::Timeline* timeline = twin::current_block()->timeline;
        if (timeline == nullptr) *value_ = sample();
        else ready_at_ = timeline->load_later([sample, value = value_] { *value = sample(); });
    }

    T get() const {
        if (twin::Timeline* timeline = twin::current_block()->timeline) {
            timeline->wait_until(ready_at_);
            timeline->meet();
        }
        return *value_;
    }

  private:
    std::shared_ptr<T> value_;
    u64 ready_at_ = 0;
};
using Later = Awaited<u64>;
MR_DEVICE Later system_load_later(const u64* at) {
    return Later([at] { return load(at, std::memory_order_relaxed); });
}
MR_DEVICE void system_store_relaxed(u64* at, u64 value) {
    twin::store_at(at, sizeof(u64), [&] { std::atomic_ref(*at).store(value, std::memory_order_relaxed); });
    twin::note(at, value);
}
MR_DEVICE void system_store_release(u64* at, u64 value) {
    twin::fence(true);
    twin::store_at(at, sizeof(u64), [&] { std::atomic_ref(*at).store(value, std::memory_order_release); });
    twin::note(at, value);
}
// ThreadSanitizer does not know fences. Loading the word once more, with acquire, orders the same accesses: only this
// word's writers matter.
MR_DEVICE void system_acquire(const u64* at) {
    load(at, twin::bugs().missing_acquire ? std::memory_order_relaxed : std::memory_order_acquire);
    twin::fence(true);
}
// The release that the barrier or the atomic after it does is as good between threads.
MR_DEVICE void system_fence() { twin::fence(true); }

MR_DEVICE void system_store_fenced(u64* at, u64 value) {
    twin::dawdle(at);
    twin::store_at(at, sizeof(u64), [&] { std::atomic_ref(*at).store(value, std::memory_order_release); });
    twin::note(at, value);
}

// C++ has no order by dependency that would do; a release says the same.
MR_DEVICE void system_store_dependent(u64* at, u64 value) { system_store_fenced(at, value); }

// A plain access: a slot that is read while somebody writes it is a race, and reported as one.
struct alignas(16) Piece {
    u64 low, high;
};
MR_DEVICE Piece system_load_piece(const Piece* at) {
    return twin::over_the_bus([&] { return *at; });
}
// Not so here, where that is expected.
struct WordAndPiece {
    u64 word;
    Piece piece;
};
using LaterBeside = Awaited<WordAndPiece>;
MR_DEVICE LaterBeside system_load_beside(const u64* at, const Piece* piece) {
    return LaterBeside([at, piece] {
        const u64 word = load(at, std::memory_order_relaxed);
        const u64 low = load(&piece->low, std::memory_order_relaxed);
        return WordAndPiece{word, Piece{low, load(&piece->high, std::memory_order_relaxed)}};
    });
}
// A hop of a job ends here, where time is virtual.
MR_DEVICE void mark(const void* at) { twin::note(at, 0); }
MR_DEVICE void system_store_piece(Slot* slot, u32 piece, Piece value) {
    twin::store_at(slot, sizeof(Piece), [&] { reinterpret_cast<Piece*>(slot)[piece] = value; });
}

MR_DEVICE u64 clock_ns() {
    if (twin::Timeline* timeline = twin::current_block()->timeline) {
        timeline->settle();
        timeline->spend(timeline->costs.clock_read);
        return 1 + timeline->now() / 1000;
    }
    return static_cast<u64>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
            .count());
}
MR_DEVICE void pause_ns(u32 duration) {
    twin::Block& block = *twin::current_block();
    if (block.timeline != nullptr) {
        block.timeline->settle();
        block.timeline->spend(u64(duration) * 1000);
        return block.timeline->meet();
    }
    if (block.scheduler->alone()) std::this_thread::yield();
    block.scheduler->yield();
}

MR_DEVICE float bits_to_float(u32 bits) { return std::bit_cast<float>(bits); }
MR_DEVICE u32 float_to_bits(float value) { return std::bit_cast<u32>(value); }
MR_DEVICE double bits_to_double(u64 bits) { return std::bit_cast<double>(bits); }

// Compiled with -ffp-contract=off.
MR_DEVICE double add_exactly(double a, double b) { return a + b; }
MR_DEVICE double multiply_exactly(double a, double b) { return a * b; }
MR_DEVICE double divide_exactly(double a, double b) { return a / b; }
MR_DEVICE double root_exactly(double a) { return std::sqrt(a); }
MR_DEVICE double fused(double a, double b, double c) { return a * b + c; }
MR_DEVICE float fused(float a, float b, float c) { return std::fma(a, b, c); }
MR_DEVICE float root(float a) { return std::sqrt(a); }

// By the fragments' definition in platform.cuh, not by their code: each lane makes its four sums of all lanes'
// fragments.
MR_DEVICE void multiply_codes(i32 (&sums)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    twin::spend(&twin::Costs::multiply);
    const twin::Exchange all(a[0] | static_cast<u64>(a[1]) << 32, a[2] | static_cast<u64>(a[3]) << 32,
                             b[0] | static_cast<u64>(b[1]) << 32);
    const u32 g = lane_index() / 4, j = lane_index() % 4;
    for (u32 sum = 0; sum < 4; ++sum) {
        const u32 low_or_high_row = sum / 2, column = 2 * j + sum % 2;
        for (u32 word = 0; word < 4; ++word) {
            for (u32 half = 0; half < 2; ++half) {
                const u32 left = static_cast<u32>(all.of(4 * g + word, half) >> (32 * low_or_high_row));
                const u32 right = static_cast<u32>(all.of(4 * column + word, 2) >> (32 * half));
                for (u32 byte = 0; byte < 4; ++byte) {
                    sums[sum] +=
                        static_cast<i32>(left >> (8 * byte) & 0xFF) * static_cast<i8>(right >> (8 * byte) & 0xFF);
                }
            }
        }
    }
}

}  // namespace megaring
