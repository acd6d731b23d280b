// CUDA threads as fibers: one OS thread runs all threads of a block, in an order that a seed decides, switching only
// where a thread waits. ThreadSanitizer is told of every switch without being told that a switch orders anything, so a
// missing barrier between two threads of one block is a race that it reports.
#pragma once

#include <ucontext.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#if defined(__SANITIZE_THREAD__)
#define MR_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MR_TSAN 1
#endif
#endif
#ifdef MR_TSAN
// Declared here, since not every compiler that has the runtime library brings its header.
extern "C" {
void* __tsan_get_current_fiber(void);
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
// A switch that orders nothing.
#define MR_TSAN_NO_SYNC 1u
#define MR_UNWATCHED __attribute__((no_sanitize("thread")))
#else
#define MR_UNWATCHED
#endif

namespace megaring::twin {

class Scheduler;

// While it lives, ThreadSanitizer looks away: the scheduler's own lists are one OS thread's, which it cannot know.
struct Unwatched {
#ifdef MR_TSAN
    Unwatched() {
        AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
        AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    }
    ~Unwatched() {
        AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
        AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    }
#else
    Unwatched() {}
#endif
    Unwatched(const Unwatched&) = delete;
    Unwatched& operator=(const Unwatched&) = delete;
};

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    std::uint32_t index = 0;
#ifdef MR_TSAN
    void* shadow = nullptr;
#endif
};

// Runs the fibers of one block on the calling OS thread.
class Scheduler {
  public:
    Scheduler(std::uint32_t count, std::uint64_t seed) : random_(seed * 2 + 1) {
        fibers_.reserve(count);
        for (std::uint32_t index = 0; index < count; ++index) fibers_.push_back(std::make_unique<Fiber>());
    }

    void run(const std::function<void()>& body) {
        body_ = &body;
        current_scheduler() = this;
#ifdef MR_TSAN
        main_shadow_ = __tsan_get_current_fiber();
#endif
        for (std::uint32_t index = 0; index < fibers_.size(); ++index) {
            start(*fibers_[index], index);
            runnable_.push_back(fibers_[index].get());
        }
        {
            Unwatched unwatched;
            while (!runnable_.empty()) resume(next());
        }
        ended_.load(std::memory_order_acquire);
        current_scheduler() = nullptr;
#ifdef MR_TSAN
        for (auto& fiber : fibers_) __tsan_destroy_fiber(fiber->shadow);
#endif
    }

    Fiber& current() { return *current_; }

    // Lets the others run; comes back when it is this fiber's turn again.
    void yield() {
        Unwatched unwatched;
        runnable_.push_back(current_);
        leave();
    }

    // Stops until `wake` is called for this fiber.
    void block() {
        Unwatched unwatched;
        leave();
    }
    void wake(Fiber* fiber) {
        Unwatched unwatched;
        runnable_.push_back(fiber);
    }
    // Whether nobody else could run: who waits for another block must then give way to its OS thread.
    bool alone() const {
        Unwatched unwatched;
        return runnable_.empty();
    }

    static Scheduler*& current_scheduler() {
        thread_local Scheduler* scheduler = nullptr;
        return scheduler;
    }

  private:
    static constexpr std::size_t STACK = 64 << 10;

    void start(Fiber& fiber, std::uint32_t index) {
        fiber.index = index;
        fiber.stack = std::make_unique<char[]>(STACK);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, reinterpret_cast<void (*)()>(&Scheduler::enter), 0);
#ifdef MR_TSAN
        fiber.shadow = __tsan_create_fiber(0);
#endif
    }

    static void enter() {
        Scheduler* self = current_scheduler();
        (*self->body_)();
        // What the fiber did happened before the block's end, as far as ThreadSanitizer is concerned.
        self->ended_.fetch_add(1, std::memory_order_release);
        self->leave();
        std::abort();
    }

    Fiber* next() {
        random_ ^= random_ << 13;
        random_ ^= random_ >> 7;
        random_ ^= random_ << 17;
        // Mostly in order, which is fast for caches; now and then another one first.
        if (random_ % 16 == 0 && runnable_.size() > 1) {
            std::swap(runnable_[0], runnable_[random_ / 16 % runnable_.size()]);
        }
        Fiber* fiber = runnable_.front();
        runnable_.pop_front();
        return fiber;
    }

    void resume(Fiber* fiber) {
        current_ = fiber;
#ifdef MR_TSAN
        __tsan_switch_to_fiber(fiber->shadow, MR_TSAN_NO_SYNC);
#endif
        swapcontext(&main_, &fiber->context);
    }

    MR_UNWATCHED void leave() {
        Fiber* self = current_;
#ifdef MR_TSAN
        __tsan_switch_to_fiber(main_shadow_, MR_TSAN_NO_SYNC);
#endif
        swapcontext(&self->context, &main_);
    }

    std::vector<std::unique_ptr<Fiber>> fibers_;
    std::deque<Fiber*> runnable_;
    Fiber* current_ = nullptr;
    const std::function<void()>* body_ = nullptr;
    ucontext_t main_{};
    std::uint64_t random_;
    std::atomic<std::uint32_t> ended_{0};
#ifdef MR_TSAN
    void* main_shadow_ = nullptr;
#endif
};

}  // namespace megaring::twin
