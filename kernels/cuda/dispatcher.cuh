// The dispatcher: one warp that turns the host's slots into planned jobs in device memory, where the workers look.
//
// Only this warp reads the submission ring. It polls the tail and, in the same turn over PCIe, the slot that comes next
// and the host's other lines. A slot that is whole by itself (both sequences and the check over all its words: nothing
// orders those loads) is taken without another turn. Where the tail tells of more, or the slot is not whole, the warp
// fences and copies the slots out in pieces of 16 bytes, eight lanes a slot. It reports the head once for the burst,
// after which the host may overwrite them. Between polls it sends the device's heartbeat, watches the host's, obeys the
// control word, and sees to it that jobs move. What needs no work is answered at once.
#pragma once

#include "completion.cuh"
#include "operations.cuh"

namespace megaring {

constexpr u32 BURST = WARP / 8;
// How often the host's other lines are looked at, and the heartbeat is sent.
constexpr u64 TEND_NS = 20'000;
// The lanes that poll other lines of the host's; the first eight have the slot that comes next.
constexpr u32 COMMAND_LANE = 8, OFFSET_LANE = 9, BEAT_LANE = 10;

class Dispatcher {
  public:
    MR_DEVICE explicit Dispatcher(const KernelParams& params)
        : params_(params), ring_(params.ring), lane_(lane_index()) {
        staged_ = reinterpret_cast<Slot*>(shared_memory());
    }

    // Runs until the limit, a stop, or a failure. All lanes of one warp.
    MR_DEVICE void run() {
        begin();
        EndReason reason = END_STOPPED;
        while (serve(await_news(&reason), &reason)) {}
        end(reason);
    }

  private:
    static MR_DEVICE Piece* pieces_of(Slot& slot) { return reinterpret_cast<Piece*>(&slot); }
    static MR_DEVICE const Piece* pieces_of(const Slot& slot) { return reinterpret_cast<const Piece*>(&slot); }
    MR_DEVICE u64 broadcast(u64 value) const { return warp_shuffle(value, 0); }

    static MR_DEVICE u64 least(u64 a, u64 b) { return a < b ? a : b; }

    // What a poll has brought, and how many of the next records are free, a burst at most: by some lanes at once, while
    // it was under way.
    struct Look {
        u64 tail;
        Piece piece;
        bool early;  // the pieces are a whole slot, the next one
        u32 free;
        bool going;  // nothing ends the kernel
    };

    // Polls until there is something to do. Where to look is worked out before: what a poll's second load had to wait
    // for would come behind the first one's turn.
    MR_DEVICE Look await_news(EndReason* reason) {
        const u64* const tail = &ring_.submission_tail->words[0];
        const Piece* const own = own_piece();
        for (;;) {
            const Look news = look(system_load_beside(tail, own), reason);
            // The tail may be behind slots that were taken before it told of them.
            const bool idle = !news.early && head_ - news.tail <= ring_.submission_capacity;
            if (!idle || !news.going || limit_ != NO_LIMIT) return news;
            pause_ns(20);
        }
    }

    // What a lane loads beside the tail: a piece of the slot that comes next, or of the host's other lines.
    MR_DEVICE const Piece* own_piece() const {
        if (lane_ == COMMAND_LANE) return reinterpret_cast<const Piece*>(&ring_.control->words[CONTROL_COMMAND]);
        if (lane_ == OFFSET_LANE) return reinterpret_cast<const Piece*>(&ring_.control->words[CONTROL_CLOCK_OFFSET]);
        if (lane_ == BEAT_LANE) return reinterpret_cast<const Piece*>(&ring_.host_heartbeat->words[BEAT_COUNT]);
        return pieces_of(*next_slot()) + lane_ % 8;
    }

    MR_DEVICE Look look(const LaterBeside& poll, EndReason* reason) {
        const bool due = broadcast(lane_ == 0 && clock_ns() - tended_ns_ >= TEND_NS ? 1 : 0) != 0;
        const u32 record = lane_ - (WARP - BURST);
        const u32 used = warp_ballot(lane_ >= WARP - BURST && !is_free(published_ + record)) >> (WARP - BURST);
        // What the workers have read of a record comes before what is written to it.
        warp_sync();
        const u32 free = used == 0 ? BURST : lowest_bit(used);
        const WordAndPiece news = poll.get();
        const bool going = !due || tend(news.piece, reason);
        return Look{broadcast(news.word), news.piece, is_whole(news.piece), free, going};
    }

    // Does what there is to do after a look; false at the end.
    MR_DEVICE bool serve(const Look& look, EndReason* reason) {
        if (!look.going) return false;
        u64 waiting = look.tail - head_;
        if (head_ - look.tail <= ring_.submission_capacity) waiting = 0;
        if (waiting > ring_.submission_capacity) {
            *reason = END_BAD_TAIL;
            return false;
        }
        // More than one are sooner taken together.
        const bool early = waiting < 2 && look.early;
        if (early) waiting = 1;
        // A limit that is behind, or further ahead than the ring is long, is as good as reached.
        const u64 ahead = limit_ - head_;
        const u64 left = limit_ == NO_LIMIT ? waiting : ahead > ring_.submission_capacity ? 0 : ahead;
        const u64 allowed = least(waiting, left);
        const u32 burst = static_cast<u32>(least(allowed, look.free));
        if (burst > 0) {
            early ? stage(look.piece) : stage(burst);
            take(burst, early ? &next_slot()->sequence : &ring_.submission_tail->words[0]);
            return !stop_slot_;
        }
        if (limit_ != NO_LIMIT && left == 0) {
            *reason = END_LIMIT;
            return false;
        }
        pause_ns(20);
        return true;
    }

    MR_DEVICE const Slot* next_slot() const { return ring_.submissions + (head_ & (ring_.submission_capacity - 1)); }

    // Whether the pieces that the first eight lanes hold are one job's; all lanes learn the same.
    MR_DEVICE bool is_whole(Piece piece) const {
        const u64 sequence = head_ + 1;
        const bool other = (lane_ == 0 && piece.low != sequence) || (lane_ == 7 && piece.high != sequence);
        if (warp_ballot(other) != 0) return false;
        const u32 word = 2 * (lane_ % 8);
        u64 sum = check_share(word, piece.low) + check_share(word + 1, piece.high);
        MR_UNROLL
        for (u32 mask = 1; mask < 8; mask *= 2) sum += warp_shuffle_xor(sum, mask);
        return broadcast((sum + CHECK_START) >> 32) == warp_shuffle(piece.low, 7) >> 32;
    }

    // Whether every worker is through with the job that this one's record held before.
    MR_DEVICE bool is_free(u64 number) const {
        if (number < params_.job_slots) return true;
        return device_load_acquire(&params_.jobs[number & (params_.job_slots - 1)].passed) == params_.workers;
    }

    MR_DEVICE void begin() {
        head_ = reported_ = broadcast(lane_ == 0 ? system_load_relaxed(head_word()) : 0);
        limit_ = broadcast(lane_ == 0 ? system_load_relaxed(&ring_.control->words[CONTROL_LIMIT]) : 0);
        if (lane_ == 0) {
            DeviceState& state = *params_.state;
            state.completion_start = system_load_relaxed(&ring_.completion_tail->words[0]);
            state.clock_offset_ns = system_load_relaxed(&ring_.control->words[CONTROL_CLOCK_OFFSET]);
            system_store_relaxed(&ring_.report->words[REPORT_CLOCK], clock_ns());
            system_store_release(&ring_.report->words[REPORT_STATE], STATE_RUNNING);
            host_seen_ns_ = tended_ns_ = moved_ns_ = clock_ns();
        }
    }

    // Stages the slot that was read beside the tail.
    MR_DEVICE void stage(Piece piece) {
        if (lane_ < 8) pieces_of(staged_[0])[lane_] = piece;
    }

    // Stages slots that the tail tells of. Each lane reads some, so each acquires, and none reads before the first lane
    // has, by whose tail they go.
    MR_DEVICE void stage(u32 burst) {
        const u32 slot = lane_ / 8, piece = lane_ % 8;
        const u64 mask = ring_.submission_capacity - 1;
        system_acquire(&ring_.submission_tail->words[0]);
        warp_sync();
        if (slot < burst) {
            const Slot& from = ring_.submissions[(head_ + slot) & mask];
            pieces_of(staged_[slot])[piece] = system_load_piece(pieces_of(from) + piece);
        }
    }

    // Takes the staged slots off the ring. The warp knows of them by the word at `from`.
    MR_DEVICE void take(u32 burst, const u64* from) {
        warp_sync();
        if (lane_ == 0) {
            mark(next_slot());
            told_by_ = from;
            CompletionEntry answered[BURST];
            u32 answers = 0;
            const u64 before = published_, head = head_ + burst;
            for (u32 at = 0; at < burst; ++at) {
                if (dispatch(staged_[at], head_ + at, head, &answered[answers])) ++answers;
            }
            // The records, their plans and their counters come before the number that tells of them, and so does the
            // head: no worker completes a job before the host can see that its slot is taken.
            if (published_ != before) device_count_release(&params_.state->news, published_ - before);
            if (answers > 0) {
                const Claim claim = claim_completions(*params_.state, answers, nullptr);
                complete(params_, claim, answered, answers, reported_ == head ? nullptr : head_word(), head,
                         [this] { beat(); });
                reported_ = head;
            }
        }
        stop_slot_ = broadcast(stop_slot_) != 0;
        published_ = broadcast(published_);
        head_ += burst;
        warp_sync();
    }

    MR_DEVICE u64* head_word() const { return &ring_.submission_head->words[0]; }

    // Before the first job of a burst is planned, one fence for two: what the host wrote before it told of the slots is
    // there for this thread and whoever learns of the jobs from it, and the copies are complete, so that the head can
    // be reported and the host write the slots again. A burst that is all answered at once needs nothing of the host's,
    // and has its head reported with its completions.
    MR_DEVICE void report(u64 head) {
        if (reported_ == head) return;
        system_acquire(told_by_);
        system_store_fenced(head_word(), head);
        reported_ = head;
    }

    // Plans one slot's job; true if there is nothing to publish, only a completion to send.
    MR_DEVICE bool dispatch(const Slot& slot, u64 position, u64 head, CompletionEntry* answer) {
        const u64 now = clock_ns();
        // The position tells the ticket, also where the slot is damaged.
        *answer = CompletionEntry{
            position + 1, static_cast<Opcode>(slot.event_type & 0xFFFF), STATUS_OK, 0, BODY_EMPTY, 0, 0};
        if (!slot_holds(slot, position)) {
            answer->opcode = Opcode{};
            return refuse(answer, STATUS_BAD_DESCRIPTOR);
        }
        if (answer->opcode == Opcode::stop) {
            stop_slot_ = 1;
            return true;
        }
        const Descriptor& descriptor = *reinterpret_cast<const Descriptor*>(slot.data);
        if (is_answered_at_once(answer->opcode)) {
            if (is_past(*params_.state, descriptor.deadline_ns)) answer->status = STATUS_DEADLINE_EXCEEDED;
            return true;
        }
        if (!regions_fit(ring_, descriptor)) return refuse(answer, STATUS_BAD_DESCRIPTOR);
        report(head);
        const u64 number = published_;
        JobRecord& job = params_.jobs[number & (params_.job_slots - 1)];
        job.slot = slot;
        job.opcode = answer->opcode;
        job.started_ns = now;
        job.ticket = position + 1;
        job.scratch = params_.scratch + (number & (params_.job_slots - 1)) * params_.scratch_bytes;
        const Status status = plan_job(params_, job, stream_);
        if (status != STATUS_OK) {
            if (status == STATUS_BAD_DESCRIPTOR || status == STATUS_RESULT_TOO_SMALL ||
                status == STATUS_UNKNOWN_OPCODE) {
                return refuse(answer, status);
            }
            answer->status = status;
            return true;
        }
        // Not before: a record whose job is refused stays free.
        job.passed = 0;
        stream_.next += job.tiles;
        published_ = number + 1;
        return false;
    }

    MR_DEVICE bool refuse(CompletionEntry* answer, Status status) {
        answer->status = status;
        device_count(&params_.state->faults, u64(1));
        return true;
    }

    // Heartbeats and commands, where some lanes hold pieces of the host's lines; false if the kernel is to end.
    MR_DEVICE bool tend(Piece piece, EndReason* reason) {
        const u64 command = warp_shuffle(piece.low, COMMAND_LANE), offset = warp_shuffle(piece.low, OFFSET_LANE),
                  beat = warp_shuffle(piece.low, BEAT_LANE);
        bool going = true;
        if (lane_ == 0) {
            device_store_relaxed(&params_.state->clock_offset_ns, offset);
            going = heed(command, beat, reason);
            watch_jobs();
            going = going && !has_fault(*params_.state);
        }
        return broadcast(going) != 0;
    }

    // Ends the kernel if for as long as its budget no worker has claimed or finished anything of the oldest job.
    MR_DEVICE void watch_jobs() {
        // A record that has been used again is another job's.
        if (published_ - oldest_ > params_.job_slots) oldest_ = published_ - params_.job_slots;
        while (oldest_ != published_ && is_free(oldest_ + params_.job_slots)) ++oldest_;
        u64 moved = oldest_;
        if (oldest_ != published_) {
            const JobRecord& job = params_.jobs[oldest_ & (params_.job_slots - 1)];
            moved += device_load_relaxed(&job.progress) + device_load_relaxed(&job.next) +
                     device_load_relaxed(&job.tile_done) + device_load_relaxed(&job.passed);
        }
        const bool stands_still = oldest_ != published_ && moved == moved_;
        moved_ = moved;
        if (!stands_still) moved_ns_ = tended_ns_;
        else if (tended_ns_ - moved_ns_ > params_.budget_ns) device_or(&params_.state->news, NEWS_FAULT);
    }

    // The same for lane 0 alone, while it waits.
    MR_DEVICE void beat() {
        if (clock_ns() - tended_ns_ < TEND_NS) return;
        EndReason unused = END_STOPPED;
        heed(COMMAND_RUN, system_load_relaxed(&ring_.host_heartbeat->words[0]), &unused);
    }

    MR_DEVICE bool heed(u64 command, u64 host_beat, EndReason* reason) {
        const u64 now = clock_ns();
        tended_ns_ = now;
        system_store_relaxed(&ring_.device_heartbeat->words[BEAT_CLOCK], now);
        system_store_relaxed(&ring_.device_heartbeat->words[BEAT_COUNT], ++beats_);
        if (command == COMMAND_STOP) {
            *reason = END_STOPPED;
            return false;
        }
        if (host_beat != host_beat_) {
            host_beat_ = host_beat;
            host_seen_ns_ = now;
        } else if (params_.host_timeout_ns != 0 && now - host_seen_ns_ > params_.host_timeout_ns) {
            *reason = END_HOST_LOST;
            return false;
        }
        return true;
    }

    // Lets the workers finish what is published, then says how it ended.
    MR_DEVICE void end(EndReason reason) {
        if (lane_ != 0) return;
        DeviceState& state = *params_.state;
        device_count_release(&state.news, NEWS_STOPPING);
        const u64 first = published_ - least(published_, params_.job_slots);
        for (u64 number = first; number < published_; ++number) {
            const bool passed = wait_for(params_, [&] {
                if (is_free(number + params_.job_slots)) return true;
                beat();
                return false;
            });
            if (!passed) break;
        }
        if (has_fault(state)) reason = END_BUDGET;
        Line& report = *ring_.report;
        system_store_relaxed(&report.words[REPORT_REASON], reason);
        system_store_relaxed(&report.words[REPORT_POSITION], head_);
        system_store_relaxed(&report.words[REPORT_FAULTS], device_load_relaxed(&state.faults));
        system_store_relaxed(&report.words[REPORT_JOBS], device_load_relaxed(&state.jobs));
        system_store_release(&report.words[REPORT_STATE], STATE_ENDED);
    }

    const KernelParams& params_;
    const RingView& ring_;
    u32 lane_;
    Slot* staged_;
    StreamPlace stream_;
    u64 head_ = 0, limit_ = 0, published_ = 0;
    u64 reported_ = 0;  // the head that the host can see
    const u64* told_by_ = nullptr;
    u64 oldest_ = 0, moved_ = 0, moved_ns_ = 0;  // of the jobs that not all workers are through with
    u64 stop_slot_ = 0;
    u64 host_beat_ = 0, host_seen_ns_ = 0, tended_ns_ = 0, beats_ = 0;
};

}  // namespace megaring
