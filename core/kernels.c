/*
 * kernels.c - the inner loops, compiled once per instruction set (GHM_ISA: plain, avx2, avx512).
 *
 * Written as short loops over arrays of one block, each with one kind of operation, because that is
 * what compilers turn into vector code. No loop here has a branch on data.
 */
#include "kernels.h"

#include "slope.h"

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

#ifdef __AVX512F__
#include "kernels_avx512.h"
#else

/* Cell of the key, by group; ignored samples to the trash. */
static void find_cells(const float *restrict t, const float *restrict w, int n,
                       const ghm_plan *restrict plan, ghm_block *restrict block)
{
    int shift = plan->shift;
    uint32_t stride = plan->stride, trash = plan->trash;
    for (int i = 0; i < n; i++) {
        uint32_t cell = (block->key[i] >> shift) + (t[i] == 1.0f ? stride : 0);
        block->slot[i] = w[i] > 0.0f ? cell : trash;
    }
}

static void settle(const ghm_plan *restrict plan, int n, ghm_block *restrict block)
{
    int shift = plan->shift;
    uint32_t low_mask = (1u << shift) - 1, n_cells = plan->n_cells, slot[GHM_BLOCK];
    const uint32_t *restrict split = plan->split;
    for (int i = 0; i < n; i++) {
        slot[i] = block->key[i] >> shift;
    }
    for (uint32_t more = GHM_MORE; more & GHM_MORE;) {
        more = 0;
        for (int i = 0; i < n; i++) {
            uint32_t at = slot[i], low = block->key[i] & low_mask;
            more |= ghm_step(split[(int32_t)at], low, shift, n_cells, &at);
            slot[i] = at;
        }
    }
    for (int i = 0; i < n; i++) {
        uint32_t was = block->slot[i], group = was >= plan->stride ? plan->stride : 0;
        block->slot[i] = was == plan->trash ? was : slot[i] + group;
    }
}

/* Which groups of eight binades were seen, so that draining need not read a whole table. */
static uint32_t magnitudes_seen(const uint32_t *restrict key, int n)
{
    uint32_t seen = 0;
    for (int i = 0; i < n; i++) {
        seen |= 1u << (key[i] >> 26 & 31);
    }
    return seen;
}

static void classes(const float *restrict x, const float *restrict t, const float *restrict w,
                    int n, const ghm_plan *restrict plan, ghm_block *restrict block)
{
    uint32_t valid = 0, positive = 0, uneven = 0, suspect = 0;
    for (int i = 0; i < n; i++) {
        uint32_t one = t[i] == 1.0f, hard = one | (t[i] == 0.0f);
        uint32_t used = w[i] > 0.0f;
        uint32_t finite = (ghm_bits(x[i]) & ~SIGN) < INFINITE;
        uint32_t weight_finite = (ghm_bits(w[i]) & ~SIGN) < INFINITE;
        block->key[i] = ghm_bits(x[i]) ^ one << 31;
        valid += used;
        positive += used & one;
        uneven |= used & (w[i] != 1.0f);
        suspect += (used & ((finite & hard) ^ 1)) | (weight_finite ^ 1);
    }
    block->valid = valid;
    block->positive = positive;
    block->uneven = uneven;
    block->suspect = suspect;
    uint32_t low_mask = (1u << plan->shift) - 1;
    uint64_t *restrict words = (uint64_t *)block->pair;
    for (int i = 0; i < n; i++) {
        uint32_t low = block->key[i] & low_mask;
        words[2 * i] = (uint64_t)1 << GHM_COUNT_SHIFT | (low << GHM_WIDE_BITS | 128);
        words[2 * i + 1] = (uint64_t)low * low;
    }
    find_cells(t, w, n, plan, block);
    block->seen = magnitudes_seen(block->key, n);
}

/* fl(pred - target) chooses the cell; its rounding error (Knuth's two-sum) goes into the offset. */
static void boxes(const float *restrict pred, const float *restrict target, const float *restrict w,
                  int n, const ghm_plan *restrict plan, ghm_block *restrict block)
{
    static const float no_positives[GHM_BLOCK];
    uint32_t valid = 0, uneven = 0, suspect = 0, low_mask = (1u << plan->shift) - 1;
    for (int i = 0; i < n; i++) {
        float d = pred[i] - target[i];
        uint32_t used = w[i] > 0.0f;
        uint32_t finite = (ghm_bits(d) & ~SIGN) < INFINITE;
        uint32_t weight_finite = (ghm_bits(w[i]) & ~SIGN) < INFINITE;
        block->key[i] = ghm_bits(d) & ~SIGN;
        valid += used;
        uneven |= used & (w[i] != 1.0f);
        suspect += (used & (finite ^ 1)) | (weight_finite ^ 1);
    }
    for (int i = 0; i < n; i++) {
        uint32_t low = block->key[i] & low_mask;
        block->slot[i] = (low << GHM_WIDE_BITS) + ghm_error_offset(pred[i], target[i]);
    }
    uint64_t *restrict words = (uint64_t *)block->pair;
    for (int i = 0; i < n; i++) {
        uint32_t low = block->key[i] & low_mask;
        words[2 * i] = (uint64_t)1 << GHM_COUNT_SHIFT | block->slot[i];
        words[2 * i + 1] = (uint64_t)low * low;
    }
    block->valid = valid;
    block->positive = 0;
    block->uneven = uneven;
    block->suspect = suspect;
    find_cells(no_positives, w, n, plan, block);
    block->seen = magnitudes_seen(block->key, n);
}

#endif

/* Moves on those of samples [begin, end) whose cell is split and who are beyond its edge. */
static void move_on(ghm_pair *restrict table, const ghm_block *restrict block, int begin, int end,
                    const ghm_plan *plan)
{
    uint32_t low_mask = (1u << plan->shift) - 1;
    for (int i = begin; i < end; i++) {
        uint32_t cell = block->slot[i], group = cell >= plan->stride ? plan->stride : 0;
        if (table[cell][0] & GHM_SPLIT) {
            uint32_t slot = group + ghm_slot_of(plan->split, plan->n_cells, plan->shift,
                                                cell - group, block->key[i] & low_mask);
            table[cell] -= block->pair[i];
            table[slot] += block->pair[i];
        }
    }
}

/* Fetches a later block meanwhile: adding waits for the table's lines and leaves the memory bus
 * idle. Whether a cell is split is asked once for many samples: few are. */
static void scatter(ghm_pair *restrict table, const ghm_block *restrict block, int n,
                    const ghm_plan *plan, const ghm_ahead *ahead)
{
    int whole = n - n % GHM_LINE;
    for (int i = 0; i < whole; i += GHM_LINE) {
        ghm_fetch(ahead, i);
        ghm_pair any = {0, 0};
#pragma GCC unroll 16
        for (int k = i; k < i + GHM_LINE; k++) {
            ghm_pair sum = table[block->slot[k]] + block->pair[k];
            table[block->slot[k]] = sum;
            any |= sum;
        }
        if (__builtin_expect((any[0] & GHM_SPLIT) != 0, 0)) {
            move_on(table, block, i, i + GHM_LINE, plan);
        }
    }
    for (int i = whole; i < n; i++) {
        table[block->slot[i]] += block->pair[i];
    }
    move_on(table, block, whole, n, plan);
}

static void tally(const uint16_t *restrict x, const float *restrict t, const float *restrict w,
                  int n, uint32_t *restrict table, ghm_block *restrict block)
{
    uint32_t valid = 0, positive = 0, uneven = 0, suspect = 0;
    for (int i = 0; i < n; i++) {
        uint32_t one = t[i] == 1.0f, hard = one | (t[i] == 0.0f), used = w[i] > 0.0f;
        uint32_t weight_finite = (ghm_bits(w[i]) & ~SIGN) < INFINITE;
        block->slot[i] = used ? x[i] | one << 16 : GHM_PATTERNS;
        valid += used;
        positive += used & one;
        uneven |= used & (w[i] != 1.0f);
        suspect |= (used & (hard ^ 1)) | (weight_finite ^ 1);
    }
    block->valid = valid;
    block->positive = positive;
    block->uneven = uneven;
    block->suspect = suspect;
#pragma GCC unroll 16
    for (int i = 0; i < n; i++) {
        table[block->slot[i]]++;
    }
}

static inline float power(float g, float gamma)
{
    return gamma == 2.0f ? g * g : gamma == 1.0f ? g : powf(g, gamma);
}

/* From slopes to outputs. Whether the sample counts goes into every one; selected, as an ignored one
 * may hold NaN. */
static void finish(const float *restrict key, const float *restrict w, int n,
                   const ghm_slopes *restrict slopes, ghm_results *restrict out)
{
    const float *restrict thresholds = slopes->thresholds, *restrict beta = slopes->beta;
    float grad_scale = slopes->grad_scale, loss_scale = slopes->loss_scale;
    int32_t bins = slopes->bins;
    for (int i = 0; i < n; i++) {
        float b = beta[ghm_region(key[i], out->norm[i], bins, thresholds)];
        out->beta[i] = (w[i] > 0.0f) & (fabsf(key[i]) <= FLT_MAX) ? b : 0.0f;
    }
    for (int i = 0; i < n; i++) {
        int used = (w[i] > 0.0f) & (fabsf(key[i]) <= FLT_MAX);
        out->grad[i] = used ? grad_scale * out->beta[i] * out->grad[i] : 0.0f;
        out->norm[i] = used ? out->norm[i] : 0.0f;
    }
    for (int i = 0; slopes->with_loss && i < n; i++) {
        int used = (w[i] > 0.0f) & (fabsf(key[i]) <= FLT_MAX);
        out->loss[i] = used ? loss_scale * out->beta[i] * out->loss[i] : 0.0f;
    }
}

static void classes_slope(const float *restrict x, const float *restrict t, const float *restrict w,
                          int n, const ghm_slopes *restrict slopes, ghm_results *restrict out)
{
#ifdef __AVX512F__
    if (few_regions(slopes)) {
        classes_few(x, t, w, n, slopes, out);
        return;
    }
#endif
    float key[GHM_BLOCK], e[GHM_BLOCK];
    for (int i = 0; i < n; i++) {
        float sign = t[i] == 1.0f ? -1.0f : 1.0f;
        key[i] = sign * x[i];
        e[i] = ghm_exp_minus(fabsf(key[i]));
        out->norm[i] = ghm_norm_of(key[i], e[i]);
        out->grad[i] = sign * out->norm[i];
    }
    for (int i = 0; slopes->with_loss && i < n; i++) {
        out->loss[i] = ghm_bce_of(key[i], e[i]);
    }
    if (slopes->function == GHM_FOCAL) {
        for (int i = 0; i < n; i++) {
            ghm_slope bce = {key[i], out->norm[i], out->grad[i], out->loss[i]};
            ghm_slope focal = ghm_focal_slope(bce, e[i], t[i] == 1.0f ? -1.0f : 1.0f, slopes->a,
                                              slopes->b, power(bce.norm, slopes->b));
            out->grad[i] = focal.grad;
            out->loss[i] = focal.loss;
        }
    }
    finish(key, w, n, slopes, out);
}

static void boxes_slope(const float *restrict pred, const float *restrict target,
                        const float *restrict w, int n, const ghm_slopes *restrict slopes,
                        ghm_results *restrict out)
{
    float key[GHM_BLOCK], mu = slopes->mu;
    for (int i = 0; i < n; i++) {
        ghm_slope slope = ghm_asl1_slope(pred[i], target[i], mu);
        key[i] = slope.key;
        out->norm[i] = slope.norm;
        out->grad[i] = slope.grad;
        out->loss[i] = slope.loss;
    }
    if (slopes->function == GHM_SMOOTH_L1) {
        for (int i = 0; i < n; i++) {
            ghm_slope asl1 = {key[i], out->norm[i], out->grad[i], out->loss[i]};
            ghm_slope slope = ghm_smooth_l1_slope(asl1, pred[i], target[i], slopes->a);
            out->loss[i] = slope.loss;
            out->grad[i] = slope.grad;
        }
    }
    finish(key, w, n, slopes, out);
}

const ghm_kernels TABLE(GHM_ISA) = {
    .isa = TEXT(GHM_ISA),
    .widen_half = widen_half,
    .widen_bfloat = widen_bfloat,
    .widen_byte = widen_byte,
    .classes = classes,
    .boxes = boxes,
    .settle = settle,
    .scatter = scatter,
    .tally = tally,
    .classes_slope = classes_slope,
    .boxes_slope = boxes_slope,
};
