// Jobs in virtual time, one after the other: where each one's time goes, hop by hop.
#pragma once

#include "host.hpp"

namespace megaring::twin {

// When a job's hops were over, in nanoseconds since its submission; those that it has none of are when the one before
// was over.
struct Hops {
    u64 taken = 0;      // the dispatcher has its slot
    u64 published = 0;  // its plan is there
    u64 claimed = 0;    // a worker has begun
    u64 prepared = 0;   // PREPARE is over
    u64 worked = 0;     // WORK is over
    u64 finished = 0;   // FINISH is over
    u64 told = 0;       // its completion is stored
    u64 seen = 0;       // the host has seen it
};

// As src/abi.rs has it.
constexpr u32 JOB_SLOTS = 8;

// A device whose clocks are virtual, and a host that has one job under way at a time, or all of them.
class TimedRun {
  public:
    TimedRun(const Workload& workload, const std::vector<TestJob>& jobs, u32 workers, u64 scratch_bytes, bool together)
        : jobs_(jobs),
          together_(together),
          ring_(shape_of(jobs, together)),
          device_(ring_.view, workload, workers, JOB_SLOTS, scratch_bytes),
          scheduler_(Scheduler::Order::CLOCK, 0, enter_block),
          timeline_(Costs{}, scheduler_) {
        const RingView& view = ring_.view;
        timeline_.add_host_memory(view.submission_tail, 8 * sizeof(Line));
        timeline_.add_host_memory(view.submissions, view.submission_capacity * sizeof(Slot));
        timeline_.add_host_memory(view.completions, view.completion_capacity * sizeof(Slot));
        timeline_.add_host_memory(view.runs, view.arena_blocks * sizeof(u64));
        timeline_.add_host_memory(view.arena, view.arena_blocks * view.arena_block_bytes);
    }

    // Ends the program where an answer is wrong. Where the jobs are under way together, the kernel's budget is little
    // more than one of them takes, and hops are not told.
    std::vector<Hops> run() {
        if (together_) device_.params.budget_ns = 100'000;
        const std::function<void()> device = [this] { run_block(device_.params); };
        const std::function<void()> host = [this] { together_ ? submit_together() : submit_all(); };
        std::vector<std::unique_ptr<Block>> blocks;
        std::vector<std::vector<u8>> shared;
        for (u32 index = 0; index < device_.params.workers + 2; ++index) {
            const bool is_host = index > device_.params.workers;
            blocks.push_back(std::make_unique<Block>());
            shared.emplace_back(device_.params.shared_bytes + 128, 0xA5);
            Block& block = *blocks.back();
            block.index = index;
            block.scheduler = &scheduler_;
            block.timeline = &timeline_;
            block.shared = reinterpret_cast<u8*>(reinterpret_cast<u64>(shared.back().data() + 127) / 128 * 128);
            scheduler_.add(&block, is_host ? 1 : THREADS, is_host ? host : device);
        }
        scheduler_.run();
        current_block() = nullptr;
        return hops_;
    }

  private:
    // The host looks at the completion tail this often.
    static constexpr u64 HOST_LOOK = 50'000;

    static Shape shape_of(const std::vector<TestJob>& jobs, bool together) {
        Shape shape;
        shape.capacity = 64;
        shape.block_bytes = 64 << 10;
        u64 most = 0, all = 0;
        for (const TestJob& job : jobs) {
            const u64 blocks = (job.payload.size() + job.result_len + 256) / shape.block_bytes + 2;
            most = std::max(most, blocks), all += blocks;
        }
        shape.blocks = together ? all : most;
        shape.in_order = true;
        return shape;
    }

    void submit_all() {
        // The kernel is there, and polls.
        timeline_.spend(20'000'000);
        timeline_.meet();
        for (const TestJob& job : jobs_) {
            timeline_.written.clear();
            const u64 begun = timeline_.now();
            ring_.submit(job);
            u64 reaped = 0;
            while (reaped == 0) {
                timeline_.spend(HOST_LOOK);
                timeline_.meet();
                reaped = ring_.reap();
            }
            // What the device stored takes its way to the host.
            timeline_.spend(timeline_.costs.bus_write);
            hops_.push_back(hops_since(begun));
            // Whatever the device does behind the completion; and the next job comes at another moment of its polling.
            timeline_.spend(2'000'000 + hops_.size() % 16 * 83'000);
            timeline_.meet();
        }
        HostRing::set(ring_.view.control, CONTROL_COMMAND, COMMAND_STOP);
    }

    void submit_together() {
        timeline_.spend(20'000'000);
        timeline_.meet();
        for (const TestJob& job : jobs_) ring_.submit(job);
        while (ring_.reaped() < jobs_.size()) {
            timeline_.spend(HOST_LOOK);
            timeline_.meet();
            ring_.reap();
            if (HostRing::get(ring_.view.report, REPORT_STATE) == STATE_ENDED) found("a kernel that ended with jobs left");
        }
        hops_.resize(jobs_.size());
        HostRing::set(ring_.view.control, CONTROL_COMMAND, COMMAND_STOP);
    }

    static bool is_within(const void* at, const Slot* slots, u64 count) { return at >= slots && at < slots + count; }

    Hops hops_since(u64 begun) const {
        const RingView& view = ring_.view;
        const DeviceState& state = *device_.params.state;
        Hops hops;
        const JobRecord* record = nullptr;
        auto raise = [&](u64& hop, const Written& written) { hop = (written.clock - begun) / 1000; };
        for (const Written& written : timeline_.written) {
            if (is_within(written.at, view.submissions, view.submission_capacity)) raise(hops.taken, written);
            if (written.at == &state.news) {
                raise(hops.published, written);
                record = device_.params.jobs + (((written.value & NEWS_JOBS) - 1) & (device_.params.job_slots - 1));
            }
            if (written.at == &view.completion_tail->words[0]) raise(hops.told, written);
        }
        if (record != nullptr) {
            for (const Written& written : timeline_.written) {
                if (written.at == &record->next && hops.claimed == 0) raise(hops.claimed, written);
                if (written.at == &record->total) raise(hops.finished, written);
                if (written.at != &record->progress) continue;
                if (written.value == record->prepare_end) raise(hops.prepared, written);
                if (written.value == record->work_end) raise(hops.worked, written);
                if (written.value == record->total) raise(hops.finished, written);
            }
        }
        hops.seen = (timeline_.now() - begun) / 1000;
        u64 before = 0;
        for (u64* hop : {&hops.taken, &hops.published, &hops.claimed, &hops.prepared, &hops.worked, &hops.finished,
                         &hops.told, &hops.seen}) {
            before = *hop = std::max(*hop, before);
        }
        return hops;
    }

    const std::vector<TestJob>& jobs_;
    bool together_;
    HostRing ring_;
    TestDevice device_;
    Scheduler scheduler_;
    Timeline timeline_;
    std::vector<Hops> hops_;
};

// A kind of job: on a corpus of its own, made of its name.
struct Kind {
    const char* name;
    u32 dim, rows;
    TestJob (*make)(const Workload& workload, Random& random);
    u64 scratch_bytes = 64 << 20;
    bool together = false;
};

// As if the blocks that a job names belonged to another by now.
inline TestJob foreign(TestJob job) {
    job.status = STATUS_BAD_DESCRIPTOR, job.refused = true;
    job.damage = [](Slot& slot) { reinterpret_cast<Descriptor*>(slot.data)->arena_generation += 1; };
    return job;
}

// A search as people have it: no row or query is zero to it, few tie, and no list is too long.
inline TestJob with_short_lists(TestJob job) {
    job.wrong = [wrong = job.wrong, items = job.descriptor.items](const u8* result) -> std::string {
        for (u32 query = 0; query < items; ++query) {
            if (read_at<ListHeader>(result, query).flags & EVERY_ROW) return "every row of query " + std::to_string(query);
        }
        return wrong(result);
    };
    return job;
}
inline TestJob short_lists(const Workload& with, Random& random, u32 items) {
    return with_short_lists(with.search_of(random, items, 10, METRIC_COSINE));
}

// The same with rows of the corpus as its queries.
inline TestJob rows_on_short_lists(const Workload& with, Random& random, u32 items) {
    return with_short_lists(with.by_rows(random, with.search_of(random, items, 10, METRIC_COSINE), false));
}

// Empty for a kind that there is not.
inline std::vector<Hops> time_jobs(const std::string& name, u32 workers, u32 count) {
    static constexpr Kind KINDS[] = {
        {"nop", 8, 100, [](const Workload& with, Random& random) { return with.job_of<Opcode::nop>(random); }},
        {"search, 1 query", 384, 5'562,
         [](const Workload& with, Random& random) { return short_lists(with, random, 1); }},
        {"search, 8 queries", 384, 5'562,
         [](const Workload& with, Random& random) { return short_lists(with, random, 8); }},
        {"search, 64 queries", 384, 5'562,
         [](const Workload& with, Random& random) { return short_lists(with, random, 64); }},
        {"search, 64 rows", 384, 5'562,
         [](const Workload& with, Random& random) { return rows_on_short_lists(with, random, 64); }},
        {"search, 1 query, float32", 384, 5'562,
         [](const Workload& with, Random& random) { return Workload::screened_by_rows(short_lists(with, random, 1)); }},
        // So many that all rows are the answer: nothing is screened.
        {"search, every row", 8, 100, [](const Workload& with, Random& random) { return with.search_of(random, 1, 50); }},
        {"score", 21, 400, [](const Workload& with, Random& random) { return with.score(random); }},
        {"encode", 8, 100, [](const Workload& with, Random& random) { return with.encode(random); }},
        {"nearest", 8, 400, [](const Workload& with, Random& random) { return with.nearest(random); }},
        // As many as are ready: every record is used again as soon as it is free.
        {"encode, together", 8, 100,
         [](const Workload& with, Random&) {
             return with.encode_texts(std::vector<std::string>(3'000, "badbadbadbadbadbadbadbadbadbadbadbad"));
         },
         64 << 20, true},
        {"checksum", 8, 100, [](const Workload& with, Random& random) { return with.checksum(random); }},
        // Payloads that find no room in scratch memory, so that there is no PREPARE.
        {"checksum, foreign", 8, 100,
         [](const Workload& with, Random& random) { return foreign(with.checksum_of(random, 1'500)); }, 256},
        {"score, foreign", 21, 400,
         [](const Workload& with, Random& random) { return foreign(with.score_of(random, 6, true)); }, 256},
    };
    const auto kind = std::find_if(std::begin(KINDS), std::end(KINDS), [&](const Kind& kind) { return kind.name == name; });
    if (kind == std::end(KINDS)) return {};
    Random random(7);
    const Workload workload(random, kind->dim, {kind->rows});
    std::vector<TestJob> jobs;
    for (u32 job = 0; job < count; ++job) jobs.push_back(kind->make(workload, random));
    return TimedRun(workload, jobs, workers, kind->scratch_bytes, kind->together).run();
}

}  // namespace megaring::twin
