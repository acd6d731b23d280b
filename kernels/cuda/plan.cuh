// From a slot to a plan: every number in a descriptor is checked here, before anything is read or written by it. One thread of the
// dispatcher runs this; what needs the payload's bytes is checked in the PREPARE phase by whoever reads them.
#pragma once

#include "encode.cuh"
#include "nearest.cuh"
#include "score.cuh"
#include "search.cuh"

namespace megaring {

// The version that a slot names, as it stands in the table; null if the host does not keep it on the device.
MR_DEVICE const Corpus* find_corpus(const KernelParams& params, u32 handle, u32 generation) {
    constexpr u32 MOST_PROBES = 64;
    u64 at = (handle * u64(0x9E3779B97F4A7C15) + generation * u64(0xC2B2AE3D27D4EB4F)) >> 32;
    for (u32 probe = 0; probe < MOST_PROBES; ++probe, ++at) {
        const Corpus* corpus = params.corpora + (at & params.corpora_mask);
        // Both by one load, and before the rest: the host writes the handle last. Entries of other versions may be written meanwhile.
        const u64 key = device_load_acquire(reinterpret_cast<const u64*>(corpus));
        if (key == (handle | static_cast<u64>(generation) << 32)) return corpus;
        if (static_cast<u32>(key) == NO_HANDLE) return nullptr;
    }
    return nullptr;
}

// The word of the run that a job's payload begins; 0 if it begins none. It is in pinned memory and was written before the slot that names it.
MR_DEVICE u64 run_word(const RingView& ring, const Descriptor& descriptor) {
    const u64 block = descriptor.payload_offset / ring.arena_block_bytes;
    if (descriptor.payload_offset % ring.arena_block_bytes != 0 || block >= ring.arena_blocks) return 0;
    return system_load_relaxed(ring.runs + block);
}

// Whether a job's regions are its own: `Arena::resolve` of host/ring/src/arena.rs.
MR_DEVICE bool regions_hold(const RingView& ring, const Descriptor& descriptor, u64 run) {
    const u64 blocks = run & 0xFFFFFFFF;
    const u64 block = descriptor.payload_offset / ring.arena_block_bytes;
    if (blocks == 0 || run >> 32 != descriptor.arena_generation || blocks > ring.arena_blocks - block) return false;
    const u64 end = descriptor.payload_offset + blocks * ring.arena_block_bytes;
    const u64 payload_end = descriptor.payload_offset + descriptor.payload_len;
    const u64 result_end = descriptor.result_offset + descriptor.result_len;
    if (payload_end < descriptor.payload_offset || payload_end > end) return false;
    if (result_end < descriptor.result_offset || result_end > end) return false;
    return descriptor.result_offset >= payload_end && descriptor.result_offset % 128 == 0;
}

// Whether a slot found at `position` is whole and speaks this ABI (host/ring/src/descriptor.rs).
MR_DEVICE bool slot_holds(const Slot& slot, u64 position) {
    return slot.sequence == position + 1 && slot.data[9] == slot.sequence && slot.data_len == JOB_DATA_BYTES &&
           slot.event_type >> 32 == ABI_VERSION;
}

// What the dispatcher keeps between jobs.
struct Planner {
    u64 stream_session = 0;  // the session of the last streamed job
    u64 stream_next = 0;     // the session's tiles that are spoken for

    // Notes that a planned job will be published.
    MR_DEVICE void commit(const JobRecord& job) {
        if (job.opcode == OP_SEARCH) stream_next += job.search.tiles;
    }

    // Plans the job whose slot is in `job`; a status other than OK means that it is to be completed with that.
    MR_DEVICE Status plan(const KernelParams& params, JobRecord& job) {
        const Descriptor& descriptor = descriptor_of(job);
        job.next = job.done = job.tile_done = 0;
        job.status = STATUS_OK;
        job.tile_chunks = 0;
        job.result_used = descriptor.result_len;
        if (is_past(*params.state, descriptor.deadline_ns)) return STATUS_DEADLINE_EXCEEDED;
        switch (job.opcode) {
            case OP_SEARCH: return search(params, job);
            case OP_SCORE: {
                const Corpus* corpus = find_corpus(params, descriptor.corpus, descriptor.corpus_generation);
                return corpus == nullptr ? STATUS_STALE_CORPUS : plan_score(params, job, *corpus);
            }
            case OP_ENCODE: return plan_encode(params, job);
            case OP_NEAREST: {
                if (descriptor.flags & FLAG_POINTS) return plan_nearest(params, job, nullptr);
                const Corpus* corpus = find_corpus(params, descriptor.corpus, descriptor.corpus_generation);
                return corpus == nullptr ? STATUS_STALE_CORPUS : plan_nearest(params, job, corpus);
            }
            default: return STATUS_UNKNOWN_OPCODE;
        }
    }

  private:
    MR_DEVICE Status search(const KernelParams& params, JobRecord& job) {
        const Descriptor& descriptor = descriptor_of(job);
        const Corpus* corpus = find_corpus(params, descriptor.corpus, descriptor.corpus_generation);
        if (corpus == nullptr) return STATUS_STALE_CORPUS;
        if (corpus->stream != nullptr && corpus->stream_session != stream_session) {
            stream_session = corpus->stream_session;
            // A kernel that was launched in the middle of a session goes on where the last one ended, with nothing under way.
            stream_next = system_load_relaxed(&corpus->stream->consumed.words[0]);
        }
        return plan_search(params, job, *corpus, stream_next);
    }
};

// One chunk of a planned job, by all threads of a block.
MR_DEVICE void run_chunk(const KernelParams& params, JobRecord& job, Phase phase, u32 chunk) {
    switch (job.opcode) {
        case OP_SEARCH: return run_search(params, job, phase, chunk);
        case OP_SCORE: return run_score(params, job, phase, chunk);
        case OP_ENCODE: return run_encode(params, job, phase, chunk);
        case OP_NEAREST: return run_nearest(params, job, phase, chunk);
        default: return;
    }
}

}  // namespace megaring
