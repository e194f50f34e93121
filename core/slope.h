/*
 * slope.h - the gradient pass over one sample, in floats: what GHM makes of its loss and its norm.
 *
 * Compiled by C and by CUDA. Selections instead of branches, so that loops become vector code.
 */
#ifndef GHM_SLOPE_H
#define GHM_SLOPE_H

#include "formula.h"

#include <float.h>

typedef struct ghm_slope {
    float key;  /* s, or |d|: what decides the region */
    float norm; /* g of the loss that chooses the region */
    float grad; /* d loss / d pred */
    float loss;
} ghm_slope;

/* Of a hard target with key s, from e = e^-|s|: g = sigmoid(s), and BCE = softplus(s). */
GHM_INLINE float ghm_norm_of(float s, float e)
{
    return (s >= 0.0f ? 1.0f : e) / (1.0f + e);
}

GHM_INLINE float ghm_bce_of(float s, float e)
{
    return (s > 0.0f ? s : 0.0f) + ghm_log1p_unit(e);
}

/* Focal of a hard target, with BCE's key and norm; sign = 1 - 2t. */
GHM_INLINE ghm_slope ghm_focal_slope(float key, float norm, float sign, float alpha, float gamma)
{
    double weight = ghm_focal_alpha((double)alpha, sign < 0.0f), focal, slope;
    ghm_focal_and_norm((double)key, (double)gamma, &focal, &slope);
    ghm_slope out = {key, norm, sign * (float)(weight * slope), (float)(weight * focal)};
    return out;
}

/* ASL1; mu is a normal number. */
GHM_INLINE ghm_slope ghm_asl1_slope(float pred, float target, float mu)
{
    float d = pred - target, a = fabsf(d), hi = a > mu ? a : mu;
    float r = (a > mu ? mu : a) / hi, hypotenuse = hi * sqrtf(1.0f + r * r); /* no overflow */
    ghm_slope slope = {a, a / hypotenuse, d / hypotenuse, a * (a / (hypotenuse + mu))};
    return slope;
}

/* Smooth L1, with ASL1's norm. */
GHM_INLINE ghm_slope ghm_smooth_l1_slope(ghm_slope asl1, float pred, float target, float beta)
{
    float d = pred - target, a = asl1.key;
    asl1.loss = a < beta ? 0.5f * a * (a / beta) : a - 0.5f * beta;
    asl1.grad = a < beta ? d / beta : d > 0.0f ? 1.0f : -1.0f;
    return asl1;
}

/* The region of a key, exactly: g names the nearest edge, the key decides on which side of it.
 * thresholds[bins + 1]; a key of +infinity gives bins, which is no region. */
GHM_INLINE int32_t ghm_region(float key, float norm, int32_t bins, const float *thresholds)
{
    float g = norm >= 0.0f ? norm : 0.0f; /* NaN goes to region 0 */
    int32_t edge = (int32_t)(g * (float)bins + 0.5f);
    edge = edge > bins ? bins : edge;
    return edge - (key < thresholds[edge]);
}

/* Soft targets have no key: g itself is compared with the edges j / bins. Targets beyond [0, 1], which a
 * sketch refuses, go to the last region. */
GHM_INLINE int64_t ghm_soft_region(double g, int64_t bins)
{
    double count = (double)bins;
    int64_t j = g < 1 ? (int64_t)(g * count) : bins - 1;
    j = j >= bins ? bins - 1 : j;
    j -= g < (double)j / count;
    return j + (j + 1 < bins && g >= (double)(j + 1) / count);
}

#endif
