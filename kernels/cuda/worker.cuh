// A worker block: walks the published jobs in order and claims chunks of each until none is left. The block that
// finishes a job's last chunk completes it. A block that finds the oldest job's chunks all claimed goes on to the next
// job, so jobs overlap.
#pragma once

#include "completion.cuh"
#include "operations.cuh"

namespace megaring {

class Worker {
  public:
    MR_DEVICE Worker(const KernelParams& params, u32 number, u32* mailbox)
        : params_(params), number_(number), mailbox_(mailbox) {}

    MR_DEVICE void run() {
        for (u64 number = 0; await_job(number); ++number) {
            JobRecord& job = params_.jobs[number & (params_.job_slots - 1)];
            work_on(job);
            // Everything this block read of the record comes before this; the dispatcher may use it again once all
            // workers say so.
            if (thread_index() == 0) device_store_release(&params_.state->cursors[number_].words[0], number + 1);
        }
    }

  private:
    // One thread finds something out, all learn it.
    template <typename Find>
    MR_DEVICE u32 tell_all(Find find) {
        block_sync();
        if (thread_index() == 0) *mailbox_ = find();
        block_sync();
        return *mailbox_;
    }

    // Waits for a job as long as the kernel lives; false when there will be none.
    MR_DEVICE bool await_job(u64 number) {
        return tell_all([&] {
                   const DeviceState& state = *params_.state;
                   for (;;) {
                       if (device_load_acquire(&state.published) > number) return 1u;
                       // `stopping` comes after the last job: look once more.
                       if (device_load_acquire(&state.stopping) != 0) {
                           return device_load_acquire(&state.published) > number ? 1u : 0u;
                       }
                       if (device_load_relaxed(&state.fault) != 0) return 0u;
                       pause_ns(20);
                   }
               }) != 0;
    }

    MR_DEVICE void work_on(JobRecord& job) {
        const u32 total = job.total;
        for (;;) {
            const u32 chunk = tell_all([&] { return device_add(&job.next, 1); });
            if (chunk >= total) return;
            const Phase phase = chunk < job.prepare_end ? PHASE_PREPARE
                                : chunk < job.work_end  ? PHASE_WORK
                                                        : PHASE_FINISH;
            const u32 begin = phase == PHASE_PREPARE ? 0 : phase == PHASE_WORK ? job.prepare_end : job.work_end;
            const bool wanted = tell_all([&] { return may_start(job, phase, begin, chunk) ? 1u : 0u; }) != 0;
            if (wanted) run_chunk(params_, job, phase, chunk - begin);
            // What the answer's bytes need on their way to the host.
            if (phase == PHASE_FINISH) system_fence();
            block_sync();
            if (thread_index() == 0) finish(job, phase, total);
        }
    }

    // Waits for the phase before, and says whether the chunk is to be done at all. By one thread.
    MR_DEVICE bool may_start(JobRecord& job, Phase phase, u32 begin, u32 chunk) {
        const u32 tile = job.tile_chunks != 0 && phase == PHASE_WORK ? (chunk - begin) / job.tile_chunks : 0;
        const u32 needed = begin + tile * job.tile_chunks;
        if (!wait_for(params_, [&] { return device_load_acquire(&job.done) >= needed; })) {
            fail(job, STATUS_BACKEND_FAILED);
        }
        if (is_past(*params_.state, descriptor_of(job).deadline_ns)) fail(job, STATUS_DEADLINE_EXCEEDED);
        if (job.tile_chunks != 0 && phase == PHASE_WORK) await_tile(job, tile);
        return device_load_relaxed(&job.status) == STATUS_OK;
    }

    // A failed job goes through all its tiles too, or the host's copying would never get past them.
    MR_DEVICE void await_tile(JobRecord& job, u32 tile) {
        // Not before the job ahead is through with all of its tiles: some block may still read the last one, whose
        // buffer the host would take for free. A block that is here has found every chunk of that job claimed, so no
        // block waits for itself.
        const u64* consumed = &job.stream->consumed.words[0];
        const u64 before = job.stream_base + tile;
        if (!wait_for(params_, [&] { return system_load_relaxed(consumed) >= before; })) {
            return fail(job, STATUS_BACKEND_FAILED);
        }
        const u64* ready = &job.stream->ready.words[0];
        const u64 needed = job.stream_base + tile + 1;
        if (wait_for(params_, [&] { return system_load_relaxed(ready) >= needed; })) {
            system_acquire(ready);
        } else {
            fail(job, STATUS_BACKEND_FAILED);
        }
    }

    // Counts a finished chunk. By one thread, after all of the block's.
    MR_DEVICE void finish(JobRecord& job, Phase phase, u32 total) {
        if (job.tile_chunks != 0 && phase == PHASE_WORK) return finish_streamed(job);
        const u32 done = device_add_acq_rel(&job.done, 1) + 1;
        if (done == total) complete_job(params_, job);
    }

    // The host learns that a tile's buffer is free before any block goes on to the next tile or to FINISH. So it learns
    // it of each tile in turn, and of the last one before the job is completed; after that the lines may belong to
    // another stream.
    MR_DEVICE void finish_streamed(JobRecord& job) {
        const u32 done = device_add_acq_rel(&job.tile_done, 1) + 1;
        if (done % job.tile_chunks != 0) return;
        system_store_release(&job.stream->consumed.words[0], job.stream_base + done / job.tile_chunks);
        device_add_acq_rel(&job.done, job.tile_chunks);
    }

    const KernelParams& params_;
    u32 number_;
    u32* mailbox_;
};

}  // namespace megaring
