/* exact.h - what the files of the exact density share: samples in the order of their keys. */
#ifndef GHM_EXACT_H
#define GHM_EXACT_H

#include "private.h"

/* A sample is its key in the order of values, above its position; an ignored one sorts behind all. */
#define IGNORED UINT64_MAX

typedef struct exact_work {
    uint64_t *order, *spare;
    double *residual; /* by position: |pred - target| without float32's rounding; boxes alone */
    double *g, *loss; /* by rank; loss lies in spare */
    int64_t n;        /* valid samples */
    int threads;
    _Atomic bool stopped; /* by an interrupt: what follows may not look at what was left undone */
} exact_work;

static inline bool is_stopped(exact_work *work)
{
    if (ghm_interrupted()) {
        work->stopped = true;
    }
    return work->stopped;
}

/* Sorts by key, with work->spare's help, unless it is stopped. */
int exact_sort(exact_work *work, int64_t samples);
/* Then those of one key by residual. */
void exact_sort_ties(const exact_work *work);

#endif
