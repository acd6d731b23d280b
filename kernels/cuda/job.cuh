// A job on the device: a slot that the dispatcher has planned, and the counters by which the blocks share it out.
//
// The dispatcher owns a record from the moment when all workers have passed its last job (`passed`) until it publishes
// the next one. Then all workers read it, and only its counters change, by atomics. Its scratch area goes with it.
//
// A job's chunks are numbered through its three phases. Chunks are claimed in order, each by one addition to `next`,
// and each finished one adds to `progress`, so as many as `prepare_end` say that every PREPARE chunk is finished: none
// of a later phase starts before. A block that waits for this waits for chunks that running blocks (the whole grid is
// resident) claimed before it, so its wait ends; if it does not all the same, the block's budget ends the kernel. A
// FINISH of one chunk is claimed by nobody: the block that finishes the last chunk before it goes on with it.
#pragma once

#include "platform.cuh"

namespace megaring {

// Of metrics: whether there is such a one, whether rows are words of bits to it, and whether a smaller score is better.
MR_DEVICE constexpr bool is_metric(u32 metric) { return metric >= METRIC_COSINE && metric <= METRIC_JACCARD; }
MR_DEVICE constexpr bool is_of_bits(u32 metric) { return metric >= METRIC_HAMMING; }
MR_DEVICE constexpr bool is_distance(u32 metric) { return metric == METRIC_L2 || metric == METRIC_HAMMING; }

enum Phase : u32 { PHASE_PREPARE, PHASE_WORK, PHASE_FINISH };

// The last 16 bytes of the shared memory are the workers' mailbox; operations have the rest.
constexpr u32 MAILBOX_BYTES = 16;

struct alignas(128) JobRecord {
    Slot slot;
    u64 progress;  // finished chunks, and above them the first failure
    u32 next;      // claimed chunks
    u32 passed;    // workers that are through with it
    u32 total, prepare_end, work_end;
    Opcode opcode;
    u32 tile_chunks;  // of a streamed corpus: WORK chunks of one tile; else 0
    u32 asks_alone;   // whether PREPARE is one chunk that only finds out whose the regions are
    u64 started_ns, ticket;
    u8* scratch;
    u64 result_used;          // bytes of the result region that the answer takes
    StreamLines* stream;      // of a streamed corpus
    u64 stream_base;          // the session's tiles before this job's first
    u32 tiles;                // the job's own; 0 unless streamed
    u32 tile_done;            // finished WORK chunks of a streamed job; `progress` grows by whole tiles
    alignas(8) u8 plan[800];  // the operation's own
};
static_assert(sizeof(JobRecord) == 1024);

// The operation's own part of a record.
template <typename Plan>
MR_DEVICE Plan& plan_in(JobRecord& job) {
    static_assert(sizeof(Plan) <= sizeof(job.plan) && alignof(Plan) <= 8);
    return *reinterpret_cast<Plan*>(job.plan);
}
template <typename Plan>
MR_DEVICE const Plan& plan_in(const JobRecord& job) { return *reinterpret_cast<const Plan*>(job.plan); }

// What the workers wait for, in one word: the number of jobs published since the start, and these.
constexpr u64 NEWS_STOPPING = u64(1) << 63;  // no job will follow
constexpr u64 NEWS_FAULT = u64(1) << 62;     // a wait ran out of its budget: everybody leaves
constexpr u64 NEWS_JOBS = NEWS_FAULT - 1;

// What the blocks share beside the records. Zeroed before each launch.
struct DeviceState {
    alignas(128) u64 news;
    alignas(128) u64 completions_claimed;
    alignas(128) u64 completions_published;  // both count from `completion_start`
    u64 completion_start;
    alignas(128) u64 faults;
    u64 jobs;
    u64 clock_offset_ns;
};
static_assert(sizeof(DeviceState) == 512);

MR_DEVICE bool has_fault(const DeviceState& state) { return device_load_relaxed(&state.news) & NEWS_FAULT; }

// Unix time. What is added to the device's clock may change at any time: the host corrects it.
MR_DEVICE u64 unix_ns(const DeviceState& state) { return clock_ns() + device_load_relaxed(&state.clock_offset_ns); }

// Whether a deadline in Unix nanoseconds has passed; 0 is none.
MR_DEVICE bool is_past(const DeviceState& state, u64 deadline_ns) {
    return deadline_ns != 0 && unix_ns(state) >= deadline_ns;
}

// The slot's data as a descriptor.
MR_DEVICE const Descriptor& descriptor_of(const JobRecord& job) {
    return *reinterpret_cast<const Descriptor*>(job.slot.data);
}
MR_DEVICE const u8* payload_of(const KernelParams& params, const JobRecord& job) {
    return global(params.ring.arena) + descriptor_of(job).payload_offset;
}
MR_DEVICE u8* result_of(const KernelParams& params, const JobRecord& job) {
    return global(params.ring.arena) + descriptor_of(job).result_offset;
}

// A job's finished chunks, and its status so far.
MR_DEVICE u32 done_of(u64 progress) { return static_cast<u32>(progress); }
MR_DEVICE u32 status_of(u64 progress) { return static_cast<u32>(progress >> 32); }

// The first failure stands.
MR_DEVICE void fail(JobRecord& job, Status status) {
    u64 progress = device_load_relaxed(&job.progress);
    while (status_of(progress) == STATUS_OK) {
        const u64 before = device_compare_exchange(&job.progress, progress, progress | u64(status) << 32);
        if (before == progress) return;
        progress = before;
    }
}

MR_DEVICE u32 align_up(u32 value, u32 to) { return (value + to - 1) / to * to; }
MR_DEVICE u32 divide_up(u32 value, u32 by) { return (value + by - 1) / by; }
MR_DEVICE u32 smaller(u32 a, u32 b) { return a < b ? a : b; }
MR_DEVICE u32 larger(u32 a, u32 b) { return a > b ? a : b; }

// `part` of `parts` almost equal cuts of `length`: where it begins.
MR_DEVICE u32 cut(u32 length, u32 parts, u32 part) { return static_cast<u32>(static_cast<u64>(length) * part / parts); }

// Lays areas one after the other in a job's scratch, each aligned to 128 bytes.
struct Layout {
    u64 used = 0;

    MR_DEVICE u64 take(u64 bytes) {
        const u64 at = used;
        used += (bytes + 127) / 128 * 128;
        return at;
    }
};

// Waits, a pause at a time, until `condition` holds. False once the budget is used up (which ends the kernel) or
// somebody else's is.
template <typename Condition>
MR_DEVICE bool wait_for(const KernelParams& params, Condition condition) {
    constexpr u32 LOOKS = 16;
    u64 begun = 0;
    for (u32 look = 0; !condition(); ++look) {
        pause_ns(32);
        if (look == 0) begun = clock_ns();
        if (look % LOOKS != LOOKS - 1) continue;
        if (has_fault(*params.state)) return false;
        if (clock_ns() - begun > params.budget_ns) {
            device_or(&params.state->news, NEWS_FAULT);
            return false;
        }
    }
    return true;
}

}  // namespace megaring
