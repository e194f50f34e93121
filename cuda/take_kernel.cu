/*
 * take_kernel.cu - the table of a sketch as a sorted list of cells: counted tile by tile, then moved.
 */
#include "samples.cuh"

#include <stddef.h>

enum { TAKE_SUMS = JOB_THREADS / JOB_WARP * sizeof(uint32_t) / sizeof(uint64_t) };

/* 16 bytes, which a thread writes at once: a slot and n, or offsets and squares. */
struct alignas(16) half_cell {
    uint64_t first, second;
};
static_assert(sizeof(ghm_cell) == 2 * sizeof(half_cell) && offsetof(ghm_cell, n) == 8 &&
                  offsetof(ghm_cell, squares) == 24,
              "a cell is two halves, the slot being the low word of the first");

extern __shared__ uint64_t block_memory[];

/* Which of a thread's slots are in use, as bits. */
static __device__ __forceinline__ uint32_t used_slots(const job_take &job, uint32_t first)
{
    uint32_t used = 0;
    for (uint32_t k = 0; k < JOB_TAKE; k++) {
        used |= first + k < job.slots && job.table[first + k].n ? 1u << k : 0;
    }
    return used;
}

/* The sum of a block's counts over the threads before this one, and over all. */
static __device__ __forceinline__ uint32_t sum_before(uint32_t count, uint32_t *all)
{
    uint32_t *sums = reinterpret_cast<uint32_t *>(block_memory), lane = lane_number(), before = 0;
    uint32_t in_warp = 0;
    for (uint32_t other = 0; other < JOB_WARP; other++) {
        uint32_t theirs = __shfl_sync(ALL_LANES, count, static_cast<int>(other));
        before += other < lane ? theirs : 0;
        in_warp += theirs;
    }
    __syncthreads(); /* the sums of the last tile were read */
    if (lane == 0) {
        sums[threadIdx.x / JOB_WARP] = in_warp;
    }
    __syncthreads();
    *all = 0;
    for (uint32_t warp = 0; warp < blockDim.x / JOB_WARP; warp++) {
        before += warp < threadIdx.x / JOB_WARP ? sums[warp] : 0;
        *all += sums[warp];
    }
    return before;
}

extern "C" {

__global__ void __launch_bounds__(JOB_THREADS, 4) ghm_count_cells(const job_take job)
{
    for (uint32_t tile = blockIdx.x; tile < job.tiles; tile += gridDim.x) {
        uint32_t all = 0, first = tile * JOB_TILE + threadIdx.x * JOB_TAKE;
        if (job.touched[tile]) {
            sum_before(static_cast<uint32_t>(__popc(used_slots(job, first))), &all);
        }
        if (threadIdx.x == 0) {
            job.counts[tile] = all;
        }
    }
}

/* Moves a tile's cells to their ranks. The list is in host memory, to which writes go one by one over
 * the bus unless neighbouring threads fill whole lines: so half a cell per thread, in order. */
static __device__ __forceinline__ void take_tile(const job_take &job, uint32_t tile, uint32_t base)
{
    uint16_t *taken = reinterpret_cast<uint16_t *>(block_memory + TAKE_SUMS); /* [JOB_TILE] */
    uint32_t all, first = threadIdx.x * JOB_TAKE, used = used_slots(job, tile * JOB_TILE + first);
    uint32_t rank = sum_before(static_cast<uint32_t>(__popc(used)), &all);
    uint32_t room = base < job.room ? job.room - base : 0, n = all < room ? all : room;
    for (uint32_t k = 0; k < JOB_TAKE; k++) {
        if (used >> k & 1) {
            taken[rank++] = static_cast<uint16_t>(first + k);
        }
    }
    __syncthreads();
    half_cell *out = reinterpret_cast<half_cell *>(job.out + base);
    for (uint32_t half = threadIdx.x; half < 2 * n; half += blockDim.x) {
        uint32_t slot = tile * JOB_TILE + taken[half / 2];
        const ghm_cell &cell = job.table[slot];
        out[half] = half % 2 ? half_cell{cell.offsets, cell.squares} : half_cell{slot, cell.n};
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) {
        job.table[tile * JOB_TILE + taken[i]] = {0, 0, 0, 0};
    }
    if (threadIdx.x == 0) {
        job.touched[tile] = all > n;
    }
}

__global__ void __launch_bounds__(JOB_THREADS, 4) ghm_take_cells(const job_take job)
{
    uint32_t base = 0, tile = 0;
    for (uint32_t mine = blockIdx.x; mine < job.tiles; mine += gridDim.x) {
        for (; tile < mine; tile++) {
            base += job.counts[tile]; /* the same for all threads: read from a cache */
        }
        if (job.counts[mine]) {
            take_tile(job, mine, base);
        }
        if (mine == job.tiles - 1 && threadIdx.x == 0) {
            *job.found = base + job.counts[mine];
        }
    }
}

cudaError_t job_take_start(const job_take *job, uint32_t blocks, cudaStream_t stream)
{
    size_t shared = TAKE_SUMS * sizeof(uint64_t) + JOB_TILE * sizeof(uint16_t);
    cudaError_t status = start(ghm_count_cells, *job, blocks, JOB_THREADS, shared, stream);
    return status != cudaSuccess ? status
                                 : start(ghm_take_cells, *job, blocks, JOB_THREADS, shared, stream);
}
}
