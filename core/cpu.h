/* cpu.h - what the files of the CPU backend share. */
#ifndef GHM_CPU_H
#define GHM_CPU_H

#include "blocks.h"

typedef struct cpu_state {
    const ghm_kernels *kernels;
    int threads;
    /* One table per thread, kept between calls because fresh pages are what small batches pay for. */
    ghm_pair **tables;
    size_t table_slots;
    ghm_cells *scratch; /* one per thread: where a table is drained to, kept for the same reason */
} cpu_state;

/* Tables of at least this many slots, all zero. A drained table is zero again. */
int cpu_reserve_tables(cpu_state *cpu, size_t slots);
void cpu_drop_tables(cpu_state *cpu);

int cpu_sketch(void *state, const ghm_edges *edges, const ghm_batch *batch, ghm_scan *out);
int cpu_gradient(void *state, const ghm_batch *batch, const ghm_coefficients *c,
                 const ghm_outputs *out);
int cpu_exact(void *state, const ghm_batch *batch, double mu, double eps, double *density,
              double *loss);
int cpu_synth(void *state, const ghm_recipe *recipe, float *pred, float *target, float *weight);

/* A worker's message stays in its thread; this gives the caller's thread one. */
int cpu_end_of_pass(int status);

static inline int64_t block_count(const ghm_batch *batch)
{
    return (batch->rows * batch->cols + GHM_BLOCK - 1) / GHM_BLOCK;
}

static inline int block_size(const ghm_batch *batch, int64_t block)
{
    int64_t left = batch->rows * batch->cols - block * GHM_BLOCK;
    return left < GHM_BLOCK ? (int)left : GHM_BLOCK;
}

#endif
