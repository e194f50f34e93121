/* question.c - what a sketch answers: counts, sums, regions. No data is read. */
#include "formula.h"
#include "private.h"

#include <stdlib.h>

/* -- cells by the batch ------------------------------------------------------------------------ */

enum { BATCH = 256 }; /* cells looked at together, in loops that become vector code */

typedef struct cell_batch {
    double n[BATCH], offsets[BATCH], squares[BATCH]; /* of the cell */
    int64_t interval[BATCH];
    uint32_t bits[BATCH]; /* where the cell begins */
    uint32_t low[BATCH];  /* where in it the slot begins: 0 but for sides */
    /* Keys are start + spacing * float32 spacings from there on; negative ones have a negative spacing. */
    double start[BATCH], spacing[BATCH];
    double mean[BATCH], variance[BATCH]; /* of the samples' keys */
} cell_batch;

GHM_CLONES
static void find_moments(cell_batch *restrict batch, int n)
{
    const double half = 1 << (GHM_FINE_BITS - 1), unit = 1 << GHM_SQUARE_SHIFT;
    for (int i = 0; i < n; i++) {
        uint32_t bits = batch->bits[i], exponent = bits >> 23 & 255;
        /* 2^(exponent - 150), by way of a float that cannot be subnormal. */
        double spacing = (double)ghm_float((exponent ? exponent : 1) << 23) * 0x1p-23;
        double mean = (batch->offsets[i] / batch->n[i] - half) * (0.5 / half);
        double square = batch->squares[i] / batch->n[i], even = floor(mean * mean / unit + 0.5);
        /* Samples that are all alike have squares that only rounding tells from their mean's. */
        double variance = square == even ? 0 : square * unit - mean * mean;
        batch->start[i] = (double)ghm_float(bits);
        batch->spacing[i] = bits >> 31 ? -spacing : spacing;
        batch->mean[i] = batch->start[i] + batch->spacing[i] * mean;
        batch->variance[i] = variance > 0 ? variance * spacing * spacing : 0;
    }
}

static int batch_size(const ghm_cells *cells, int64_t begin)
{
    return cells->n - begin < BATCH ? (int)(cells->n - begin) : BATCH;
}

/* last: the interval of a cell nearby, and afterwards the last one's. */
static void load_cells(const ghm_edges *edges, const ghm_cell *cells, int n, int64_t *last,
                       cell_batch *batch)
{
    uint32_t low_mask = (1u << edges->shift) - 1;
    int64_t near = *last;
    for (int i = 0; i < n; i++) {
        uint32_t begin = ghm_slot_begin(edges, cells[i].slot), low = begin & low_mask;
        near = ghm_interval_of(edges, begin, near);
        batch->interval[i] = near;
        batch->bits[i] = begin - low;
        batch->low[i] = low;
        batch->n[i] = (double)(int64_t)cells[i].n; /* signed: converts in one instruction */
        batch->offsets[i] = (double)(int64_t)cells[i].offsets;
        batch->squares[i] = (double)(int64_t)cells[i].squares;
    }
    *last = near;
    find_moments(batch, n);
}

/* -- cells as lines --------------------------------------------------------------------------- */

static ghm_line line_of(const ghm_edges *edges, const cell_batch *batch, int i, uint32_t group,
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
    cell_batch batch;
    int64_t last = 0;
    for (uint32_t group = 0; lines && group < 2; group++) {
        const ghm_cells *cells = &sketch->cells[group];
        for (int64_t i = 0; i < cells->n; i += BATCH) {
            int n = batch_size(cells, i);
            load_cells(sketch->edges, cells->at + i, n, &last, &batch);
            for (int k = 0; k < n; k++) {
                *to++ = line_of(sketch->edges, &batch, k, group, cells->at[i + k].slot);
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

static int check_question(const ghm_sketch *sketch, const void *out)
{
    return sketch && out
             ? GHM_OK
             : ghm_fail(GHM_E_ARGUMENT, "the sketch or the place for the answer is NULL");
}

static int check_hard(const ghm_sketch *sketch)
{
    if (sketch->soft_targets) {
        return ghm_fail(GHM_E_SOFT, "soft targets have no single key: only counts, BCE and g of "
                                    "both groups can be asked of them");
    }
    return GHM_OK;
}

int ghm_ask_hard(const ghm_sketch *sketch, const void *out, bool in_order, const ghm_line **lines)
{
    GHM_TRY(check_question(sketch, out));
    GHM_TRY(check_hard(sketch));
    *lines = ghm_sketch_lines(sketch, in_order);
    return *lines ? GHM_OK : ghm_fail(GHM_E_MEMORY, "no memory to answer from the sketch");
}

/* -- counts and sums -------------------------------------------------------------------------- */

static bool is_asked(int32_t group, int one)
{
    return group == GHM_BOTH || group == one;
}

int ghm_sketch_counts(const ghm_sketch *sketch, int32_t group, int64_t *out)
{
    GHM_TRY(check_question(sketch, out));
    if (group != GHM_BOTH) {
        GHM_TRY(check_hard(sketch));
    }
    const ghm_edges *edges = sketch->edges;
    int64_t intervals = ghm_sketch_intervals(sketch), near = 0;
    for (int64_t i = 0; i < intervals; i++) {
        out[i] = sketch->soft.n ? sketch->soft.n[i] : 0;
    }
    for (int one = 0; one < 2; one++) {
        const ghm_cells *cells = &sketch->cells[one];
        for (int64_t i = 0; i < cells->n && is_asked(group, one); i++) {
            near = ghm_interval_of(edges, ghm_slot_begin(edges, cells->at[i].slot), near);
            out[near] += (int64_t)cells->at[i].n;
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

GHM_CLONES
static void bce_means(const double *restrict key, const double *restrict variance, int n,
                      double *restrict out)
{
    for (int i = 0; i < n; i++) {
        double g, loss;
        ghm_sigmoid_softplus(key[i], &g, &loss);
        out[i] = loss + 0.5 * variance[i] * g * (1 - g);
    }
}

GHM_CLONES
static void asl1_means(const double *restrict key, const double *restrict variance, double mu,
                       int n, double *restrict out)
{
    for (int i = 0; i < n; i++) {
        double h = ghm_hypot(key[i], mu), bend = mu / h;
        out[i] = key[i] * (key[i] / (h + mu)) + 0.5 * variance[i] * bend * bend / h;
    }
}

/* Sum of x[i] y[i], in eight sums of its own, as one would wait for each addition. */
static double dot(const double *restrict x, const double *restrict y, int n)
{
    double part[8] = {0};
    int whole = n - n % 8;
    for (int i = 0; i < whole; i += 8) {
        for (int k = 0; k < 8; k++) {
            part[k] += x[i + k] * y[i + k];
        }
    }
    for (int i = whole; i < n; i++) {
        part[0] += x[i] * y[i];
    }
    return ((part[0] + part[4]) + (part[2] + part[6])) +
           ((part[1] + part[5]) + (part[3] + part[7]));
}

/* A function's sums over one group. The two losses that GHM itself weighs are smooth, and asked for
 * all the time: for them a Taylor step does, of the same order, and nothing of the lines is needed. */
static void add_smooth(const ghm_sketch *sketch, int group, int32_t function, double mu,
                       double *out)
{
    const ghm_cells *cells = &sketch->cells[group];
    cell_batch batch;
    double mean[BATCH];
    int64_t last = 0;
    for (int64_t i = 0; i < cells->n; i += BATCH) {
        int n = batch_size(cells, i);
        load_cells(sketch->edges, cells->at + i, n, &last, &batch);
        if (function == GHM_BCE) {
            bce_means(batch.mean, batch.variance, n, mean);
        } else {
            asl1_means(batch.mean, batch.variance, mu, n, mean);
        }
        for (int k = 0, end; k < n; k = end) {
            for (end = k + 1; end < n && batch.interval[end] == batch.interval[k]; end++) {
            }
            out[batch.interval[k]] += dot(batch.n + k, mean + k, end - k);
        }
    }
}

int ghm_sketch_sums(const ghm_sketch *sketch, int32_t function, double a, double b, int32_t group,
                    double *out)
{
    GHM_TRY(check_question(sketch, out));
    int task = sketch->edges->task;
    GHM_TRY(ghm_check_function(task, function, a, b));
    int64_t intervals = ghm_sketch_intervals(sketch);
    if (sketch->soft_targets) {
        if (group != GHM_BOTH || (function != GHM_BCE && function != GHM_NORM)) {
            return check_hard(sketch);
        }
        const double *sums = function == GHM_BCE ? sketch->soft.bce : sketch->soft.norm;
        memcpy(out, sums, (size_t)intervals * sizeof *out);
        return GHM_OK;
    }
    memset(out, 0, (size_t)intervals * sizeof *out);
    if (function == GHM_BCE || function == GHM_ASL1) {
        for (int one = 0; one < 2; one++) {
            if (is_asked(group, one)) {
                add_smooth(sketch, one, function, a, out);
            }
        }
        return GHM_OK;
    }
    const ghm_line *lines;
    GHM_TRY(ghm_ask_hard(sketch, out, false, &lines));
    for (int64_t i = 0, cells = ghm_sketch_cells(sketch); i < cells; i++) {
        if (is_asked(group, (int)lines[i].group)) {
            out[lines[i].interval] += lines[i].n * ghm_line_mean(task, function, a, b, &lines[i]);
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
