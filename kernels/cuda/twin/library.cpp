// The twin as a shared library: what a test loads in place of a GPU. "Device memory" is where the caller's pointers
// point.
#include <atomic>

#include "timed.hpp"

using namespace megaring;

// Each launch runs its fibers in another order.
static std::atomic<u64> launches{1};

extern "C" void* megaring_twin_launch(const KernelParams* params, u32 blocks, u32 shared_bytes) {
    if (blocks < 2 || shared_bytes != params->shared_bytes || blocks != params->workers + 1) return nullptr;
    return new twin::Grid(*params, blocks, launches.fetch_add(1));
}

extern "C" int megaring_twin_running(void* grid) { return static_cast<twin::Grid*>(grid)->running(); }

extern "C" void megaring_twin_stall(void* grid, u32 block) { static_cast<twin::Grid*>(grid)->stall(block); }

extern "C" void megaring_twin_join(void* grid) { delete static_cast<twin::Grid*>(grid); }

// What so many jobs of a kind would take one after the other, hop by hop; 0 where there is no such kind.
extern "C" int megaring_twin_time_jobs(const char* kind, u32 workers, u32 jobs, twin::Hops* hops) {
    const std::vector<twin::Hops> all = twin::time_jobs(kind, workers, jobs);
    std::copy(all.begin(), all.end(), hops);
    return !all.empty();
}
