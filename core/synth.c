/* synth.c - synthetic batches: presets, drift, and the loop over samples. */
#include "cpu.h"
#include "philox.h"

#include <stdlib.h>
#include <string.h>

/* A detector's logits at three ages. RetinaNet's prior of 0.01 puts a fresh one at -4.6; by the end
 * easy negatives are far away, few hard ones remain, and some labels are simply wrong. */
static const struct {
    const char *name;
    ghm_mixture mixture;
} presets[] = {
    {"fresh",
     {.hard_share = 0.02,
      .hard_mean = -4,
      .hard_sd = 0.6,
      .positive_share = 0.01,
      .positive_mean = -4.3,
      .positive_sd = 0.6,
      .outlier_share = 0.0005,
      .outlier_mean = -4,
      .outlier_sd = 0.6,
      .easy_mean = -4.6,
      .easy_sd = 0.5,
      .ignored_share = 0.02,
      .laplace_scale = 0.6,
      .box_outlier_share = 0.05,
      .box_outlier_sd = 2}},
    {"detector",
     {.hard_share = 0.02,
      .hard_mean = -0.5,
      .hard_sd = 1.8,
      .positive_share = 0.01,
      .positive_mean = 0.5,
      .positive_sd = 2,
      .outlier_share = 0.0005,
      .outlier_mean = 5,
      .outlier_sd = 2,
      .easy_mean = -5.5,
      .easy_sd = 1.6,
      .ignored_share = 0.02,
      .laplace_scale = 0.15,
      .box_outlier_share = 0.02,
      .box_outlier_sd = 1.5}},
    {"converged",
     {.hard_share = 0.005,
      .hard_mean = -1,
      .hard_sd = 2,
      .positive_share = 0.01,
      .positive_mean = 4,
      .positive_sd = 2.5,
      .outlier_share = 0.0005,
      .outlier_mean = 8,
      .outlier_sd = 2,
      .easy_mean = -9,
      .easy_sd = 2,
      .ignored_share = 0.02,
      .laplace_scale = 0.05,
      .box_outlier_share = 0.01,
      .box_outlier_sd = 1}},
    {"uniform", {.positive_share = 0.5, .uniform = 1, .laplace_scale = 0.05}},
};

enum { N_PRESETS = sizeof presets / sizeof *presets };

static const ghm_mixture *find(const char *name)
{
    for (int i = 0; i < N_PRESETS; i++) {
        if (strcmp(presets[i].name, name) == 0) {
            return &presets[i].mixture;
        }
    }
    return NULL;
}

int ghm_mixture_preset(const char *name, double drift, ghm_mixture *out)
{
    const ghm_mixture *found = name ? find(name) : NULL;
    if (!found || !out) {
        return ghm_fail(GHM_E_ARGUMENT,
                        "no preset '%s', expected detector, converged, fresh or "
                        "uniform",
                        name ? name : "(none)");
    }
    if (!(drift <= 1)) {
        return ghm_fail(GHM_E_ARGUMENT, "drift is %g, expected at most 1 (negative: none)", drift);
    }
    *out = *found;
    if (drift >= 0) {
        /* A mixture is nothing but doubles, so every parameter moves along a straight line. */
        const double *from = (const double *)find("fresh"), *to = (const double *)find("converged");
        double *mixed = (double *)out;
        for (size_t i = 0; i < sizeof *out / sizeof *mixed; i++) {
            mixed[i] = (1 - drift) * from[i] + drift * to[i]; /* exact at both ends */
        }
    }
    return GHM_OK;
}

static int check_mixture(const ghm_mixture *m)
{
    const double *value = (const double *)m;
    for (size_t i = 0; i < sizeof *m / sizeof *value; i++) {
        if (!isfinite(value[i])) {
            return ghm_fail(GHM_E_ARGUMENT, "parameter %zu of the mixture is not finite", i);
        }
    }
    double spreads[] = {m->hard_sd, m->positive_sd,   m->outlier_sd,
                        m->easy_sd, m->laplace_scale, m->box_outlier_sd};
    for (size_t i = 0; i < sizeof spreads / sizeof *spreads; i++) {
        if (spreads[i] < 0) {
            return ghm_fail(GHM_E_ARGUMENT,
                            "a deviation or scale of the mixture is %g, expected 0 "
                            "or more",
                            spreads[i]);
        }
    }
    double shares[] = {m->hard_share,        m->positive_share,
                       m->outlier_share,     m->ignored_share,
                       m->box_outlier_share, m->hard_share + m->positive_share + m->outlier_share};
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        if (!(shares[i] >= 0 && shares[i] <= 1)) {
            return ghm_fail(GHM_E_ARGUMENT,
                            "a share of the mixture, or their sum, is %g, expected "
                            "0 to 1",
                            shares[i]);
        }
    }
    return GHM_OK;
}

int cpu_synth(void *state, const ghm_recipe *recipe, float *pred, float *target, float *weight)
{
    cpu_state *cpu = state;
    int stopped = 0; /* each thread's own */
#pragma omp parallel for schedule(static) num_threads(cpu->threads) reduction(| : stopped)
    for (int64_t i = 0; i < recipe->samples; i++) {
        if (i % 4096 == 0) {
            stopped |= ghm_interrupted();
        }
        if (stopped) {
            continue;
        }
        ghm_sample sample = ghm_synth_sample(recipe->task, &recipe->mixture, recipe->seed,
                                             (uint64_t)i, recipe->step);
        pred[i] = sample.pred;
        target[i] = sample.target;
        if (weight) {
            weight[i] = sample.weight;
        }
    }
    return cpu_end_of_pass(stopped ? GHM_E_INTERRUPTED : GHM_OK);
}

int ghm_synth(ghm_device *device, int32_t task, const ghm_mixture *mixture, uint64_t seed,
              int64_t step, int64_t rows, int64_t cols, float *pred, float *target, float *weight)
{
    if (!device || !mixture || (rows > 0 && (!pred || !target))) {
        return ghm_fail(GHM_E_ARGUMENT, "the device, the mixture or an output is NULL");
    }
    if (rows < 0 || cols < 1 || rows > INT64_MAX / 8 / cols || step < 0 || step > UINT32_MAX) {
        return ghm_fail(GHM_E_ARGUMENT,
                        "shape [%lld, %lld] at step %lld: expected rows >= 0, cols "
                        ">= 1, 0 <= step < 2^32",
                        (long long)rows, (long long)cols, (long long)step);
    }
    if (task != GHM_CLASSIFICATION && task != GHM_REGRESSION) {
        return ghm_fail(GHM_E_ARGUMENT, "task is %d, expected 0 or 1", task);
    }
    GHM_TRY(check_mixture(mixture));
    ghm_recipe recipe = {*mixture, seed, rows * cols, (uint32_t)step, task};
    return device->backend->synth(device->state, &recipe, pred, target, weight);
}
