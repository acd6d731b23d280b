// Virtual time: what the device's operations would take on a GPU, by a table of latencies and bandwidths. Every fiber
// has a clock; an operation adds its cost, and one by which blocks learn of each other first lets those catch up whose
// clocks are behind. So a job's time does not depend on the machine's, and a hop that is needless shows.
//
// Told apart are host and device memory, the fences, atomics and barriers, and matrix multiplies. Loads of one thread
// are under way together until it does anything else. Left out: arithmetic, shared memory's banks, and misses of the
// second-level cache: what it says is a lower bound where a job computes much, and an estimate where it waits.
#pragma once

#include <algorithm>
#include <vector>

#include "fiber.hpp"

namespace megaring::twin {

// In picoseconds, and in bytes a nanosecond.
struct Costs {
    std::uint64_t bus_read = 1'100'000;     // a load from host memory
    std::uint64_t bus_write = 550'000;      // a store to host memory, until the host can see it
    std::uint64_t cache_hit = 190'000;      // a load from device memory, or an atomic there, and back
    std::uint64_t device_fence = 400'000;   // with the atomic behind it: 0.5 to 0.7 us
    std::uint64_t system_fence = 850'000;   // behind stores to host memory: 0.7 to 1.0 us
    std::uint64_t block_barrier = 20'000;
    std::uint64_t warp_operation = 13'000;  // shuffle, ballot, barrier
    std::uint64_t shared_atomic = 30'000;
    std::uint64_t multiply = 10'000;        // a matrix multiply among others
    std::uint64_t issue = 2'000;            // of a load or a store
    std::uint64_t clock_read = 20'000;
    std::uint64_t bus_bytes = 50;           // PCIe 5.0 x16, one way
    std::uint64_t device_bytes = 3'000;     // H100: HBM3
};

// A word that was stored or added to, and when.
struct Written {
    std::uint64_t clock;
    const void* at;
    std::uint64_t value;
};

class Timeline {
  public:
    Timeline(const Costs& costs, Scheduler& scheduler) : costs(costs), scheduler_(scheduler) {}

    const Costs costs;
    std::vector<Written> written;

    // The bytes begin..end are host memory.
    void add_host_memory(const void* begin, std::uint64_t bytes) {
        const char* first = static_cast<const char*>(begin);
        host_.push_back({first, first + bytes});
    }
    bool is_host(const void* at) const {
        const char* byte = static_cast<const char*>(at);
        return std::any_of(host_.begin(), host_.end(),
                           [&](const Span& span) { return byte >= span.begin && byte < span.end; });
    }

    std::uint64_t now() const { return scheduler_.current().clock; }
    void spend(std::uint64_t picoseconds) { scheduler_.current().clock += picoseconds; }

    void wait_until(std::uint64_t clock) {
        Fiber& fiber = scheduler_.current();
        fiber.clock = std::max(fiber.clock, clock);
    }

    // What happens next needs the values that were loaded.
    void settle() { wait_until(scheduler_.current().loaded_at); }
    // ... and is seen by others.
    void meet() {
        settle();
        scheduler_.catch_up();
    }

    // A load that others may be under way with.
    void load(const void* at, std::uint64_t bytes) {
        spend(costs.issue);
        scheduler_.catch_up();
        Fiber& fiber = scheduler_.current();
        const bool host = is_host(at);
        const std::uint64_t sent = pass(host ? bus_free_ : device_free_, bytes, host ? costs.bus_bytes : costs.device_bytes);
        fiber.loaded_at = std::max(fiber.loaded_at, sent + (host ? costs.bus_read : costs.cache_hit));
    }
    // A load over the bus that nothing waits for yet: `sample` is called when it is there; when its value is back.
    std::uint64_t load_later(std::function<void()> sample) {
        spend(costs.issue);
        meet();
        scheduler_.at(now() + costs.bus_read / 2, std::move(sample));
        return now() + costs.bus_read;
    }
    // A store; nobody waits for it.
    void store(const void* at, std::uint64_t bytes, std::uint64_t* host_stored_at) {
        settle();
        spend(costs.issue);
        if (!is_host(at)) return;
        scheduler_.catch_up();
        *host_stored_at = pass(back_free_, bytes, costs.bus_bytes);
    }

    // What a fence costs whose block has stored to host memory at that time.
    std::uint64_t fence(std::uint64_t host_stored_at) const {
        const bool behind = host_stored_at != 0 && host_stored_at + costs.bus_read > now();
        return behind ? costs.system_fence : costs.device_fence;
    }

    void note(const void* at, std::uint64_t value) { written.push_back(Written{now(), at, value}); }

  private:
    struct Span {
        const char *begin, *end;
    };

    // A connection that all share passes so many bytes; when they are through.
    std::uint64_t pass(std::uint64_t& free, std::uint64_t bytes, std::uint64_t bytes_a_ns) const {
        free = std::max(free, now()) + bytes * 1000 / bytes_a_ns;
        return free;
    }

    Scheduler& scheduler_;
    std::vector<Span> host_;
    std::uint64_t bus_free_ = 0, back_free_ = 0, device_free_ = 0;
};

}  // namespace megaring::twin
