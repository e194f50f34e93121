/*
 * kernels.c - the inner loops, compiled once per instruction set (GHM_ISA: plain, avx2, avx512).
 *
 * Written as short loops over arrays of one block, each with one kind of operation, because that is
 * what compilers turn into vector code. No loop here has a branch on data.
 */
#include "kernels.h"

#include "formula.h"

#include <float.h>

#ifndef GHM_ISA
#define GHM_ISA plain
#endif
#define PASTE(a, b) a##b
#define TABLE(isa)  PASTE(ghm_kernels_, isa)
#define TEXT_(isa)  #isa
#define TEXT(isa)   TEXT_(isa)

#define SIGN     0x80000000u
#define INFINITE 0x7f800000u

static void widen_half(const uint16_t *restrict in, float *restrict out, int n)
{
    for (int i = 0; i < n; i++) {
        out[i] = ghm_half(in[i]);
    }
}

static void widen_bfloat(const uint16_t *restrict in, float *restrict out, int n)
{
    for (int i = 0; i < n; i++) {
        out[i] = ghm_bfloat(in[i]);
    }
}

static void widen_byte(const uint8_t *restrict in, float *restrict out, int n)
{
    for (int i = 0; i < n; i++) {
        out[i] = (float)in[i];
    }
}

/* Key -> slot: the cell, or the side slot of the edge inside it (private.h), or the trash. */
static void find_slots(const float *restrict t, const float *restrict w, int n,
                       const ghm_plan *restrict plan, ghm_block *restrict block)
{
    int shift = plan->shift;
    uint32_t low_mask = (1u << shift) - 1, stride = plan->stride, trash = plan->trash;
    uint32_t n_cells = plan->n_cells;
    const uint32_t *restrict split = plan->split;
    for (int i = 0; i < n; i++) {
        int32_t cell = (int32_t)(block->key[i] >> shift);
        uint32_t entry = split[cell], low = block->key[i] & low_mask;
        uint32_t beyond = (low + (entry & low_mask)) >> shift;
        uint32_t slot = beyond ? n_cells + (entry >> shift) : (uint32_t)cell;
        slot += t[i] == 1.0f ? stride : 0;
        block->slot[i] = w[i] > 0.0f ? slot : trash;
    }
}

/* Which groups of four binades were seen, so that draining need not read a whole table. */
static uint64_t magnitudes_seen(const uint32_t *restrict key, int n)
{
    uint32_t low = 0, high = 0;
    for (int i = 0; i < n; i++) {
        uint32_t group = key[i] >> 25 & 63, bit = 1u << (group & 31);
        low |= group < 32 ? bit : 0;
        high |= group < 32 ? 0 : bit;
    }
    return (uint64_t)high << 32 | low;
}

static void classes(const float *restrict x, const float *restrict t, const float *restrict w,
                    int n, const ghm_plan *restrict plan, ghm_block *restrict block)
{
    uint32_t valid = 0, positive = 0, unit = 0, suspect = 0;
    for (int i = 0; i < n; i++) {
        uint32_t one = t[i] == 1.0f, hard = one | (t[i] == 0.0f);
        uint32_t used = w[i] > 0.0f;
        uint32_t finite = (ghm_bits(x[i]) & ~SIGN) < INFINITE;
        uint32_t weight_finite = (ghm_bits(w[i]) & ~SIGN) < INFINITE;
        block->key[i] = ghm_bits(x[i]) ^ one << 31;
        valid += used;
        positive += used & one;
        unit += w[i] == 1.0f;
        suspect += (used & ((finite & hard) ^ 1)) | (weight_finite ^ 1);
    }
    block->valid = valid;
    block->positive = positive;
    block->unit_weights = unit;
    block->suspect = suspect;
    uint32_t low_mask = (1u << plan->shift) - 1;
    uint64_t *restrict words = (uint64_t *)block->pair;
    for (int i = 0; i < n; i++) {
        uint64_t low = block->key[i] & low_mask;
        words[2 * i] = (uint64_t)1 << GHM_COUNT_SHIFT | (low << GHM_WIDE_BITS | 128);
        words[2 * i + 1] = low * low;
    }
    find_slots(t, w, n, plan, block);
    block->seen = magnitudes_seen(block->key, n);
}

/* fl(pred - target) chooses the cell; its rounding error (Knuth's two-sum) goes into the offset. */
static void boxes(const float *restrict pred, const float *restrict target, const float *restrict w,
                  int n, const ghm_plan *restrict plan, ghm_block *restrict block)
{
    static const float no_positives[GHM_BLOCK];
    uint32_t valid = 0, unit = 0, suspect = 0, low_mask = (1u << plan->shift) - 1;
    for (int i = 0; i < n; i++) {
        float d = pred[i] - target[i];
        uint32_t used = w[i] > 0.0f;
        uint32_t finite = (ghm_bits(d) & ~SIGN) < INFINITE;
        uint32_t weight_finite = (ghm_bits(w[i]) & ~SIGN) < INFINITE;
        block->key[i] = ghm_bits(d) & ~SIGN;
        valid += used;
        unit += w[i] == 1.0f;
        suspect += (used & (finite ^ 1)) | (weight_finite ^ 1);
    }
    for (int i = 0; i < n; i++) {
        float d = pred[i] - target[i], back = pred[i] - d;
        float error = (pred[i] - (d + back)) + (back - target[i]);
        uint32_t exponent = block->key[i] >> 23;
        /* 2^(158 - exponent): the error in 1/256 of d's spacing. Below 2^-96 it is left out. */
        float scale = ghm_float(exponent > 31 ? (285 - exponent) << 23 : 0);
        float wide = (d < 0.0f ? -error : error) * scale + 128.5f;
        uint32_t low = block->key[i] & low_mask;
        block->slot[i] = (low << GHM_WIDE_BITS) + (uint32_t)(int32_t)wide;
    }
    uint64_t *restrict words = (uint64_t *)block->pair;
    for (int i = 0; i < n; i++) {
        uint64_t low = block->key[i] & low_mask;
        words[2 * i] = (uint64_t)1 << GHM_COUNT_SHIFT | block->slot[i];
        words[2 * i + 1] = low * low;
    }
    block->valid = valid;
    block->positive = 0;
    block->unit_weights = unit;
    block->suspect = suspect;
    find_slots(no_positives, w, n, plan, block);
    block->seen = magnitudes_seen(block->key, n);
}

static void scatter(ghm_pair *restrict table, const ghm_block *restrict block, int n)
{
    for (int i = 0; i < n; i++) {
        table[block->slot[i]] += block->pair[i];
    }
}

/* The region of a key, exactly: a guess from g, then the two neighbouring edges decide. */
static inline __attribute__((always_inline)) int32_t region_of(float key, float g,
                                                               const ghm_slopes *slopes)
{
    int32_t last = slopes->bins - 1;
    int32_t j = (int32_t)((g >= 0.0f ? g : 0.0f) * (float)slopes->bins); /* NaN goes to 0 */
    j = j > last ? last : j;
    j -= key < slopes->thresholds[j];
    j += key >= slopes->thresholds[j + 1];
    return j;
}

static inline float power(float g, float gamma)
{
    return gamma == 2.0f ? g * g : gamma == 1.0f ? g : powf(g, gamma);
}

static void classes_slope(const float *restrict x, const float *restrict t, const float *restrict w,
                          int n, const ghm_slopes *restrict slopes, float *restrict grad,
                          float *restrict beta, float *restrict norm, float *restrict loss)
{
    for (int i = 0; i < n; i++) {
        float sign = t[i] == 1.0f ? -1.0f : 1.0f, s = sign * x[i];
        float e = ghm_exp_minus(fabsf(s));
        norm[i] = (s >= 0.0f ? 1.0f : e) / (1.0f + e);
        loss[i] = (s > 0.0f ? s : 0.0f) + ghm_log1p_unit(e);
        grad[i] = sign * norm[i];
    }
    if (slopes->function == GHM_FOCAL) {
        for (int i = 0; i < n; i++) {
            float alpha = (float)ghm_focal_alpha(slopes->a, t[i] == 1.0f);
            float weight = alpha * power(norm[i], slopes->b);
            float sign = t[i] == 1.0f ? -1.0f : 1.0f;
            float e = ghm_exp_minus(fabsf(x[i])), away = (sign * x[i] >= 0.0f ? e : 1.0f);
            grad[i] = sign * weight * (slopes->b * (away / (1.0f + e)) * loss[i] + norm[i]);
            loss[i] *= weight;
        }
    }
    for (int i = 0; i < n; i++) {
        float s = t[i] == 1.0f ? -x[i] : x[i];
        float b = slopes->beta[region_of(s, norm[i], slopes)];
        int used = (w[i] > 0.0f) & (fabsf(s) <= FLT_MAX);
        beta[i] = used ? b : 0.0f;
        grad[i] = used ? slopes->grad_scale * b * grad[i] : 0.0f;
        loss[i] = used ? slopes->loss_scale * b * loss[i] : 0.0f;
        norm[i] = used ? norm[i] : 0.0f;
    }
}

static void boxes_slope(const float *restrict pred, const float *restrict target,
                        const float *restrict w, int n, const ghm_slopes *restrict slopes,
                        float *restrict grad, float *restrict beta, float *restrict norm,
                        float *restrict loss)
{
    float mu = slopes->mu;
    for (int i = 0; i < n; i++) {
        float d = pred[i] - target[i], a = fabsf(d);
        float hi = a > mu ? a : mu, r = (a > mu ? mu : a) / hi; /* no overflow in the hypotenuse */
        float hypotenuse = hi * sqrtf(1.0f + r * r);
        norm[i] = a / hypotenuse;
        grad[i] = d / hypotenuse;
        loss[i] = a * (a / (hypotenuse + mu));
    }
    if (slopes->function == GHM_SMOOTH_L1) {
        for (int i = 0; i < n; i++) {
            float d = pred[i] - target[i], a = fabsf(d), width = slopes->a;
            loss[i] = a < width ? 0.5f * a * (a / width) : a - 0.5f * width;
            grad[i] = a < width ? d / width : d > 0.0f ? 1.0f : -1.0f;
        }
    }
    for (int i = 0; i < n; i++) {
        float a = fabsf(pred[i] - target[i]);
        float b = slopes->beta[region_of(a, norm[i], slopes)];
        int used = (w[i] > 0.0f) & (a <= FLT_MAX);
        beta[i] = used ? b : 0.0f;
        grad[i] = used ? slopes->grad_scale * b * grad[i] : 0.0f;
        loss[i] = used ? slopes->loss_scale * b * loss[i] : 0.0f;
        norm[i] = used ? norm[i] : 0.0f;
    }
}

const ghm_kernels TABLE(GHM_ISA) = {
    .isa = TEXT(GHM_ISA),
    .widen_half = widen_half,
    .widen_bfloat = widen_bfloat,
    .widen_byte = widen_byte,
    .classes = classes,
    .boxes = boxes,
    .scatter = scatter,
    .classes_slope = classes_slope,
    .boxes_slope = boxes_slope,
};
