/*
 * exact.c - the paper's exact gradient density: sort by key, then two pointers, O(N).
 *
 * The oracle that approximations are held against. It reads the batch, unlike ghm_sketch_density.
 */
#include "cpu.h"
#include "formula.h"

#include <stdlib.h>

/* One valid sample: its key in the order of values above its position below, for a radix sort. */
typedef struct exact_work {
    uint64_t *order, *spare;
    double *residual; /* by position: |pred - target| without float32's rounding; boxes alone */
    double *g, *loss; /* by rank */
    int64_t n;
} exact_work;

static void sort_by_key(exact_work *work)
{
    enum { BITS = 11, BUCKETS = 1 << BITS, PASSES = 3 };
    int64_t begin[PASSES][BUCKETS + 1] = {{0}};
    for (int64_t i = 0; i < work->n; i++) {
        for (int pass = 0; pass < PASSES; pass++) {
            begin[pass][(work->order[i] >> (32 + pass * BITS) & (BUCKETS - 1)) + 1]++;
        }
    }
    for (int pass = 0; pass < PASSES; pass++) {
        for (int i = 0; i < BUCKETS; i++) {
            begin[pass][i + 1] += begin[pass][i];
        }
        for (int64_t i = 0; i < work->n; i++) {
            uint64_t bucket = work->order[i] >> (32 + pass * BITS) & (BUCKETS - 1);
            work->spare[begin[pass][bucket]++] = work->order[i];
        }
        uint64_t *sorted = work->spare;
        work->spare = work->order;
        work->order = sorted;
    }
}

/* Valid samples into order and key; odd ones are counted. */
static void gather(const ghm_batch *batch, exact_work *work, ghm_facts *facts)
{
    const ghm_kernels *kernels = &ghm_kernels_plain;
    int64_t samples = batch->rows * batch->cols;
    ghm_buffers b;
    for (int64_t begin = 0; begin < samples; begin += GHM_BLOCK) {
        int n = samples - begin < GHM_BLOCK ? (int)(samples - begin) : GHM_BLOCK;
        ghm_load_block(kernels, batch, begin, n, &b);
        ghm_inspect_block(batch, begin, n, &b, facts);
        if (facts->bad_labels == 0) {
            facts->first_bad_label = b.first_bad_label;
        }
        facts->bad_labels += b.bad_labels;
        for (int i = 0; i < n; i++) {
            if (!(b.w[i] > 0)) {
                continue;
            }
            float key = b.t[i] == 1 ? -b.x[i] : b.x[i];
            if (batch->task == GHM_REGRESSION) {
                work->residual[begin + i] = fabs((double)b.x[i] - (double)b.t[i]);
                key = (float)work->residual[begin + i];
            }
            uint32_t bits = ghm_bits(key);
            bits = bits >> 31 ? ~bits : bits | 0x80000000u;
            work->order[work->n++] = (uint64_t)bits << 32 | (uint64_t)(begin + i);
        }
    }
}

enum { BATCH = 256 }; /* ranks evaluated together, in loops that become vector code */

GHM_CLONES
static void evaluate_classes(const uint64_t *restrict order, int n, double *restrict g,
                             double *restrict loss)
{
    double s[BATCH];
    for (int i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)(order[i] >> 32);
        s[i] = ghm_float(bits >> 31 ? bits & 0x7fffffffu : ~bits);
    }
    for (int i = 0; i < n; i++) {
        ghm_sigmoid_softplus(s[i], &g[i], &loss[i]);
    }
}

static void evaluate_boxes(const uint64_t *restrict order, int n, const double *residual, double mu,
                           double *restrict g, double *restrict loss)
{
    for (int i = 0; i < n; i++) {
        double d = residual[order[i] & 0xffffffffu];
        g[i] = ghm_asl1_norm(d, mu);
        loss[i] = ghm_asl1(d, mu);
    }
}

/* Norms and losses by rank. */
static void evaluate(int task, double mu, int threads, exact_work *work)
{
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < work->n; i += BATCH) {
        int n = work->n - i < BATCH ? (int)(work->n - i) : BATCH;
        if (task == GHM_REGRESSION) {
            evaluate_boxes(work->order + i, n, work->residual, mu, work->g + i, work->loss + i);
        } else {
            evaluate_classes(work->order + i, n, work->g + i, work->loss + i);
        }
    }
}

/* Slides the window over the ranks: density by position (NULL: not wanted), and sum of l / GD. */
static double slide(double eps, const exact_work *work, double *density)
{
    double sum = 0;
    for (int64_t i = 0, from = 0, to = 0; i < work->n; i++) {
        double low = work->g[i] - eps / 2, high = work->g[i] + eps / 2;
        while (work->g[from] < low) {
            from++;
        }
        while (to < work->n && work->g[to] < high) {
            to++;
        }
        double length = (high < 1 ? high : 1) - (low > 0 ? low : 0);
        double gd = (double)(to - from) / length;
        sum += work->loss[i] / gd;
        if (density) {
            density[work->order[i] & 0xffffffffu] = gd;
        }
    }
    return sum;
}

int cpu_exact(void *state, const ghm_batch *batch, double mu, double eps, double *density,
              double *loss)
{
    const cpu_state *cpu = state;
    int64_t samples = batch->rows * batch->cols;
    size_t room = (size_t)samples + 1;
    bool boxes = batch->task == GHM_REGRESSION;
    exact_work work = {
        .order = malloc(room * sizeof *work.order),
        .spare = malloc(room * sizeof *work.spare),
        .residual = boxes ? malloc(room * sizeof *work.residual) : NULL,
        .g = malloc(room * sizeof *work.g),
        .loss = malloc(room * sizeof *work.loss),
    };
    ghm_facts facts = {
        .samples = samples, .first_nonfinite = -1, .first_soft = -1, .first_bad_label = -1};
    int status = work.order && work.spare && (work.residual || !boxes) && work.g && work.loss
                   ? GHM_OK
                   : ghm_fail(GHM_E_MEMORY, "no memory to sort %lld samples", (long long)samples);
    if (status == GHM_OK) {
        gather(batch, &work, &facts);
        status = ghm_judge(batch, &facts, 0);
    }
    if (status == GHM_OK) {
        for (int64_t i = 0; density && i < samples; i++) {
            density[i] = NAN;
        }
        sort_by_key(&work);
        evaluate(batch->task, mu, cpu->threads, &work);
        *loss = slide(eps, &work, density);
    }
    free(work.order);
    free(work.spare);
    free(work.residual);
    free(work.g);
    free(work.loss);
    return status;
}

int ghm_exact_density(ghm_device *device, const ghm_batch *batch, double mu, double eps,
                      double *density, double *loss)
{
    if (!device || !loss) {
        return ghm_fail(GHM_E_ARGUMENT, "the device or the place for the loss is NULL");
    }
    GHM_TRY(ghm_check_batch(batch));
    GHM_TRY(ghm_check_bins(batch->task, 1, mu));
    if (!(eps > 0 && eps <= 1)) {
        return ghm_fail(GHM_E_ARGUMENT, "eps is %g, expected a window above 0 and at most 1", eps);
    }
    if (batch->target_form == GHM_SOFT) {
        return ghm_fail(GHM_E_SOFT, "the exact density is defined for hard targets");
    }
    int64_t samples = batch->rows * batch->cols;
    if (samples > UINT32_MAX) {
        return ghm_fail(GHM_E_OVERFLOW, "%lld samples, expected fewer than 2^32",
                        (long long)samples);
    }
    return device->backend->exact(device->state, batch, mu, eps, density, loss);
}
