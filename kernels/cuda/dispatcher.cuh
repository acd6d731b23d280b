// The dispatcher: one warp that turns the host's slots into planned jobs in device memory, where the workers look.
//
// Only this warp reads the submission ring. It polls the tail and, in the same turn over PCIe, the slot that comes
// next. A slot that is whole by itself (both sequences and the check over all its words: nothing orders those loads) is
// taken without another turn. Where the tail tells of more, or the slot is not whole, the warp fences and copies the
// slots out in pieces of 16 bytes, eight lanes a slot. It reports the head once for the burst, after which the host may
// overwrite them. Between polls it sends the device's heartbeat, watches the host's, and obeys the control word. What
// needs no work is answered at once.
#pragma once

#include "completion.cuh"
#include "operations.cuh"

namespace megaring {

constexpr u32 BURST = WARP / 8;
// How often the lines beside the tail are looked at, and the heartbeat is sent.
constexpr u64 TEND_NS = 20'000;

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
        for (bool going = true; going;) {
            const Look look = poll();
            u64 waiting = look.tail - head_;
            if (waiting > ring_.submission_capacity) {
                // It may be behind slots that were taken before it told of them.
                if (head_ - look.tail > ring_.submission_capacity) {
                    reason = END_BAD_TAIL;
                    break;
                }
                waiting = 0;
            }
            // More than one are sooner taken together.
            const bool early = waiting < 2 && is_whole(look.piece);
            if (early) waiting = 1;
            // A limit that is behind, or further ahead than the ring is long, is as good as reached.
            const u64 ahead = limit_ - head_;
            const u64 left = limit_ == NO_LIMIT ? waiting : ahead > ring_.submission_capacity ? 0 : ahead;
            const u64 allowed = least(waiting, left);
            const u32 burst = static_cast<u32>(least(allowed, look.free));
            if (burst > 0) {
                early ? stage(look.piece) : stage(burst);
                take(burst, early ? &next_slot()->sequence : &ring_.submission_tail->words[0]);
                going = !stop_slot_;
            } else if (limit_ != NO_LIMIT && left == 0) {
                reason = END_LIMIT;
                break;
            } else {
                if (allowed > 0) watch_budget();
                pause_ns(20);
            }
            if (going && look.due) going = tend(look, &reason);
        }
        end(reason);
    }

  private:
    static MR_DEVICE Piece* pieces_of(Slot& slot) { return reinterpret_cast<Piece*>(&slot); }
    MR_DEVICE u64 broadcast(u64 value) const { return warp_shuffle(value, 0); }

    static MR_DEVICE u64 least(u64 a, u64 b) { return a < b ? a : b; }

    // The tail, a piece of the slot that comes next, when it is time again the lines beside the tail, and how many of
    // the next records are free, a burst at most: by some lanes at once, so that they cost no further turn.
    struct Look {
        u64 tail;
        Piece piece;
        u64 command, host_beat, clock_offset;
        u32 free;
        bool due;
    };
    MR_DEVICE Look poll() {
        const bool due = broadcast(lane_ == 0 && clock_ns() - tended_ns_ >= TEND_NS ? 1 : 0) != 0;
        const WordAndPiece news = system_load_beside(&ring_.submission_tail->words[0], next_slot(), lane_ % 8);
        u64 word = 0;
        if (due && lane_ < 3) {
            const Line* line = lane_ == 0 ? ring_.host_heartbeat : ring_.control;
            word = system_load_relaxed(&line->words[lane_ == 2 ? u32(CONTROL_CLOCK_OFFSET) : 0]);
        }
        const u32 record = lane_ - (WARP - BURST);
        const u32 used = warp_ballot(lane_ >= WARP - BURST && !is_free(published_ + record)) >> (WARP - BURST);
        // What the workers have read of a record comes before what is written to it.
        warp_sync();
        const u32 free = used == 0 ? BURST : lowest_bit(used);
        return Look{broadcast(news.word),  news.piece, warp_shuffle(word, 1), warp_shuffle(word, 0),
                    warp_shuffle(word, 2), free,       due};
    }

    MR_DEVICE const Slot* next_slot() const { return ring_.submissions + (head_ & (ring_.submission_capacity - 1)); }

    // Whether the pieces that the first eight lanes hold are one job's; all lanes learn the same. The others have read
    // the slot too, perhaps at another moment.
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

    // Slots are there, and no record is free. That ends, or the kernel does.
    MR_DEVICE void watch_budget() {
        const u64 now = broadcast(lane_ == 0 ? clock_ns() : 0);
        if (short_at_ != published_ || short_since_ns_ == 0) short_at_ = published_, short_since_ns_ = now;
        if (now - short_since_ns_ > params_.budget_ns && lane_ == 0) device_or(&params_.state->news, NEWS_FAULT);
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
            host_seen_ns_ = tended_ns_ = clock_ns();
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
            pieces_of(staged_[slot])[piece] = system_load_piece(ring_.submissions + ((head_ + slot) & mask), piece);
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
                complete(params_, answered, answers, reported_ == head ? nullptr : head_word(), head, [this] { beat(); });
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

    // Heartbeats and commands; false if the kernel is to end.
    MR_DEVICE bool tend(const Look& look, EndReason* reason) {
        bool going = true;
        if (lane_ == 0) {
            device_store_relaxed(&params_.state->clock_offset_ns, look.clock_offset);
            going = heed(look.command, look.host_beat, reason) && !has_fault(*params_.state);
        }
        return broadcast(going) != 0;
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
    u64 short_at_ = 0, short_since_ns_ = 0;  // of records
    u64 stop_slot_ = 0;
    u64 host_beat_ = 0, host_seen_ns_ = 0, tended_ns_ = 0, beats_ = 0;
};

}  // namespace megaring
