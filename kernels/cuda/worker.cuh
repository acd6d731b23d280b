// A worker block: walks the published jobs in order and claims chunks of each until none is left. The block that
// finishes a job's last chunk completes it. A block that finds the oldest job's chunks all claimed goes on to the next
// job, so jobs overlap.
#pragma once

#include "completion.cuh"
#include "operations.cuh"

namespace megaring {

class Worker {
  public:
    MR_DEVICE Worker(const KernelParams& params, u32* mailbox)
        : params_(params), mailbox_(mailbox) {}

    MR_DEVICE void run() {
        for (u64 number = 0; await_job(number); ++number) {
            JobRecord& job = params_.jobs[number & (params_.job_slots - 1)];
            work_on(job);
            // Everything this block read of the record comes before this; the dispatcher may use it again once all
            // workers say so.
            if (thread_index() == 0) device_count_release(&job.passed, u32(1));
        }
    }

  private:
    // One thread finds something out, all learn it.
    struct Found {
        u32 value, wanted;
    };
    template <typename Find>
    MR_DEVICE Found tell_all(Find find) {
        block_sync();
        if (thread_index() == 0) {
            const Found found = find();
            mailbox_[0] = found.value, mailbox_[1] = found.wanted;
        }
        block_sync();
        return Found{mailbox_[0], mailbox_[1]};
    }

    // Waits for a job as long as the kernel lives; false when there will be none.
    MR_DEVICE bool await_job(u64 number) {
        return tell_all([&] {
                   for (;;) {
                       const u64 news = device_load_acquire(&params_.state->news);
                       if ((news & NEWS_JOBS) > number) return Found{0, 1};
                       if (news & (NEWS_STOPPING | NEWS_FAULT)) return Found{0, 0};
                       pause_ns(20);
                   }
               }).wanted != 0;
    }

    MR_DEVICE void work_on(JobRecord& job) {
        // A FINISH of one chunk is nobody's to claim: whoever finishes the last chunk before it goes on with it.
        const u32 total = job.total, work_end = job.work_end;
        const bool goes_on = total == work_end + 1 && work_end > 0;
        const u32 claimable = goes_on ? work_end : total;
        bool has_chunk = false;
        Phase phase = PHASE_PREPARE;
        for (;;) {
            const Found claim = tell_all([&] {
                const u64 progress = has_chunk ? finish(job, phase) : 0;
                if (goes_on && phase != PHASE_FINISH && done_of(progress) == work_end) {
                    return Found{work_end, is_wanted(job, progress) ? 1u : 0u};
                }
                const u32 chunk = device_add(&job.next, 1);
                if (chunk >= claimable) return Found{total, 0};
                return Found{chunk, may_start(job, chunk) ? 1u : 0u};
            });
            // No thread reads the record any more: the first one says next that the block is through with it.
            if (claim.value >= total) return;
            has_chunk = true;
            phase = phase_of(job, claim.value);
            // Whether the regions are the job's own, the first chunk finds out: nothing is written to them before all
            // of PREPARE is over. Where there is no PREPARE, it finds out before it begins, and no other chunk is under
            // way that writes to them: they are WORK's, or there is none (`plan_job`).
            const bool asks = claim.value == 0 && thread_index() == 0;
            const Later run = asks ? run_word(params_.ring, descriptor_of(job)) : Later{};
            bool wanted = claim.wanted;
            if (claim.value == 0 && phase != PHASE_PREPARE) {
                wanted = tell_all([&] { return Found{0, hold_regions(job, run) && claim.wanted ? 1u : 0u}; }).wanted;
            }
            if (wanted && !(phase == PHASE_PREPARE && job.asks_alone)) {
                run_chunk(params_, job, phase, claim.value - begin_of(job, phase));
            }
            if (asks && phase == PHASE_PREPARE) hold_regions(job, run);
        }
    }

    MR_DEVICE bool hold_regions(JobRecord& job, const Later& run) {
        if (regions_hold(params_.ring, descriptor_of(job), run.get())) return true;
        fail(job, STATUS_BAD_DESCRIPTOR);
        device_count(&params_.state->faults, u64(1));
        return false;
    }

    static MR_DEVICE Phase phase_of(const JobRecord& job, u32 chunk) {
        return chunk < job.prepare_end ? PHASE_PREPARE : chunk < job.work_end ? PHASE_WORK : PHASE_FINISH;
    }
    static MR_DEVICE u32 begin_of(const JobRecord& job, Phase phase) {
        return phase == PHASE_PREPARE ? 0 : phase == PHASE_WORK ? job.prepare_end : job.work_end;
    }

    // Waits for the phase before, and says whether the chunk is to be done at all. By one thread.
    MR_DEVICE bool may_start(JobRecord& job, u32 chunk) {
        const Phase phase = phase_of(job, chunk);
        const u32 begin = begin_of(job, phase);
        const bool streams = job.tile_chunks != 0 && phase == PHASE_WORK;
        const u32 tile = streams ? (chunk - begin) / job.tile_chunks : 0;
        const u32 needed = begin + tile * job.tile_chunks;
        u64 progress = 0;
        // Nothing comes before PREPARE, nor before the one chunk of a job that has no other.
        const bool waits = phase != PHASE_PREPARE && job.total > 1;
        const bool waited = !waits || wait_for(params_, [&] {
            progress = device_load_acquire(&job.progress);
            return done_of(progress) >= needed;
        });
        if (!waited) fail(job, STATUS_BACKEND_FAILED);
        const bool wanted = waited && is_wanted(job, progress);
        return !(streams && !await_tile(job, tile)) && wanted;
    }

    // Whether there is any use in doing more of a job.
    MR_DEVICE bool is_wanted(JobRecord& job, u64 progress) {
        if (is_past(*params_.state, descriptor_of(job).deadline_ns)) {
            fail(job, STATUS_DEADLINE_EXCEEDED);
            return false;
        }
        return status_of(progress) == STATUS_OK;
    }

    // A failed job goes through all its tiles too, or the host's copying would never get past them.
    MR_DEVICE bool await_tile(JobRecord& job, u32 tile) {
        // Not before the job ahead is through with all of its tiles: some block may still read the last one, whose
        // buffer the host would take for free. A block that is here has found every chunk of that job claimed, so no
        // block waits for itself.
        const u64* consumed = &job.stream->consumed.words[0];
        const u64 before = job.stream_base + tile;
        if (!wait_for(params_, [&] { return system_load_relaxed(consumed) >= before; })) {
            return fail(job, STATUS_BACKEND_FAILED), false;
        }
        const u64* ready = &job.stream->ready.words[0];
        const u64 needed = job.stream_base + tile + 1;
        if (!wait_for(params_, [&] { return system_load_relaxed(ready) >= needed; })) {
            return fail(job, STATUS_BACKEND_FAILED), false;
        }
        system_acquire(ready);
        return true;
    }

    // Counts a finished chunk, and completes the job with the last; how far it is then, or 0 where that is another's to
    // see. By one thread, after all of the block's.
    MR_DEVICE u64 finish(JobRecord& job, Phase phase) {
        if (job.tile_chunks != 0 && phase == PHASE_WORK) return finish_streamed(job);
        // What the block wrote for the host came before the barrier. Where FINISH is one chunk, this block has seen
        // that all others are over, and the completion's own fence does. Where it is several, another block may
        // complete the job; by PTX's model its fence would do for all. Until a GPU has shown that, each makes its own.
        if (phase == PHASE_FINISH && job.total == job.work_end + 1) {
            mark(&job.total);
            complete_job(params_, job);
            return 0;
        }
        if (phase == PHASE_FINISH) system_fence();
        const u64 progress = device_add_acq_rel(&job.progress, u64(1)) + 1;
        // Not so where a wait was given up: some block may still be at work on the job.
        if (done_of(progress) == job.total) complete_job(params_, job);
        return progress;
    }

    // The host learns that a tile's buffer is free before any block goes on to the next tile or to FINISH. So it learns
    // it of each tile in turn, and of the last one before the job is completed; after that the lines may belong to
    // another stream.
    MR_DEVICE u64 finish_streamed(JobRecord& job) {
        const u32 done = device_add_acq_rel(&job.tile_done, u32(1)) + 1;
        if (done % job.tile_chunks != 0) return 0;
        system_store_release(&job.stream->consumed.words[0], job.stream_base + done / job.tile_chunks);
        return device_add_acq_rel(&job.progress, u64(job.tile_chunks)) + job.tile_chunks;
    }

    const KernelParams& params_;
    u32* mailbox_;
};

}  // namespace megaring
