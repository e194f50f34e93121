/*
 * softmax.c - rows of exclusive classes, p = softmax(x), as margins.
 *
 * m_c = x_c - ln sum over k != c of e^x_k is the logit of class c against all others: p_c is
 * sigmoid(m_c), exactly. So a row whose class is t has 1 - p_t = sigmoid(-m_t) and cross-entropy
 * softplus(-m_t), which are g and BCE of one sample with logit m_t and target 1; and |p_c - y_c| is
 * g of a sample with logit m_c and target y_c. Whatever answers for logits answers for softmax. Only
 * the gradient couples a row.
 */
#include "blocks.h"
#include "formula.h"

#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>

/* One row, the largest logit apart: where p is near 1, 1 - p is a sum of the others and no difference
 * from 1. Sums are over e^(x_k - largest) and, without that class, over e^(x_k - second). */
typedef struct softmax_row {
    double *x, *e, *f; /* [cols]: logits, e^(x - largest), e^(x - second) */
    int64_t cols, best;
    double largest, second;
    double others; /* sum of e but for the best */
    double rest;   /* sum of f but for the best: at least 1 */
} softmax_row;

static double number_at(const void *data, int32_t dtype, int64_t i)
{
    switch (dtype) {
    case GHM_F16:
        return (double)ghm_half(((const uint16_t *)data)[i]);
    case GHM_BF16:
        return (double)ghm_bfloat(((const uint16_t *)data)[i]);
    case GHM_U8:
        return ((const uint8_t *)data)[i];
    default:
        return (double)((const float *)data)[i];
    }
}

/* e^-(from - x[i]) for x[i] <= from; what is above it, the best class, gets 1 and is not used. */
GHM_CLONES
static void exponentials(const double *restrict x, double from, int64_t n, double *restrict out)
{
    for (int64_t i = 0; i < n; i++) {
        double below = from - x[i];
        out[i] = ghm_exp_minus_fine(below > 0 ? below : 0);
    }
}

/* Loads a row; false where a logit is not finite. */
static bool load_row(const ghm_batch *batch, int64_t row, softmax_row *r)
{
    bool finite = true;
    r->cols = batch->cols;
    r->best = 0;
    for (int64_t c = 0; c < r->cols; c++) {
        r->x[c] = number_at(batch->pred, batch->pred_dtype, row * r->cols + c);
        finite = finite && isfinite(r->x[c]);
        r->best = r->x[c] > r->x[r->best] ? c : r->best;
    }
    r->largest = r->x[r->best];
    r->second = -DBL_MAX;
    for (int64_t c = 0; c < r->cols; c++) {
        r->second = c != r->best && r->x[c] > r->second ? r->x[c] : r->second;
    }
    if (!finite) {
        return false;
    }
    exponentials(r->x, r->largest, r->cols, r->e);
    exponentials(r->x, r->second, r->cols, r->f);
    r->others = r->rest = 0;
    for (int64_t c = 0; c < r->cols; c++) {
        r->others += c == r->best ? 0 : r->e[c];
        r->rest += c == r->best ? 0 : r->f[c];
    }
    return true;
}

/* Sum of e without class c; at least 1 but for the best class. */
static double without(const softmax_row *r, int64_t c)
{
    return c == r->best ? r->others : fmax(1 + r->others - r->e[c], 1);
}

static float margin_of(const softmax_row *r, int64_t c)
{
    double m = c == r->best ? (r->largest - r->second) - ghm_log_fine(r->rest)
                            : (r->x[c] - r->largest) - ghm_log_fine(without(r, c));
    return (float)fmax(fmin(m, (double)FLT_MAX), -(double)FLT_MAX);
}

/* The class of a row; -1: the row is to be ignored; -2: it has not exactly one. */
static int64_t class_of(const ghm_batch *batch, int64_t row)
{
    if (batch->target_form == GHM_ZERO_BASED) {
        int64_t label = ghm_label_of_row(batch, row);
        return label < 0 ? -1 : label < batch->cols ? label : -2;
    }
    int64_t class = -2;
    for (int64_t c = 0; c < batch->cols; c++) {
        double t = number_at(batch->target, batch->target_dtype, row * batch->cols + c);
        if (t != 0 && (t != 1 || class >= 0)) {
            return -2;
        }
        class = t == 1 ? c : class;
    }
    return class;
}

static int check_rows(const ghm_device *device, const ghm_batch *batch)
{
    if (!device) {
        return ghm_fail(GHM_E_ARGUMENT, "the device is NULL");
    }
    GHM_TRY(ghm_check_batch(batch));
    if (batch->task != GHM_CLASSIFICATION || batch->cols < 2) {
        return ghm_fail(GHM_E_ARGUMENT, "softmax is over 2 classes or more, not over %lld",
                        (long long)(batch->task == GHM_CLASSIFICATION ? batch->cols : 0));
    }
    if (batch->target_form != GHM_ZERO_BASED && batch->target_form != GHM_DENSE) {
        return ghm_fail(GHM_E_ARGUMENT,
                        "softmax takes labels that are columns, or one-hot targets");
    }
    if (batch->weight && !batch->weight_per_row) {
        return ghm_fail(GHM_E_ARGUMENT, "softmax takes one label_weight for each row, not %lld",
                        (long long)batch->cols);
    }
    return GHM_OK;
}

/* x, e and f of each thread. */
static double *new_rows(const ghm_device *device, const ghm_batch *batch, int *threads)
{
    *threads = device->threads > 0 ? device->threads : 1;
    return malloc((size_t)*threads * 3 * (size_t)batch->cols * sizeof(double));
}

static softmax_row row_of(double *memory, int thread, int64_t cols)
{
    double *x = memory + (size_t)thread * 3 * (size_t)cols;
    return (softmax_row){.x = x, .e = x + cols, .f = x + 2 * cols};
}

int ghm_softmax_margins(ghm_device *device, const ghm_batch *batch, float *margins,
                        float *true_margins, uint8_t *valid)
{
    GHM_TRY(check_rows(device, batch));
    if (!valid) {
        return ghm_fail(GHM_E_ARGUMENT, "the place for the valid rows is NULL");
    }
    int threads;
    double *memory = new_rows(device, batch, &threads);
    if (!memory) {
        return ghm_fail(GHM_E_MEMORY, "no memory for rows of %lld classes", (long long)batch->cols);
    }
    int64_t bad = 0, first = INT64_MAX;
    int stopped = 0;
#pragma omp parallel for schedule(static) num_threads(threads) \
    reduction(+ : bad) reduction(min : first) reduction(| : stopped)
    for (int64_t row = 0; row < batch->rows; row++) {
        if (stopped || (row % GHM_BLOCK == 0 && (stopped = ghm_interrupted()))) {
            continue;
        }
        softmax_row r = row_of(memory, omp_get_thread_num(), batch->cols);
        double weight = batch->weight ? number_at(batch->weight, batch->weight_dtype, row) : 1;
        int64_t class = weight > 0 || !isfinite(weight) ? class_of(batch, row) : -1;
        if (class == -2) {
            bad++;
            first = row < first ? row : first;
        }
        valid[row] = class >= 0;
        bool sound = class >= 0 && isfinite(weight) && load_row(batch, row, &r);
        float odd = class >= 0 ? NAN : 0; /* a sketch then counts the row as non-finite, or not */
        for (int64_t c = 0; margins && c < batch->cols; c++) {
            margins[row * batch->cols + c] = sound ? margin_of(&r, c) : odd;
        }
        if (true_margins) {
            true_margins[row] = sound ? margin_of(&r, class) : odd;
        }
    }
    free(memory);
    if (stopped) {
        return ghm_fail(GHM_E_INTERRUPTED, "interrupted");
    }
    if (bad > 0) {
        return ghm_fail(GHM_E_LABEL,
                        "%lld rows are not of exactly one of %lld classes, the first is row %lld: "
                        "softmax needs a column for every class, background too",
                        (long long)bad, (long long)batch->cols, (long long)first);
    }
    return GHM_OK;
}

/* beta is the row's: the gradient of beta times the cross-entropy. */
static void row_gradient(const softmax_row *r, int64_t class, double beta, float *grad)
{
    double sum = 1 + r->others;
    for (int64_t c = 0; c < r->cols; c++) {
        double slope = c == class ? -without(r, c) : r->e[c];
        grad[c] = (float)(beta * slope / sum);
    }
}

/* beta is of each class: the gradient of sum_c beta_c BCE(m_c, y_c). With d_c = p_c - y_c, and
 * d m_c / d x_k = -e_k / (sum of e but for c) for k != c. */
static void class_gradient(const softmax_row *r, int64_t class, const float *beta, double scale,
                           float *grad)
{
    double sum = 1 + r->others, through = 0;
    double *pull = r->x; /* d BCE(m_c) / d m_c, weighted; the logits are not needed any more */
    for (int64_t c = 0; c < r->cols; c++) {
        double slope = c == class ? -without(r, c) : c == r->best ? 1 : r->e[c];
        pull[c] = scale * (double)beta[c] * slope / sum;
        through += c == r->best ? 0 : pull[c] / without(r, c);
    }
    for (int64_t k = 0; k < r->cols; k++) {
        double own = k == r->best ? 0 : pull[k] / without(r, k);
        double best = k == r->best ? 0 : pull[r->best] * r->f[k] / r->rest;
        grad[k] = (float)(pull[k] - r->e[k] * (through - own) - best);
    }
}

int ghm_softmax_gradient(ghm_device *device, const ghm_batch *batch, const float *beta,
                         int32_t per_row, double scale, float *grad)
{
    GHM_TRY(check_rows(device, batch));
    if (!beta || !grad) {
        return ghm_fail(GHM_E_ARGUMENT, "%s is NULL", beta ? "the gradient's place" : "beta");
    }
    int threads;
    double *memory = new_rows(device, batch, &threads);
    if (!memory) {
        return ghm_fail(GHM_E_MEMORY, "no memory for rows of %lld classes", (long long)batch->cols);
    }
    int64_t cols = batch->cols, betas = per_row ? 1 : cols;
    int stopped = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(| : stopped)
    for (int64_t row = 0; row < batch->rows; row++) {
        if (stopped || (row % GHM_BLOCK == 0 && (stopped = ghm_interrupted()))) {
            continue;
        }
        softmax_row r = row_of(memory, omp_get_thread_num(), cols);
        const float *own = beta + row * betas;
        bool used = false;
        for (int64_t i = 0; i < betas && !used; i++) {
            used = own[i] != 0;
        }
        int64_t class = used ? class_of(batch, row) : -1;
        if (class < 0 || !load_row(batch, row, &r)) {
            memset(grad + row * cols, 0, (size_t)cols * sizeof *grad);
        } else if (per_row) {
            row_gradient(&r, class, scale * (double)*own, grad + row * cols);
        } else {
            class_gradient(&r, class, own, scale, grad + row * cols);
        }
    }
    free(memory);
    return stopped ? ghm_fail(GHM_E_INTERRUPTED, "interrupted") : GHM_OK;
}
