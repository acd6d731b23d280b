// Nop: nothing, at once. It measures the path from the host's slot to its completion.
#pragma once

#include "plan.cuh"

namespace megaring {

template <>
struct Operation<Opcode::nop> {
    static constexpr bool AT_ONCE = true;

    static MR_DEVICE Status plan(const KernelParams&, JobRecord&, StreamPlace&) { return STATUS_UNKNOWN_OPCODE; }
    static MR_DEVICE void run(const KernelParams&, JobRecord& job, Phase, u32) { fail(job, STATUS_UNKNOWN_OPCODE); }
};

}  // namespace megaring
