/* question.c - what a sketch answers: counts, sums, regions. No data is read. */
#include "formula.h"
#include "private.h"

#include <stdlib.h>

/* -- counts and sums -------------------------------------------------------------------------- */

static bool is_asked(int32_t group, int one)
{
    return group == GHM_BOTH || group == one;
}

int ghm_sketch_counts(const ghm_sketch *sketch, int32_t group, int64_t *out)
{
    GHM_TRY(ghm_check_question(sketch, out));
    GHM_TRY(ghm_check_group(group));
    if (group != GHM_BOTH) {
        GHM_TRY(ghm_check_hard(sketch));
    }
    const ghm_edges *edges = sketch->edges;
    int64_t intervals = ghm_sketch_intervals(sketch);
    ghm_near near = {0};
    for (int64_t i = 0; i < intervals; i++) {
        out[i] = sketch->soft.n ? sketch->soft.n[i] : 0;
    }
    for (int one = 0; one < 2; one++) {
        const ghm_cells *cells = &sketch->cells[one];
        for (int64_t i = 0; i < cells->count && is_asked(group, one);) {
            uint64_t samples = 0;
            for (int64_t end = ghm_run_end(edges, cells, i, &near); i < end; i++) {
                samples += cells->n[i];
            }
            out[near.interval] += (int64_t)samples;
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

/* What cells next to each other that lie in one interval add to its sum. */
typedef struct part {
    int64_t interval;
    double sum;
} part;

typedef struct parts {
    part *at;
    int64_t count, room;
} parts;

static int append(parts *list, int64_t interval, double sum)
{
    if (list->count == list->room) {
        int64_t room = 2 * list->room + 64;
        part *grown = realloc(list->at, (size_t)room * sizeof *grown);
        if (!grown) {
            return GHM_E_MEMORY;
        }
        list->at = grown;
        list->room = room;
    }
    list->at[list->count++] = (part){interval, sum};
    return GHM_OK;
}

/* The parts of one batch of cells. */
static int append_batch(const ghm_edges *edges, const ghm_cells *cells, int64_t begin,
                        int32_t function, double mu, ghm_near *near, parts *list)
{
    ghm_cell_batch batch;
    double mean[GHM_CELL_BATCH];
    int n = ghm_load_cells(edges, cells, begin, near, &batch), status = GHM_OK;
    if (function == GHM_BCE) {
        bce_means(batch.mean, batch.variance, n, mean);
    } else {
        asl1_means(batch.mean, batch.variance, mu, n, mean);
    }
    for (int k = 0, end; k < n && status == GHM_OK; k = end) {
        for (end = k + 1; end < n && batch.interval[end] == batch.interval[k]; end++) {
        }
        status = append(list, batch.interval[k], dot(batch.n + k, mean + k, end - k));
    }
    return status;
}

/* A function's sums over a group. The two losses that GHM itself weighs are smooth, and asked for all
 * the time: for them a Taylor step does, of the same order, and nothing of the lines is needed.
 * Threads share the cells; parts are added in the order of cells, so that no bit depends on them. */
static int add_smooth(const ghm_sketch *sketch, int32_t group, int32_t function, double mu,
                      double *out)
{
    enum { WORTH_WHILE = 16 }; /* batches a thread: fewer do not repay waking it */
    int64_t batches[2];
    for (int one = 0; one < 2; one++) {
        int64_t cells = is_asked(group, one) ? sketch->cells[one].count : 0;
        batches[one] = (cells + GHM_CELL_BATCH - 1) / GHM_CELL_BATCH;
    }
    int64_t all = batches[0] + batches[1], most = all / WORTH_WHILE + 1;
    int threads = sketch->threads < most ? sketch->threads : (int)most, status = GHM_OK;
    threads = threads > 1 ? threads : 1;
    parts *lists = calloc((size_t)threads, sizeof *lists);
    if (!lists) {
        return ghm_fail(GHM_E_MEMORY, "no memory to answer from the sketch");
    }
#pragma omp parallel for schedule(static, 1) num_threads(threads) reduction(max : status)
    for (int t = 0; t < threads; t++) {
        ghm_near near = {0};
        int mine = GHM_OK;
        for (int64_t i = all * t / threads; i < all * (t + 1) / threads && !mine; i++) {
            int one = i >= batches[0];
            int64_t begin = (one ? i - batches[0] : i) * GHM_CELL_BATCH;
            mine = append_batch(sketch->edges, &sketch->cells[one], begin, function, mu, &near,
                                &lists[t]);
        }
        status = mine;
    }
    for (int t = 0; t < threads; t++) {
        for (int64_t k = 0; k < lists[t].count; k++) {
            out[lists[t].at[k].interval] += lists[t].at[k].sum;
        }
        free(lists[t].at);
    }
    free(lists);
    return status ? ghm_fail(status, "no memory to answer from the sketch") : GHM_OK;
}

int ghm_sketch_sums(const ghm_sketch *sketch, int32_t function, double a, double b, int32_t group,
                    double *out)
{
    GHM_TRY(ghm_check_question(sketch, out));
    int task = sketch->edges->task;
    GHM_TRY(ghm_check_function(task, function, a, b));
    GHM_TRY(ghm_check_group(group));
    int64_t intervals = ghm_sketch_intervals(sketch);
    if (sketch->soft_targets) {
        if (group != GHM_BOTH || (function != GHM_BCE && function != GHM_NORM)) {
            return ghm_check_hard(sketch);
        }
        const double *sums = function == GHM_BCE ? sketch->soft.bce : sketch->soft.norm;
        memcpy(out, sums, (size_t)intervals * sizeof *out);
        return GHM_OK;
    }
    memset(out, 0, (size_t)intervals * sizeof *out);
    if (function == GHM_BCE || function == GHM_ASL1) {
        return add_smooth(sketch, group, function, a, out);
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
