// The entry point. One kernel for every mode (kernel.cuh); launched cooperatively, with one block for the dispatcher
// and the rest for work.
#include "kernel.cuh"

extern "C" __global__ void __launch_bounds__(megaring::THREADS, 1)
    megaring_kernel(const __grid_constant__ megaring::KernelParams params) {
    megaring::run_block(params);
}
