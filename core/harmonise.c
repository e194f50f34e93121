/* harmonise.c - from the regions of one call to S, beta and the loss. */
#include "private.h"

#include <math.h>

int ghm_config_default(int32_t task, ghm_config *out)
{
    if (!out || (task != GHM_CLASSIFICATION && task != GHM_REGRESSION)) {
        return ghm_fail(GHM_E_ARGUMENT, "task is %d, expected 0 or 1, and out not NULL", task);
    }
    /* mmdetection 3.x; mu and both bins are also the paper's choice for a first try. */
    *out = (ghm_config){.bins = 10, .momentum = 0, .loss_weight = 1, .mu = 0.02};
    return GHM_OK;
}

static int check_config(const ghm_config *config)
{
    if (!config) {
        return ghm_fail(GHM_E_ARGUMENT, "the configuration is NULL");
    }
    GHM_TRY(ghm_check_bins(GHM_CLASSIFICATION, config->bins, 1));
    if (!(config->momentum >= 0 && config->momentum < 1)) {
        return ghm_fail(GHM_E_ARGUMENT, "momentum is %g, expected 0 <= momentum < 1",
                        config->momentum);
    }
    if (!isfinite(config->loss_weight)) {
        return ghm_fail(GHM_E_ARGUMENT, "loss_weight is %g, expected a finite number",
                        config->loss_weight);
    }
    if (!(config->beta_max >= 0 && isfinite(config->beta_max))) {
        return ghm_fail(GHM_E_ARGUMENT,
                        "beta_max is %g, expected 0 (no limit) or a number above it",
                        config->beta_max);
    }
    if (config->divide < 0 || config->divide > GHM_DIVIDE_ALL || config->start < 0 ||
        config->start > GHM_START_CORRECTED || config->empty < 0 ||
        config->empty > GHM_EMPTY_DECAY || config->reduction < 0 || config->reduction > GHM_NONE) {
        return ghm_fail(GHM_E_ARGUMENT, "divide, start, empty or reduction has no such value");
    }
    return GHM_OK;
}

/* The state before the first call, which has `hits` samples: S counts samples, so a weight of boxes,
 * which moves tot, does not move it. */
static void begin(const ghm_config *config, const int64_t *R, int64_t hits, double *S)
{
    for (int64_t j = 0; j < config->bins; j++) {
        if (config->start == GHM_START_FIRST) {
            S[j] = (double)R[j];
        } else if (config->start == GHM_START_UNIFORM) {
            S[j] = (double)hits / (double)config->bins;
        }
    }
}

/* mmdetection: a region that was hit moves to m S + (1 - m) R; the others stay, or decay. */
static void advance(const ghm_config *config, const int64_t *R, double *S, int64_t *updates)
{
    double m = config->momentum;
    for (int64_t j = 0; j < config->bins; j++) {
        if (R[j] > 0 || config->empty == GHM_EMPTY_DECAY) {
            S[j] = m * S[j] + (1 - m) * (double)R[j];
            updates[j]++;
        }
    }
}

/* 1 - m^k, k >= 1, without the digits that the difference costs where m is near 1. With
 * d(i) = 1 - m^i, d(i + j) = d(i) + d(j) (1 - d(i)), whose terms are never below 0; k in binary. */
static double grown(double m, int64_t k)
{
    double d = 0;
    for (double power = 1 - m; k > 0; k /= 2) {
        d += k % 2 ? power * (1 - d) : 0;
        power += power * (1 - power);
    }
    return d;
}

int ghm_harmonise(const ghm_config *config, const int64_t *R, const double *L, double tot,
                  double *S, int64_t *updates, double *used, double *beta, ghm_result *result)
{
    GHM_TRY(check_config(config));
    if (!R || !L || !S || !updates || !used || !beta || !result) {
        return ghm_fail(GHM_E_ARGUMENT, "an array of the regions is NULL");
    }
    if (!(tot >= 1)) {
        return ghm_fail(GHM_E_ARGUMENT, "tot is %g, expected at least 1", tot);
    }
    int64_t n = 0, hits = 0, begun = 0;
    for (int64_t j = 0; j < config->bins; j++) {
        n += R[j] > 0;
        hits += R[j];
        begun += updates[j];
    }
    if (config->momentum > 0) {
        /* A call without samples says nothing about where to start. */
        if (begun == 0 && hits > 0) {
            begin(config, R, hits, S);
        }
        if (begun > 0 || hits > 0) {
            advance(config, R, S, updates);
        }
    }
    double regions = (double)(config->divide == GHM_DIVIDE_ALL ? config->bins : n), loss = 0;
    *result = (ghm_result){.tot = tot, .n = n};
    for (int64_t j = 0; j < config->bins; j++) {
        used[j] = config->momentum > 0 ? S[j] : (double)R[j];
        if (config->momentum > 0 && config->start == GHM_START_CORRECTED && updates[j] > 0) {
            used[j] /= grown(config->momentum, updates[j]);
        }
        beta[j] = 0;
        if (R[j] > 0) {
            beta[j] = tot / (used[j] * regions);
            /* tot cancels: loss = loss_weight / n * sum of L_j / S_j, unless beta is held down. */
            double share = L[j] / used[j];
            if (config->beta_max > 0 && beta[j] > config->beta_max) {
                beta[j] = config->beta_max;
                share = beta[j] * regions / tot * L[j];
                result->limited++;
            }
            loss += share;
            result->beta_largest = fmax(result->beta_largest, beta[j]);
        }
    }
    double mean = n > 0 ? config->loss_weight * loss / regions : 0;
    result->loss = config->reduction == GHM_MEAN ? mean
                 : config->reduction == GHM_SUM  ? mean * tot
                                                 : 0;
    result->grad_scale = config->loss_weight / (config->reduction == GHM_MEAN ? tot : 1);
    return GHM_OK;
}
