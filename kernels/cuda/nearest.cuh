#pragma once
#include "job.cuh"
namespace megaring {
MR_DEVICE void run_nearest(const KernelParams&, JobRecord&, Phase, u32) {}
MR_DEVICE Status plan_nearest(const KernelParams&, JobRecord&, const Corpus*) {return STATUS_UNKNOWN_OPCODE;} }
