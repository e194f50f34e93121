/*
 * exact.c - the paper's exact gradient density: sort by key, then two pointers, O(N).
 *
 * The oracle that approximations are held against. It reads the batch, unlike ghm_sketch_density.
 */
#include "blocks.h"
#include "formula.h"

#include <stdlib.h>

/* One valid sample: its key in the order of values above its position below, for a radix sort. */
typedef struct exact_work {
    uint64_t *order, *spare;
    double *key; /* by position: s, or |pred - target| without float32's rounding */
    double *g;   /* by rank */
    int64_t n;
} exact_work;

static void sort_by_key(exact_work *work)
{
    enum { BITS = 11, BUCKETS = 1 << BITS };
    for (int shift = 32; shift < 64; shift += BITS) {
        int64_t begin[BUCKETS + 1] = {0};
        for (int64_t i = 0; i < work->n; i++) {
            begin[(work->order[i] >> shift & (BUCKETS - 1)) + 1]++;
        }
        for (int i = 0; i < BUCKETS; i++) {
            begin[i + 1] += begin[i];
        }
        for (int64_t i = 0; i < work->n; i++) {
            work->spare[begin[work->order[i] >> shift & (BUCKETS - 1)]++] = work->order[i];
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
            bool boxes = batch->task == GHM_REGRESSION;
            double key = boxes ? fabs((double)b.x[i] - (double)b.t[i])
                               : (b.t[i] == 1 ? -(double)b.x[i] : (double)b.x[i]);
            uint32_t bits = ghm_bits((float)key);
            bits = bits >> 31 ? ~bits : bits | 0x80000000u;
            work->key[begin + i] = key;
            work->order[work->n++] = (uint64_t)bits << 32 | (uint64_t)(begin + i);
        }
    }
}

static double sum_of_shares(const ghm_batch *batch, double mu, double eps, exact_work *work,
                            double *density)
{
    const uint64_t position = 0xffffffffu;
    bool boxes = batch->task == GHM_REGRESSION;
    double sum = 0;
    for (int64_t i = 0; i < work->n; i++) {
        double key = work->key[work->order[i] & position];
        work->g[i] = boxes ? ghm_asl1_norm(key, mu) : ghm_sigmoid(key);
    }
    for (int64_t i = 0, from = 0, to = 0; i < work->n; i++) {
        double low = work->g[i] - eps / 2, high = work->g[i] + eps / 2;
        while (work->g[from] < low) {
            from++;
        }
        while (to < work->n && work->g[to] < high) {
            to++;
        }
        double gd = (double)(to - from) / (fmin(high, 1) - fmax(low, 0));
        double key = work->key[work->order[i] & position];
        sum += (boxes ? ghm_asl1(key, mu) : ghm_softplus(key)) / gd;
        if (density) {
            density[work->order[i] & position] = gd;
        }
    }
    return sum;
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
    size_t room = (size_t)samples + 1;
    exact_work work = {malloc(room * 8), malloc(room * 8), malloc(room * 8), malloc(room * 8), 0};
    ghm_facts facts = {
        .samples = samples, .first_nonfinite = -1, .first_soft = -1, .first_bad_label = -1};
    int status = work.order && work.spare && work.key && work.g
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
        *loss = sum_of_shares(batch, mu, eps, &work, density);
    }
    free(work.order);
    free(work.spare);
    free(work.key);
    free(work.g);
    return status;
}
