// The host's side of the ring, in C++: what host/ring does in Rust as far as a device sees it, with bugs to choose
// from.
//
// Producers lease blocks, write payloads, publish slots; a reaper takes completions, compares answers, gives blocks
// back. Nothing but the ring's words orders host and device: the host's mutexes are its own.
#pragma once

#include <cstdio>
#include <mutex>
#include <unordered_map>

#include "blocks.hpp"
#include "jobs.hpp"

namespace megaring::twin {

// What can be wrong with the host. (What can be wrong with the device: `bugs()` of platform.hpp.)
struct HostBugs {
    bool tail_before_slot = false;  // the tail tells of a slot that is not written yet
    bool relaxed_tail = false;      // the tail's store releases nothing
    bool early_recycling = false;   // blocks go back when the slot is published, not when its completion comes
    bool parks_blindly = false;     // the launcher parks without a last look at the tail
};

// Ends the program: something was found.
[[noreturn]] inline void found(const std::string& what) {
    std::fprintf(stderr, "found: %s\n", what.c_str());
    std::fflush(stderr);
    std::_Exit(1);
}

// Waits for another thread. What takes ten minutes never comes: all there is to do takes one, where nothing else runs.
template <typename Condition>
void wait_until(const char* what, Condition condition) {
    const auto begun = std::chrono::steady_clock::now();
    while (!condition()) {
        if (std::chrono::steady_clock::now() - begun > std::chrono::minutes(10)) {
            found(std::string("waited in vain: ") + what);
        }
        std::this_thread::yield();
    }
}

template <typename T>
T* aligned_array(u64 count) {
    const u64 bytes = (count * sizeof(T) + 127) / 128 * 128;
    T* memory = static_cast<T*>(std::aligned_alloc(128, bytes));
    std::memset(static_cast<void*>(memory), 0, bytes);
    return memory;
}

struct Shape {
    u64 capacity = 8, blocks = 512, block_bytes = 1024;
    u64 start = 0;  // first position
    // Whether every slot is written as host/ring does. Otherwise some have their sequences first, and some no check.
    bool in_order = false;
    // Whether the tail tells of a job only once it has been answered.
    bool late_tail = false;
};

class HostRing {
  public:
    RingView view{};

    explicit HostRing(const Shape& shape, HostBugs bugs = {}) : shape_(shape), bugs_(bugs) {
        Line* lines = aligned_array<Line>(8);
        view.submission_tail = lines, view.submission_head = lines + 1, view.completion_tail = lines + 2,
        view.completion_head = lines + 3;
        view.host_heartbeat = lines + 4, view.device_heartbeat = lines + 5, view.control = lines + 6,
        view.report = lines + 7;
        view.submissions = aligned_array<Slot>(shape.capacity);
        view.completions = aligned_array<Slot>(2 * shape.capacity);
        runs_ = aligned_array<u64>(shape.blocks);
        view.runs = runs_;
        view.arena = aligned_array<u8>(shape.blocks * shape.block_bytes);
        view.submission_capacity = shape.capacity, view.completion_capacity = 2 * shape.capacity;
        view.arena_blocks = shape.blocks, view.arena_block_bytes = shape.block_bytes;
        for (u32 line = 0; line < 4; ++line) lines[line].words[0] = shape.start;
        tail_ = completed_ = shape.start;
        used_.resize(shape.blocks);
        set(view.control, CONTROL_LIMIT, NO_LIMIT);
    }
    ~HostRing() {
        std::free(view.submission_tail);
        std::free(view.submissions);
        std::free(view.completions);
        std::free(runs_);
        std::free(view.arena);
    }
    HostRing(const HostRing&) = delete;

    static u64 get(const Line* line, u32 word = 0) { return load(&line->words[word], std::memory_order_acquire); }
    static void set(Line* line, u32 word, u64 value) {
        std::atomic_ref(line->words[word]).store(value, std::memory_order_release);
    }

    u64 tail() {
        const std::lock_guard lock(mutex_);
        return tail_;
    }
    u64 reaped() const { return reaped_.load(std::memory_order_relaxed); }
    u64 faults() const { return faults_.load(std::memory_order_relaxed); }

    // Submits a job once there is room for it.
    void submit(TestJob job) {
        Lease lease;
        wait_until("room for a job", [&] { return take(job, &lease); });
        std::copy(job.payload.begin(), job.payload.end(), view.arena + lease.offset);
        std::fill_n(view.arena + lease.result, job.result_len, UNTOUCHED);
        publish(std::move(job), lease);
        if (bugs_.early_recycling) give(lease);
    }

    // Takes the completions that are there; how many.
    u64 reap() {
        const u64 tail = load(&view.completion_tail->words[0], std::memory_order_acquire);
        u64 count = 0;
        for (; completed_ != tail; ++completed_, ++count) {
            const Slot slot = view.completions[completed_ & (view.completion_capacity - 1)];
            set(view.completion_head, 0, completed_ + 1);
            if (slot.sequence != completed_ + 1 || slot.data[9] != slot.sequence) {
                found("a completion slot that is not whole");
            }
            // Or its successor would take the job once more, should the device end here.
            const u64 head = get(view.submission_head);
            if (static_cast<std::int64_t>(head - slot.source_id) < 0) found("an answer before the head that covers its slot");
            check(slot);
        }
        return count;
    }
    // Reaps until this many jobs have been answered since the ring was made.
    void reap_all(u64 jobs) {
        wait_until("completions", [&] {
            reap();
            return reaped() >= jobs;
        });
    }

  private:
    static constexpr u8 UNTOUCHED = 0xA5;

    struct Lease {
        u64 first = 0, blocks = 0, offset = 0, payload = 0, result = 0;
        u32 generation = 0;
    };
    struct Pending {
        TestJob job;
        Lease lease;
    };

    // A run of blocks and the right to a slot; the lowest run that is free, so blocks are used again at once.
    bool take(const TestJob& job, Lease* lease) {
        const std::lock_guard lock(mutex_);
        const u64 result_at = (job.payload.size() + 127) / 128 * 128;
        const u64 blocks =
            std::max<u64>(1, (result_at + job.result_len + view.arena_block_bytes - 1) / view.arena_block_bytes);
        if (blocks > used_.size()) found("a job that is larger than the arena");
        if (admitted_ == view.submission_capacity) return false;
        u64 free = 0;
        for (u64 block = 0; block < used_.size() && free < blocks; ++block) {
            free = used_[block] ? (lease->first = block + 1, 0) : free + 1;
        }
        if (free < blocks) return false;
        std::fill_n(used_.begin() + static_cast<std::ptrdiff_t>(lease->first), blocks, true);
        ++admitted_;
        lease->blocks = blocks;
        lease->generation = static_cast<u32>(runs_[lease->first] >> 32) + 1;
        lease->offset = lease->first * view.arena_block_bytes;
        lease->payload = job.payload.size();
        lease->result = lease->offset + result_at;
        std::atomic_ref(runs_[lease->first]).store(u64(lease->generation) << 32 | blocks, std::memory_order_release);
        return true;
    }
    void give(const Lease& lease) {
        const std::lock_guard lock(mutex_);
        std::atomic_ref(runs_[lease.first]).store(u64(lease.generation) << 32, std::memory_order_release);
        std::fill_n(used_.begin() + static_cast<std::ptrdiff_t>(lease.first), lease.blocks, false);
        --admitted_;
    }

    void publish(TestJob job, const Lease& lease) {
        const std::lock_guard lock(mutex_);
        const u64 position = tail_++;
        wait_until("a free slot", [&] { return position - get(view.submission_head) < view.submission_capacity; });
        Descriptor descriptor = job.descriptor;
        descriptor.payload_offset = lease.offset, descriptor.payload_len = lease.payload;
        descriptor.result_offset = lease.result, descriptor.result_len = job.result_len;
        descriptor.arena_generation = lease.generation;
        const u64 type = static_cast<u64>(job.opcode) | u64(ABI_VERSION) << 32;
        Slot slot{position + 1, type, 1, 0, std::bit_cast<u64>(job.threshold), JOB_DATA_BYTES, {}};
        std::memcpy(slot.data, &descriptor, sizeof(descriptor));
        slot.data[9] = slot.sequence;
        const Writing writing = shape_.in_order ? Writing::IN_ORDER : static_cast<Writing>(position % 3);
        if (writing != Writing::UNCHECKED) slot.data[8] |= u64(check_of(slot)) << 32;
        if (job.damage) job.damage(slot);
        pending_[position + 1] = Pending{std::move(job), lease};
        Slot& place = view.submissions[position & (view.submission_capacity - 1)];
        if (!bugs_.tail_before_slot) write(place, slot, writing);
        if (shape_.late_tail) {
            wait_until("an answer before the tail", [&] { return get(view.completion_tail) == position + 1; });
        }
        const std::memory_order order = bugs_.relaxed_tail ? std::memory_order_relaxed : std::memory_order_release;
        std::atomic_ref(view.submission_tail->words[0]).store(position + 1, order);
        if (bugs_.tail_before_slot) write(place, slot, writing);
    }

    enum class Writing { IN_ORDER, SEQUENCES_FIRST, UNCHECKED };

    static u32 check_of(const Slot& slot) {
        u64 sum = CHECK_START;
        for (u32 word = 0; word < 16; ++word) sum += check_share(word, reinterpret_cast<const u64*>(&slot)[word]);
        return static_cast<u32>(sum >> 32);
    }

    // A device may look on at any time.
    static void write(Slot& to, const Slot& from, Writing writing) {
        auto store = [&](u32 word, std::memory_order order) {
            std::atomic_ref(reinterpret_cast<u64*>(&to)[word]).store(reinterpret_cast<const u64*>(&from)[word], order);
        };
        const bool sequences_first = writing == Writing::SEQUENCES_FIRST;
        if (sequences_first) store(0, std::memory_order_release), store(15, std::memory_order_release);
        for (u32 word = 1; word < 16; ++word) {
            if (sequences_first) std::this_thread::yield();
            store(word, std::memory_order_relaxed);
        }
        store(0, std::memory_order_release);
    }

    void check(const Slot& slot) {
        Pending pending = take_pending(slot.source_id);
        const TestJob& job = pending.job;
        const u32 status = slot.confidence_bits & 0xFFFF;
        const std::string which = "job " + std::to_string(slot.source_id) + " (" + name_of(job.opcode) + "): ";
        if (status != job.status) {
            found(which + "status " + std::to_string(status) + " instead of " + std::to_string(job.status));
        }
        const u8* payload = view.arena + pending.lease.offset;
        if (!std::equal(job.payload.begin(), job.payload.end(), payload)) found(which + "its payload has changed");
        if (status == STATUS_OK && job.result_len > 0) {
            if (slot.event_type >> 16 != BODY_ARENA || slot.data[0] != pending.lease.result ||
                slot.data[1] != job.result_len) {
                found(which + "an answer elsewhere");
            }
            const std::string wrong = job.wrong ? job.wrong(view.arena + pending.lease.result) : std::string();
            if (!wrong.empty()) found(which + wrong);
        } else if (slot.event_type >> 16 != BODY_EMPTY || slot.data_len != 0) {
            found(which + "an answer that is not one");
        }
        if (job.refused) {
            const u8* result = view.arena + pending.lease.result;
            if (std::any_of(result, result + job.result_len, [](u8 byte) { return byte != UNTOUCHED; })) {
                found(which + "bytes in a region of a job that was refused");
            }
            faults_.fetch_add(1, std::memory_order_relaxed);
        }
        if (!bugs_.early_recycling) give(pending.lease);
        reaped_.fetch_add(1, std::memory_order_relaxed);
    }
    Pending take_pending(u64 ticket) {
        const std::lock_guard lock(mutex_);
        const auto at = pending_.find(ticket);
        if (at == pending_.end()) found("a completion of no job, or a second one: ticket " + std::to_string(ticket));
        Pending pending = std::move(at->second);
        pending_.erase(at);
        return pending;
    }

    Shape shape_;
    HostBugs bugs_;
    std::mutex mutex_;
    u64* runs_ = nullptr;
    std::vector<bool> used_;
    std::unordered_map<u64, Pending> pending_;
    u64 tail_, completed_, admitted_ = 0;
    std::atomic<u64> reaped_{0}, faults_{0};
};

// "Device memory" of a kernel beside the corpora, and how it is launched.
class TestDevice {
  public:
    KernelParams params{};

    TestDevice(const RingView& ring, const Workload& workload, u32 workers = 2, u32 job_slots = 4,
               u64 scratch_bytes = 1 << 20) {
        workload.fill(params);
        params.ring = ring;
        params.workers = workers;
        params.job_slots = job_slots;
        params.scratch_bytes = scratch_bytes;
        params.shared_bytes = 40 << 10;
        params.budget_ns = u64(600) * 1'000'000'000;
        params.jobs = aligned_array<JobRecord>(params.job_slots);
        params.scratch = aligned_array<u8>(params.job_slots * params.scratch_bytes);
        params.state = aligned_array<DeviceState>(1);
    }
    ~TestDevice() {
        std::free(params.jobs);
        std::free(params.scratch);
        std::free(params.state);
    }
    TestDevice(const TestDevice&) = delete;

    // Up to a position in the ring; each launch runs its fibers in another order.
    std::unique_ptr<Grid> launch(u64 limit = NO_LIMIT) {
        std::memset(static_cast<void*>(params.state), 0, sizeof(DeviceState));
        HostRing::set(params.ring.control, CONTROL_LIMIT, limit);
        return std::make_unique<Grid>(params, params.workers + 1, ++launches_);
    }
    void expect_end(EndReason reason, u64 position) const {
        const Line* report = params.ring.report;
        if (HostRing::get(report, REPORT_STATE) != STATE_ENDED) found("a kernel that ended without a word");
        const u64 ended = HostRing::get(report, REPORT_REASON);
        if (ended != reason) {
            found("ended for reason " + std::to_string(ended) + " instead of " + std::to_string(reason));
        }
        const u64 reached = HostRing::get(report, REPORT_POSITION);
        if (reached != position) {
            found("ended at position " + std::to_string(reached) + " instead of " + std::to_string(position));
        }
    }

  private:
    u64 launches_ = 0;
};

}  // namespace megaring::twin
