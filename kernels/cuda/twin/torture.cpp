// The torture: the real device code on the twin's fibers against a host in C++, under ThreadSanitizer. Exit status 0
// and one line of counts, or the first thing found.
//
//   torture               all scenarios
//   torture --list-bugs   names of the bugs it can be seeded with
//   torture --bug NAME    the same with that bug, which it must not survive
//
// Build: c++ -std=c++20 -O1 -g -pthread -fsanitize=thread -fsanitize=alignment -ffp-contract=off torture.cpp
#include "host.hpp"

namespace megaring::twin {

struct Totals {
    u64 jobs = 0, launches = 0, faults = 0;
};

struct Torture {
    Workload workload{Random(1)};
    HostBugs bugs;
    Totals totals;

    void count(const HostRing& ring, u64 launches) {
        totals.jobs += ring.reaped();
        totals.faults += ring.faults();
        totals.launches += launches;
    }

    // Runs `body` in some threads at once.
    template <typename Body>
    static void at_once(u32 threads, Body body) {
        std::vector<std::thread> all;
        for (u32 thread = 0; thread < threads; ++thread) all.emplace_back([&, thread] { body(thread); });
        for (std::thread& thread : all) thread.join();
    }

    // Two producers and a reaper, many laps of a small ring, one kernel; at the end the host says stop.
    void persistent() {
        constexpr u64 JOBS = 20, PRODUCERS = 2;
        // The positions pass the end of their 64 bits on the way.
        Shape shape;
        shape.capacity = 4;
        shape.start = ~u64(0) - 20;
        HostRing ring(shape, bugs);
        TestDevice device(ring.view, workload);
        auto grid = device.launch();
        at_once(PRODUCERS + 1, [&](u32 thread) {
            if (thread == PRODUCERS) return ring.reap_all(JOBS * PRODUCERS);
            Random random(100 + thread);
            for (u64 job = 0; job < JOBS; ++job) ring.submit(workload.job(random));
        });
        if (!grid->running()) found("a persistent kernel that ended by itself");
        HostRing::set(ring.view.control, CONTROL_COMMAND, COMMAND_STOP);
        grid->join();
        device.expect_end(END_STOPPED, shape.start + JOBS * PRODUCERS);
        count(ring, 1);
    }

    // Slots that are whole by themselves, before the tail tells of them. The head is stored slowly, so that an answer
    // which does not wait for it would be there first.
    void early() {
        constexpr u64 JOBS = 12;
        Shape shape;
        shape.in_order = shape.late_tail = true;
        HostRing ring(shape, bugs);
        TestDevice device(ring.view, workload);
        slow_store().meanwhile = [] { std::this_thread::sleep_for(std::chrono::milliseconds(3)); };
        slow_store().at = &ring.view.submission_head->words[0];
        auto grid = device.launch();
        Random random(7);
        for (u64 job = 0; job < JOBS; ++job) {
            ring.submit(workload.job(random));
            ring.reap_all(job + 1);
        }
        HostRing::set(ring.view.control, CONTROL_COMMAND, COMMAND_STOP);
        grid->join();
        slow_store().at = nullptr;
        device.expect_end(END_STOPPED, JOBS);
        count(ring, 1);
    }

    // An answer of the dispatcher's own behind one of a worker's that is slow to be told: its heart beats on.
    void heart() {
        HostRing ring(Shape{}, bugs);
        TestDevice device(ring.view, workload);
        DeviceState& state = *device.params.state;
        auto claimed = [&] { return std::atomic_ref(state.completions_claimed).load(std::memory_order_acquire); };
        auto beats = [&] { return HostRing::get(ring.view.device_heartbeat, BEAT_COUNT); };
        slow_store().meanwhile = [&] {
            // The dispatcher's own turn is later.
            if (std::atomic_ref(state.completions_published).load(std::memory_order_acquire) > 0) return;
            wait_until("the dispatcher's answer", [&] { return claimed() == 2; });
            const u64 before = beats();
            wait_until("the dispatcher's heart", [&] { return beats() >= before + 2; });
        };
        slow_store().at = &ring.view.completion_tail->words[0];
        auto grid = device.launch();
        ring.submit(workload.encode_texts({"bad"}));
        wait_until("the worker's answer", [&] { return claimed() == 1; });
        ring.submit(TestJob{});
        ring.reap_all(2);
        slow_store().at = nullptr;
        HostRing::set(ring.view.control, CONTROL_COMMAND, COMMAND_STOP);
        grid->join();
        device.expect_end(END_STOPPED, 2);
        count(ring, 1);
    }

    // A kernel for each batch: it ends at the tail that the launcher saw, and the next one goes on there.
    void launched() {
        constexpr u64 JOBS = 12;
        HostRing ring(Shape{}, bugs);
        TestDevice device(ring.view, workload);
        u64 launches = 0;
        at_once(3, [&](u32 thread) {
            Random random(200);
            if (thread == 0) {
                for (u64 job = 0; job < JOBS; ++job) ring.submit(workload.job(random));
            } else if (thread == 1) {
                ring.reap_all(JOBS);
            } else {
                for (u64 done = 0; done < JOBS; ++launches) {
                    wait_until("a job to launch for", [&] { return HostRing::get(ring.view.submission_tail) != done; });
                    done = HostRing::get(ring.view.submission_tail);
                    device.launch(done)->join();
                    device.expect_end(END_LIMIT, done);
                }
            }
        });
        count(ring, launches);
    }

    // Every way in which a slot can be wrong, between sound ones.
    void damaged() {
        HostRing ring(Shape{}, bugs);
        TestDevice device(ring.view, workload);
        const std::vector<TestJob> jobs = damaged_jobs();
        auto grid = device.launch();
        at_once(2, [&](u32 thread) {
            if (thread == 1) return ring.reap_all(2 * jobs.size());
            Random random(300);
            for (const TestJob& job : jobs) {
                ring.submit(job), ring.submit(random.below(8) ? TestJob{} : workload.encode(random));
            }
        });
        HostRing::set(ring.view.control, CONTROL_COMMAND, COMMAND_STOP);
        grid->join();
        device.expect_end(END_STOPPED, 2 * jobs.size());
        if (HostRing::get(ring.view.report, REPORT_FAULTS) != ring.faults()) found("a report that counts other faults");
        if (HostRing::get(ring.view.report, REPORT_JOBS) != ring.reaped()) found("a report that counts other jobs");
        count(ring, 1);
    }

    // A STOP slot ends the kernel at its position, with everything up to it answered.
    void stop_slot() {
        HostRing ring(Shape{}, bugs);
        TestDevice device(ring.view, workload);
        Random random(400);
        for (u32 job = 0; job < 3; ++job) ring.submit(workload.job(random));
        TestJob stop;
        stop.opcode = Opcode::stop;
        ring.submit(stop);
        device.launch()->join();
        device.expect_end(END_STOPPED, 4);
        ring.reap_all(4);
        count(ring, 1);
    }

    // A host whose heart does not beat, a tail that nobody can have stored, and a block that stands still.
    void ends_by_itself() {
        HostRing silent(Shape{}, bugs);
        TestDevice first(silent.view, workload);
        first.params.host_timeout_ns = 1'000'000;
        first.launch()->join();
        first.expect_end(END_HOST_LOST, 0);

        HostRing garbage(Shape{}, bugs);
        TestDevice second(garbage.view, workload);
        HostRing::set(garbage.view.submission_tail, 0, 1'000'000);
        second.launch()->join();
        second.expect_end(END_BAD_TAIL, 0);

        HostRing waiting(Shape{}, bugs);
        TestDevice third(waiting.view, workload);
        third.params.budget_ns = 20'000'000;
        auto grid = third.launch();
        grid->stall(1);
        waiting.submit(workload.encode_texts({"bad"}));
        wait_until("the end", [&] { return HostRing::get(waiting.view.report, REPORT_STATE) == STATE_ENDED; });
        grid->stall(~u32(0));
        grid->join();
        third.expect_end(END_BUDGET, 1);
        totals.launches += 3;
    }

    void wake_up();
    std::vector<TestJob> damaged_jobs();
    void seed(const std::string& bug);

    void run() {
        wake_up();
        persistent();
        early();
        heart();
        launched();
        damaged();
        stop_slot();
        ends_by_itself();
    }
};

// The host thread of the launch mode, a step at a time. It parks once there is nothing to launch for, and a producer
// that finds it parked wakes it. Between its look and its parking a producer may publish and find it awake: so it looks
// again once it is parked.
class Launcher {
  public:
    Launcher(HostRing& ring, TestDevice& device, bool blind) : ring_(ring), device_(device), blind_(blind) {}

    bool parked() const { return state_ == PARKED; }
    u64 launches() const { return launches_; }
    void publish(TestJob job) {
        ring_.submit(std::move(job));
        if (parked()) state_ = AWAKE;
    }
    void step() {
        const bool news = HostRing::get(ring_.view.submission_tail) != done_;
        switch (state_) {
            case AWAKE:
                if (news) launch();
                else state_ = ABOUT_TO_PARK;
                return;
            case ABOUT_TO_PARK: state_ = blind_ || !news ? PARKED : AWAKE; return;
            case PARKED: return;
        }
    }

  private:
    enum State { AWAKE, ABOUT_TO_PARK, PARKED };

    void launch() {
        done_ = HostRing::get(ring_.view.submission_tail);
        device_.launch(done_)->join();
        device_.expect_end(END_LIMIT, done_);
        ++launches_;
    }

    HostRing& ring_;
    TestDevice& device_;
    bool blind_;
    State state_ = AWAKE;
    u64 done_ = 0, launches_ = 0;
};

// Publishes a job before each of the launcher's first steps in turn; the launcher parks only with nothing left.
void Torture::wake_up() {
    constexpr u32 MOMENTS = 5, STEPS = 12;
    for (u32 moment = 0; moment < MOMENTS; ++moment) {
        HostRing ring(Shape{}, bugs);
        TestDevice device(ring.view, workload, 1);
        Launcher launcher(ring, device, bugs.parks_blindly);
        Random random(500 + moment);
        launcher.publish(TestJob{});
        for (u32 step = 0; step < STEPS; ++step) {
            if (step == moment) launcher.publish(workload.encode(random));
            launcher.step();
        }
        ring.reap();
        if (!launcher.parked()) found("a launcher that does not come to rest");
        if (ring.reaped() != 2) {
            found("a job is left, and the launcher sleeps: lost wake-up, published before step " +
                  std::to_string(moment));
        }
        count(ring, launcher.launches());
    }
}

std::vector<TestJob> Torture::damaged_jobs() {
    std::vector<TestJob> jobs;
    Random random(301);
    // A job, what is done to its descriptor (through the slot), the status that must come of it.
    auto add = [&](TestJob job, u32 status, std::function<void(Slot&, Descriptor&)> damage) {
        job.status = status;
        job.refused =
            status == STATUS_BAD_DESCRIPTOR || status == STATUS_UNKNOWN_OPCODE || status == STATUS_RESULT_TOO_SMALL;
        job.damage = [damage](Slot& slot) { damage(slot, *reinterpret_cast<Descriptor*>(slot.data)); };
        jobs.push_back(std::move(job));
    };
    auto bad = [&](TestJob job, auto damage) { add(std::move(job), STATUS_BAD_DESCRIPTOR, damage); };
    auto encode = [&] { return workload.encode_texts({"bad", "", "facade"}); };
    auto score = [&] { return workload.score(random); };
    auto nearest = [&] { return workload.nearest_sent(random); };
    const u64 far = u64(1) << 40;

    bad(encode(), [](Slot& slot, Descriptor&) { slot.sequence += 1; });
    bad(encode(), [](Slot& slot, Descriptor&) { slot.data[9] -= 1; });
    bad(encode(), [](Slot& slot, Descriptor&) { slot.event_type += u64(1) << 32; });
    bad(encode(), [](Slot& slot, Descriptor&) { slot.data_len = 71; });
    bad(encode(), [=](Slot&, Descriptor& job) { job.payload_offset += far * 1024; });
    bad(encode(), [](Slot&, Descriptor& job) { job.payload_offset += 64; });
    bad(encode(), [=](Slot&, Descriptor& job) { job.payload_len = far; });
    bad(encode(), [](Slot&, Descriptor& job) { job.payload_len = ~u64(0); });
    bad(encode(), [](Slot&, Descriptor& job) { job.result_offset = job.payload_offset; });
    bad(encode(), [](Slot&, Descriptor& job) { job.result_offset += 64; });
    bad(encode(), [=](Slot&, Descriptor& job) { job.result_len = far; });
    bad(encode(), [](Slot&, Descriptor& job) { job.result_len = ~u64(0); });
    bad(encode(), [](Slot&, Descriptor& job) { job.arena_generation += 1; });
    // A nop has no regions that anybody looks at.
    add(TestJob{}, STATUS_OK, [](Slot&, Descriptor& job) { job.arena_generation -= 1; });
    add(encode(), STATUS_UNKNOWN_OPCODE,
        [](Slot& slot, Descriptor&) { slot.event_type = 77 | u64(ABI_VERSION) << 32; });
    add(encode(), STATUS_RESULT_TOO_SMALL, [](Slot&, Descriptor& job) { job.result_len -= 1; });
    bad(encode(), [](Slot&, Descriptor& job) { job.items = 0xFFFFFFFF; });
    add(workload.search(random), STATUS_STALE_CORPUS, [](Slot&, Descriptor& job) { job.corpus_generation += 1; });
    bad(workload.search(random), [](Slot&, Descriptor& job) { job.k = 0; });
    add(score(), STATUS_STALE_CORPUS, [](Slot&, Descriptor& job) { job.corpus += 1; });
    bad(score(), [](Slot&, Descriptor& job) { job.dim += 1; });
    bad(score(), [](Slot&, Descriptor& job) { job.metric = 0; });
    bad(score(), [](Slot&, Descriptor& job) { job.items = 0xFFFFFFFF; });
    bad(score(), [](Slot&, Descriptor& job) { job.k = 0xFFFFFFFF, job.flags = 0; });
    bad(nearest(), [](Slot&, Descriptor& job) { job.k = 0; });
    bad(nearest(), [](Slot&, Descriptor& job) { job.dim = 0xFFFFFFFF; });
    add(nearest(), STATUS_RESULT_TOO_SMALL, [](Slot&, Descriptor& job) { job.result_len = 7; });
    add(encode(), STATUS_DEADLINE_EXCEEDED, [](Slot&, Descriptor& job) { job.deadline_ns = 1; });

    // Wrong bytes in the payload are found by the blocks that read them: the job fails, its slot was sound.
    TestJob falling = encode(), off_by_one = encode();
    falling.payload[8] = 200;
    off_by_one.payload[8 * 3] -= 1;
    TestJob beyond = workload.by_rows(random, workload.search_of(random, 3, 2));
    reinterpret_cast<u32*>(beyond.payload.data())[1] = workload.corpus.rows;
    for (TestJob* job : {&falling, &off_by_one, &beyond}) {
        job->status = STATUS_BAD_DESCRIPTOR;
        jobs.push_back(*job);
    }
    return jobs;
}

constexpr const char* BUGS[] = {"tail-before-slot", "missing-release", "missing-acquire", "reused-payload",
                                "lost-wake-up", "missing-block-barrier", "missing-device-release"};

void Torture::seed(const std::string& bug) {
    const std::pair<const char*, bool*> all[] = {
        {BUGS[0], &bugs.tail_before_slot},
        {BUGS[1], &bugs.relaxed_tail},
        {BUGS[2], &twin::bugs().missing_acquire},
        {BUGS[3], &bugs.early_recycling},
        {BUGS[4], &bugs.parks_blindly},
        {BUGS[5], &twin::bugs().missing_block_barrier},
        {BUGS[6], &twin::bugs().missing_device_release},
    };
    for (const auto& [name, flag] : all) {
        if (bug == name) *flag = true;
    }
}

}  // namespace megaring::twin

int main(int count, char** arguments) {
    using namespace megaring::twin;
    const std::string first = count > 1 ? arguments[1] : "", second = count > 2 ? arguments[2] : "";
    if (first == "--list-bugs") {
        for (const char* bug : BUGS) std::printf("%s\n", bug);
        return 0;
    }
    const bool known = std::find(std::begin(BUGS), std::end(BUGS), second) != std::end(BUGS);
    if (!first.empty() && !(first == "--bug" && known)) {
        std::fprintf(stderr, "usage: torture [--list-bugs | --bug NAME]\n");
        return 2;
    }
    Torture torture;
    if (known) torture.seed(second);
    torture.run();
    const Totals& totals = torture.totals;
    std::printf("torture: %llu jobs answered rightly in %llu launches, %llu of them faulty and refused\n",
                static_cast<unsigned long long>(totals.jobs), static_cast<unsigned long long>(totals.launches),
                static_cast<unsigned long long>(totals.faults));
    return 0;
}
