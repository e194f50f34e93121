/*
 * lines.c - cells as questions see them: where their samples lie, and how widely.
 */
#include "formula.h"
#include "private.h"

#include <stdlib.h>

/* -- cells by the batch ------------------------------------------------------------------------ */

GHM_CLONES
static void find_moments(const uint64_t *restrict n_of, const uint64_t *restrict offsets,
                         const uint64_t *restrict squares, int n, ghm_cell_batch *restrict batch)
{
    const double half = 1 << (GHM_FINE_BITS - 1), unit = 1 << GHM_SQUARE_SHIFT;
    for (int i = 0; i < n; i++) {
        uint32_t bits = batch->bits[i], exponent = bits >> 23 & 255;
        /* 2^(exponent - 150), by way of a float that cannot be subnormal. */
        double spacing = (double)ghm_float((exponent ? exponent : 1) << 23) * 0x1p-23;
        double of = (double)(int64_t)n_of[i]; /* signed: converts in one instruction */
        double mean = ((double)(int64_t)offsets[i] / of - half) * (0.5 / half);
        double square = (double)(int64_t)squares[i] / of, even = floor(mean * mean / unit + 0.5);
        /* Samples that are all alike have squares that only rounding tells from their mean's. */
        double variance = square == even ? 0 : square * unit - mean * mean;
        batch->n[i] = of;
        batch->start[i] = (double)ghm_float(bits);
        batch->spacing[i] = bits >> 31 ? -spacing : spacing;
        batch->mean[i] = batch->start[i] + batch->spacing[i] * mean;
        batch->variance[i] = variance > 0 ? variance * spacing * spacing : 0;
    }
}

int ghm_load_cells(const ghm_edges *edges, const ghm_cells *cells, int64_t begin, ghm_near *near,
                   ghm_cell_batch *batch)
{
    int n = cells->count - begin < GHM_CELL_BATCH ? (int)(cells->count - begin) : GHM_CELL_BATCH;
    uint32_t low_mask = (1u << edges->shift) - 1;
    const uint32_t *slot = cells->slot + begin;
    for (int i = 0; i < n; i++) {
        batch->low[i] = 0;
        batch->bits[i] = slot[i] << edges->shift;
    }
    for (int i = n - 1; i >= 0 && slot[i] >= edges->n_cells; i--) { /* sides, which come last */
        uint32_t first = ghm_slot_begin(edges, slot[i]);
        batch->low[i] = first & low_mask;
        batch->bits[i] = first - batch->low[i];
    }
    for (int i = 0; i < n;) {
        int64_t end = ghm_run_end(edges, cells, begin + i, near) - begin;
        for (end = end < n ? end : n; i < end; i++) {
            batch->interval[i] = near->interval;
        }
    }
    find_moments(cells->n + begin, cells->offsets + begin, cells->squares + begin, n, batch);
    return n;
}

/* -- cells as lines --------------------------------------------------------------------------- */

static ghm_line line_of(const ghm_edges *edges, const ghm_cell_batch *batch, int i, uint32_t group,
                        uint32_t slot)
{
    uint32_t width = 1u << edges->shift, high = width;
    if (edges->split[slot]) { /* an edge ends it early */
        high = width - (edges->split[slot] & (width - 1));
    }
    double begin = batch->start[i] + batch->spacing[i] * batch->low[i];
    double end = batch->start[i] + batch->spacing[i] * high;
    return (ghm_line){
        .mean = batch->mean[i],
        .variance = batch->variance[i],
        .low = begin < end ? begin : end,
        .high = begin < end ? end : begin,
        .n = batch->n[i],
        .interval = batch->interval[i],
        .group = group,
        .slot = slot,
    };
}

static int rising(const void *a, const void *b)
{
    const ghm_line *x = a, *y = b;
    if (x->mean != y->mean) {
        return x->mean < y->mean ? -1 : 1;
    }
    if (x->group != y->group) {
        return x->group < y->group ? -1 : 1;
    }
    return (x->slot > y->slot) - (x->slot < y->slot);
}

/* Cells by rising slot, negatives first. */
static ghm_line *new_lines(const ghm_sketch *sketch)
{
    ghm_line *lines = malloc((size_t)(ghm_sketch_cells(sketch) + 1) * sizeof *lines), *to = lines;
    ghm_cell_batch batch;
    ghm_near near = {0};
    for (uint32_t group = 0; lines && group < 2; group++) {
        const ghm_cells *cells = &sketch->cells[group];
        for (int64_t i = 0; i < cells->count; i += GHM_CELL_BATCH) {
            int n = ghm_load_cells(sketch->edges, cells, i, &near, &batch);
            for (int k = 0; k < n; k++) {
                *to++ = line_of(sketch->edges, &batch, k, group, cells->slot[i + k]);
            }
        }
    }
    return lines;
}

/* By rising mean, each knowing how many samples lie before it, and low and high where they do. */
static ghm_line *new_sorted(const ghm_line *lines, int64_t n)
{
    ghm_line *sorted = malloc((size_t)(n + 1) * sizeof *sorted);
    if (sorted) {
        memcpy(sorted, lines, (size_t)n * sizeof *sorted);
        qsort(sorted, (size_t)n, sizeof *sorted, rising);
        double before = 0;
        for (int64_t i = 0; i < n; i++) {
            /* Samples spread evenly over this far have the cell's variance. */
            double reach = sqrt(3 * sorted[i].variance), mean = sorted[i].mean;
            sorted[i].low = mean - reach > sorted[i].low ? mean - reach : sorted[i].low;
            sorted[i].high = mean + reach < sorted[i].high ? mean + reach : sorted[i].high;
            sorted[i].before = before;
            before += sorted[i].n;
        }
    }
    return sorted;
}

const ghm_line *ghm_sketch_lines(const ghm_sketch *sketch, bool in_order)
{
    ghm_sketch *memory = (ghm_sketch *)sketch; /* what is remembered is no part of the state */
    if (!sketch->lines) {
        memory->lines = new_lines(sketch);
    }
    if (in_order && sketch->lines && !sketch->sorted) {
        memory->sorted = new_sorted(sketch->lines, ghm_sketch_cells(sketch));
    }
    return in_order ? sketch->sorted : sketch->lines;
}

int ghm_check_question(const ghm_sketch *sketch, const void *out)
{
    return sketch && out
             ? GHM_OK
             : ghm_fail(GHM_E_ARGUMENT, "the sketch or the place for the answer is NULL");
}

int ghm_check_hard(const ghm_sketch *sketch)
{
    if (sketch->soft_targets) {
        return ghm_fail(GHM_E_SOFT, "soft targets have no single key: only counts, BCE and g of "
                                    "both groups can be asked of them");
    }
    return GHM_OK;
}

int ghm_check_group(int32_t group)
{
    if (group < GHM_BOTH || group > GHM_POSITIVES) {
        return ghm_fail(GHM_E_ARGUMENT, "group is %d, expected -1 to 1", group);
    }
    return GHM_OK;
}

int ghm_ask_hard(const ghm_sketch *sketch, const void *out, bool in_order, const ghm_line **lines)
{
    GHM_TRY(ghm_check_question(sketch, out));
    GHM_TRY(ghm_check_hard(sketch));
    *lines = ghm_sketch_lines(sketch, in_order);
    return *lines ? GHM_OK : ghm_fail(GHM_E_MEMORY, "no memory to answer from the sketch");
}
