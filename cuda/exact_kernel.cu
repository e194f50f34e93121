/*
 * exact_kernel.cu - the exact density: keys, a radix sort (CUB), norms by rank, windows.
 *
 * Ignored samples get the largest key, which no finite sample has, and so stand behind all others.
 * Boxes are sorted by |pred - target| in double: float32 keys would leave those that round to the same
 * one in any order, and windows are looked for among ranks in the order of g.
 */
#include "facts.cuh"

#include <cub/device/device_radix_sort.cuh>

extern __shared__ uint64_t block_memory[];

static __device__ __forceinline__ void gather_sample(const job_exact &job, uint32_t i, float x,
                                                     float t, float w, tally &seen)
{
    if (i >= job.part.n) {
        return;
    }
    uint32_t position = static_cast<uint32_t>(job.part.begin) + i, bits = NOWHERE;
    if (inspect(job.part, i, x, t, w, seen)) {
        float key = t == 1 ? -x : x;
        bits = ghm_bits(key);
        bits = bits >> 31 ? ~bits : bits | SIGN;
    }
    if (job.part.task == GHM_REGRESSION) {
        double d = fabs(static_cast<double>(x) - static_cast<double>(t));
        job.residual[position] = bits == NOWHERE ? INFINITY : d;
    }
    job.keys[position] = bits;
    job.order[position] = position;
}

/* The first rank whose norm is at least `wanted`. */
static __device__ __forceinline__ uint32_t first_at_least(const job_exact &job, double wanted)
{
    uint32_t low = 0, high = job.n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (job.g[middle] < wanted) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The loss over the density of one rank. */
static __device__ __forceinline__ double share_of_loss(const job_exact &job, uint32_t rank)
{
    double low = job.g[rank] - job.eps / 2, high = job.g[rank] + job.eps / 2;
    uint32_t inside = first_at_least(job, high) - first_at_least(job, low);
    double length = (high < 1 ? high : 1) - (low > 0 ? low : 0);
    double density = inside / length;
    if (job.density) {
        job.density[job.order[rank]] = density;
    }
    return job.loss[rank] / density;
}

extern "C" {

__global__ void __launch_bounds__(JOB_THREADS, 4) ghm_exact_gather(const job_exact job)
{
    tally seen = no_tally();
    uint32_t group = blockDim.x * JOB_GROUP;
    for (uint32_t first = blockIdx.x * group; first < job.part.n; first += gridDim.x * group) {
        uint32_t i = first + threadIdx.x * JOB_GROUP;
        four_samples four = read_samples(job.part, i);
        check_labels(job.part, i, job.totals);
        for (int k = 0; k < JOB_GROUP; k++) {
            gather_sample(job, i + k, four.x[k], four.t[k], four.w[k], seen);
        }
    }
    add_tally(job.part, seen, job.totals);
}

__global__ void __launch_bounds__(JOB_THREADS, 4) ghm_exact_norms(const job_exact job)
{
    uint64_t step = static_cast<uint64_t>(gridDim.x) * blockDim.x;
    for (uint64_t i = blockIdx.x * blockDim.x + threadIdx.x; i < job.samples; i += step) {
        if (i >= job.n) {
            if (job.density) {
                job.density[job.order[i]] = NAN;
            }
        } else if (job.part.task == GHM_REGRESSION) {
            double d = job.g[i];
            job.g[i] = ghm_asl1_norm(d, job.mu);
            job.loss[i] = ghm_asl1(d, job.mu);
        } else {
            uint32_t bits = job.keys[i];
            ghm_sigmoid_softplus(ghm_float(bits >> 31 ? bits & ~SIGN : ~bits), &job.g[i],
                                 &job.loss[i]);
        }
    }
}

/* Each block sums a fixed share of ranks, threads and steps in a fixed order. */
__global__ void __launch_bounds__(JOB_THREADS, 4) ghm_exact_share(const job_exact job)
{
    double *sums = reinterpret_cast<double *>(block_memory), sum = 0;
    uint64_t step = static_cast<uint64_t>(gridDim.x) * blockDim.x;
    for (uint64_t i = blockIdx.x * blockDim.x + threadIdx.x; i < job.n; i += step) {
        sum += share_of_loss(job, static_cast<uint32_t>(i));
    }
    sums[threadIdx.x] = sum;
    for (uint32_t half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            sums[threadIdx.x] += sums[threadIdx.x + half];
        }
    }
    if (threadIdx.x == 0) {
        job.sums[blockIdx.x] = sums[0];
    }
}

cudaError_t job_exact_gather(const job_exact *job, uint32_t blocks, cudaStream_t stream)
{
    return start(ghm_exact_gather, *job, blocks, JOB_THREADS, 0, stream);
}

cudaError_t job_exact_sort(void *temporary, size_t *bytes, const job_exact *job,
                           uint32_t *sorted_keys, uint32_t *sorted_order, int64_t n,
                           cudaStream_t stream)
{
    const uint32_t *order = job->order, *keys = job->keys;
    const double *residual = job->residual;
    return job->part.task == GHM_REGRESSION
             ? cub::DeviceRadixSort::SortPairs(temporary, *bytes, residual, job->g, order,
                                               sorted_order, n, 0, 64, stream)
             : cub::DeviceRadixSort::SortPairs(temporary, *bytes, keys, sorted_keys, order,
                                               sorted_order, n, 0, 32, stream);
}

cudaError_t job_exact_windows(const job_exact *job, uint32_t blocks, cudaStream_t stream)
{
    cudaError_t status = start(ghm_exact_norms, *job, blocks, JOB_THREADS, 0, stream);
    return status != cudaSuccess || job->n == 0
             ? status
             : start(ghm_exact_share, *job, job_exact_sums(job->n), JOB_THREADS,
                     JOB_THREADS * sizeof(double), stream);
}
}
