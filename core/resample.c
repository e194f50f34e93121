/* resample.c - draws for the bootstrap: from a counter, so that no order and no machine matters. */
#include "philox.h"
#include "private.h"

#include <math.h>

/* Philox streams beside those of synthetic batches. Poisson counts use as many as they need. */
enum { STREAM_DIVIDE = 14, STREAM_UNIFORM = 15, STREAM_POISSON = 16 };

/* From here on a count is the rounded quantile of a normal number. */
#define MANY 32.0

/* Arrivals before `mean`, their distances being exponential. */
static int64_t arrivals(uint64_t seed, uint64_t place, uint32_t draw, double mean)
{
    int64_t n = 0;
    double time = 0;
    for (uint32_t block = 0;; block++) {
        ghm_draw words = ghm_philox(seed, place, draw, STREAM_POISSON + block);
        for (int k = 0; k < 4; k++) {
            time -= ghm_log_portable(ghm_unit(words.word[k]));
            if (time > mean) {
                return n;
            }
            n++;
        }
    }
}

/* Poisson's quantile by its expansion around the normal one (Cornish and Fisher 1938). */
static int64_t quantile(uint64_t seed, uint64_t place, uint32_t draw, double mean)
{
    ghm_draw words = ghm_philox(seed, place, draw, STREAM_POISSON);
    double z = ghm_normal(ghm_unit_fine(words.word[0], words.word[1])), root = sqrt(mean);
    double x = mean + root * z + (z * z - 1) / 6 + z * (1 - z * z) / (72 * root);
    return x < 0 ? 0 : (int64_t)(x + 0.5);
}

static int check(int64_t draw, int64_t n, const void *in, const void *out)
{
    if (n < 0 || draw < 0 || draw > UINT32_MAX) {
        return ghm_fail(GHM_E_ARGUMENT, "draw %lld of %lld numbers: expected 0 to 2^32 - 1, n >= 0",
                        (long long)draw, (long long)n);
    }
    if (n > 0 && (!in || !out)) {
        return ghm_fail(GHM_E_ARGUMENT, "the %s is NULL", in ? "output" : "list of means");
    }
    return GHM_OK;
}

int ghm_uniform(uint64_t seed, int64_t draw, int64_t n, double *out)
{
    GHM_TRY(check(draw, n, &seed, out));
    for (int64_t i = 0; i < n; i++) {
        ghm_draw words = ghm_philox(seed, (uint64_t)i, (uint32_t)draw, STREAM_UNIFORM);
        out[i] = ghm_unit_fine(words.word[0], words.word[1]);
    }
    return GHM_OK;
}

static int64_t poisson(uint64_t seed, uint64_t place, uint32_t draw, double mean)
{
    return (mean < MANY ? arrivals : quantile)(seed, place, draw, mean);
}

int ghm_poisson(uint64_t seed, int64_t draw, int64_t n, const double *mean, int64_t *out)
{
    GHM_TRY(check(draw, n, mean, out));
    for (int64_t i = 0; i < n; i++) {
        if (!(mean[i] >= 0 && mean[i] <= 0x1p53)) {
            return ghm_fail(GHM_E_ARGUMENT, "mean %lld is %g, expected 0 to 2^53", (long long)i,
                            mean[i]);
        }
    }
    for (int64_t i = 0; i < n; i++) {
        out[i] = poisson(seed, (uint64_t)i, (uint32_t)draw, mean[i]);
    }
    return GHM_OK;
}

/* How many of `few` things are among the `many` that were drawn of all: hypergeometric. Few are
 * asked one by one; of more, a shifted Poisson count has the mean, and the variance within 1/2. */
static int64_t among(uint64_t seed, uint64_t place, uint32_t draw, int64_t few, int64_t many,
                     int64_t all)
{
    if ((double)few < MANY) {
        ghm_draw words = {{0}};
        int64_t hits = 0;
        for (int64_t k = 0; k < few; k++) {
            if (k % 4 == 0) {
                words = ghm_philox(seed, (uint64_t)k << 32 | place, draw, STREAM_DIVIDE);
            }
            hits += ghm_unit(words.word[k % 4]) * (double)(all - k) < (double)(many - hits);
        }
        return hits;
    }
    double mean = (double)few * ((double)many / (double)all);
    double variance = mean * ((double)(all - few) / (double)all) *
                      ((double)(all - many) / (double)(all - 1));
    int64_t sure = (int64_t)(mean - variance + 0.5), least = few + many - all;
    int64_t n = sure + poisson(seed, place, draw, fmax(mean - (double)sure, 0));
    return n < least ? least : n > few ? few : n;
}

int ghm_divide(uint64_t seed, int64_t draw, int64_t n, const int64_t *counts, int64_t take,
               int64_t *out)
{
    GHM_TRY(check(draw, n, counts, out));
    int64_t all = 0, largest = 0;
    for (int64_t i = 0; i < n; i++) {
        if (counts[i] < 0 || counts[i] > ((int64_t)1 << 53) - all) {
            return ghm_fail(GHM_E_ARGUMENT, "count %lld is %lld: expected 0 or more, 2^53 in all",
                            (long long)i, (long long)counts[i]);
        }
        all += counts[i];
        largest = counts[i] > counts[largest] ? i : largest;
    }
    if (take < 0 || take > all) {
        return ghm_fail(GHM_E_ARGUMENT, "take is %lld of %lld", (long long)take, (long long)all);
    }
    /* The fewer of those that are taken and those that stay are drawn, and the largest count gets
     * what is left: the fewer things a Poisson count stands for, the better it does. */
    int stay = take > all - take;
    int64_t left = stay ? all - take : take;
    for (int64_t i = 0; i < n; i++) {
        if (i != largest) {
            int64_t few = counts[i] < left ? counts[i] : left;
            int64_t many = counts[i] + left - few;
            out[i] = among(seed, (uint64_t)i, (uint32_t)draw, few, many, all);
            left -= out[i];
            all -= counts[i];
        }
    }
    if (n > 0) {
        out[largest] = left;
    }
    for (int64_t i = 0; i < n && stay; i++) {
        out[i] = counts[i] - out[i];
    }
    return GHM_OK;
}

/* sum * now / before, rounded; a sum of up to 2^56 for up to 2^37 samples. */
static uint64_t in_proportion(uint64_t sum, uint64_t now, uint64_t before)
{
    return (uint64_t)(((unsigned __int128)sum * now + before / 2) / before);
}

static int64_t resample_cells(ghm_cells *cells, uint64_t seed, uint32_t draw, uint64_t group)
{
    int64_t n = 0, total = 0;
    for (int64_t i = 0; i < cells->count; i++) {
        ghm_cell cell = ghm_cell_at(cells, i);
        uint64_t drawn = (uint64_t)poisson(seed, 2 * (uint64_t)cell.slot + group, draw,
                                           (double)cell.n);
        if (drawn > 0) {
            cell.offsets = in_proportion(cell.offsets, drawn, cell.n);
            cell.squares = in_proportion(cell.squares, drawn, cell.n);
            cell.n = drawn;
            ghm_cell_put(cells, n++, cell);
            total += (int64_t)drawn;
        }
    }
    cells->count = n;
    return total;
}

static int64_t resample_soft(ghm_soft *soft, int64_t intervals, uint64_t seed, uint32_t draw)
{
    int64_t total = 0;
    for (int64_t i = 0; i < intervals; i++) {
        int64_t drawn = poisson(seed, (uint64_t)i, draw, (double)soft->n[i]);
        double share = soft->n[i] > 0 ? (double)drawn / (double)soft->n[i] : 0;
        soft->n[i] = drawn;
        soft->bce[i] *= share;
        soft->norm[i] *= share;
        total += drawn;
    }
    return total;
}

/* A copy's samples, drawn anew; the weights keep their mean. */
static void resample(ghm_sketch *copy, uint64_t seed, uint32_t draw)
{
    int64_t before = copy->facts.valid, now;
    if (copy->soft_targets) {
        now = resample_soft(&copy->soft, ghm_sketch_intervals(copy), seed, draw);
    } else {
        now = resample_cells(&copy->cells[0], seed, draw, 0);
        copy->facts.positive = resample_cells(&copy->cells[1], seed, draw, 1);
        now += copy->facts.positive;
    }
    copy->facts.samples += now - before;
    copy->facts.valid = now;
    for (int e = 0; e < 256 && before > 0; e++) {
        copy->weights.units[e] = in_proportion(copy->weights.units[e], (uint64_t)now,
                                               (uint64_t)before);
    }
}

int ghm_sketch_resample(const ghm_sketch *from, uint64_t seed, int64_t draw, ghm_sketch *into)
{
    GHM_TRY(check(draw, 0, NULL, NULL));
    if (!from || !into) {
        return ghm_fail(GHM_E_ARGUMENT, "a sketch is NULL");
    }
    ghm_sketch *copy;
    GHM_TRY(ghm_sketch_like(from, &copy));
    int status = ghm_sketch_merge(copy, from);
    if (status == GHM_OK) {
        resample(copy, seed, (uint32_t)draw);
        status = ghm_sketch_merge(into, copy);
    }
    ghm_sketch_free(copy);
    return status;
}
