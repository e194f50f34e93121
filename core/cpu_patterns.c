/*
 * cpu_patterns.c - 16-bit logits: how often each of their 65,536 patterns occurs says all.
 *
 * Counting takes one addition to one word per sample, a third of what a cell takes. The cells that
 * come out are those of the general pass, to the bit.
 */
#include "cpu.h"
#include "formula.h"

#include <stdlib.h>

enum {
    HALF = 1 << 16,        /* patterns of one group */
    WORTH_WHILE = 1 << 18, /* samples: fewer do not repay reading the table of counts */
};

bool cpu_has_patterns(const ghm_batch *batch)
{
    return batch->task == GHM_CLASSIFICATION && batch->target_form != GHM_SOFT &&
           (batch->pred_dtype == GHM_F16 || batch->pred_dtype == GHM_BF16) &&
           batch->rows >= WORTH_WHILE / batch->cols;
}

/* Whether all weights of a block are 1, as those of most masks are. */
static bool all_in_use(const ghm_batch *batch, int64_t begin, int n)
{
    int64_t per = batch->weight_per_row ? batch->cols : 1, end = (begin + n - 1) / per + 1;
    const uint8_t *bytes = batch->weight;
    const float *floats = batch->weight;
    uint32_t other = 0;
    if (!batch->weight) {
        return true;
    }
    for (int64_t i = begin / per; i < end; i++) {
        other |= batch->weight_dtype == GHM_U8 ? bytes[i] ^ 1u : ghm_bits(floats[i]) ^ ghm_bits(1);
    }
    return other == 0;
}

/* All as negatives, and then the positives are moved. */
static void count_labelled(const ghm_batch *batch, int64_t begin, int n, const ghm_ahead *ahead,
                           uint32_t *counts, ghm_buffers *buffers, ghm_block *block)
{
    const uint16_t *x = (const uint16_t *)batch->pred + begin;
    int at[GHM_BLOCK], whole = n - n % GHM_LINE;
    int found = ghm_find_positives(batch, begin, n, at, buffers);
    for (int i = 0; i < whole; i += GHM_LINE) {
        ghm_fetch(ahead, i);
#pragma GCC unroll 16
        for (int k = 0; k < GHM_LINE; k++) {
            counts[x[i + k]]++;
        }
    }
    for (int i = whole; i < n; i++) {
        counts[x[i]]++;
    }
    for (int k = 0; k < found; k++) {
        counts[x[at[k]]]--;
        counts[x[at[k]] + HALF]++;
    }
    block->valid = (uint32_t)n;
    block->positive = (uint32_t)found;
    block->uneven = block->suspect = 0;
}

void cpu_count_patterns(const ghm_kernels *kernels, const ghm_batch *batch, int64_t begin, int n,
                        uint32_t *counts, ghm_buffers *buffers, ghm_block *block)
{
    const ghm_ahead ahead = ghm_look_ahead(batch, begin + 3 * GHM_BLOCK);
    if (batch->target_form != GHM_DENSE && all_in_use(batch, begin, n)) {
        count_labelled(batch, begin, n, &ahead, counts, buffers, block);
        return;
    }
    ghm_load_targets(kernels, batch, begin, n, buffers);
    kernels->tally((const uint16_t *)batch->pred + begin, buffers->pt, buffers->pw, n, &ahead,
                   counts, block);
}

static uint32_t key_of(int32_t dtype, uint16_t pattern)
{
    return ghm_bits(dtype == GHM_F16 ? ghm_half(pattern) : ghm_bfloat(pattern));
}

/* Every pattern is a slot of its own: cells are no wider than a spacing of 16-bit floats. */
static ghm_cell cell_of(const ghm_edges *edges, uint32_t key, uint32_t n)
{
    uint32_t low = key & ((1u << edges->shift) - 1);
    return (ghm_cell){
        .slot = ghm_slot_of(edges->split, edges->n_cells, edges->shift, key >> edges->shift, low),
        .n = n,
        .offsets = (uint64_t)n * ghm_offset(low),
        .squares = (uint64_t)n * ghm_square(low),
    };
}

/* One group's cells by rising slot: sides, which come in the order of keys too, after the others. */
static int take_group(uint32_t *counts, bool positives, int32_t dtype, const ghm_edges *edges,
                      ghm_cells *into, bool *odd)
{
    ghm_cells fresh = {0};
    int64_t n_sides = 0;
    GHM_TRY(ghm_cells_reserve(&fresh, 2 * HALF)); /* sides wait in the second half */
    for (uint32_t value = 0; value < HALF; value++) {
        uint32_t pattern = value ^ (positives ? 0x8000u : 0); /* a positive's key is -x */
        uint32_t n = counts[pattern], key = key_of(dtype, (uint16_t)value);
        if (n == 0) {
            continue;
        }
        *odd |= (key & 0x7fffffffu) >= 0x7f800000u;
        ghm_cell cell = cell_of(edges, key, n);
        if (cell.slot < edges->n_cells) {
            ghm_cell_put(&fresh, fresh.count++, cell);
        } else {
            ghm_cell_put(&fresh, HALF + n_sides++, cell);
        }
        counts[pattern] = 0;
    }
    for (int64_t i = 0; i < n_sides; i++) {
        ghm_cell_put(&fresh, fresh.count++, ghm_cell_at(&fresh, HALF + i));
    }
    int status = ghm_cells_merge(into, &fresh);
    ghm_cells_free(&fresh);
    return status;
}

int cpu_take_patterns(uint32_t *counts, int32_t dtype, const ghm_edges *edges, ghm_cells cells[2],
                      bool *odd)
{
    counts[GHM_PATTERNS] = 0;
    int status = take_group(counts, false, dtype, edges, &cells[0], odd);
    int other = take_group(counts + HALF, true, dtype, edges, &cells[1], odd);
    return status ? status : other;
}
