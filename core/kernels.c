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

/* -- the table -------------------------------------------------------------------------------- */

/* What one sample adds to its slot. */
static inline uint64_t word_of(uint32_t offset, uint32_t low)
{
    return (uint64_t)1 << GHM_COUNT_SHIFT | (uint64_t)offset << GHM_OFFSETS_SHIFT | ghm_square(low);
}

/* The low bits of a sample's key, below bits of no meaning. */
static inline uint32_t low_of(uint64_t word)
{
    return (uint32_t)(word >> (GHM_OFFSETS_SHIFT + GHM_FINE_BITS));
}

/* A sample was added to a slot that calls for attention: it is trash, or full, or a cell with an edge
 * inside, in which case the sample may belong beyond it. */
static __attribute__((cold, noinline)) void attend(const ghm_plan *plan, ghm_table *table,
                                                   uint64_t *at, uint64_t word)
{
    uint32_t slot = (uint32_t)(at - table->words);
    uint64_t mark = 0;
    if (slot >= plan->trash) {
        *at = 0;
        return;
    }
    uint32_t group = slot >= plan->stride ? plan->stride : 0, cell = slot - group;
    if (cell < plan->n_cells && plan->split[cell] && plan->watch) {
        uint32_t to = ghm_slot_of(plan->split, plan->n_cells, plan->shift, cell,
                                  low_of(word) & ((1u << plan->shift) - 1));
        mark = to == cell ? GHM_WATCHED : 0;
        *at -= word;
        slot = group + to;
        at = &table->words[slot];
        *at += word;
    }
    if ((*at - mark) >> GHM_COUNT_SHIFT >= GHM_FULL) {
        ghm_add_word(&table->wide[slot], *at - mark);
        table->spilled = true;
        *at = mark;
    }
}

static inline void add_word(const ghm_plan *plan, ghm_table *table, uint64_t *at, uint64_t word)
{
    *at += word;
    if (__builtin_expect((int64_t)*at < 0, 0)) {
        attend(plan, table, at, word);
    }
}

#ifdef __AVX512F__
#include "kernels_avx512.h"
#else

/* Cell of the key, by group; ignored samples to the trash. */
static void find_cells(const uint32_t *restrict key, const float *restrict t,
                       const float *restrict w, int n, const ghm_plan *restrict plan,
                       ghm_block *restrict block)
{
    int shift = plan->shift;
    uint32_t stride = plan->stride, trash = plan->trash;
    for (int i = 0; i < n; i++) {
        uint32_t cell = (key[i] >> shift) + (t[i] == 1.0f ? stride : 0);
        uint32_t own = trash + ((uint32_t)i & (GHM_TRASH - 1));
        block->slot[i] = w[i] > 0.0f ? cell : own;
    }
}

static void settle(const ghm_plan *restrict plan, int n, ghm_block *restrict block)
{
    int shift = plan->shift;
    uint32_t low_mask = (1u << shift) - 1, n_cells = plan->n_cells, stride = plan->stride;
    uint32_t group[GHM_BLOCK], slot[GHM_BLOCK], low[GHM_BLOCK];
    const uint32_t *restrict split = plan->split;
    for (int i = 0; i < n; i++) {
        uint32_t was = block->slot[i];
        group[i] = was >= plan->trash ? was : was >= stride ? stride : 0;
        slot[i] = was >= plan->trash ? 0 : was - group[i];
        low[i] = low_of(block->word[i]) & low_mask;
    }
    for (uint32_t more = GHM_MORE; more & GHM_MORE;) {
        more = 0;
        for (int i = 0; i < n; i++) {
            more |= ghm_step(split[(int32_t)slot[i]], low[i], shift, n_cells, &slot[i]);
        }
    }
    for (int i = 0; i < n; i++) {
        block->slot[i] = group[i] >= plan->trash ? group[i] : slot[i] + group[i];
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
    uint32_t key[GHM_BLOCK], valid = 0, positive = 0, uneven = 0, suspect = 0;
    for (int i = 0; i < n; i++) {
        uint32_t one = t[i] == 1.0f, hard = one | (t[i] == 0.0f);
        uint32_t used = w[i] > 0.0f;
        uint32_t finite = (ghm_bits(x[i]) & ~SIGN) < INFINITE;
        uint32_t weight_finite = (ghm_bits(w[i]) & ~SIGN) < INFINITE;
        key[i] = ghm_bits(x[i]) ^ one << 31;
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
    for (int i = 0; i < n; i++) {
        uint32_t low = key[i] & low_mask;
        block->word[i] = word_of(ghm_offset(low), low);
    }
    find_cells(key, t, w, n, plan, block);
    block->seen = magnitudes_seen(key, n);
}

/* fl(pred - target) chooses the cell; its rounding error goes into the offset. */
static void boxes(const float *restrict pred, const float *restrict target, const float *restrict w,
                  int n, const ghm_plan *restrict plan, ghm_block *restrict block)
{
    static const float no_positives[GHM_BLOCK];
    uint32_t key[GHM_BLOCK], offset[GHM_BLOCK], valid = 0, uneven = 0, suspect = 0;
    uint32_t low_mask = (1u << plan->shift) - 1;
    for (int i = 0; i < n; i++) {
        float d = pred[i] - target[i];
        uint32_t used = w[i] > 0.0f;
        uint32_t finite = (ghm_bits(d) & ~SIGN) < INFINITE;
        uint32_t weight_finite = (ghm_bits(w[i]) & ~SIGN) < INFINITE;
        key[i] = ghm_bits(d) & ~SIGN;
        valid += used;
        uneven |= used & (w[i] != 1.0f);
        suspect += (used & (finite ^ 1)) | (weight_finite ^ 1);
    }
    for (int i = 0; i < n; i++) { /* a loop of floats and one of words, which differ in width */
        offset[i] = ghm_offset_of_difference(key[i] & low_mask, pred[i], target[i]);
    }
    for (int i = 0; i < n; i++) {
        block->word[i] = word_of(offset[i], key[i] & low_mask);
    }
    block->valid = valid;
    block->positive = 0;
    block->uneven = uneven;
    block->suspect = suspect;
    find_cells(key, no_positives, w, n, plan, block);
    block->seen = magnitudes_seen(key, n);
}

#endif

static void scatter(const ghm_plan *plan, const ghm_block *restrict block, int n,
                    const ghm_ahead *ahead, ghm_table *table)
{
    const ghm_ahead later = *ahead; /* a copy: nothing that is stored to can change it */
    uint64_t *words = table->words;
    int whole = n - n % GHM_LINE;
    for (int i = 0; i < whole; i += GHM_LINE) {
        const uint32_t *slot = block->slot + i;
        const uint64_t *word = block->word + i;
        ghm_fetch(&later, i);
#pragma GCC unroll 16
        for (int k = 0; k < GHM_LINE; k++) {
            add_word(plan, table, words + slot[k], word[k]);
        }
    }
    for (int i = whole; i < n; i++) {
        add_word(plan, table, words + block->slot[i], block->word[i]);
    }
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
    float key[GHM_BLOCK], e[GHM_BLOCK];
    for (int i = 0; i < n; i++) {
        float sign = t[i] == 1.0f ? -1.0f : 1.0f;
        key[i] = sign * x[i];
        e[i] = ghm_exp_minus(fabsf(key[i]));
        norm[i] = ghm_norm_of(key[i], e[i]);
        grad[i] = sign * norm[i];
    }
    for (int i = 0; slopes->with_loss && i < n; i++) {
        loss[i] = ghm_bce_of(key[i], e[i]);
    }
    if (slopes->function == GHM_FOCAL) {
        for (int i = 0; i < n; i++) {
            ghm_slope bce = {key[i], norm[i], grad[i], loss[i]};
            ghm_slope focal = ghm_focal_slope(bce, e[i], t[i] == 1.0f ? -1.0f : 1.0f, slopes->a,
                                              slopes->b, power(bce.norm, slopes->b));
            grad[i] = focal.grad;
            loss[i] = focal.loss;
        }
    }
    finish(key, w, n, slopes, grad, beta, norm, loss);
}

static void classes_slope(const float *x, const float *t, const float *w, int n,
                          const ghm_slopes *slopes, const ghm_results *out)
{
#ifdef __AVX512F__
    if (few_regions(slopes)) {
        classes_few(x, t, w, n, slopes, out);
        return;
    }
#endif
    class_slopes(x, t, w, n, slopes, out->grad, out->beta, out->norm, out->loss);
}

static void box_slopes(const float *restrict pred, const float *restrict target,
                       const float *restrict w, int n, const ghm_slopes *restrict slopes,
                       float *restrict grad, float *restrict beta, float *restrict norm,
                       float *restrict loss)
{
    float key[GHM_BLOCK], mu = slopes->mu;
    for (int i = 0; i < n; i++) {
        ghm_slope slope = ghm_asl1_slope(pred[i], target[i], mu);
        key[i] = slope.key;
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
                        const ghm_slopes *slopes, const ghm_results *out)
{
    box_slopes(pred, target, w, n, slopes, out->grad, out->beta, out->norm, out->loss);
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
