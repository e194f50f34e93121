/*
 * kernels.h - the inner loops of the CPU backend, one table per instruction set.
 *
 * kernels.c is compiled once per set; the code is the same plain C, and so are the bits.
 */
#ifndef GHM_KERNELS_H
#define GHM_KERNELS_H

#include "private.h"

enum {
    GHM_BLOCK = 512, /* samples per block: its buffers stay in the first-level cache */
    GHM_OFFSETS_SHIFT = 24,
    GHM_COUNT_SHIFT = 53,
    GHM_FULL = 1023, /* samples that a word has room for */
    GHM_TRASH = 16,  /* slots where ignored samples go: several, as one would be waited for */
    GHM_STRIP = 8    /* slots looked at together, a cache line: most of a table is empty */
};

/* Set in a cell's word for as long as a pass lasts: an edge lies inside the cell. */
#define GHM_WATCHED ((uint64_t)1 << 63)

/*
 * A thread's table. A slot is one word, count << 53 | sum of offsets << 24 | sum of squares, because
 * one addition to memory is what a sample can afford: a core stores to one line per cycle. The top
 * bit calls for attention, which costs nothing where it is clear: the addition leaves it in a flag.
 */
typedef struct ghm_table {
    uint64_t *words;
    /* Where full words go, but for the last sample: a slot in use has a word that is not 0. */
    ghm_cell *wide; /* slots are not filled in */
    bool spilled;   /* some did */
} ghm_table;

/* Adds what a word holds to a cell. */
static inline __attribute__((always_inline)) void ghm_add_word(ghm_cell *cell, uint64_t word)
{
    const uint64_t offsets = ((uint64_t)1 << (GHM_COUNT_SHIFT - GHM_OFFSETS_SHIFT)) - 1;
    const uint64_t squares = ((uint64_t)1 << GHM_OFFSETS_SHIFT) - 1;
    cell->n += word >> GHM_COUNT_SHIFT;
    cell->offsets += word >> GHM_OFFSETS_SHIFT & offsets;
    cell->squares += word & squares;
}

/* Where samples go: slot = cell or side, plus stride for positives; ignored ones go to trash. */
typedef struct ghm_plan {
    const uint32_t *split; /* of ghm_edges */
    uint32_t n_cells, stride, trash;
    int shift;
    bool watch; /* cells that edges split are marked, instead of settling every sample */
} ghm_plan;

/* The same block of a later part of the batch, to be fetched; sizes in bytes per sample, or 0. */
typedef struct ghm_ahead {
    const char *pred, *target, *weight;
    size_t pred_size, target_size, weight_size;
} ghm_ahead;

/* Samples between fetches: a cache line of float32. */
enum { GHM_LINE = 16 };

static inline void ghm_fetch(const ghm_ahead *ahead, int i)
{
    __builtin_prefetch(ahead->pred + (size_t)i * ahead->pred_size);
    __builtin_prefetch(ahead->target + (size_t)i * ahead->target_size);
    __builtin_prefetch(ahead->weight + (size_t)i * ahead->weight_size);
}

/* Aligned so that no vector straddles two cache lines. */
typedef struct __attribute__((aligned(64))) ghm_block {
    uint32_t slot[GHM_BLOCK];
    uint64_t word[GHM_BLOCK]; /* what each sample adds to its slot */
    uint32_t valid, positive;
    uint32_t uneven;  /* not 0: some valid weight is not 1 */
    uint32_t suspect; /* not 0: a sample in use is not finite or not hard: look again, slowly */
    uint32_t seen;    /* bit m: some key has magnitude bits with m on top (8 binades each) */
} ghm_block;

/* The coefficients of a gradient block as floats: see ghm_coefficients. */
typedef struct ghm_slopes {
    int function;
    float a, b, mu;
    int32_t bins;
    const float *thresholds; /* bins + 1 */
    const float *beta;       /* bins + 1, the last for ignored samples with infinite keys */
    float grad_scale, loss_scale;
    bool with_rest; /* beta and norm are wanted */
    bool with_loss; /* the losses are wanted */
} ghm_slopes;

/* Where a block's outputs go, each [n]: straight to the caller's arrays, or to buffers. */
typedef struct ghm_results {
    float *grad, *beta, *norm, *loss;
} ghm_results;

typedef struct ghm_kernels {
    const char *isa;
    void (*widen_half)(const uint16_t *in, float *out, int n);
    void (*widen_bfloat)(const uint16_t *in, float *out, int n);
    void (*widen_byte)(const uint8_t *in, float *out, int n);
    /* x, t, w [n] floats, n <= GHM_BLOCK: fills the block with the cells of its samples. */
    void (*classes)(const float *x, const float *t, const float *w, int n, const ghm_plan *plan,
                    ghm_block *block);
    void (*boxes)(const float *pred, const float *target, const float *w, int n,
                  const ghm_plan *plan, ghm_block *block);
    /* From cells to slots. Pays where many cells are split; else scatter sees to the few. */
    void (*settle)(const ghm_plan *plan, int n, ghm_block *block);
    /* Adds the block to a table, and moves on what is beyond an edge in a watched cell. */
    void (*scatter)(const ghm_plan *plan, const ghm_block *block, int n, const ghm_ahead *ahead,
                    ghm_table *table);
    /* The slots in use of [first, first + n), numbered from `first` - `group` on, summed over the
     * tables, go to the end of `to`, where there is room for n + GHM_STRIP; they are 0 afterwards. */
    void (*take)(const ghm_table *tables, int n_tables, uint32_t group, uint32_t first, uint32_t n,
                 ghm_cells *to);
    /* x: 16-bit logits, whose patterns are counted in table[GHM_PATTERNS + 1], positives above
     * negatives. Of the block, valid, positive, uneven and suspect tell of weights and targets. */
    void (*tally)(const uint16_t *x, const float *t, const float *w, int n, const ghm_ahead *ahead,
                  uint32_t *table, ghm_block *block);
    /* Hard targets. Without rest and loss the outputs of those are buffers, and left as they like. */
    void (*classes_slope)(const float *x, const float *t, const float *w, int n,
                          const ghm_slopes *slopes, const ghm_ahead *ahead, const ghm_results *out);
    void (*boxes_slope)(const float *pred, const float *target, const float *w, int n,
                        const ghm_slopes *slopes, const ghm_ahead *ahead, const ghm_results *out);
} ghm_kernels;

/* Where tally counts ignored samples: beyond the 16-bit patterns of negatives and of positives. */
enum { GHM_PATTERNS = 1 << 17 };

extern const ghm_kernels ghm_kernels_plain, ghm_kernels_avx2, ghm_kernels_avx512;

/* The best this CPU runs, or the one GHM_ISA names; NULL for a name it cannot run. */
const ghm_kernels *ghm_kernels_choose(const char *isa);

#endif
