// CUDA threads as fibers: one OS thread runs all threads of a block, in an order that a seed decides, or those of all
// blocks, in the order of their clocks (timeline.hpp), switching only where a thread waits. ThreadSanitizer is told of
// every switch without being told that a switch orders anything, so a missing barrier between two threads of one block
// is a race that it reports.
#pragma once

#include <csetjmp>
#include <ucontext.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <queue>
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
#ifndef MR_TSAN
    // Where it left; a jump there costs no system call, as switching contexts does.
    std::jmp_buf left;
    bool has_left = false;
#endif
    std::unique_ptr<char[]> stack;
    const std::function<void()>* body = nullptr;
    void* block = nullptr;
    std::uint32_t index = 0;      // within its block
    std::uint64_t clock = 0;      // in picoseconds
    std::uint64_t loaded_at = 0;  // when the last of its loads is there
#ifdef MR_TSAN
    void* shadow = nullptr;
#endif
};

// Runs fibers on the calling OS thread.
class Scheduler {
  public:
    enum class Order { SEED, CLOCK };
    // `enter` is called with a fiber's block before it runs.
    Scheduler(Order order, std::uint64_t seed, void (*enter)(void*))
        : by_clock_(order == Order::CLOCK), random_(seed * 2 + 1), enter_(enter) {}

    // The body outlives the run.
    void add(void* block, std::uint32_t count, const std::function<void()>& body) {
        for (std::uint32_t index = 0; index < count; ++index) {
            fibers_.push_back(std::make_unique<Fiber>());
            Fiber& fiber = *fibers_.back();
            fiber.body = &body, fiber.block = block, fiber.index = index;
        }
    }

    void run() {
        current_scheduler() = this;
#ifdef MR_TSAN
        main_shadow_ = __tsan_get_current_fiber();
#endif
        for (auto& fiber : fibers_) {
            start(*fiber);
            push(fiber.get());
        }
        {
            Unwatched unwatched;
            while (!alone()) resume(next());
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
        push(current_);
        leave();
    }

    // Lets those run whose clocks are behind.
    void catch_up() {
        if (!by_time_.empty() && by_time_.top().clock < current_->clock) yield();
    }

    // Has something done at a time to come, by nobody's fiber. By clocks alone.
    void at(std::uint64_t clock, std::function<void()> act) {
        by_time_.push(Waiting{clock, order_, nullptr});
        acts_.emplace(order_++, std::move(act));
    }

    // Stops until `wake` is called for this fiber.
    void block() {
        Unwatched unwatched;
        leave();
    }
    void wake(Fiber* fiber) {
        Unwatched unwatched;
        push(fiber);
    }
    // Whether nobody else could run: who waits for another block must then give way to its OS thread.
    bool alone() const {
        Unwatched unwatched;
        return runnable_.empty() && by_time_.empty();
    }

    static Scheduler*& current_scheduler() {
        thread_local Scheduler* scheduler = nullptr;
        return scheduler;
    }

  private:
    static constexpr std::size_t STACK = 64 << 10;

    struct Waiting {
        std::uint64_t clock, order;
        Fiber* fiber;
        bool operator<(const Waiting& other) const {
            return clock != other.clock ? clock > other.clock : order > other.order;
        }
    };

    void push(Fiber* fiber) {
        if (by_clock_) by_time_.push(Waiting{fiber->clock, order_++, fiber});
        else runnable_.push_back(fiber);
    }

    void start(Fiber& fiber) {
        // Not touched before it is used.
        fiber.stack = std::make_unique_for_overwrite<char[]>(STACK);
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
        self->body_of_current()();
        // What the fiber did happened before the block's end, as far as ThreadSanitizer is concerned.
        self->ended_.fetch_add(1, std::memory_order_release);
        self->leave();
        std::abort();
    }

    const std::function<void()>& body_of_current() const {
        Unwatched unwatched;
        return *current_->body;
    }

    Fiber* next() {
        if (by_clock_) {
            const Waiting first = by_time_.top();
            by_time_.pop();
            return first.fiber != nullptr ? first.fiber : act(first.order);
        }
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

    // Nobody's fiber is next.
    Fiber* act(std::uint64_t order) {
        acts_.extract(order).mapped()();
        return nullptr;
    }

    void resume(Fiber* fiber) {
        if (fiber == nullptr) return;
        current_ = fiber;
        enter_(fiber->block);
#ifdef MR_TSAN
        __tsan_switch_to_fiber(fiber->shadow, MR_TSAN_NO_SYNC);
#endif
#ifdef MR_TSAN
        swapcontext(&main_, &fiber->context);
#else
        if (_setjmp(main_left_) != 0) return;
        if (fiber->has_left) _longjmp(fiber->left, 1);
        setcontext(&fiber->context);
#endif
    }

    MR_UNWATCHED void leave() {
        Fiber* self = current_;
#ifdef MR_TSAN
        __tsan_switch_to_fiber(main_shadow_, MR_TSAN_NO_SYNC);
#endif
#ifdef MR_TSAN
        swapcontext(&self->context, &main_);
#else
        self->has_left = true;
        if (_setjmp(self->left) == 0) _longjmp(main_left_, 1);
#endif
    }

    std::vector<std::unique_ptr<Fiber>> fibers_;
    bool by_clock_;
    std::deque<Fiber*> runnable_;
    std::priority_queue<Waiting> by_time_;
    std::map<std::uint64_t, std::function<void()>> acts_;  // those of `by_time_` without a fiber, by their order
    std::uint64_t order_ = 0;
    Fiber* current_ = nullptr;
#ifdef MR_TSAN
    ucontext_t main_{};
#else
    std::jmp_buf main_left_;
#endif
    std::uint64_t random_;
    void (*enter_)(void*);
    std::atomic<std::uint32_t> ended_{0};
#ifdef MR_TSAN
    void* main_shadow_ = nullptr;
#endif
};

}  // namespace megaring::twin
