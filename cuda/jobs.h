/*
 * jobs.h - what the host hands to each kernel: plain structs, read alike by C and by CUDA, and the
 * functions that start the kernels. All of them return at once; work is done in a stream's order.
 */
#ifndef GHM_JOBS_H
#define GHM_JOBS_H

#include "../core/philox.h"
#include "../core/slot.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    JOB_WARP = 32,
    JOB_GROUP = 4,             /* samples a thread takes at a time: 16 bytes of float32 */
    JOB_SKETCH_THREADS = 1024, /* of a sketch's block: one block fills a multiprocessor */
    JOB_SKETCH_MOST = 1 << 22, /* samples of a block: no carry counter of its table overflows */
    JOB_LINE = 24,             /* bytes of a line of that table */
    JOB_THREADS = 256,         /* of every other block */
    JOB_TAKE = 16,             /* slots that a thread looks at when the table is emptied, */
    JOB_TILE = JOB_THREADS * JOB_TAKE, /* and that a block does */
    JOB_CHUNK = 32 * 512, /* samples whose soft sums are added one by one, as on the CPU */
    JOB_SUM_BLOCKS = 256  /* partial sums of the exact density's loss */
};

/* A part of a batch in device memory. Pointers are to its first sample, or to the row of that where
 * an array has one entry per row. */
typedef struct job_part {
    const void *pred, *target, *weight;
    int64_t begin; /* its first sample's position in the batch */
    uint32_t n;    /* samples */
    uint32_t cols; /* of a row */
    uint32_t col;  /* of the first sample */
    int32_t task, target_form, pred_dtype, target_dtype, weight_dtype, weight_per_row;
    int32_t aligned; /* four samples of any array can be read at once */
    int32_t floats;  /* all three arrays have a float32 for each sample */
} job_part;

/* What a pass saw; zero at first. first_*: the largest 2^64 - 1 - position, so the least position. */
typedef struct job_totals {
    uint64_t valid, positive, nonfinite, soft, bad_labels;
    uint64_t first_nonfinite, first_soft, first_bad_label;
    uint64_t units[256]; /* see ghm_weights */
} job_totals;

typedef struct job_sketch {
    job_part part;
    const uint32_t *split; /* see ghm_edges */
    ghm_cell *table;       /* slot + stride * positive; slot numbers are not filled in */
    uint32_t *touched;     /* of each tile of the table: 1 where something was added */
    job_totals *totals;
    uint32_t n_cells, stride;
    uint32_t lines; /* of a block's own table: a power of two */
    int32_t shift;
} job_sketch;

/* Moves the used slots of a table into a list, by rising slot; they are zero afterwards. Those that
 * find no room stay for the next time. */
typedef struct job_take {
    ghm_cell *table;
    uint32_t *touched, *counts; /* [tiles]; used slots are counted first */
    uint32_t slots, tiles;
    ghm_cell *out;   /* [room], in host memory that the device can write */
    uint32_t *found; /* all used slots, there too */
    uint32_t room;
} job_take;

/* Sums per interval of one chunk: n, bce and norm, one array after the other. */
typedef struct job_soft {
    job_part part;
    const double *norms;
    job_totals *totals;
    double *chunks, *sums; /* [chunks][3][intervals], [3][intervals] */
    uint32_t first, n;     /* chunks of the part that this wave takes */
    uint32_t intervals;
} job_soft;

typedef struct job_slope {
    job_part part;
    int32_t function, bins;
    float a, b, mu, grad_scale, loss_scale;
    const float *thresholds; /* [bins + 1] */
    const double *beta;      /* [bins + 1], the last one 0 */
    double soft_grad_scale, soft_loss_scale;
    float *grad, *beta_out, *norm, *loss; /* of the part; NULL where not wanted */
} job_slope;

/* The exact density: gather and rank part by part and rank by rank. */
typedef struct job_exact {
    job_part part;
    job_totals *totals;
    uint32_t *keys, *order; /* gather: by position; later: by rank */
    double *residual;       /* boxes: by position; infinite where ignored */
    double *g, *loss;       /* by rank */
    double *density;        /* by position; NULL: not wanted */
    double *sums;           /* [job_exact_sums(n)] */
    uint32_t samples, n;    /* ranks of all samples; of valid ones, which come first */
    double mu, eps;
} job_exact;

typedef struct job_synth {
    ghm_mixture mixture;
    uint64_t seed, begin;
    uint32_t n, step;
    int32_t task;
    float *pred, *target, *weight; /* of the part; weight may be NULL */
} job_synth;

/* Bytes of shared memory of a sketch's block with so many lines: 8192 lines (198,656 bytes) fit where
 * a block may have 227 KB (sm_90, sm_100), 4096 where it may have 99 KB or 163 KB, 2048 on sm_75. */
static inline size_t job_sketch_shared(uint32_t lines)
{
    return (size_t)lines * JOB_LINE + 2 * 256 * sizeof(uint32_t);
}

/* Partial sums of so many ranks: how they are cut must not depend on the device. */
static inline uint32_t job_exact_sums(uint32_t n)
{
    uint32_t blocks = n / JOB_THREADS + (n % JOB_THREADS != 0);
    return blocks < JOB_SUM_BLOCKS ? blocks : (uint32_t)JOB_SUM_BLOCKS;
}

cudaError_t job_sketch_prepare(size_t shared); /* once per device: allows so much shared memory */
cudaError_t job_sketch_start(const job_sketch *job, uint32_t blocks, cudaStream_t stream);
cudaError_t job_take_start(const job_take *job, uint32_t blocks, cudaStream_t stream);
cudaError_t job_soft_start(const job_soft *job, cudaStream_t stream);
cudaError_t job_slope_start(const job_slope *job, uint32_t blocks, cudaStream_t stream);
cudaError_t job_synth_start(const job_synth *job, uint32_t blocks, cudaStream_t stream);
cudaError_t job_exact_gather(const job_exact *job, uint32_t blocks, cudaStream_t stream);
/* Sorts n positions by key, or those of boxes by residual, which job->g then holds by rank. temporary
 * NULL: sets *bytes to what it needs, no more. */
cudaError_t job_exact_sort(void *temporary, size_t *bytes, const job_exact *job,
                           uint32_t *sorted_keys, uint32_t *sorted_order, int64_t n,
                           cudaStream_t stream);
cudaError_t job_exact_windows(const job_exact *job, uint32_t blocks, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
