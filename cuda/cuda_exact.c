/* cuda_exact.c - the exact density on the device: gather, sort, windows. */
#include "parts.h"

#include <math.h>
#include <string.h>

enum { RESIDENT_BLOCKS = 8 };

static int start_gather(cuda_state *cuda, parts_walk *walk, void *const *out)
{
    job_exact *job = walk->context;
    (void)out;
    job->part = walk->part;
    uint32_t blocks = cuda_blocks(cuda, walk->part.n, JOB_THREADS * JOB_GROUP, RESIDENT_BLOCKS);
    CUDA_TRY(cuda, "the keys of the exact density", job_exact_gather(job, blocks, cuda->work));
    return GHM_OK;
}

/* What the pass keeps on the device, all in one piece of memory. */
typedef struct exact_memory {
    uint32_t *sorted_keys, *sorted_order;
    void *temporary;
    size_t temporary_bytes;
} exact_memory;

/* Takes n entries of `size` bytes from *at. */
static void *carve(char **at, size_t n, size_t size)
{
    char *here = *at;
    *at += (n * size + 255) / 256 * 256;
    return here;
}

static int reserve(cuda_state *cuda, size_t n, bool boxes, job_exact *job, exact_memory *memory)
{
    CUDA_TRY(
        cuda, "sorting",
        job_exact_sort(NULL, &memory->temporary_bytes, job, NULL, NULL, (int64_t)n, cuda->work));
    size_t bytes = n * (4 * sizeof(uint32_t) + (boxes ? 4 : 3) * sizeof(double)) +
                   memory->temporary_bytes + 16 * 256 + JOB_SUM_BLOCKS * sizeof(double);
    GHM_TRY(cuda_reserve(cuda, &cuda->ranks, bytes, false));
    char *at = cuda->ranks.at;
    job->keys = carve(&at, n, sizeof *job->keys);
    job->order = carve(&at, n, sizeof *job->order);
    memory->sorted_keys = carve(&at, n, sizeof *memory->sorted_keys);
    memory->sorted_order = carve(&at, n, sizeof *memory->sorted_order);
    job->residual = boxes ? carve(&at, n, sizeof *job->residual) : NULL;
    job->g = carve(&at, n, sizeof *job->g);
    job->loss = carve(&at, n, sizeof *job->loss);
    job->density = carve(&at, n, sizeof *job->density);
    job->sums = carve(&at, JOB_SUM_BLOCKS, sizeof *job->sums);
    memory->temporary = at;
    return GHM_OK;
}

/* Sorted keys to densities; needs the number of valid samples, so it is the second wait. */
static int windows(cuda_state *cuda, int64_t samples, job_exact *job, const exact_memory *memory,
                   double *density, double *loss)
{
    const char *what = "the windows of the exact density";
    double *d_density = job->density;
    size_t bytes = (size_t)samples * sizeof *density;
    job->samples = (uint32_t)samples;
    job->n = (uint32_t)cuda->report->totals.valid;
    job->keys = memory->sorted_keys;
    job->order = memory->sorted_order;
    job->density = density ? d_density : NULL;
    uint32_t blocks = cuda_blocks(cuda, job->samples, JOB_THREADS, RESIDENT_BLOCKS);
    CUDA_TRY(cuda, what, job_exact_windows(job, blocks, cuda->work));
    CUDA_TRY(cuda, what,
             cudaMemcpyAsync(cuda->report->sums, job->sums, sizeof cuda->report->sums,
                             cudaMemcpyDeviceToHost, cuda->work));
    if (density) {
        CUDA_TRY(cuda, what,
                 cudaMemcpyAsync(density, d_density, bytes, cudaMemcpyDefault, cuda->work));
    }
    GHM_TRY(cuda_end(cuda));
    *loss = 0;
    for (uint32_t i = 0; i < job_exact_sums(job->n); i++) {
        *loss += cuda->report->sums[i];
    }
    return GHM_OK;
}

static int exact(cuda_state *cuda, const ghm_batch *batch, double mu, double eps, double *density,
                 double *loss)
{
    parts_walk walk;
    exact_memory memory = {0};
    job_exact job = {.part.task = batch->task, .totals = cuda->totals, .mu = mu, .eps = eps};
    ghm_facts facts = {.samples = batch->rows * batch->cols};
    GHM_TRY(cuda_begin(cuda));
    GHM_TRY(parts_of_batch(cuda, batch, &walk));
    if (walk.samples == 0) {
        *loss = 0;
        return cuda_end(cuda);
    }
    GHM_TRY(reserve(cuda, (size_t)walk.samples, batch->task == GHM_REGRESSION, &job, &memory));
    walk.launch = start_gather;
    walk.context = &job;
    GHM_TRY(parts_run(cuda, &walk));
    CUDA_TRY(cuda, "sorting",
             job_exact_sort(memory.temporary, &memory.temporary_bytes, &job, memory.sorted_keys,
                            memory.sorted_order, walk.samples, cuda->work));
    GHM_TRY(cuda_end(cuda));
    cuda_facts(cuda, &facts);
    GHM_TRY(ghm_judge(batch, &facts, 0));
    return windows(cuda, walk.samples, &job, &memory, density, loss);
}

int cuda_exact(void *state, const ghm_batch *batch, double mu, double eps, double *density,
               double *loss)
{
    int status = exact(state, batch, mu, eps, density, loss);
    if (status != GHM_OK) {
        cuda_drop(state);
    }
    return status;
}
