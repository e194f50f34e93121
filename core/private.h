/*
 * private.h - what the core's files and the backends share, and Lua never sees.
 *
 * The life of a batch: backend->sketch() turns it into cells (sorted, summed integers), which
 * sketch.c adds to what a sketch already holds. Questions walk over cells only.
 */
#ifndef GHM_PRIVATE_H
#define GHM_PRIVATE_H

#include "ghm.h"
#include "slot.h"

#include <stdbool.h>
#include <stddef.h>

/* For loops over doubles outside kernels.c: compiled for each instruction set, chosen when loaded.
 * All give the same bits, as nothing is contracted or reordered. */
#if defined(__x86_64__)
#define GHM_CLONES __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define GHM_CLONES
#endif

/* -- status.c --------------------------------------------------------------------------------- */

/* Keeps a message for ghm_last_error and returns the status: return ghm_fail(GHM_E_..., "..."). */
int ghm_fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define GHM_TRY(call)            \
    do {                         \
        int status_ = (call);    \
        if (status_ != GHM_OK) { \
            return status_;      \
        }                        \
    } while (0)

/* -- edges.c ---------------------------------------------------------------------------------- */

/* Ascending, each number once. */
typedef struct ghm_numbers {
    double *at;
    int64_t n;
} ghm_numbers;

/* Edges inside a cell split it: see slot.h. */
typedef struct ghm_edges {
    _Atomic int references;
    int task;
    ghm_numbers declared[3]; /* by enum ghm_declared: what is answered exactly */
    int shift, depth;        /* depth: most edges inside one cell */
    uint32_t n_cells, n_sides;
    int64_t n_thresholds;
    float *thresholds; /* ascending, distinct: interval i is [thresholds[i-1], thresholds[i]) */
    uint32_t *order;   /* of each threshold: ghm_ordered; one more ends them, above every key */
    double *norms;     /* classification: the g = j/M of each threshold, which soft targets need */
    /* Per slot, cells first: side << shift | 2^shift - split of the next edge inside, or 0; with
     * GHM_MORE where that side is split again. */
    uint32_t *split;
    uint32_t *side_cell, *side_split; /* per side: its cell and split */
} ghm_edges;

int ghm_edges_new(int task, const int64_t *bins, int64_t n_bins, const double *mu, int64_t n_mu,
                  const double *knots, int64_t n_knots, ghm_edges **out);
void ghm_edges_release(ghm_edges *edges);
bool ghm_edges_equal(const ghm_edges *a, const ghm_edges *b);

/* The smallest float32 key at which g >= j / bins, in exact arithmetic; 0 < j < bins. */
float ghm_threshold(int task, int64_t j, int64_t bins, double mu);
/* thresholds[bins + 1] of one configuration, -inf and +inf at the ends. */
void ghm_thresholds(int task, int64_t bins, double mu, float *out);
/* Bits reordered so that unsigned order is the order of values, -0 just below +0. */
static inline uint32_t ghm_ordered(uint32_t bits)
{
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* The interval that was found last; zeros to begin with. Most keys lie where the one before did. */
typedef struct ghm_near {
    int64_t interval;
    uint32_t first, span; /* its ordered keys */
} ghm_near;

/* How many declared thresholds are <= the key with these bits: the interval that holds it. */
static inline int64_t ghm_interval_of(const ghm_edges *edges, uint32_t bits, ghm_near *near)
{
    uint32_t key = ghm_ordered(bits);
    if (key - near->first >= near->span) {
        int64_t at = near->interval;
        while (edges->order[at] <= key) {
            at++;
        }
        while (at > 0 && edges->order[at - 1] > key) {
            at--;
        }
        near->interval = at;
        near->first = at > 0 ? edges->order[at - 1] : 0;
        near->span = edges->order[at] - near->first;
    }
    return near->interval;
}

/* Checks bins and, for regression, mu. */
int ghm_check_bins(int task, int64_t bins, double mu);
/* Checks the window of an exact density, and mu. */
int ghm_check_window(int task, double mu, double eps);

static inline uint32_t ghm_slot_count(const ghm_edges *edges)
{
    return edges->n_cells + edges->n_sides;
}

/* The first key of a slot, as bits: a side begins at its edge. */
static inline uint32_t ghm_slot_begin(const ghm_edges *edges, uint32_t slot)
{
    if (slot < edges->n_cells) {
        return slot << edges->shift;
    }
    uint32_t side = slot - edges->n_cells;
    return edges->side_cell[side] << edges->shift | edges->side_split[side];
}

/* -- cells.c ---------------------------------------------------------------------------------- */

/* Cells by rising slot, each slot once; one array for each field of ghm_cell, because questions take
 * them by the vector. */
typedef struct ghm_cells {
    uint32_t *slot;
    uint64_t *n, *offsets, *squares; /* one piece of memory with slot, which begins at n */
    int64_t count, room;
} ghm_cells;

static inline ghm_cell ghm_cell_at(const ghm_cells *cells, int64_t i)
{
    return (ghm_cell){cells->slot[i], cells->n[i], cells->offsets[i], cells->squares[i]};
}

static inline void ghm_cell_put(ghm_cells *cells, int64_t i, ghm_cell cell)
{
    cells->slot[i] = cell.slot;
    cells->n[i] = cell.n;
    cells->offsets[i] = cell.offsets;
    cells->squares[i] = cell.squares;
}

/* Room for so many cells in all; those that are there stay. */
int ghm_cells_reserve(ghm_cells *cells, int64_t room);
/* Copies n cells, from `begin` on, to places from `at` on, for which there is room. */
void ghm_cells_copy(ghm_cells *to, int64_t at, const ghm_cells *from, int64_t begin, int64_t n);
int ghm_cells_merge(ghm_cells *into, const ghm_cells *from);
/* The same, and from is empty afterwards; copies nothing where into is empty. */
int ghm_cells_take(ghm_cells *into, ghm_cells *from);
void ghm_cells_free(ghm_cells *cells);

/* Soft targets have no key: per interval of g, count and sums in double. */
typedef struct ghm_soft {
    int64_t *n;
    double *bce, *norm;
} ghm_soft;

/* Weights are summed exactly: units[e] is the sum of the 24-bit significands with exponent e. */
typedef struct ghm_weights {
    uint64_t units[256];
} ghm_weights;

void ghm_weights_add(ghm_weights *into, const ghm_weights *from);
double ghm_weights_sum(const ghm_weights *weights);

/* What a backend's sketch pass returns. */
typedef struct ghm_scan {
    ghm_facts facts; /* weight_sum is left to weights */
    ghm_weights weights;
    ghm_cells cells[2]; /* negatives, positives; regression uses the first */
    ghm_soft soft;      /* arrays of the caller, added to; used for GHM_SOFT alone */
} ghm_scan;

/* -- backends --------------------------------------------------------------------------------- */

/* The coefficients of a gradient pass; see ghm_gradient. a, b and mu fit floats. */
typedef struct ghm_coefficients {
    int function;
    double a, b;
    int64_t bins;
    double mu;
    const float *thresholds; /* bins + 1 */
    const double *beta;
    double grad_scale, loss_scale;
} ghm_coefficients;

/* What a synthetic batch is made from; see ghm_synth. */
typedef struct ghm_recipe {
    ghm_mixture mixture;
    uint64_t seed;
    int64_t samples;
    uint32_t step;
    int task;
} ghm_recipe;

/* One table per backend; registry.c alone knows which were built. Arguments are checked before. */
typedef struct ghm_backend {
    const char *name;
    /* index: "cuda:1" gives 1. Fills state (freed by close) and a name for people. */
    int (*open)(int index, int32_t *threads, void **state, char *name, size_t name_size);
    void (*close)(void *state);
    int (*sketch)(void *state, const ghm_edges *edges, const ghm_batch *batch, ghm_scan *out);
    int (*gradient)(void *state, const ghm_batch *batch, const ghm_coefficients *coefficients,
                    const ghm_outputs *out);
    int (*exact)(void *state, const ghm_batch *batch, double mu, double eps, double *density,
                 double *loss);
    int (*synth)(void *state, const ghm_recipe *recipe, float *pred, float *target, float *weight);
    /* See ghm_memory_new. */
    int (*memory_new)(void *state, size_t bytes, void **out);
    void (*memory_free)(void *state, void *at);
    int (*memory_copy)(void *state, void *to, const void *from, size_t bytes);
    int (*elapsed)(void *state, double *seconds); /* NULL: no clock of its own */
} ghm_backend;

struct ghm_device {
    const ghm_backend *backend;
    void *state;
    int32_t threads;
    _Atomic int references; /* its own and one of each piece of memory */
    char name[128];
};

extern const ghm_backend ghm_cpu_backend;

/* NULL-tolerant argument check of a batch, the one every entry point uses. */
int ghm_check_batch(const ghm_batch *batch);

enum { GHM_CELL_BATCH = 256 }; /* cells looked at together, in loops that become vector code */

typedef struct ghm_cell_batch {
    double n[GHM_CELL_BATCH];
    int64_t interval[GHM_CELL_BATCH];
    uint32_t bits[GHM_CELL_BATCH]; /* where the cell begins */
    uint32_t low[GHM_CELL_BATCH];  /* where in it the slot begins: 0 but for sides */
    /* Keys are start + spacing * float32 spacings from there on; negative ones have a negative spacing. */
    double start[GHM_CELL_BATCH], spacing[GHM_CELL_BATCH];
    double mean[GHM_CELL_BATCH], variance[GHM_CELL_BATCH]; /* of the samples' keys */
} ghm_cell_batch;

/* Where the cells end that lie in one interval, as cell `at` does: near->interval. */
static inline int64_t ghm_run_end(const ghm_edges *edges, const ghm_cells *cells, int64_t at,
                                  ghm_near *near)
{
    uint32_t bits = ghm_slot_begin(edges, cells->slot[at]);
    ghm_interval_of(edges, bits, near);
    /* The interval's largest bits on this side of zero; a side, among the sides, is a run of its own. */
    uint32_t last = bits >> 31 ? ~near->first : (near->first + near->span - 1) & 0x7fffffffu;
    uint32_t limit = (last >> edges->shift) + 1;
    limit = limit < edges->n_cells ? limit : edges->n_cells;
    at++;
    while (at + 16 <= cells->count && cells->slot[at + 15] < limit) {
        at += 16;
    }
    while (at < cells->count && cells->slot[at] < limit) {
        at++;
    }
    return at;
}

/* A batch of cells from `begin` on, with their moments; near: of the batch before. Returns its size. */
int ghm_load_cells(const ghm_edges *edges, const ghm_cells *cells, int64_t begin, ghm_near *near,
                   ghm_cell_batch *batch);

/* A cell as questions see it: its samples' keys have this mean and variance. */
typedef struct ghm_line {
    double mean, variance;
    double low, high; /* of the slot; in order of means, of where the samples are taken to lie */
    double before;    /* in order of means: samples of both groups below this cell */
    double n;
    int64_t interval;
    uint32_t group, slot;
} ghm_line;

/* All cells of a sketch, by slot or in the order of means; kept until it changes. NULL: no memory. */
const ghm_line *ghm_sketch_lines(const ghm_sketch *sketch, bool in_order);
/* What questions check: that they were given a sketch and a place; that its samples have keys. */
int ghm_check_question(const ghm_sketch *sketch, const void *out);
int ghm_check_hard(const ghm_sketch *sketch);
int ghm_check_group(int32_t group);
/* Lines, after both checks. */
int ghm_ask_hard(const ghm_sketch *sketch, const void *out, bool in_order, const ghm_line **lines);

/* Whether a task knows a function with these parameters. */
int ghm_check_function(int task, int32_t function, double a, double b);
/* The mean of a function over a cell's samples. */
double ghm_line_mean(int task, int32_t function, double a, double b, const ghm_line *line);

struct ghm_sketch {
    ghm_edges *edges;
    ghm_facts facts;
    ghm_weights weights;
    bool soft_targets; /* decided by the first batch with samples */
    int threads;       /* for questions: as many as the device had that added to it last */
    ghm_cells cells[2];
    ghm_soft soft;            /* allocated with the first soft batch */
    ghm_line *lines, *sorted; /* see ghm_sketch_lines */
};

/* An empty sketch with these edges, whose reference it takes, also when it fails. */
int ghm_sketch_with(ghm_edges *edges, ghm_sketch **out);

/* -- sketch_bytes.c --------------------------------------------------------------------------- */

/* A growing buffer when writing, a shrinking one when reading; failed: no memory, or cut short. */
typedef struct ghm_bytes {
    unsigned char *at;
    size_t n, room;
    bool failed;
} ghm_bytes;

void ghm_put(ghm_bytes *out, const void *data, size_t n);
void ghm_put_count(ghm_bytes *out, uint64_t value);
bool ghm_take(ghm_bytes *in, void *data, size_t n);
/* A count of at most `most`; 0 and failed where it is none. */
uint64_t ghm_take_count(ghm_bytes *in, uint64_t most);
uint64_t ghm_checksum(const unsigned char *at, size_t n);

void ghm_put_sketch(ghm_bytes *out, const ghm_sketch *sketch);
/* like (NULL allowed): a sketch whose edges are shared where they are the same. */
int ghm_take_sketch(ghm_bytes *in, const ghm_sketch *like, ghm_sketch **out);

int ghm_soft_new(int64_t intervals, ghm_soft *out);
void ghm_soft_add(ghm_soft *into, const ghm_soft *from, int64_t intervals);
void ghm_soft_free(ghm_soft *soft);

#endif
