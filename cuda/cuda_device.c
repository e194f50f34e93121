/* cuda_device.c - the CUDA backend: its device, memory and clock, and what CUDA's errors mean. */
#include "cuda_state.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cuda_status(const cuda_state *cuda, cudaError_t error, const char *what)
{
    cudaGetLastError(); /* an error that is told must not come up again with the next call */
    if (error == cudaErrorMemoryAllocation) {
        return ghm_fail(GHM_E_MEMORY, "cuda:%d, %s: out of memory", cuda->index, what);
    }
    return ghm_fail(GHM_E_DEVICE, "cuda:%d, %s: %s", cuda->index, what, cudaGetErrorString(error));
}

/* -- memory ----------------------------------------------------------------------------------- */

static void release(cuda_buffer *buffer, bool pinned)
{
    if (buffer->at && pinned) {
        cudaFreeHost(buffer->at);
    } else if (buffer->at) {
        cudaFree(buffer->at);
    }
    *buffer = (cuda_buffer){0};
}

int cuda_reserve(cuda_state *cuda, cuda_buffer *buffer, size_t bytes, bool pinned)
{
    if (buffer->bytes >= bytes) {
        return GHM_OK;
    }
    release(buffer, pinned); /* first, so that both need not fit */
    CUDA_TRY(cuda, pinned ? "memory for copies" : "memory for a pass",
             pinned ? cudaHostAlloc(&buffer->at, bytes, cudaHostAllocDefault)
                    : cudaMalloc(&buffer->at, bytes));
    buffer->bytes = bytes;
    return GHM_OK;
}

static int memory_new(void *state, size_t bytes, void **out)
{
    cuda_state *cuda = state;
    CUDA_TRY(cuda, "choosing the device", cudaSetDevice(cuda->index));
    cudaError_t error = cudaMalloc(out, bytes ? bytes : 1);
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return ghm_fail(GHM_E_MEMORY, "cuda:%d has no memory for an array of %zu bytes",
                        cuda->index, bytes);
    }
    return error == cudaSuccess ? GHM_OK : cuda_status(cuda, error, "memory for an array");
}

static void memory_free(void *state, void *at)
{
    cuda_state *cuda = state;
    if (cudaSetDevice(cuda->index) == cudaSuccess) {
        cudaFree(at); /* waits for the kernels that use it */
    }
}

static int memory_copy(void *state, void *to, const void *from, size_t bytes)
{
    cuda_state *cuda = state;
    CUDA_TRY(cuda, "choosing the device", cudaSetDevice(cuda->index));
    CUDA_TRY(cuda, "copying an array", cudaEventRecord(cuda->began, cuda->work));
    CUDA_TRY(cuda, "copying an array",
             cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, cuda->work));
    CUDA_TRY(cuda, "copying an array", cudaEventRecord(cuda->ended, cuda->work));
    CUDA_TRY(cuda, "copying an array", cudaStreamSynchronize(cuda->work));
    return GHM_OK;
}

/* -- passes ----------------------------------------------------------------------------------- */

int cuda_begin(cuda_state *cuda)
{
    CUDA_TRY(cuda, "choosing the device", cudaSetDevice(cuda->index));
    CUDA_TRY(cuda, "the pass", cudaEventRecord(cuda->began, cuda->work));
    CUDA_TRY(cuda, "the pass", cudaMemsetAsync(cuda->totals, 0, sizeof *cuda->totals, cuda->work));
    return GHM_OK;
}

int cuda_end(cuda_state *cuda)
{
    CUDA_TRY(cuda, "the pass",
             cudaMemcpyAsync(&cuda->report->totals, cuda->totals, sizeof *cuda->totals,
                             cudaMemcpyDeviceToHost, cuda->work));
    CUDA_TRY(cuda, "the pass", cudaEventRecord(cuda->ended, cuda->work));
    CUDA_TRY(cuda, "the pass", cudaStreamSynchronize(cuda->work));
    return GHM_OK;
}

void cuda_drop(cuda_state *cuda)
{
    cudaStreamSynchronize(cuda->up);
    cudaStreamSynchronize(cuda->work);
    cudaStreamSynchronize(cuda->down);
    cudaGetLastError();
}

/* See job_totals: firsts are stored as complements, 0 where there is none. */
static int64_t first_position(uint64_t stored)
{
    return stored ? (int64_t)~stored : -1;
}

void cuda_facts(const cuda_state *cuda, ghm_facts *facts)
{
    const job_totals *totals = &cuda->report->totals;
    facts->valid = (int64_t)totals->valid;
    facts->positive = (int64_t)totals->positive;
    facts->nonfinite = (int64_t)totals->nonfinite;
    facts->soft = (int64_t)totals->soft;
    facts->bad_labels = (int64_t)totals->bad_labels;
    facts->first_nonfinite = first_position(totals->first_nonfinite);
    facts->first_soft = first_position(totals->first_soft);
    facts->first_bad_label = first_position(totals->first_bad_label);
}

uint32_t cuda_blocks(const cuda_state *cuda, uint32_t samples, uint32_t per_block, uint32_t most)
{
    uint32_t needed = samples / per_block + (samples % per_block != 0);
    uint32_t limit = cuda->processors * most;
    return needed < limit ? needed : limit;
}

/* -- opening ---------------------------------------------------------------------------------- */

static void close_device(void *state)
{
    cuda_state *cuda = state;
    if (cudaSetDevice(cuda->index) == cudaSuccess) {
        cuda_drop(cuda);
        for (int i = 0; i < CUDA_SLOTS; i++) {
            release(&cuda->slots[i].pinned, true);
            release(&cuda->slots[i].device, false);
            cudaEventDestroy(cuda->slots[i].arrived);
            cudaEventDestroy(cuda->slots[i].done);
            cudaEventDestroy(cuda->slots[i].returned);
        }
        cuda_buffer *buffers[] = {&cuda->table, &cuda->split,        &cuda->norms, &cuda->chunks,
                                  &cuda->sums,  &cuda->coefficients, &cuda->ranks};
        for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) {
            release(buffers[i], false);
        }
        release(&cuda->cells, true);
        cudaFree(cuda->totals);
        cudaFreeHost(cuda->report);
        cudaStreamDestroy(cuda->up);
        cudaStreamDestroy(cuda->work);
        cudaStreamDestroy(cuda->down);
        cudaEventDestroy(cuda->began);
        cudaEventDestroy(cuda->ended);
        cudaGetLastError();
    }
    ghm_edges_release(cuda->edges);
    free(cuda);
}

/* As many lines as a block may have shared memory for, a power of two. */
static uint32_t most_lines(size_t shared)
{
    uint32_t lines = 64;
    while (job_sketch_shared(2 * lines) <= shared) {
        lines *= 2;
    }
    return lines;
}

static int set_up(cuda_state *cuda, const struct cudaDeviceProp *properties)
{
    const char *what = "opening the device";
    cuda->processors = (uint32_t)properties->multiProcessorCount;
    cuda->lines = most_lines(properties->sharedMemPerBlockOptin);
    cudaStream_t *streams[] = {&cuda->up, &cuda->work, &cuda->down};
    for (int i = 0; i < 3; i++) {
        CUDA_TRY(cuda, what, cudaStreamCreateWithFlags(streams[i], cudaStreamNonBlocking));
    }
    for (int i = 0; i < CUDA_SLOTS; i++) {
        cudaEvent_t *events[] = {&cuda->slots[i].arrived, &cuda->slots[i].done,
                                 &cuda->slots[i].returned};
        for (int k = 0; k < 3; k++) {
            CUDA_TRY(cuda, what, cudaEventCreateWithFlags(events[k], cudaEventDisableTiming));
        }
    }
    CUDA_TRY(cuda, what, cudaEventCreate(&cuda->began));
    CUDA_TRY(cuda, what, cudaEventCreate(&cuda->ended));
    CUDA_TRY(cuda, what, cudaMalloc((void **)&cuda->totals, sizeof *cuda->totals));
    CUDA_TRY(cuda, what,
             cudaHostAlloc((void **)&cuda->report, sizeof *cuda->report, cudaHostAllocDefault));
    CUDA_TRY(cuda, what, job_sketch_prepare(job_sketch_shared(cuda->lines)));
    return GHM_OK;
}

/* Why there is no device, in a person's words. */
static int no_device(cudaError_t error, int count, int index)
{
    cudaGetLastError();
    if (error == cudaErrorInsufficientDriver) {
        int driver = 0;
        cudaDriverGetVersion(&driver);
        if (driver == 0) {
            return ghm_fail(GHM_E_DEVICE, "cuda:%d: this machine has no NVIDIA driver", index);
        }
        return ghm_fail(GHM_E_DEVICE,
                        "cuda:%d: the NVIDIA driver knows CUDA %d.%d, expected %d.%d or newer",
                        index, driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000,
                        CUDART_VERSION % 1000 / 10);
    }
    if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0)) {
        return ghm_fail(GHM_E_DEVICE, "cuda:%d: the driver finds no GPU", index);
    }
    if (error != cudaSuccess) {
        return ghm_fail(GHM_E_DEVICE, "cuda:%d: %s", index, cudaGetErrorString(error));
    }
    return ghm_fail(GHM_E_DEVICE, "cuda:%d: there are %d devices, counted from 0", index, count);
}

static int open_device(int index, int32_t *threads, void **state, char *name, size_t name_size)
{
    int count = 0, driver = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || index >= count) {
        return no_device(error, count, index);
    }
    cuda_state *cuda = calloc(1, sizeof *cuda);
    if (!cuda) {
        return ghm_fail(GHM_E_MEMORY, "no memory for a device");
    }
    struct cudaDeviceProp properties;
    cuda->index = index;
    cuda->threads = *threads = *threads > 0 ? *threads : omp_get_num_procs();
    error = cudaSetDevice(index);
    error = error == cudaSuccess ? cudaGetDeviceProperties(&properties, index) : error;
    int status = error == cudaSuccess ? set_up(cuda, &properties)
                                      : cuda_status(cuda, error, "opening the device");
    if (status != GHM_OK) {
        close_device(cuda);
        return status;
    }
    cudaDriverGetVersion(&driver);
    snprintf(name, name_size, "cuda:%d %s, driver for CUDA %d.%d, %d thread%s", index,
             properties.name, driver / 1000, driver % 1000 / 10, *threads,
             *threads == 1 ? "" : "s");
    *state = cuda;
    return GHM_OK;
}

static int elapsed(void *state, double *seconds)
{
    cuda_state *cuda = state;
    float milliseconds = 0;
    CUDA_TRY(cuda, "the time of the last pass",
             cudaEventElapsedTime(&milliseconds, cuda->began, cuda->ended));
    *seconds = (double)milliseconds / 1000;
    return GHM_OK;
}

const ghm_backend ghm_cuda_backend = {
    .name = "cuda",
    .open = open_device,
    .close = close_device,
    .sketch = cuda_sketch,
    .gradient = cuda_gradient,
    .exact = cuda_exact,
    .synth = cuda_synth,
    .memory_new = memory_new,
    .memory_free = memory_free,
    .memory_copy = memory_copy,
    .elapsed = elapsed,
};
