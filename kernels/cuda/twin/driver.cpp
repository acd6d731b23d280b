// The twin as a CUDA driver: what `libcuda.so.1` is to the host, with the device code of this project behind it. It
// answers as a Hopper GPU with two multiprocessors would, writes down who called what, and fails where a test wishes.
//
//   MEGARING_DRIVER_LOG    the file that gets a line for each call: its name, its flags, `!` where a kernel runs that
//                          it would wait for
//   MEGARING_DRIVER_FAIL   `NAME`, `NAME:NUMBER` or `NAME:NUMBER:CODE`: the call of that number, from 1, fails with the
//                          code; without a number each does, with CUDA_ERROR_NOT_SUPPORTED
//   MEGARING_DRIVER_QUEUE  `one`: what is on a stream waits for what is on the others
#include <cstdio>
#include <map>
#include <mutex>
#include <string>

#include "blocks.hpp"

using namespace megaring;

namespace {

constexpr int SUCCESS = 0, NOT_READY = 600, NOT_SUPPORTED = 801;
constexpr u32 MULTIPROCESSORS = 2;
constexpr std::size_t MEMORY = std::size_t(2) << 30;

struct Driver {
    std::mutex mutex;
    std::map<std::string, u32> calls;
    std::unique_ptr<twin::Grid> grid;
    u64 launches = 0;
    bool capturing = false;
    KernelParams captured{};
    u32 captured_blocks = 0;

    bool runs() const { return grid != nullptr && grid->running(); }
};
Driver& driver() {
    static Driver* all = new Driver;
    return *all;
}

// Writes a call down, and says what it must fail with. `waits` for those that would wait for a kernel.
int call(const char* name, bool waits = false, long flags = -1) {
    Driver& it = driver();
    const std::lock_guard lock(it.mutex);
    const u32 number = ++it.calls[name];
    if (const char* file = std::getenv("MEGARING_DRIVER_LOG")) {
        if (std::FILE* log = std::fopen(file, "a")) {
            std::fprintf(log, "%s", name);
            if (flags >= 0) std::fprintf(log, " %ld", flags);
            std::fprintf(log, "%s\n", waits && it.runs() ? " !" : "");
            std::fclose(log);
        }
    }
    const char* wish = std::getenv("MEGARING_DRIVER_FAIL");
    if (wish == nullptr) return SUCCESS;
    const std::string text(wish);
    const std::size_t end = text.find(':');
    if (text.substr(0, end) != name) return SUCCESS;
    if (end == std::string::npos) return NOT_SUPPORTED;
    const std::size_t next = text.find(':', end + 1);
    const bool is_it = std::stoul(text.substr(end + 1)) == number;
    if (!is_it) return SUCCESS;
    return next == std::string::npos ? NOT_SUPPORTED : std::stoi(text.substr(next + 1));
}

int launch(const KernelParams& params, u32 blocks) {
    Driver& it = driver();
    const std::lock_guard lock(it.mutex);
    it.grid = std::make_unique<twin::Grid>(params, blocks, ++it.launches);
    return SUCCESS;
}

// Something to point to.
void* handle() {
    static int something;
    return &something;
}

}  // namespace

#define RETURN_IF_WISHED(...) \
    if (const int wished = call(__VA_ARGS__)) return wished

extern "C" {

int cuDriverGetVersion(int* version) {
    RETURN_IF_WISHED("cuDriverGetVersion");
    *version = 13'000;
    return SUCCESS;
}
int cuInit(unsigned flags) { return call("cuInit", false, flags); }
int cuDeviceGetCount(int* count) {
    RETURN_IF_WISHED("cuDeviceGetCount");
    *count = 1;
    return SUCCESS;
}
int cuDeviceGet(int* device, int) {
    RETURN_IF_WISHED("cuDeviceGet");
    *device = 0;
    return SUCCESS;
}
int cuDeviceGetName(char* name, int len, int) {
    RETURN_IF_WISHED("cuDeviceGetName");
    std::snprintf(name, static_cast<std::size_t>(len), "the twin as a driver");
    return SUCCESS;
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
    RETURN_IF_WISHED("cuDeviceGetAttribute");
    switch (attribute) {
        case 75: *value = 9; break;                     // compute capability, major
        case 76: *value = 0; break;                     // minor
        case 16: *value = MULTIPROCESSORS; break;
        case 97: *value = 227 << 10; break;             // shared memory of a block
        case 95: case 19: *value = 1; break;            // cooperative launches, mapped host memory
        default: *value = 0;
    }
    return SUCCESS;
}
int cuDeviceGetPCIBusId(char* text, int len, int) {
    RETURN_IF_WISHED("cuDeviceGetPCIBusId");
    std::snprintf(text, static_cast<std::size_t>(len), "0000:ff:1f.7");
    return SUCCESS;
}
int cuDeviceTotalMem_v2(std::size_t* bytes, int) {
    RETURN_IF_WISHED("cuDeviceTotalMem_v2");
    *bytes = MEMORY;
    return SUCCESS;
}
int cuDevicePrimaryCtxRetain(void** context, int) {
    RETURN_IF_WISHED("cuDevicePrimaryCtxRetain");
    *context = handle();
    return SUCCESS;
}
int cuDevicePrimaryCtxRelease_v2(int) { return call("cuDevicePrimaryCtxRelease_v2", true); }
int cuCtxSetCurrent(void*) { return call("cuCtxSetCurrent"); }
int cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
    RETURN_IF_WISHED("cuMemGetInfo_v2");
    *free = *total = MEMORY;
    return SUCCESS;
}
int cuMemAlloc_v2(u64* at, std::size_t bytes) {
    RETURN_IF_WISHED("cuMemAlloc_v2", true);
    *at = reinterpret_cast<u64>(std::aligned_alloc(256, (bytes + 255) / 256 * 256));
    return *at == 0 ? 2 : SUCCESS;
}
int cuMemFree_v2(u64 at) {
    RETURN_IF_WISHED("cuMemFree_v2", true);
    std::free(reinterpret_cast<void*>(at));
    return SUCCESS;
}
int cuMemsetD8Async(u64 at, unsigned char value, std::size_t bytes, void*) {
    RETURN_IF_WISHED("cuMemsetD8Async");
    if (!driver().capturing) std::memset(reinterpret_cast<void*>(at), value, bytes);
    return SUCCESS;
}
int cuMemcpyHtoDAsync_v2(u64 to, const void* from, std::size_t bytes, void*) {
    RETURN_IF_WISHED("cuMemcpyHtoDAsync_v2");
    std::memcpy(reinterpret_cast<void*>(to), from, bytes);
    return SUCCESS;
}
int cuMemHostAlloc(void** at, std::size_t bytes, unsigned flags) {
    RETURN_IF_WISHED("cuMemHostAlloc", true, flags);
    *at = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    return *at == nullptr ? 2 : SUCCESS;
}
int cuMemFreeHost(void* at) {
    RETURN_IF_WISHED("cuMemFreeHost", true);
    std::free(at);
    return SUCCESS;
}
int cuMemHostGetDevicePointer_v2(u64* at, void* host, unsigned) {
    RETURN_IF_WISHED("cuMemHostGetDevicePointer_v2");
    *at = reinterpret_cast<u64>(host);
    return SUCCESS;
}
int cuStreamCreate(void** stream, unsigned flags) {
    RETURN_IF_WISHED("cuStreamCreate", true, flags);
    // The first is the kernel's.
    static char streams[64];
    static std::atomic<u32> made{0};
    *stream = streams + made.fetch_add(1) % 64;
    return SUCCESS;
}
int cuStreamDestroy_v2(void*) { return call("cuStreamDestroy_v2", true); }
int cuStreamQuery(void*) {
    RETURN_IF_WISHED("cuStreamQuery");
    const std::lock_guard lock(driver().mutex);
    return driver().runs() ? NOT_READY : SUCCESS;
}
// Copies are over when they are asked for; a caller that waits for the kernel has told it to end.
int cuStreamSynchronize(void*) {
    RETURN_IF_WISHED("cuStreamSynchronize");
    const char* queue = std::getenv("MEGARING_DRIVER_QUEUE");
    if (queue == nullptr || std::string(queue) != "one") return SUCCESS;
    for (;;) {
        {
            const std::lock_guard lock(driver().mutex);
            if (!driver().runs()) return SUCCESS;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}
int cuStreamBeginCapture_v2(void*, int mode) {
    RETURN_IF_WISHED("cuStreamBeginCapture_v2", false, mode);
    driver().capturing = true;
    return SUCCESS;
}
int cuStreamEndCapture(void*, void** graph) {
    driver().capturing = false;
    RETURN_IF_WISHED("cuStreamEndCapture");
    *graph = handle();
    return SUCCESS;
}
int cuEventCreate(void** event, unsigned flags) {
    RETURN_IF_WISHED("cuEventCreate", true, flags);
    *event = handle();
    return SUCCESS;
}
int cuEventDestroy_v2(void*) { return call("cuEventDestroy_v2", true); }
int cuEventRecord(void*, void*) { return call("cuEventRecord"); }
int cuEventSynchronize(void*) { return call("cuEventSynchronize"); }
int cuModuleLoadData(void** module, const void*) {
    RETURN_IF_WISHED("cuModuleLoadData", true);
    *module = handle();
    return SUCCESS;
}
int cuModuleUnload(void*) { return call("cuModuleUnload", true); }
int cuModuleGetFunction(void** function, void*, const char*) {
    RETURN_IF_WISHED("cuModuleGetFunction", true);
    *function = handle();
    return SUCCESS;
}
int cuFuncLoad(void*) { return call("cuFuncLoad", true); }
int cuFuncGetAttribute(int* value, int, void*) {
    RETURN_IF_WISHED("cuFuncGetAttribute");
    *value = 0;
    return SUCCESS;
}
int cuFuncSetAttribute(void*, int, int) { return call("cuFuncSetAttribute", true); }
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void*, int, std::size_t) {
    RETURN_IF_WISHED("cuOccupancyMaxActiveBlocksPerMultiprocessor");
    *blocks = 1;
    return SUCCESS;
}
int cuLaunchCooperativeKernel(void*, unsigned blocks, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*,
                              void** arguments) {
    RETURN_IF_WISHED("cuLaunchCooperativeKernel", true);
    const KernelParams& params = *static_cast<const KernelParams*>(arguments[0]);
    if (!driver().capturing) return launch(params, blocks);
    driver().captured = params, driver().captured_blocks = blocks;
    return SUCCESS;
}
int cuGraphInstantiateWithFlags(void** exec, void*, unsigned long long flags) {
    RETURN_IF_WISHED("cuGraphInstantiateWithFlags", true, static_cast<long>(flags));
    *exec = handle();
    return SUCCESS;
}
int cuGraphDestroy(void*) { return call("cuGraphDestroy"); }
int cuGraphUpload(void*, void*) { return call("cuGraphUpload", true); }
int cuGraphLaunch(void*, void*) {
    RETURN_IF_WISHED("cuGraphLaunch", true);
    std::memset(static_cast<void*>(driver().captured.state), 0, sizeof(DeviceState));
    return launch(driver().captured, driver().captured_blocks);
}
int cuGraphExecDestroy(void*) { return call("cuGraphExecDestroy", true); }
int cuGetErrorName(int code, const char** name) {
    *name = code == NOT_SUPPORTED ? "CUDA_ERROR_NOT_SUPPORTED" : nullptr;
    return *name == nullptr ? 1 : SUCCESS;
}
int cuGetErrorString(int code, const char** text) {
    *text = code == NOT_SUPPORTED ? "operation not supported" : nullptr;
    return *text == nullptr ? 1 : SUCCESS;
}

}
