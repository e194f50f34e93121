/*
 * parts.h - a batch of any size, part by part over the device.
 *
 * What lies on the device already is used in place. The rest is copied into pinned memory by the
 * host's threads, from there to the device, and results go back the same way; there are two places
 * for parts, so that copies and kernels of neighbouring parts overlap.
 */
#ifndef GHM_PARTS_H
#define GHM_PARTS_H

#include "cuda_state.h"

enum { PARTS_PRED, PARTS_TARGET, PARTS_WEIGHT, PARTS_IN, PARTS_ARRAYS = PARTS_IN + 4 };

typedef struct parts_array {
    const void *from; /* read, or */
    void *to;         /* written; both NULL: not used */
    size_t size;      /* bytes of an entry */
    bool per_row;     /* one entry per row */
    bool resident;    /* on the device */
} parts_array;

typedef struct parts_walk {
    parts_array arrays[PARTS_ARRAYS];
    job_part part; /* as launch gets it: what is the same for all parts is filled in before */
    int64_t samples, cols;
    int64_t multiple; /* parts begin at multiples of so many samples */
    int64_t most;     /* samples of a part */
    /* Starts the kernels of walk->part; out[0..4) are places for its results. */
    int (*launch)(cuda_state *cuda, struct parts_walk *walk, void *const *out);
    void *context;
} parts_walk;

/* A walk that reads a batch. */
int parts_of_batch(cuda_state *cuda, const ghm_batch *batch, parts_walk *walk);
/* Adds an array of float32 (or of other entries of `size` bytes) to write, or none where it is NULL. */
int parts_write(cuda_state *cuda, parts_walk *walk, int which, void *to, size_t size);

/* Samples of the part that begins at `begin`. */
int64_t parts_length(const parts_walk *walk, int64_t begin);

/* Runs launch over all parts. Results are in place afterwards only if they go to host memory, and
 * kernels may still run: cuda_end waits for them. Polls for an interrupt between parts. */
int parts_run(cuda_state *cuda, parts_walk *walk);

#endif
