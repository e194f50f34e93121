/*
 * emulator.cpp - CUDA on one CPU thread, for specs.
 *
 * A block's threads are fibers that run until they meet at a barrier, and at times let others of the
 * warp go first before an atomic operation. Which warp goes on, and in which order its lanes do, is
 * drawn anew each time (from a fixed seed), so that results which depend on an order differ sooner or
 * later. Device memory ends at a page that cannot be touched and begins
 * with rubbish; shared memory is rubbish at the start of every block. There is as much of it as a spec
 * wants, see emulated_memory_for.
 */
#include "cuda_runtime_api.h"

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

enum {
    WARP = 32,
    MOST_THREADS = 1024,
    STACK = 64 << 10,
    PAGE = 4096,
    RUBBISH = 0xa5,
    PROCESSORS = 2,
    SHARED = 16 << 10, /* few lines for a sketch's block: slots without a line are common */
};
static const size_t DEVICE_MEMORY = (size_t)4 << 30;

alignas(256) uint64_t block_memory[SHARED / 8 + PAGE / 8];
dim3 threadIdx, blockIdx, blockDim, gridDim;

/* -- fibers ----------------------------------------------------------------------------------- */

struct fiber {
    jmp_buf at;
    ucontext_t start;
    enum { FREE, READY, AT_WARP, AT_BLOCK } state;
    emulated_barrier barrier;
    unsigned meetings;
};

struct warp_values {
    uint64_t all[2][WARP]; /* two: lanes may reach the next meeting before others have read */
};

static fiber fibers[MOST_THREADS];
static warp_values values[MOST_THREADS / WARP];
static bool any_arriving, any_arrived; /* at a barrier of the block that gathers, and that opened */
static unsigned running;
static jmp_buf scheduler;
static unsigned fibers_made;
static int kernels_started;
static void (*body)(void *);
static void *body_what;

[[noreturn]] static void wrong(const char *what)
{
    std::fprintf(stderr, "emulated CUDA, block %u, thread %u: %s\n", blockIdx.x, running, what);
    std::abort();
}

void emulated_access(const void *at, size_t bytes)
{
    if (reinterpret_cast<uintptr_t>(at) % bytes != 0) {
        wrong("memory is accessed at an address that is not aligned");
    }
}

static void yield_as(int state)
{
    fiber &self = fibers[running];
    self.state = static_cast<decltype(self.state)>(state);
    if (_setjmp(self.at) == 0) {
        _longjmp(scheduler, 1);
    }
}

static void live()
{
    for (;;) {
        yield_as(fiber::FREE);
        body(body_what);
    }
}

static void go_on(unsigned thread)
{
    running = thread;
    threadIdx = dim3(thread);
    threadIdx.y = threadIdx.z = 0;
    if (_setjmp(scheduler) == 0) {
        _longjmp(fibers[thread].at, 1);
    }
}

/* Made once; waits in live() until it is given a kernel. */
static void make_fiber(unsigned thread)
{
    static ucontext_t back;
    ucontext_t &start = fibers[thread].start;
    getcontext(&start);
    start.uc_stack.ss_sp = std::malloc(STACK);
    start.uc_stack.ss_size = STACK;
    makecontext(&start, live, 0);
    running = thread;
    if (_setjmp(scheduler) == 0) {
        swapcontext(&back, &start);
    }
}

const uint64_t *emulated_meet(emulated_barrier what, uint64_t value)
{
    fiber &self = fibers[running];
    uint64_t *all = values[running / WARP].all[self.meetings++ % 2];
    all[running % WARP] = value;
    self.barrier = what;
    yield_as(fiber::AT_WARP);
    return all;
}

bool emulated_meet_block(bool value)
{
    any_arriving |= value;
    fibers[running].barrier = EMULATED_BLOCK;
    yield_as(fiber::AT_BLOCK);
    return any_arrived;
}

static unsigned draw(unsigned n)
{
    static uint64_t state = 20190127;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<unsigned>((state >> 33) % n);
}

void emulated_let_others()
{
    if (draw(4) == 0) {
        yield_as(fiber::READY);
    }
}

/* Lets each lane run to its next barrier, then opens that of the warp. True at one of the block. */
static bool run_warp(unsigned warp)
{
    fiber *lanes = fibers + warp * WARP;
    for (unsigned lane = 0; lane < WARP; lane++) {
        lanes[lane].state = fiber::READY;
    }
    for (unsigned i = draw(WARP), left = WARP; left > 0; i++) {
        if (lanes[i % WARP].state == fiber::READY) {
            go_on(warp * WARP + i % WARP);
            left -= lanes[i % WARP].state != fiber::READY;
        }
    }
    for (unsigned lane = 1; lane < WARP; lane++) {
        if (lanes[lane].state != lanes[0].state ||
            (lanes[0].state == fiber::AT_WARP && lanes[lane].barrier != lanes[0].barrier)) {
            wrong("lanes of a warp meet at different barriers");
        }
    }
    return lanes[0].state != fiber::AT_WARP;
}

static void run_block(unsigned threads)
{
    std::vector<unsigned> active(threads / WARP), waiting;
    for (unsigned i = 0; i < active.size(); i++) {
        active[i] = i;
    }
    std::memset(block_memory, RUBBISH, SHARED);
    while (!active.empty()) {
        unsigned at = draw(static_cast<unsigned>(active.size())), warp = active[at];
        if (run_warp(warp)) {
            active[at] = active.back();
            active.pop_back();
            if (fibers[warp * WARP].state == fiber::AT_BLOCK) {
                waiting.push_back(warp);
            } else if (!waiting.empty()) {
                wrong("a warp has ended, others wait at a barrier of the block");
            }
        }
        if (active.empty() && !waiting.empty()) {
            if (waiting.size() != threads / WARP) {
                wrong("not all warps come to a barrier of the block");
            }
            active.swap(waiting);
            any_arrived = any_arriving;
            any_arriving = false;
        }
    }
}

cudaError_t emulated_launch(void (*kernel)(void *), void *what, unsigned blocks, unsigned threads,
                            size_t shared)
{
    if (blocks == 0 || threads == 0 || threads > MOST_THREADS || threads % WARP || shared > SHARED) {
        return cudaErrorInvalidValue;
    }
    for (; fibers_made < threads; fibers_made++) {
        make_fiber(fibers_made);
    }
    kernels_started++;
    body = kernel;
    body_what = what;
    blockDim = dim3(threads);
    gridDim = dim3(blocks);
    for (unsigned block = 0; block < blocks; block++) {
        blockIdx = dim3(block);
        run_block(threads);
        for (size_t i = SHARED / 8; i < sizeof block_memory / 8; i++) {
            if (block_memory[i] != 0) {
                wrong("shared memory was written beyond its end");
            }
        }
    }
    return cudaSuccess;
}

/* -- the runtime ------------------------------------------------------------------------------ */

struct emulated_event {
    double time;
};
static std::map<uintptr_t, size_t> device_memory, pinned_memory; /* begin -> bytes */
static size_t device_bytes;
static int pieces_left = -1;
static cudaError_t last_error;

/* There is memory, on the device and pinned, for so many more pieces; below 0: always. Returns how
 * many kernels were started since the last call. */
extern "C" __attribute__((visibility("default"))) int emulated_memory_for(int pieces)
{
    int started = kernels_started;
    pieces_left = pieces;
    kernels_started = 0;
    return started;
}

static int waits;

/* How often the host waited for the device since the last call. */
extern "C" __attribute__((visibility("default"))) int emulated_waits(void)
{
    int since = waits;
    waits = 0;
    return since;
}

static bool is_full()
{
    if (pieces_left > 0) {
        pieces_left--;
        return false;
    }
    return pieces_left == 0;
}

static cudaError_t say(cudaError_t error)
{
    last_error = error;
    return error;
}

/* The piece of memory that holds an address, or NULL. */
static const std::pair<const uintptr_t, size_t> *find(const std::map<uintptr_t, size_t> &memory,
                                                      const void *address)
{
    auto after = memory.upper_bound(reinterpret_cast<uintptr_t>(address));
    if (after == memory.begin()) {
        return nullptr;
    }
    --after;
    return reinterpret_cast<uintptr_t>(address) - after->first < after->second ? &*after : nullptr;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

const char *cudaGetErrorString(cudaError_t error)
{
    return error == cudaErrorMemoryAllocation ? "out of memory" : "invalid argument";
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int)
{
    std::snprintf(properties->name, sizeof properties->name, "emulated");
    properties->multiProcessorCount = PROCESSORS;
    properties->sharedMemPerBlockOptin = SHARED;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    return device == 0 ? cudaSuccess : say(cudaErrorInvalidValue);
}

/* Whole pages, the last of which cannot be touched; the memory ends where that one begins. */
cudaError_t cudaMalloc(void **out, size_t bytes)
{
    size_t room = (bytes + 255) / 256 * 256, pages = (room + PAGE - 1) / PAGE * PAGE;
    if (room < bytes || device_bytes + room > DEVICE_MEMORY || is_full()) {
        return say(cudaErrorMemoryAllocation);
    }
    char *all = static_cast<char *>(mmap(NULL, pages + PAGE, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (all == MAP_FAILED || mprotect(all + pages, PAGE, PROT_NONE) != 0) {
        return say(cudaErrorMemoryAllocation);
    }
    *out = all + pages - room;
    std::memset(*out, RUBBISH, room < (size_t)1 << 20 ? room : (size_t)1 << 20);
    device_memory[reinterpret_cast<uintptr_t>(*out)] = room;
    device_bytes += room;
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    auto found = device_memory.find(reinterpret_cast<uintptr_t>(memory));
    if (!memory) {
        return cudaSuccess;
    }
    if (found == device_memory.end()) {
        return say(cudaErrorInvalidValue);
    }
    size_t room = found->second, pages = (room + PAGE - 1) / PAGE * PAGE;
    munmap(static_cast<char *>(memory) + room - pages, pages + PAGE);
    device_bytes -= room;
    device_memory.erase(found);
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned)
{
    *out = is_full() ? nullptr : std::malloc(bytes);
    if (!*out) {
        return say(cudaErrorMemoryAllocation);
    }
    pinned_memory[reinterpret_cast<uintptr_t>(*out)] = bytes;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *memory)
{
    pinned_memory.erase(reinterpret_cast<uintptr_t>(memory));
    std::free(memory);
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *out, const void *memory)
{
    out->type = find(device_memory, memory)   ? cudaMemoryTypeDevice
                : find(pinned_memory, memory) ? cudaMemoryTypeHost
                                              : cudaMemoryTypeUnregistered;
    out->device = 0;
    return cudaSuccess;
}

/* What the kind says of a place must be so. */
static bool fits(const void *place, bool device, cudaMemcpyKind kind)
{
    return kind == cudaMemcpyDefault || (find(device_memory, place) != nullptr) == device;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    bool up = kind == cudaMemcpyHostToDevice, down = kind == cudaMemcpyDeviceToHost;
    if (bytes && (!fits(to, up, kind) || !fits(from, down, kind))) {
        return say(cudaErrorInvalidValue);
    }
    std::memcpy(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t)
{
    return cudaMemcpy(to, from, bytes, kind);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t)
{
    if (bytes && !find(device_memory, to)) {
        return say(cudaErrorInvalidValue);
    }
    std::memset(to, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned)
{
    *out = nullptr;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t)
{
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    waits++;
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned)
{
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *out)
{
    *out = new emulated_event{0};
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned)
{
    return cudaEventCreate(out);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t)
{
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    event->time = (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t)
{
    waits++;
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to)
{
    *milliseconds = (float)(to->time - from->time);
    return from->time > 0 && to->time > 0 ? cudaSuccess : say(cudaErrorInvalidValue);
}

cudaError_t cudaFuncSetAttribute(const void *, cudaFuncAttribute, int value)
{
    return value <= SHARED ? cudaSuccess : say(cudaErrorInvalidValue);
}
