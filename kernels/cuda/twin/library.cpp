// The twin as a shared library: what a test loads in place of a GPU. "Device memory" is where the caller's pointers
// point.
#include <atomic>

#include "blocks.hpp"

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
