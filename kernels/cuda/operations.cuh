// From a slot's opcode to its operation: a switch for each thing that every operation has, made from operations.inc.
//
// What is not on the list is refused when it is planned; should it be run all the same, it fails.
#pragma once

#include "operations.inc"

namespace megaring {

// Whether the dispatcher answers it itself, without a plan.
MR_DEVICE bool is_answered_at_once(Opcode opcode) {
    switch (opcode) {
#define MEGARING_OPERATION(number, name) \
    case Opcode::name: return Operation<Opcode::name>::AT_ONCE;
#include "operations.inc"
        default: return false;
    }
}

MR_DEVICE Status plan_operation(const KernelParams& params, JobRecord& job, StreamPlace& stream) {
    switch (job.opcode) {
#define MEGARING_OPERATION(number, name) \
    case Opcode::name: return Operation<Opcode::name>::plan(params, job, stream);
#include "operations.inc"
        default: return STATUS_UNKNOWN_OPCODE;
    }
}

// Plans the job whose slot is in `job`; a status other than OK means that it is to be completed with that.
MR_DEVICE Status plan_job(const KernelParams& params, JobRecord& job, StreamPlace& stream) {
    const Descriptor& descriptor = descriptor_of(job);
    job.next = job.tile_done = 0;
    job.progress = 0;
    job.tiles = job.tile_chunks = job.asks_alone = 0;
    job.result_used = descriptor.result_len;
    if (is_past(*params.state, descriptor.deadline_ns)) return STATUS_DEADLINE_EXCEEDED;
    const Status status = plan_operation(params, job, stream);
    if (status == STATUS_OK && job.work_end == 0 && job.total > 1) {
        // The first chunk finds out whose the regions are, and no other may write to them before.
        job.asks_alone = job.prepare_end = job.work_end = 1;
        ++job.total;
    }
    return status;
}

// One chunk of a planned job, by all threads of a block.
MR_DEVICE void run_chunk(const KernelParams& params, JobRecord& job, Phase phase, u32 chunk) {
    switch (job.opcode) {
#define MEGARING_OPERATION(number, name) \
    case Opcode::name: return Operation<Opcode::name>::run(params, job, phase, chunk);
#include "operations.inc"
        default: return fail(job, STATUS_UNKNOWN_OPCODE);
    }
}

}  // namespace megaring
