/* cpu.h - what the files of the CPU backend share. */
#ifndef GHM_CPU_H
#define GHM_CPU_H

#include "blocks.h"

typedef struct cpu_state {
    const ghm_kernels *kernels;
    int threads;
    /* One table per thread, kept between calls because fresh pages are what small batches pay for. */
    ghm_table *tables;
    size_t table_slots;
    ghm_cells *scratch; /* one per thread: where a table is drained to, kept for the same reason */
    void *kept;         /* of the exact density: see borrow() */
    size_t kept_bytes;
} cpu_state;

/* Tables of at least this many slots, all zero. A drained table is zero again. */
int cpu_reserve_tables(cpu_state *cpu, size_t slots);
void cpu_drop_tables(cpu_state *cpu);

/* Up to so many edges inside cells are watched for; with more, every sample steps along its cell's.
 * Measured: with 256, a million samples take 0.80 ns each one way, 0.95 the other. */
enum { FEW_SPLITS = 256 };

/* Sets GHM_WATCHED in the cells that edges split, where they are few, or clears it. */
void cpu_watch_splits(ghm_table *table, const ghm_plan *plan, const ghm_edges *edges, bool watch);
/* Moves the tables of the first so many threads into cells, which are empty before. seen: of the
 * blocks added to them. */
int cpu_drain(cpu_state *cpu, int threads, const ghm_plan *plan, const ghm_edges *edges,
              uint32_t seen, ghm_cells cells[2]);

int cpu_sketch(void *state, const ghm_edges *edges, const ghm_batch *batch, ghm_scan *out);
int cpu_gradient(void *state, const ghm_batch *batch, const ghm_coefficients *c,
                 const ghm_outputs *out);
int cpu_exact(void *state, const ghm_batch *batch, double mu, double eps, double *density,
              double *loss);
int cpu_synth(void *state, const ghm_recipe *recipe, float *pred, float *target, float *weight);

/* Whether the sketch pass may count the patterns of this batch's logits; see cpu_patterns.c. */
bool cpu_has_patterns(const ghm_batch *batch);
/* Counts the patterns of a block as ghm_kernels.tally does. With labels nearly all samples are
 * negatives: where none is ignored, that takes half the time. */
void cpu_count_patterns(const ghm_kernels *kernels, const ghm_batch *batch, int64_t begin, int n,
                        uint32_t *counts, ghm_buffers *buffers, ghm_block *block);
/* Moves the counts of ghm_kernels.tally into cells. odd: set where some logit is not finite. */
int cpu_take_patterns(uint32_t *counts, int32_t dtype, const ghm_edges *edges, ghm_cells cells[2],
                      bool *odd);

/* Facts of parts of a batch add up; first: a position, or -1. */
extern const ghm_facts cpu_no_facts;
void cpu_add_facts(ghm_facts *into, const ghm_facts *from);
void cpu_first_of(int64_t *first, int64_t other);

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
