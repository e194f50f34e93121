/*
 * kernels_gradient.h - the inner loops of the gradient pass, part of kernels.c.
 */
#include "slope.h"

#include <float.h>

/* Samples between fetches, which come not all at once: a core waits for a dozen or two lines, no more.
 * Loops over fewer samples would be mostly beginnings and ends. */
enum { STRIP = 128 };

typedef void slopes_of(const float *restrict, const float *restrict, const float *restrict, int,
                       const ghm_slopes *restrict, float *restrict, float *restrict,
                       float *restrict, float *restrict);

/* A block strip by strip: later lines are fetched between them. */
static inline __attribute__((always_inline)) void
in_strips(slopes_of *of, const float *x, const float *t, const float *w, int n,
          const ghm_slopes *slopes, const ghm_ahead *ahead, const ghm_results *out)
{
    for (int i = 0; i < n; i += STRIP) {
        int end = n - i < STRIP ? n : i + STRIP;
        for (int k = i; k < end; k += GHM_LINE) {
            ghm_fetch(ahead, k);
        }
        of(x + i, t + i, w + i, end - i, slopes, out->grad + i, out->beta + i, out->norm + i,
           out->loss + i);
    }
}

/* From slopes to outputs. Whether the sample counts goes into every one; selected, as an ignored one
 * may hold NaN. A key is not finite where some number of its sample is not. */
static void finish(const float *restrict key, const float *restrict w, int n,
                   const ghm_slopes *restrict slopes, float *restrict grad, float *restrict beta,
                   float *restrict norm, float *restrict loss)
{
    const float *restrict thresholds = slopes->thresholds, *restrict betas = slopes->beta;
    float grad_scale = slopes->grad_scale, loss_scale = slopes->loss_scale;
    int32_t bins = slopes->bins;
    for (int i = 0; i < n; i++) {
        float b = betas[ghm_region(key[i], norm[i], bins, thresholds)];
        beta[i] = (w[i] > 0.0f) & (fabsf(key[i]) <= FLT_MAX) ? b : 0.0f;
    }
    for (int i = 0; i < n; i++) {
        int used = (w[i] > 0.0f) & (fabsf(key[i]) <= FLT_MAX);
        grad[i] = used ? grad_scale * beta[i] * grad[i] : 0.0f;
        norm[i] = used ? norm[i] : 0.0f;
    }
    for (int i = 0; slopes->with_loss && i < n; i++) {
        int used = (w[i] > 0.0f) & (fabsf(key[i]) <= FLT_MAX);
        loss[i] = used ? loss_scale * beta[i] * loss[i] : 0.0f;
    }
}

static void class_slopes(const float *restrict x, const float *restrict t, const float *restrict w,
                         int n, const ghm_slopes *restrict slopes, float *restrict grad,
                         float *restrict beta, float *restrict norm, float *restrict loss)
{
    float key[STRIP], e[STRIP];
    for (int i = 0; i < n; i++) {
        float sign = t[i] == 1.0f ? -1.0f : 1.0f;
        key[i] = sign * x[i] + 0.0f * (t[i] + w[i]); /* NaN if one of them is not finite */
        e[i] = ghm_exp_minus(fabsf(key[i]));
        norm[i] = ghm_norm_of(key[i], e[i]);
        grad[i] = sign * norm[i];
    }
    if (slopes->function == GHM_FOCAL) {
        for (int i = 0; i < n; i++) {
            ghm_slope focal = ghm_focal_slope(key[i], norm[i], t[i] == 1.0f ? -1.0f : 1.0f,
                                              slopes->a, slopes->b);
            grad[i] = focal.grad;
            loss[i] = focal.loss;
        }
    } else if (slopes->with_loss) {
        for (int i = 0; i < n; i++) {
            loss[i] = ghm_bce_of(key[i], e[i]);
        }
    }
    finish(key, w, n, slopes, grad, beta, norm, loss);
}

static void classes_slope(const float *x, const float *t, const float *w, int n,
                          const ghm_slopes *slopes, const ghm_ahead *ahead, const ghm_results *out)
{
#ifdef __AVX512F__
    if (few_regions(slopes)) {
        classes_few(x, t, w, n, slopes, ahead, out);
        return;
    }
#endif
    in_strips(class_slopes, x, t, w, n, slopes, ahead, out);
}

static void box_slopes(const float *restrict pred, const float *restrict target,
                       const float *restrict w, int n, const ghm_slopes *restrict slopes,
                       float *restrict grad, float *restrict beta, float *restrict norm,
                       float *restrict loss)
{
    float key[STRIP], mu = slopes->mu;
    for (int i = 0; i < n; i++) {
        ghm_slope slope = ghm_asl1_slope(pred[i], target[i], mu);
        key[i] = slope.key + 0.0f * w[i];
        norm[i] = slope.norm;
        grad[i] = slope.grad;
        loss[i] = slope.loss;
    }
    if (slopes->function == GHM_SMOOTH_L1) {
        for (int i = 0; i < n; i++) {
            ghm_slope asl1 = {key[i], norm[i], grad[i], loss[i]};
            ghm_slope slope = ghm_smooth_l1_slope(asl1, pred[i], target[i], slopes->a);
            loss[i] = slope.loss;
            grad[i] = slope.grad;
        }
    }
    finish(key, w, n, slopes, grad, beta, norm, loss);
}

static void boxes_slope(const float *pred, const float *target, const float *w, int n,
                        const ghm_slopes *slopes, const ghm_ahead *ahead, const ghm_results *out)
{
    in_strips(box_slopes, pred, target, w, n, slopes, ahead, out);
}
