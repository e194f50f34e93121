/* cuda_gradient.c - starts the passes that write arrays: the gradient, and synthetic batches. */
#include "parts.h"

#include <stdlib.h>
#include <string.h>

enum { RESIDENT_BLOCKS = 8 }; /* of JOB_THREADS on a multiprocessor */

static int start_slope(cuda_state *cuda, parts_walk *walk, void *const *out)
{
    job_slope *job = walk->context;
    job->part = walk->part;
    job->grad = out[0];
    job->beta_out = out[1];
    job->norm = out[2];
    job->loss = out[3];
    uint32_t blocks = cuda_blocks(cuda, walk->part.n, JOB_THREADS * JOB_GROUP, RESIDENT_BLOCKS);
    CUDA_TRY(cuda, "the gradient", job_slope_start(job, blocks, cuda->work));
    return GHM_OK;
}

/* beta[bins + 1] and thresholds[bins + 1] on the device. */
static int send_coefficients(cuda_state *cuda, const ghm_coefficients *c, job_slope *job)
{
    const char *what = "copying the coefficients";
    size_t n = (size_t)c->bins + 1;
    GHM_TRY(cuda_reserve(cuda, &cuda->coefficients, n * (sizeof(double) + sizeof(float)), false));
    double *beta = cuda->coefficients.at;
    float *thresholds = (float *)(beta + n);
    CUDA_TRY(
        cuda, what,
        cudaMemcpyAsync(beta, c->beta, (n - 1) * sizeof *beta, cudaMemcpyHostToDevice, cuda->work));
    CUDA_TRY(cuda, what, cudaMemsetAsync(beta + n - 1, 0, sizeof *beta, cuda->work));
    CUDA_TRY(cuda, what,
             cudaMemcpyAsync(thresholds, c->thresholds, n * sizeof *thresholds,
                             cudaMemcpyHostToDevice, cuda->work));
    job->beta = beta;
    job->thresholds = thresholds;
    return GHM_OK;
}

static int gradient(cuda_state *cuda, const ghm_batch *batch, const ghm_coefficients *c,
                    const ghm_outputs *out)
{
    job_slope job = {.function = c->function,
                     .bins = (int32_t)c->bins,
                     .a = (float)c->a,
                     .b = (float)c->b,
                     .mu = (float)c->mu,
                     .grad_scale = (float)c->grad_scale,
                     .loss_scale = (float)c->loss_scale,
                     .soft_grad_scale = c->grad_scale,
                     .soft_loss_scale = c->loss_scale};
    float *results[] = {out->grad, out->beta, out->norm, out->loss};
    parts_walk walk;
    GHM_TRY(cuda_begin(cuda));
    GHM_TRY(parts_of_batch(cuda, batch, &walk));
    for (int i = 0; i < 4; i++) {
        GHM_TRY(parts_write(cuda, &walk, i, results[i], sizeof *results[i]));
    }
    GHM_TRY(send_coefficients(cuda, c, &job));
    walk.launch = start_slope;
    walk.context = &job;
    GHM_TRY(parts_run(cuda, &walk));
    return cuda_end(cuda);
}

int cuda_gradient(void *state, const ghm_batch *batch, const ghm_coefficients *c,
                  const ghm_outputs *out)
{
    int status = gradient(state, batch, c, out);
    if (status != GHM_OK) {
        cuda_drop(state);
    }
    return status;
}

/* -- synthetic batches ------------------------------------------------------------------------ */

static int start_synth(cuda_state *cuda, parts_walk *walk, void *const *out)
{
    job_synth *job = walk->context;
    job->begin = (uint64_t)walk->part.begin;
    job->n = walk->part.n;
    job->pred = out[0];
    job->target = out[1];
    job->weight = out[2];
    uint32_t blocks = cuda_blocks(cuda, job->n, JOB_THREADS, RESIDENT_BLOCKS);
    CUDA_TRY(cuda, "the synthetic batch", job_synth_start(job, blocks, cuda->work));
    return GHM_OK;
}

static int synthesize(cuda_state *cuda, const ghm_recipe *recipe, float *pred, float *target,
                      float *weight)
{
    job_synth job = {.mixture = recipe->mixture,
                     .seed = recipe->seed,
                     .step = recipe->step,
                     .task = recipe->task};
    parts_walk walk = {.samples = recipe->samples,
                       .cols = 1,
                       .multiple = JOB_GROUP,
                       .launch = start_synth,
                       .context = &job};
    GHM_TRY(cuda_begin(cuda));
    GHM_TRY(parts_write(cuda, &walk, 0, pred, sizeof *pred));
    GHM_TRY(parts_write(cuda, &walk, 1, target, sizeof *target));
    GHM_TRY(parts_write(cuda, &walk, 2, weight, sizeof *weight));
    GHM_TRY(parts_run(cuda, &walk));
    return cuda_end(cuda);
}

int cuda_synth(void *state, const ghm_recipe *recipe, float *pred, float *target, float *weight)
{
    int status = synthesize(state, recipe, pred, target, weight);
    if (status != GHM_OK) {
        cuda_drop(state);
    }
    return status;
}
