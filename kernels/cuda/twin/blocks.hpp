// Starts a grid of the twin: one OS thread for each block, each running its threads as fibers.
#pragma once

#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "../kernel.cuh"

namespace megaring::twin {

// A running grid. The parameters are copied.
class Grid {
  public:
    Grid(const KernelParams& params, u32 blocks, u64 seed) : params_(params), running_(blocks) {
        for (u32 block = 0; block < blocks; ++block) {
            threads_.emplace_back([this, block, seed] {
                run(block, seed);
                running_.fetch_sub(1, std::memory_order_acq_rel);
            });
        }
    }

    ~Grid() { join(); }

    bool running() const { return running_.load(std::memory_order_acquire) != 0; }

    // Makes a block stand still at its next barrier; a number that no block has lets it go on.
    void stall(u32 block) { stalled_.store(block, std::memory_order_relaxed); }

    void join() {
        for (std::thread& thread : threads_) thread.join();
        threads_.clear();
    }

  private:
    void run(u32 index, u64 seed) {
        // Not zeroed on a GPU either: what reads shared memory before writing it shall be seen.
        u8* shared = static_cast<u8*>(std::aligned_alloc(128, (params_.shared_bytes + 127) / 128 * 128));
        std::memset(shared, 0xA5, params_.shared_bytes);
        auto block = std::make_unique<Block>();
        Scheduler scheduler(Scheduler::Order::SEED, seed * 1000003 + index, enter_block);
        block->index = index;
        block->scheduler = &scheduler;
        block->shared = shared;
        block->stalled = &stalled_;
        const std::function<void()> body = [this] { run_block(params_); };
        scheduler.add(block.get(), THREADS, body);
        scheduler.run();
        current_block() = nullptr;
        std::free(shared);
    }

    KernelParams params_;
    std::atomic<u32> running_;
    std::atomic<u32> stalled_{~u32(0)};
    std::vector<std::thread> threads_;
};

}  // namespace megaring::twin
