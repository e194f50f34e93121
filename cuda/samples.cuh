/*
 * samples.cuh - four samples of a part as float32, whatever they lie in: what every kernel reads.
 *
 * Dtypes and forms are the same for all threads of a launch, so they are branches that never
 * diverge; templates would multiply the kernels by thirty.
 */
#ifndef GHM_SAMPLES_CUH
#define GHM_SAMPLES_CUH

#include "jobs.h"

#define ALL_LANES 0xffffffffu
#define SIGN      0x80000000u
#define INFINITE  0x7f800000u

/* Starts a kernel whose one parameter is a job. */
template <typename job>
static cudaError_t start(void (*kernel)(job), const job &what, uint32_t blocks, uint32_t threads,
                         size_t shared, cudaStream_t stream)
{
    job copy = what;
    void *parameters[] = {&copy};
    return cudaLaunchKernel(kernel, dim3(blocks), dim3(threads), parameters, shared, stream);
}

struct four_samples {
    float x[JOB_GROUP], t[JOB_GROUP], w[JOB_GROUP];
};

static __device__ __forceinline__ uint32_t lane_number()
{
    return threadIdx.x % JOB_WARP;
}

static __device__ __forceinline__ void add64(uint64_t *to, uint64_t value)
{
    atomicAdd(reinterpret_cast<unsigned long long *>(to), static_cast<unsigned long long>(value));
}

static __device__ __forceinline__ void max64(uint64_t *to, uint64_t value)
{
    atomicMax(reinterpret_cast<unsigned long long *>(to), static_cast<unsigned long long>(value));
}

/* The sum over all lanes of a warp, in every lane. */
static __device__ __forceinline__ uint32_t warp_sum(uint32_t value)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    return __reduce_add_sync(ALL_LANES, value);
#else
    for (int apart = JOB_WARP / 2; apart > 0; apart /= 2) {
        value += __shfl_xor_sync(ALL_LANES, value, apart);
    }
    return value;
#endif
}

static __device__ __forceinline__ bool is_finite(float x)
{
    return (ghm_bits(x) & ~SIGN) < INFINITE;
}

static __device__ __forceinline__ float float_at(const void *from, int dtype, size_t i)
{
    switch (dtype) {
    case GHM_F16:
        return ghm_half(static_cast<const uint16_t *>(from)[i]);
    case GHM_BF16:
        return ghm_bfloat(static_cast<const uint16_t *>(from)[i]);
    case GHM_U8:
        return static_cast<const uint8_t *>(from)[i];
    default:
        return static_cast<const float *>(from)[i];
    }
}

/* Four entries from i on in one access; none is read twice, so they pass the caches by. */
static __device__ __forceinline__ void floats_at(const void *from, int dtype, size_t i,
                                                 float out[JOB_GROUP])
{
    if (dtype == GHM_F32) {
        uint4 word = __ldcs(reinterpret_cast<const uint4 *>(static_cast<const float *>(from) + i));
        out[0] = ghm_float(word.x);
        out[1] = ghm_float(word.y);
        out[2] = ghm_float(word.z);
        out[3] = ghm_float(word.w);
    } else if (dtype == GHM_U8) {
        const uint8_t *bytes = static_cast<const uint8_t *>(from) + i;
        uint32_t word = __ldcs(reinterpret_cast<const uint32_t *>(bytes));
        for (int k = 0; k < JOB_GROUP; k++) {
            out[k] = static_cast<float>(word >> 8 * k & 255);
        }
    } else {
        const uint16_t *halves = static_cast<const uint16_t *>(from) + i;
        uint2 word = __ldcs(reinterpret_cast<const uint2 *>(halves));
        for (int k = 0; k < JOB_GROUP; k++) {
            uint16_t half = static_cast<uint16_t>((k < 2 ? word.x : word.y) >> 16 * (k % 2));
            out[k] = dtype == GHM_F16 ? ghm_half(half) : ghm_bfloat(half);
        }
    }
}

static __device__ __forceinline__ int64_t label_at(const job_part &part, uint32_t row)
{
    switch (part.target_dtype) {
    case GHM_U8:
        return static_cast<const uint8_t *>(part.target)[row];
    case GHM_I32:
        return static_cast<const int32_t *>(part.target)[row];
    default:
        return static_cast<const int64_t *>(part.target)[row];
    }
}

/* Targets from labels, and weights that stand for a row, of samples from i on. */
static __device__ __forceinline__ void expand_rows(const job_part &part, uint32_t i, bool labels,
                                                   four_samples &out)
{
    uint32_t row = (part.col + i) / part.cols, col = (part.col + i) % part.cols;
    int64_t one_based = part.target_form == GHM_ONE_BASED;
    for (int k = 0; k < JOB_GROUP && i + k < part.n; k++) {
        if (labels) {
            out.t[k] = label_at(part, row) - one_based == col ? 1.0f : 0.0f;
        }
        if (part.weight && part.weight_per_row) {
            out.w[k] = float_at(part.weight, part.weight_dtype, row);
        }
        if (++col == part.cols) {
            col = 0;
            row++;
        }
    }
}

/* Samples i .. i + 3 of a part; those beyond its end have weight 0. */
static __device__ __forceinline__ four_samples read_samples(const job_part &part, uint32_t i)
{
    four_samples out;
    bool whole = i + JOB_GROUP <= part.n;
    if (whole & part.aligned & part.floats) { /* which is common, and needs no more than that */
        floats_at(part.pred, GHM_F32, i, out.x);
        floats_at(part.target, GHM_F32, i, out.t);
        floats_at(part.weight, GHM_F32, i, out.w);
        return out;
    }
    bool labels = part.target_form == GHM_ZERO_BASED || part.target_form == GHM_ONE_BASED;
    bool weights = part.weight && !part.weight_per_row;
    for (int k = 0; k < JOB_GROUP; k++) {
        out.x[k] = out.t[k] = 0;
        out.w[k] = i + k < part.n && !part.weight ? 1.0f : 0.0f;
    }
    if (whole && part.aligned) {
        floats_at(part.pred, part.pred_dtype, i, out.x);
        if (!labels) {
            floats_at(part.target, part.target_dtype, i, out.t);
        }
        if (weights) {
            floats_at(part.weight, part.weight_dtype, i, out.w);
        }
    } else {
        for (int k = 0; k < JOB_GROUP && i + k < part.n; k++) {
            out.x[k] = float_at(part.pred, part.pred_dtype, i + k);
            if (!labels) {
                out.t[k] = float_at(part.target, part.target_dtype, i + k);
            }
            if (weights) {
                out.w[k] = float_at(part.weight, part.weight_dtype, i + k);
            }
        }
    }
    if (labels || (part.weight && part.weight_per_row)) {
        expand_rows(part, i, labels, out);
    }
    return out;
}

/* One sample; beyond the part's end its weight is 0. */
static __device__ __forceinline__ void read_sample(const job_part &part, uint32_t i, float *x,
                                                   float *t, float *w)
{
    *x = *t = *w = 0;
    if (i < part.n) {
        uint32_t row = part.weight_per_row ? (part.col + i) / part.cols : i;
        *x = float_at(part.pred, part.pred_dtype, i);
        *t = float_at(part.target, part.target_dtype, i);
        *w = part.weight ? float_at(part.weight, part.weight_dtype, row) : 1.0f;
    }
}

#endif
