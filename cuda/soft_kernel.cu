/*
 * soft_kernel.cu - soft targets: counts and sums of doubles per interval of g, bit for bit the CPU's.
 *
 * Sums of doubles depend on their order, and the CPU's is: samples of a chunk one after the other,
 * then chunks. So a warp takes a chunk. Its lanes work out 32 samples at once and add them to the
 * chunk's sums in turn, lanes of different intervals together. Chunks are folded in their order.
 */
#include "facts.cuh"

extern __shared__ uint64_t block_memory[];

static __device__ __forceinline__ uint32_t interval_of(const job_soft &job, double g)
{
    uint32_t low = 0, high = job.intervals - 1;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (job.norms[middle] <= g) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Adds 32 samples in the order of lanes: a lane waits for those before it in the same interval. */
static __device__ __forceinline__ void add_in_order(const job_soft &job, double *sums, bool used,
                                                    uint32_t interval, double bce, double g)
{
    uint32_t lane = lane_number(), turn = 0;
    for (uint32_t other = 0; other < JOB_WARP; other++) {
        uint32_t theirs = __shfl_sync(ALL_LANES, used ? interval : NOWHERE,
                                      static_cast<int>(other));
        turn += other < lane && theirs == interval;
    }
    for (uint32_t now = 0; __any_sync(ALL_LANES, used && turn >= now); now++) {
        if (used && turn == now) {
            sums[interval] += 1;
            sums[job.intervals + interval] += bce;
            sums[2 * static_cast<size_t>(job.intervals) + interval] += g;
        }
        __syncwarp();
    }
}

extern "C" {

__global__ void __launch_bounds__(JOB_THREADS, 4) ghm_soft_chunks(const job_soft job)
{
    block_units units;
    units.low = reinterpret_cast<uint32_t *>(block_memory);
    units.high = units.low + 256;
    clear_units(units);
    __syncthreads();
    uint32_t warp = (blockIdx.x * blockDim.x + threadIdx.x) / JOB_WARP;
    tally seen = no_tally();
    if (warp < job.n) {
        double *sums = job.chunks + static_cast<size_t>(warp) * 3 * job.intervals;
        for (uint32_t i = lane_number(); i < 3 * job.intervals; i += JOB_WARP) {
            sums[i] = 0;
        }
        __syncwarp();
        uint32_t begin = (job.first + warp) * JOB_CHUNK;
        for (uint32_t first = begin; first < begin + JOB_CHUNK && first < job.part.n;
             first += JOB_WARP) {
            uint32_t i = first + lane_number(), interval = 0;
            float x, t, w;
            read_sample(job.part, i, &x, &t, &w);
            bool used = inspect(job.part, i, x, t, w, seen);
            add_units(w, used, units);
            if (used && !(t >= 0 && t <= 1)) {
                count_soft(i, seen);
                used = false;
            }
            double bce = 0, g = 0;
            if (used) {
                bce = ghm_soft_bce(x, t);
                g = fabs(ghm_soft_slope(x, t));
                interval = interval_of(job, g);
            }
            add_in_order(job, sums, used, interval, bce, g);
        }
    }
    add_tally(job.part, seen, job.totals);
    __syncthreads();
    flush_units(units, job.totals);
}

/* Adds the chunks of a wave to the sums, each interval by one thread. */
__global__ void __launch_bounds__(JOB_THREADS, 4) ghm_soft_fold(const job_soft job)
{
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < 3 * job.intervals) {
        double sum = job.sums[i];
        for (uint32_t chunk = 0; chunk < job.n; chunk++) {
            sum += job.chunks[static_cast<size_t>(chunk) * 3 * job.intervals + i];
        }
        job.sums[i] = sum;
    }
}

cudaError_t job_soft_start(const job_soft *job, cudaStream_t stream)
{
    uint32_t warps = JOB_THREADS / JOB_WARP;
    cudaError_t status = start(ghm_soft_chunks, *job, (job->n + warps - 1) / warps, JOB_THREADS,
                               2 * 256 * sizeof(uint32_t), stream);
    return status != cudaSuccess
             ? status
             : start(ghm_soft_fold, *job, (3 * job->intervals + JOB_THREADS - 1) / JOB_THREADS,
                     JOB_THREADS, 0, stream);
}
}
