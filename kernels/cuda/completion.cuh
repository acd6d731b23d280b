// Completing: results first, then the completion slot, then the tail, which is what the host looks at.
//
// Several blocks may complete jobs at once. Each claims positions in device memory, writes its slots into the pinned
// queue, and then waits for its turn to store the tail: the host sees positions in order, and neither side ever needs
// an atomic read-modify-write on shared memory, which PCIe does not give. A position is free because the host admitted
// the job only with a completion slot in hand.
#pragma once

#include "job.cuh"

namespace megaring {

struct CompletionEntry {
    u64 ticket;
    Opcode opcode;
    u32 status;
    u64 device_ns;
    u32 body;
    u64 offset, len;  // BODY_ARENA: the part of the result region that is used
};

// Positions in the queue that the caller has claimed, and what it learnt in the same turn.
struct Claim {
    u64 first;
    u64 published;        // the position whose turn it is
    u64 clock_offset_ns;  // of the device's clock to Unix time
    u64 progress;         // of the job
};

// `progress` is a job's, or null.
MR_DEVICE Claim claim_completions(DeviceState& state, u64 count, const u64* progress) {
    const u64* const beside[] = {&state.completions_published, &state.clock_offset_ns,
                                 progress == nullptr ? &state.clock_offset_ns : progress};
    u64 seen[3];
    const u64 first = device_claim_beside(&state.completions_claimed, count, beside, seen);
    return Claim{first, seen[0], seen[1], seen[2]};
}

MR_DEVICE void write_completion(const KernelParams& params, u64 position, u64 now, const CompletionEntry& entry) {
    Slot* slot = params.ring.completions + (position & (params.ring.completion_capacity - 1));
    const u64 longest = (u64(1) << 48) - 1;
    const u64 device_ns = entry.device_ns < longest ? entry.device_ns : longest;
    const bool arena = entry.body == BODY_ARENA;
    system_store_piece(slot, 1, Piece{entry.ticket, now});
    system_store_piece(slot, 2, Piece{entry.status | device_ns << 16, arena ? u64(16) : u64(0)});
    system_store_piece(slot, 3, Piece{arena ? entry.offset : 0, arena ? entry.len : 0});
    for (u32 piece = 4; piece < 7; ++piece) system_store_piece(slot, piece, Piece{0, 0});
    system_store_piece(slot, 7, Piece{0, position + 1});
    system_store_piece(slot, 0,
                       Piece{position + 1, static_cast<u64>(entry.opcode) | static_cast<u64>(entry.body) << 16});
}

// Publishes `count` completions at the claimed positions with one store of the tail. By one thread, which has seen
// everything the jobs wrote. `head`, if it is not null, gets `taken` before that, by the same fence. What that frees
// has been looked at. Others may be before it, and `idle()` is what it does meanwhile.
template <typename Idle>
MR_DEVICE_CALL void complete(const KernelParams& params, const Claim& claim, const CompletionEntry* entries, u32 count,
                             u64* head, u64 taken, Idle idle) {
    DeviceState& state = *params.state;
    const u64 position = state.completion_start + claim.first, now = clock_ns() + claim.clock_offset_ns;
    for (u32 entry = 0; entry < count; ++entry) write_completion(params, position + entry, now, entries[entry]);
    // That it is our turn was released by whoever had it before. The load that brought it, with the claim or here, and
    // the fence behind acquire it, so the store of the tail comes after all slots before it, ours and others'.
    const bool is_next = claim.published == claim.first || wait_for(params, [&] {
        if (device_load_acquire(&state.completions_published) == claim.first) return true;
        idle();
        return false;
    });
    if (!is_next) return;
    if (head != nullptr) system_store_dependent(head, taken);
    system_fence();
    system_store_fenced(&params.ring.completion_tail->words[0], position + count);
    device_store_release(&state.completions_published, claim.first + count);
    device_count(&state.jobs, u64(count));
}

// By one thread, once every chunk is over: how the job went is what its progress says.
MR_DEVICE void complete_job(const KernelParams& params, JobRecord& job) {
    const Claim claim = claim_completions(*params.state, 1, &job.progress);
    const Descriptor& descriptor = descriptor_of(job);
    const u32 status = status_of(claim.progress);
    CompletionEntry entry{job.ticket, job.opcode, status, clock_ns() - job.started_ns, BODY_EMPTY, 0, 0};
    if (status == STATUS_OK && job.result_used > 0) {
        entry.body = BODY_ARENA;
        entry.offset = descriptor.result_offset;
        entry.len = job.result_used;
    }
    complete(params, claim, &entry, 1, nullptr, 0, [] {});
}

}  // namespace megaring
