// From a slot to a plan. Every number in a descriptor is checked before anything is read or written by it: here what
// all jobs have in common, the rest in each operation's own file. One thread of the dispatcher does it. What depends on
// the payload's bytes is checked by the threads that read them.
#pragma once

#include "job.cuh"

namespace megaring {

// The version that a slot names, as it stands in the table; null if the host does not keep it on the device.
MR_DEVICE const Corpus* find_corpus(const KernelParams& params, u32 handle, u32 generation) {
    constexpr u32 MOST_PROBES = 64;
    u64 at = (handle * u64(0x9E3779B97F4A7C15) + generation * u64(0xC2B2AE3D27D4EB4F)) >> 32;
    for (u32 probe = 0; probe < MOST_PROBES; ++probe, ++at) {
        const Corpus* corpus = params.corpora + (at & params.corpora_mask);
        // Both by one load, and before the rest: the host writes the handle last. Entries of other versions may be
        // written meanwhile.
        const u64 key = device_load_acquire(reinterpret_cast<const u64*>(corpus));
        if (key == (handle | static_cast<u64>(generation) << 32)) return corpus;
        if (static_cast<u32>(key) == NO_HANDLE) return nullptr;
    }
    return nullptr;
}

// Whether a job's regions lie in the arena, the payload's from the start of a block on.
MR_DEVICE bool regions_fit(const RingView& ring, const Descriptor& descriptor) {
    const u64 end = ring.arena_blocks * ring.arena_block_bytes;
    const u64 payload_end = descriptor.payload_offset + descriptor.payload_len;
    const u64 result_end = descriptor.result_offset + descriptor.result_len;
    if (descriptor.payload_offset % ring.arena_block_bytes != 0 || descriptor.payload_offset >= end) return false;
    if (payload_end < descriptor.payload_offset || payload_end > end) return false;
    if (result_end < descriptor.result_offset || result_end > end) return false;
    return descriptor.result_offset >= payload_end && descriptor.result_offset % 128 == 0;
}

// The word of the run that a job's payload begins. It is in pinned memory and was written before the slot that names
// it.
MR_DEVICE Later run_word(const RingView& ring, const Descriptor& descriptor) {
    return system_load_later(ring.runs + descriptor.payload_offset / ring.arena_block_bytes);
}

// Whether regions that fit are the job's own: `Arena::resolve` of host/ring/src/arena.rs.
MR_DEVICE bool regions_hold(const RingView& ring, const Descriptor& descriptor, u64 run) {
    const u64 blocks = run & 0xFFFFFFFF;
    const u64 block = descriptor.payload_offset / ring.arena_block_bytes;
    if (blocks == 0 || run >> 32 != descriptor.arena_generation || blocks > ring.arena_blocks - block) return false;
    const u64 end = descriptor.payload_offset + blocks * ring.arena_block_bytes;
    return descriptor.payload_offset + descriptor.payload_len <= end &&
           descriptor.result_offset + descriptor.result_len <= end;
}

// What a word of a job's slot adds to the sum whose upper half is the slot's check, and what that begins with:
// `slot_check` in host/ring/src/descriptor.rs.
constexpr u64 CHECK_START = u64(1) << 63;
MR_DEVICE constexpr u64 check_share(u32 word, u64 value) {
    u64 key = (u64(word) + 1) * 0x9E3779B97F4A7C15u;
    key = (key ^ key >> 30) * 0xBF58476D1CE4E5B9u;
    key = (key ^ key >> 27) * 0x94D049BB133111EBu;
    // The check's own half of its word counts as 0.
    return ((key ^ key >> 31) | 1) * (word == 14 ? value & 0xFFFFFFFF : value);
}
MR_DEVICE constexpr u32 check_of_sample() {
    u64 sum = CHECK_START;
    for (u64 word = 0; word < 16; ++word) sum += check_share(static_cast<u32>(word), (word + 1) << 32 | (word + 1));
    return static_cast<u32>(sum >> 32);
}
static_assert(check_of_sample() == 0xCD4B2C4B, "as in the host's tests");

// Whether a slot found at `position` is whole and speaks this ABI (host/ring/src/descriptor.rs).
MR_DEVICE bool slot_holds(const Slot& slot, u64 position) {
    return slot.sequence == position + 1 && slot.data[9] == slot.sequence && slot.data_len == JOB_DATA_BYTES &&
           slot.event_type >> 32 == ABI_VERSION;
}

// Whether so many answers are wanted that every row is a candidate: no list is written then, and nothing of the corpus
// is read. `wants_every_row` in host/core/src/lists.rs says the same.
MR_DEVICE bool wants_every_row(u32 k, u32 rows) { return 2 * u64(k) >= rows; }

// How far into a streamed corpus's session the dispatcher's jobs are.
struct StreamPlace {
    u64 session = 0;  // of the last streamed job
    u64 next = 0;     // its tiles that are spoken for

    // Turns to a corpus's session.
    MR_DEVICE void enter(const Corpus& corpus) {
        if (corpus.stream == nullptr || corpus.stream_session == session) return;
        session = corpus.stream_session;
        // A kernel launched in the middle of a session goes on where the last one ended, with nothing under way.
        next = system_load_relaxed(&corpus.stream->consumed.words[0]);
    }
};

// What the kernel does for an operation: a specialisation for each that operations.inc lists, in the file of its name.
// Without it the kernel does not compile.
//
//   AT_ONCE                         whether the dispatcher answers it itself, without a plan: nobody reads its regions
//   plan(params, job, stream)       checks every number in the slot, and makes the job's plan
//   run(params, job, phase, chunk)  does one chunk, by all threads of a block
template <Opcode OPCODE>
struct Operation;

}  // namespace megaring
