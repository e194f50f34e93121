/*
 * slope_kernel.cu - the gradient pass: read once, write once, four samples a thread.
 *
 * 28 bytes a sample at 4.3 TB/s leave an H200 50 cycles a multiprocessor for 32 samples, which the
 * arithmetic of slope.h fits into; thresholds and coefficients come from the first-level cache.
 * This is reasoning: nothing of it was measured.
 */
#include "../core/slope.h"
#include "samples.cuh"

enum slope_kind { SLOPE_CLASSES, SLOPE_BOXES, SLOPE_SOFT };

struct slope_out {
    float grad, beta, norm, loss;
};

static __device__ __forceinline__ slope_out hard_slope(const job_slope &job, ghm_slope slope,
                                                       float w)
{
    slope_out out = {0, 0, 0, 0};
    if (w > 0 && fabsf(slope.key) <= FLT_MAX) {
        int32_t region = ghm_region(slope.key, slope.norm, job.bins, job.thresholds);
        out.beta = static_cast<float>(job.beta[region]);
        out.grad = job.grad_scale * out.beta * slope.grad;
        out.norm = slope.norm;
        out.loss = job.loss_scale * out.beta * slope.loss;
    }
    return out;
}

static __device__ __forceinline__ slope_out soft_slope(const job_slope &job, float x, float t,
                                                       float w)
{
    slope_out out = {0, 0, 0, 0};
    if (w > 0 && is_finite(x)) {
        double slope = ghm_soft_slope(x, t), g = fabs(slope);
        double beta = job.beta[ghm_soft_region(g, job.bins)];
        out.grad = static_cast<float>(job.soft_grad_scale * beta * slope);
        out.beta = static_cast<float>(beta);
        out.norm = static_cast<float>(g);
        out.loss = static_cast<float>(job.soft_loss_scale * beta * ghm_soft_bce(x, t));
    }
    return out;
}

template <slope_kind KIND>
static __device__ __forceinline__ slope_out slope_of(const job_slope &job, float x, float t,
                                                     float w)
{
    if (KIND == SLOPE_SOFT) {
        return soft_slope(job, x, t, w);
    }
    if (KIND == SLOPE_BOXES) {
        ghm_slope slope = ghm_asl1_slope(x, t, job.mu);
        return hard_slope(
            job, job.function == GHM_SMOOTH_L1 ? ghm_smooth_l1_slope(slope, x, t, job.a) : slope,
            w);
    }
    float sign = t == 1 ? -1.0f : 1.0f, s = sign * x, e = ghm_exp_minus(fabsf(s));
    float g = ghm_norm_of(s, e);
    if (job.function == GHM_FOCAL) {
        return hard_slope(job, ghm_focal_slope(s, g, sign, job.a, job.b), w);
    }
    ghm_slope slope = {s, g, sign * g, job.loss ? ghm_bce_of(s, e) : 0};
    return hard_slope(job, slope, w);
}

/* Writes samples i .. i + 3 as far as the part goes. */
static __device__ __forceinline__ void write_four(float *to, const job_part &part, uint32_t i,
                                                  const float value[JOB_GROUP])
{
    if (!to) {
        return;
    }
    if (part.aligned && i + JOB_GROUP <= part.n) {
        float4 four = {value[0], value[1], value[2], value[3]};
        __stcs(reinterpret_cast<float4 *>(to + i), four);
        return;
    }
    for (int k = 0; k < JOB_GROUP && i + k < part.n; k++) {
        to[i + k] = value[k];
    }
}

template <slope_kind KIND> static __device__ __forceinline__ void slopes(const job_slope &job)
{
    uint32_t step = gridDim.x * blockDim.x * JOB_GROUP;
    uint32_t i = (blockIdx.x * blockDim.x + threadIdx.x) * JOB_GROUP;
    for (; i < job.part.n; i += step) {
        four_samples four = read_samples(job.part, i);
        float grad[JOB_GROUP], beta[JOB_GROUP], norm[JOB_GROUP], loss[JOB_GROUP];
        for (int k = 0; k < JOB_GROUP; k++) {
            bool finite = is_finite(four.t[k]) && is_finite(four.w[k]);
            slope_out out = slope_of<KIND>(job, four.x[k], four.t[k], finite ? four.w[k] : 0);
            grad[k] = out.grad;
            beta[k] = out.beta;
            norm[k] = out.norm;
            loss[k] = out.loss;
        }
        write_four(job.grad, job.part, i, grad);
        write_four(job.beta_out, job.part, i, beta);
        write_four(job.norm, job.part, i, norm);
        write_four(job.loss, job.part, i, loss);
    }
}

extern "C" {

__global__ void __launch_bounds__(JOB_THREADS, 4) ghm_slope_classes(const job_slope job)
{
    slopes<SLOPE_CLASSES>(job);
}

__global__ void __launch_bounds__(JOB_THREADS, 4) ghm_slope_boxes(const job_slope job)
{
    slopes<SLOPE_BOXES>(job);
}

__global__ void __launch_bounds__(JOB_THREADS, 4) ghm_slope_soft(const job_slope job)
{
    slopes<SLOPE_SOFT>(job);
}

cudaError_t job_slope_start(const job_slope *job, uint32_t blocks, cudaStream_t stream)
{
    void (*kernel)(job_slope) = job->part.target_form == GHM_SOFT ? ghm_slope_soft
                              : job->part.task == GHM_REGRESSION  ? ghm_slope_boxes
                                                                  : ghm_slope_classes;
    return start(kernel, *job, blocks, JOB_THREADS, 0, stream);
}
}
