#pragma once
#include "job.cuh"
namespace megaring {
MR_DEVICE void run_score(const KernelParams&, JobRecord&, Phase, u32) {}
MR_DEVICE Status plan_score(const KernelParams&, JobRecord&, const Corpus&) {return STATUS_UNKNOWN_OPCODE;} }
