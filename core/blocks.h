/*
 * blocks.h - a batch, one block at a time: widened to float32, labels as 0/1 targets.
 *
 * No one-hot array and no widened copy of a batch is ever made: only these few kilobytes.
 */
#ifndef GHM_BLOCKS_H
#define GHM_BLOCKS_H

#include "kernels.h"

typedef struct ghm_buffers {
    float x[GHM_BLOCK], t[GHM_BLOCK], w[GHM_BLOCK];
    const float *px, *pt, *pw; /* the block: into the batch where it lies as float32, or above */
    int64_t bad_labels, first_bad_label;
} ghm_buffers;

/* The label of a row, where the targets are labels. */
int64_t ghm_label_of_row(const ghm_batch *batch, int64_t row);

/* Which of samples [begin, begin + n) are their row's label, at[n]; returns their number. Labels outside
 * the classes are counted at their row's first sample, so that a row is counted once however it is cut
 * into blocks. */
int ghm_find_positives(const ghm_batch *batch, int64_t begin, int n, int *at, ghm_buffers *out);

/* Loads samples [begin, begin + n); labels as 0/1 targets, found by the same. */
void ghm_load_block(const ghm_kernels *kernels, const ghm_batch *batch, int64_t begin, int n,
                    ghm_buffers *out);

/* The same without the logits. */
void ghm_load_targets(const ghm_kernels *kernels, const ghm_batch *batch, int64_t begin, int n,
                      ghm_buffers *out);

/* Where the samples from `begin` on lie, as far as they lie in flat arrays. Fetching beyond the end
 * of an array is harmless, and nothing is read. */
ghm_ahead ghm_look_ahead(const ghm_batch *batch, int64_t begin);

/* Explains a suspect block: counts what is not finite or not hard, by position, and leaves a copy
 * of the block in the buffers in which non-finite samples are ignored ones. */
void ghm_inspect_block(const ghm_batch *batch, int64_t begin, int n, ghm_buffers *buffers,
                       ghm_facts *facts);

#endif
