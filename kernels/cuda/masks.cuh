#pragma once
#include "job.cuh"
namespace megaring {
MR_DEVICE void run_masks(const KernelParams&, JobRecord&, Phase, u32) {}
MR_DEVICE Status plan_masks(const KernelParams&, JobRecord&) {return STATUS_UNKNOWN_OPCODE;} }
