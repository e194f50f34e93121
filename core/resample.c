/* resample.c - draws for the bootstrap: from a counter, so that no order and no machine matters. */
#include "philox.h"
#include "private.h"

#include <math.h>

/* Philox streams beside those of synthetic batches. Poisson counts use as many as they need. */
enum { STREAM_UNIFORM = 15, STREAM_POISSON = 16 };

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
        out[i] = (mean[i] < MANY ? arrivals : quantile)(seed, (uint64_t)i, (uint32_t)draw, mean[i]);
    }
    return GHM_OK;
}
