/* question.c - what a sketch answers: counts, sums, regions. No data is read. */
#include "formula.h"
#include "private.h"

#include <stdlib.h>

/* -- cells as lines --------------------------------------------------------------------------- */

/* last: the interval of a cell nearby, and afterwards this one's. */
static ghm_line line_of(const ghm_edges *edges, const ghm_cell *cell, uint32_t group, int64_t *last)
{
    uint32_t low = 0, width = 1u << edges->shift, id = cell->slot, high = width;
    if (cell->slot >= edges->n_cells) { /* a side slot: the part of its cell beyond the edge */
        id = edges->side_cell[cell->slot - edges->n_cells];
        low = edges->side_split[cell->slot - edges->n_cells];
    }
    if (edges->split[cell->slot]) { /* another edge ends it early */
        high = width - (edges->split[cell->slot] & (width - 1));
    }
    uint32_t bits = id << edges->shift, exponent = bits >> 23 & 255;
    double start = ghm_float(bits & 0x7fffffffu), sign = bits >> 31 ? -1 : 1;
    /* A float32 spacing here: 2^(exponent - 150), by way of a float that cannot be subnormal. */
    double spacing = (double)ghm_float((exponent ? exponent : 1) << 23) * 0x1p-23;
    double n = (double)cell->n, mean = ((double)cell->offsets / n - 128) / 256;
    double variance = (double)cell->squares / n - mean * mean;
    double begin = sign * (start + spacing * low), end = sign * (start + spacing * high);
    ghm_line line = {
        .mean = sign * (start + spacing * mean),
        .variance = variance > 0 ? variance * spacing * spacing : 0,
        .low = sign > 0 ? begin : end,
        .high = sign > 0 ? end : begin,
        .n = n,
        .interval = *last = ghm_interval_of(edges, bits | low, *last),
        .group = group,
        .slot = cell->slot,
    };
    return line;
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
    ghm_line *lines = malloc((size_t)(ghm_sketch_cells(sketch) + 1) * sizeof *lines);
    int64_t n = 0, last = 0;
    for (uint32_t group = 0; lines && group < 2; group++) {
        const ghm_cells *cells = &sketch->cells[group];
        for (int64_t i = 0; i < cells->n; i++) {
            lines[n++] = line_of(sketch->edges, &cells->at[i], group, &last);
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

int ghm_ask(const ghm_sketch *sketch, const void *out, bool in_order, const ghm_line **lines)
{
    if (!sketch || !out) {
        return ghm_fail(GHM_E_ARGUMENT, "the sketch or the place for the answer is NULL");
    }
    *lines = ghm_sketch_lines(sketch, in_order);
    return *lines ? GHM_OK : ghm_fail(GHM_E_MEMORY, "no memory to answer from the sketch");
}

int ghm_ask_hard(const ghm_sketch *sketch, const void *out, bool in_order, const ghm_line **lines)
{
    GHM_TRY(ghm_ask(sketch, out, in_order, lines));
    if (sketch->soft_targets) {
        return ghm_fail(GHM_E_SOFT, "soft targets have no single key: only counts, BCE and g of "
                                    "both groups can be asked of them");
    }
    return GHM_OK;
}

/* -- counts and sums -------------------------------------------------------------------------- */

int ghm_sketch_counts(const ghm_sketch *sketch, int32_t group, int64_t *out)
{
    const ghm_line *lines;
    GHM_TRY((group == GHM_BOTH ? ghm_ask : ghm_ask_hard)(sketch, out, false, &lines));
    int64_t cells = ghm_sketch_cells(sketch), intervals = ghm_sketch_intervals(sketch);
    for (int64_t i = 0; i < intervals; i++) {
        out[i] = sketch->soft.n ? sketch->soft.n[i] : 0;
    }
    for (int64_t i = 0; i < cells; i++) {
        if (group == GHM_BOTH || (uint32_t)group == lines[i].group) {
            out[lines[i].interval] += (int64_t)lines[i].n;
        }
    }
    return GHM_OK;
}

int ghm_check_function(int task, int32_t function, double a, double b)
{
    bool boxes = function == GHM_ASL1 || function == GHM_SMOOTH_L1 ||
                 function == GHM_SMOOTH_L1_NORM || function == GHM_SMOOTH_L1_NORM_SQUARED;
    bool either = function == GHM_NORM || function == GHM_NORM_SQUARED;
    bool focal = function == GHM_FOCAL || function == GHM_FOCAL_NORM ||
                 function == GHM_FOCAL_NORM_SQUARED;
    if (function < GHM_BCE || function > GHM_SMOOTH_L1_NORM_SQUARED ||
        (!either && boxes != (task == GHM_REGRESSION))) {
        return ghm_fail(GHM_E_ARGUMENT, "function is %d, which task %d does not know", function,
                        task);
    }
    if (task == GHM_REGRESSION && !(a > 0 && isfinite(a))) {
        return ghm_fail(GHM_E_ARGUMENT, "%s is %g, expected a finite number above 0",
                        boxes && function != GHM_ASL1 ? "beta" : "mu", a);
    }
    if (focal && !(a < 1 && b >= 0 && isfinite(b))) {
        return ghm_fail(GHM_E_ARGUMENT,
                        "alpha is %g and gamma %g, expected alpha below 1, gamma "
                        ">= 0",
                        a, b);
    }
    return GHM_OK;
}

static double value_at(int task, int32_t function, double a, double b, int positive, double key)
{
    double g, norm;
    switch (function) {
    case GHM_BCE:
        return ghm_softplus(key);
    case GHM_FOCAL:
        return ghm_focal_alpha(a, positive) * ghm_focal(key, b);
    case GHM_FOCAL_NORM:
        return ghm_focal_alpha(a, positive) * ghm_focal_norm(key, b);
    case GHM_FOCAL_NORM_SQUARED:
        norm = ghm_focal_alpha(a, positive) * ghm_focal_norm(key, b);
        return norm * norm;
    case GHM_ASL1:
        return ghm_asl1(key, a);
    case GHM_SMOOTH_L1:
        return ghm_smooth_l1(key, a);
    case GHM_SMOOTH_L1_NORM:
        return ghm_smooth_l1_norm(key, a);
    case GHM_SMOOTH_L1_NORM_SQUARED:
        norm = ghm_smooth_l1_norm(key, a);
        return norm * norm;
    default:
        g = task == GHM_REGRESSION ? ghm_asl1_norm(key, a) : ghm_sigmoid(key);
        return function == GHM_NORM_SQUARED ? g * g : g;
    }
}

/* The mean of a function over a cell, from two points with the cell's mean and variance: right to
 * third order in a width of 2^-10. They stand a deviation from the mean, or where the cell ends: none
 * is beyond an edge, where a function may bend. */
double ghm_line_mean(int task, int32_t function, double a, double b, const ghm_line *line)
{
    double below = sqrt(line->variance), above = below;
    double room_below = line->mean - line->low, room_above = line->high - line->mean;
    int positive = line->group == GHM_POSITIVES;
    if (!(below > 0)) {
        return value_at(task, function, a, b, positive, line->mean);
    }
    if (room_below > 0 && room_below < below) {
        below = room_below;
        above = line->variance / below;
    } else if (room_above > 0 && room_above < above) {
        above = room_above;
        below = line->variance / above;
    }
    double near = value_at(task, function, a, b, positive, line->mean - below);
    double far = value_at(task, function, a, b, positive, line->mean + above);
    return (above * near + below * far) / (below + above);
}

enum { BATCH = 256 }; /* cells evaluated together, in loops that become vector code */

GHM_CLONES
static void bce_means(const double *restrict key, const double *restrict half_variance, int n,
                      double *restrict out)
{
    for (int i = 0; i < n; i++) {
        double g, loss;
        ghm_sigmoid_softplus(key[i], &g, &loss);
        out[i] = loss + half_variance[i] * g * (1 - g);
    }
}

GHM_CLONES
static void asl1_means(const double *restrict key, const double *restrict half_variance, double mu,
                       int n, double *restrict out)
{
    for (int i = 0; i < n; i++) {
        double h = ghm_hypot(key[i], mu), bend = mu / h;
        out[i] = key[i] * (key[i] / (h + mu)) + half_variance[i] * bend * bend / h;
    }
}

/* The mean of a function over each of n cells, at most BATCH. The two losses that GHM itself weighs
 * are smooth, and asked for all the time: for them a Taylor step does, of the same order. */
static void means_of(int task, int32_t function, double a, double b, const ghm_line *lines, int n,
                     double *out)
{
    double key[BATCH], half_variance[BATCH];
    for (int i = 0; i < n; i++) {
        key[i] = lines[i].mean;
        half_variance[i] = lines[i].variance / 2;
    }
    if (function == GHM_BCE) {
        bce_means(key, half_variance, n, out);
    } else if (function == GHM_ASL1) {
        asl1_means(key, half_variance, a, n, out);
    } else {
        for (int i = 0; i < n; i++) {
            out[i] = ghm_line_mean(task, function, a, b, &lines[i]);
        }
    }
}

int ghm_sketch_sums(const ghm_sketch *sketch, int32_t function, double a, double b, int32_t group,
                    double *out)
{
    const ghm_line *lines;
    GHM_TRY(ghm_ask(sketch, out, false, &lines));
    int task = sketch->edges->task;
    GHM_TRY(ghm_check_function(task, function, a, b));
    int64_t cells = ghm_sketch_cells(sketch), intervals = ghm_sketch_intervals(sketch);
    if (sketch->soft_targets) {
        if (group != GHM_BOTH || (function != GHM_BCE && function != GHM_NORM)) {
            return ghm_ask_hard(sketch, out, false, &lines);
        }
        const double *sums = function == GHM_BCE ? sketch->soft.bce : sketch->soft.norm;
        memcpy(out, sums, (size_t)intervals * sizeof *out);
        return GHM_OK;
    }
    memset(out, 0, (size_t)intervals * sizeof *out);
    for (int64_t i = 0; i < cells; i += BATCH) {
        int n = cells - i < BATCH ? (int)(cells - i) : BATCH;
        double mean[BATCH];
        means_of(task, function, a, b, lines + i, n, mean);
        for (int k = 0; k < n; k++) {
            if (group == GHM_BOTH || (uint32_t)group == lines[i + k].group) {
                out[lines[i + k].interval] += lines[i + k].n * mean[k];
            }
        }
    }
    return GHM_OK;
}

/* -- regions ---------------------------------------------------------------------------------- */

int ghm_sketch_cut(const ghm_sketch *sketch, int64_t bins, double mu, int64_t *cut)
{
    if (!sketch || !cut) {
        return ghm_fail(GHM_E_ARGUMENT, "the sketch or the place for the cut is NULL");
    }
    const ghm_edges *edges = sketch->edges;
    GHM_TRY(ghm_check_bins(edges->task, bins, mu));
    cut[0] = 0;
    for (int64_t j = 1, at = 0; j < bins; j++) {
        float wanted = ghm_threshold(edges->task, j, bins, mu);
        while (at < edges->n_thresholds && edges->thresholds[at] < wanted) {
            at++;
        }
        if (at == edges->n_thresholds || edges->thresholds[at] != wanted) {
            return ghm_fail(GHM_E_EDGES, "bins = %lld%s was not declared when the sketch was made",
                            (long long)bins, edges->task == GHM_REGRESSION ? " with this mu" : "");
        }
        cut[j] = at + 1;
    }
    cut[bins] = edges->n_thresholds + 1;
    return GHM_OK;
}
