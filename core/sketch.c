/* sketch.c - the sketch's life: made, added to, merged, freed. */
#include "private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* -- sums beside the cells -------------------------------------------------------------------- */

void ghm_weights_add(ghm_weights *into, const ghm_weights *from)
{
    for (int e = 0; e < 256; e++) {
        into->units[e] += from->units[e];
    }
}

double ghm_weights_sum(const ghm_weights *weights)
{
    /* From the smallest exponent up, so that the sum is rounded as little as doubles allow. */
    double sum = 0;
    for (int e = 0; e < 256; e++) {
        if (weights->units[e]) { /* few are, and small batches notice the calls */
            sum += ldexp((double)weights->units[e], (e ? e : 1) - 150);
        }
    }
    return sum;
}

int ghm_soft_new(int64_t intervals, ghm_soft *out)
{
    size_t n = (size_t)intervals;
    *out = (ghm_soft){calloc(n, sizeof *out->n), calloc(n, sizeof *out->bce),
                      calloc(n, sizeof *out->norm)};
    if (!out->n || !out->bce || !out->norm) {
        ghm_soft_free(out);
        return ghm_fail(GHM_E_MEMORY, "no memory for %lld regions", (long long)intervals);
    }
    return GHM_OK;
}

void ghm_soft_add(ghm_soft *into, const ghm_soft *from, int64_t intervals)
{
    for (int64_t i = 0; i < intervals; i++) {
        into->n[i] += from->n[i];
        into->bce[i] += from->bce[i];
        into->norm[i] += from->norm[i];
    }
}

void ghm_soft_free(ghm_soft *soft)
{
    free(soft->n);
    free(soft->bce);
    free(soft->norm);
    *soft = (ghm_soft){0};
}

/* -- the sketch ------------------------------------------------------------------------------- */

int ghm_sketch_with(ghm_edges *edges, ghm_sketch **out)
{
    ghm_sketch *sketch = calloc(1, sizeof *sketch);
    if (!sketch) {
        ghm_edges_release(edges);
        return ghm_fail(GHM_E_MEMORY, "no memory for a sketch");
    }
    sketch->edges = edges;
    sketch->facts.first_nonfinite = sketch->facts.first_soft = -1;
    sketch->facts.first_bad_label = -1;
    *out = sketch;
    return GHM_OK;
}

int ghm_sketch_new(int32_t task, const int64_t *bins, int64_t n_bins, const double *mu,
                   int64_t n_mu, const double *knots, int64_t n_knots, ghm_sketch **out)
{
    ghm_edges *edges;
    if (!out) {
        return ghm_fail(GHM_E_ARGUMENT, "the place for the sketch is NULL");
    }
    GHM_TRY(ghm_edges_new(task, bins, n_bins, mu, n_mu, knots, n_knots, &edges));
    return ghm_sketch_with(edges, out);
}

int ghm_sketch_like(const ghm_sketch *sketch, ghm_sketch **out)
{
    if (!sketch || !out) {
        return ghm_fail(GHM_E_ARGUMENT, "the sketch or its place is NULL");
    }
    sketch->edges->references++;
    return ghm_sketch_with(sketch->edges, out);
}

void ghm_sketch_free(ghm_sketch *sketch)
{
    if (sketch) {
        ghm_edges_release(sketch->edges);
        ghm_cells_free(&sketch->cells[0]);
        ghm_cells_free(&sketch->cells[1]);
        ghm_soft_free(&sketch->soft);
        free(sketch->lines);
        free(sketch->sorted);
        free(sketch);
    }
}

static bool one_of(int32_t value, const char *allowed)
{
    return value >= 0 && value < 6 && allowed[value] == '+';
}

int ghm_check_batch(const ghm_batch *batch)
{
    if (!batch) {
        return ghm_fail(GHM_E_ARGUMENT, "the batch is NULL");
    }
    bool labels = batch->target_form == GHM_ZERO_BASED || batch->target_form == GHM_ONE_BASED;
    bool regression = batch->task == GHM_REGRESSION;
    if (batch->rows < 0 || batch->cols < 1 || batch->rows > INT64_MAX / 8 / batch->cols) {
        return ghm_fail(GHM_E_ARGUMENT, "the shape is [%lld, %lld], expected rows >= 0, cols >= 1",
                        (long long)batch->rows, (long long)batch->cols);
    }
    if (batch->task != GHM_CLASSIFICATION && !regression) {
        return ghm_fail(GHM_E_ARGUMENT, "task is %d, expected 0 or 1", batch->task);
    }
    if (batch->target_form < GHM_DENSE || batch->target_form > GHM_ONE_BASED ||
        (regression && batch->target_form != GHM_DENSE)) {
        return ghm_fail(GHM_E_ARGUMENT, "target_form is %d, which this task does not know",
                        batch->target_form);
    }
    /* F32 F16 BF16 U8 I32 I64 */
    if (!one_of(batch->pred_dtype, "+++---") ||
        !one_of(batch->target_dtype, labels ? "---+++" : "++++--") ||
        (batch->weight && !one_of(batch->weight_dtype, "+--+--"))) {
        return ghm_fail(GHM_E_ARGUMENT,
                        "dtypes are pred %d, target %d, weight %d: one does not fit "
                        "its array",
                        batch->pred_dtype, batch->target_dtype, batch->weight_dtype);
    }
    if (batch->rows > 0 && (!batch->pred || !batch->target)) {
        return ghm_fail(GHM_E_ARGUMENT, "%s is NULL", batch->pred ? "target" : "pred");
    }
    return GHM_OK;
}

int ghm_judge(const ghm_batch *batch, const ghm_facts *facts, int32_t ignore_nonfinite)
{
    if (!batch || !facts || batch->cols < 1) {
        return ghm_fail(GHM_E_ARGUMENT, "the batch or its facts are NULL, or it has no columns");
    }
    if (facts->bad_labels) {
        return ghm_fail(GHM_E_LABEL,
                        "%lld labels are beyond the %lld classes, the first in row "
                        "%lld",
                        (long long)facts->bad_labels, (long long)batch->cols,
                        (long long)facts->first_bad_label);
    }
    if (facts->nonfinite && !ignore_nonfinite) {
        int64_t at = facts->first_nonfinite;
        return ghm_fail(GHM_E_NONFINITE,
                        "%lld of %lld samples are not finite, the first at row "
                        "%lld, column %lld",
                        (long long)facts->nonfinite, (long long)facts->samples,
                        (long long)(at / batch->cols), (long long)(at % batch->cols));
    }
    if (facts->soft) {
        int64_t at = facts->first_soft;
        return ghm_fail(GHM_E_SOFT, "%lld targets are not %s, the first at row %lld, column %lld",
                        (long long)facts->soft,
                        batch->target_form == GHM_SOFT ? "in [0, 1]" : "0 or 1",
                        (long long)(at / batch->cols), (long long)(at % batch->cols));
    }
    return GHM_OK;
}

static void add_totals(ghm_sketch *sketch, const ghm_facts *facts, const ghm_weights *weights)
{
    sketch->facts.samples += facts->samples;
    sketch->facts.valid += facts->valid;
    sketch->facts.positive += facts->positive;
    sketch->facts.nonfinite += facts->nonfinite;
    ghm_weights_add(&sketch->weights, weights);
}

static int kinds_fit(const ghm_sketch *sketch, bool soft)
{
    if (sketch->facts.samples > 0 && sketch->soft_targets != soft) {
        return ghm_fail(GHM_E_MISMATCH, "the sketch holds %s targets, the new ones are %s",
                        soft ? "hard" : "soft", soft ? "soft" : "hard");
    }
    return GHM_OK;
}

/* Adds totals, soft sums and cells, which it takes; on failure nothing of the sketch has changed. */
static int absorb(ghm_sketch *sketch, ghm_cells cells[2], const ghm_soft *soft,
                  const ghm_facts *facts, const ghm_weights *weights, bool is_soft)
{
    int64_t intervals = ghm_sketch_intervals(sketch);
    if (is_soft && !sketch->soft.n) {
        GHM_TRY(ghm_soft_new(intervals, &sketch->soft));
    }
    for (int group = 0; group < 2; group++) {
        GHM_TRY(ghm_cells_merge(&cells[group], &sketch->cells[group]));
    }
    for (int group = 0; group < 2; group++) {
        ghm_cells_free(&sketch->cells[group]);
        sketch->cells[group] = cells[group];
        cells[group] = (ghm_cells){0};
    }
    if (is_soft) {
        ghm_soft_add(&sketch->soft, soft, intervals);
    }
    sketch->soft_targets = is_soft;
    free(sketch->lines);
    free(sketch->sorted);
    sketch->lines = sketch->sorted = NULL;
    add_totals(sketch, facts, weights);
    return GHM_OK;
}

int ghm_sketch_add(ghm_device *device, ghm_sketch *sketch, const ghm_batch *batch,
                   int32_t ignore_nonfinite, ghm_facts *facts)
{
    if (!device || !sketch) {
        return ghm_fail(GHM_E_ARGUMENT, "the %s is NULL", device ? "sketch" : "device");
    }
    GHM_TRY(ghm_check_batch(batch));
    if (batch->task != sketch->edges->task) {
        return ghm_fail(GHM_E_MISMATCH, "the batch is of task %d, the sketch of task %d",
                        batch->task, sketch->edges->task);
    }
    bool soft = batch->target_form == GHM_SOFT;
    GHM_TRY(kinds_fit(sketch, soft));
    ghm_scan *scan = calloc(1, sizeof *scan);
    if (!scan) {
        return ghm_fail(GHM_E_MEMORY, "no memory for a pass");
    }
    int status = soft ? ghm_soft_new(ghm_sketch_intervals(sketch), &scan->soft) : GHM_OK;
    if (status == GHM_OK) {
        status = device->backend->sketch(device->state, sketch->edges, batch, scan);
    }
    if (status == GHM_OK) {
        scan->facts.weight_sum = ghm_weights_sum(&scan->weights);
        if (facts) {
            *facts = scan->facts;
        }
        status = ghm_judge(batch, &scan->facts, ignore_nonfinite);
    }
    if (status == GHM_OK) {
        status = absorb(sketch, scan->cells, &scan->soft, &scan->facts, &scan->weights, soft);
        sketch->threads = device->threads;
    }
    ghm_cells_free(&scan->cells[0]);
    ghm_cells_free(&scan->cells[1]);
    ghm_soft_free(&scan->soft);
    free(scan);
    return status;
}

int ghm_sketch_merge(ghm_sketch *into, const ghm_sketch *from)
{
    if (!into || !from) {
        return ghm_fail(GHM_E_ARGUMENT, "a sketch is NULL");
    }
    if (!ghm_edges_equal(into->edges, from->edges)) {
        return ghm_fail(GHM_E_MISMATCH, "the sketches were made for different edges");
    }
    if (from->facts.samples == 0) {
        return GHM_OK;
    }
    GHM_TRY(kinds_fit(into, from->soft_targets));
    ghm_cells copy[2] = {{0}, {0}};
    int status = ghm_cells_merge(&copy[0], &from->cells[0]);
    status = status ? status : ghm_cells_merge(&copy[1], &from->cells[1]);
    if (status == GHM_OK) {
        status = absorb(into, copy, &from->soft, &from->facts, &from->weights, from->soft_targets);
    }
    ghm_cells_free(&copy[0]);
    ghm_cells_free(&copy[1]);
    return status;
}

int ghm_sketch_facts(const ghm_sketch *sketch, ghm_facts *out)
{
    if (!sketch || !out) {
        return ghm_fail(GHM_E_ARGUMENT, "the sketch or the place for its facts is NULL");
    }
    *out = sketch->facts;
    out->weight_sum = ghm_weights_sum(&sketch->weights);
    return GHM_OK;
}

int32_t ghm_sketch_task(const ghm_sketch *sketch)
{
    return sketch->edges->task;
}

int32_t ghm_sketch_soft(const ghm_sketch *sketch)
{
    return sketch->soft_targets;
}

int64_t ghm_sketch_cells(const ghm_sketch *sketch)
{
    return sketch->cells[0].count + sketch->cells[1].count;
}

int64_t ghm_sketch_intervals(const ghm_sketch *sketch)
{
    return sketch->edges->n_thresholds + 1;
}

int64_t ghm_sketch_declared(const ghm_sketch *sketch, int32_t what, double *out)
{
    if (!sketch || what < GHM_DECLARED_BINS || what > GHM_DECLARED_KNOTS) {
        return 0;
    }
    const ghm_numbers *list = &sketch->edges->declared[what];
    if (out && list->n > 0) {
        memcpy(out, list->at, (size_t)list->n * sizeof *out);
    }
    return list->n;
}

int ghm_sketch_edges(const ghm_sketch *sketch, float *edge)
{
    if (!sketch || !edge) {
        return ghm_fail(GHM_E_ARGUMENT, "the %s is NULL",
                        sketch ? "place for the edges" : "sketch");
    }
    const ghm_edges *edges = sketch->edges;
    memcpy(edge, edges->thresholds, (size_t)edges->n_thresholds * sizeof *edge);
    return GHM_OK;
}
