/*
 * kernels_avx512.h - keys to slots with AVX-512: what kernels.c does in loops, fused into one.
 *
 * Included by kernels.c when it is compiled for that set. Pays for itself: a million samples
 * take 0.60 ns each where the loops, compiled for AVX2, take 0.90. The same bits
 * (spec/test_core_order.lua).
 */
#include <immintrin.h>

/* What is the same for every vector of a pass. */
typedef struct wide_plan {
    const ghm_plan *plan;
    __m512i low_mask, stride, trash;
    __m512i weave[2]; /* see place */
    __m128i shift;
} wide_plan;

static inline wide_plan widen_plan(const ghm_plan *plan)
{
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i weave = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    return (wide_plan){
        .plan = plan,
        .low_mask = _mm512_set1_epi32((1 << plan->shift) - 1),
        .stride = _mm512_set1_epi32((int)plan->stride),
        .trash = _mm512_add_epi32(_mm512_set1_epi32((int)plan->trash), lane),
        .weave = {weave, _mm512_add_epi32(weave, _mm512_set1_epi32(8))},
        .shift = _mm_cvtsi32_si128(plan->shift),
    };
}

static inline __mmask16 first_lanes(int n)
{
    uint32_t mask = n >= 16 ? 0xffffu : n > 0 ? (1u << n) - 1 : 0;
    return (__mmask16)mask;
}

static inline __mmask16 is_finite(__m512i bits)
{
    __m512i magnitude = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff));
    return _mm512_cmplt_epu32_mask(magnitude, _mm512_set1_epi32(0x7f800000));
}

/* What a block tells of its samples beside their cells. 0 * x is NaN, and stays so, where x is not
 * finite; t * t - t is 0 where t is 0 or 1; a weight's bits less 1's are 0 where it is 1. */
typedef struct wide_facts {
    uint32_t valid, positive;
    __m512 finite_x, finite_w;
    __m512i soft, uneven, seen;
} wide_facts;

static inline wide_facts no_wide_facts(void)
{
    __m512i zero = _mm512_setzero_si512();
    __m512 none = _mm512_setzero_ps();
    return (wide_facts){0, 0, none, none, zero, zero, zero};
}

static inline __mmask16 note_weight(wide_facts *facts, __m512 w)
{
    const __m512i one = _mm512_castps_si512(_mm512_set1_ps(1));
    __mmask16 used = _mm512_cmp_ps_mask(w, _mm512_setzero_ps(), _CMP_GT_OQ);
    __m512i difference = _mm512_xor_si512(_mm512_castps_si512(w), one);
    facts->finite_w = _mm512_fmadd_ps(w, _mm512_setzero_ps(), facts->finite_w);
    facts->uneven = _mm512_mask_or_epi32(facts->uneven, used, facts->uneven, difference);
    facts->valid += (uint32_t)__builtin_popcount(used);
    return used;
}

static inline void note_finite(wide_facts *facts, __m512 x, __mmask16 used)
{
    facts->finite_x = _mm512_mask3_fmadd_ps(x, _mm512_setzero_ps(), facts->finite_x, used);
}

static inline void tell_facts(const wide_facts *facts, ghm_block *block)
{
    __m512 finite = _mm512_add_ps(facts->finite_x, facts->finite_w);
    block->valid = facts->valid;
    block->positive = facts->positive;
    block->uneven = _mm512_test_epi32_mask(facts->uneven, facts->uneven);
    block->suspect = (uint32_t)_mm512_cmp_ps_mask(finite, finite, _CMP_UNORD_Q) |
                     _mm512_test_epi32_mask(facts->soft, facts->soft);
    block->seen = (uint32_t)_mm512_reduce_or_epi32(facts->seen);
}

/* Sixteen samples into the block: the halves of their words, woven together. */
static inline void place(__m512i key, __m512i low, __m512i offset, __mmask16 used,
                         __mmask16 positive, const wide_plan *wide, wide_facts *facts,
                         ghm_block *block, int i)
{
    const __m512i one = _mm512_set1_epi32(1 << (GHM_COUNT_SHIFT - 32));
    const __m512i half = _mm512_set1_epi32(1 << (GHM_SQUARE_SHIFT - 1));
    __m512i cell = _mm512_srl_epi32(key, wide->shift);
    cell = _mm512_mask_add_epi32(cell, positive, cell, wide->stride);
    _mm512_store_si512(block->slot + i, _mm512_mask_mov_epi32(wide->trash, used, cell));
    __m512i square = _mm512_add_epi32(_mm512_madd_epi16(low, low), half); /* low is below 2^15 */
    square = _mm512_srli_epi32(square, GHM_SQUARE_SHIFT);
    __m512i bottom = _mm512_or_si512(_mm512_slli_epi32(offset, GHM_OFFSETS_SHIFT), square);
    __m512i top = _mm512_or_si512(_mm512_srli_epi32(offset, 32 - GHM_OFFSETS_SHIFT), one);
    for (int k = 0; k < 2; k++) {
        _mm512_store_si512(block->word + i + 8 * k,
                           _mm512_permutex2var_epi32(bottom, wide->weave[k], top));
    }
    __m512i group = _mm512_srli_epi32(key, 26); /* rotation is modulo 32 */
    facts->seen = _mm512_or_si512(facts->seen, _mm512_rolv_epi32(_mm512_set1_epi32(1), group));
}

static void classes(const float *restrict x, const float *restrict t, const float *restrict w,
                    int n, const ghm_plan *restrict plan, ghm_block *restrict block)
{
    const wide_plan wide = widen_plan(plan);
    const __m512i one = _mm512_castps_si512(_mm512_set1_ps(1));
    const __m512i half = _mm512_set1_epi32(1 << (GHM_FINE_BITS - 1));
    wide_facts facts = no_wide_facts();
    for (int i = 0; i < n; i += 16) {
        __mmask16 here = first_lanes(n - i);
        __m512i bits = _mm512_maskz_loadu_epi32(here, x + i);
        __m512 target = _mm512_maskz_loadu_ps(here, t + i);
        __mmask16 used = note_weight(&facts, _mm512_maskz_loadu_ps(here, w + i));
        __m512i target_bits = _mm512_castps_si512(target);
        __mmask16 positive = _mm512_mask_cmpeq_epi32_mask(used, target_bits, one);
        __m512i soft = _mm512_castps_si512(_mm512_fmsub_ps(target, target, target));
        note_finite(&facts, _mm512_castsi512_ps(bits), used);
        facts.soft = _mm512_mask_or_epi32(facts.soft, used, facts.soft, soft);
        facts.positive += (uint32_t)__builtin_popcount(positive);
        /* The bits of 1.0, 8 places up, are the sign. */
        __m512i key = _mm512_xor_si512(bits, _mm512_slli_epi32(target_bits, 8));
        __m512i low = _mm512_and_si512(key, wide.low_mask);
        __m512i offset = _mm512_or_si512(_mm512_slli_epi32(low, GHM_FINE_BITS), half);
        place(key, low, offset, used, positive, &wide, &facts, block, i);
    }
    tell_facts(&facts, block);
}

/* fl(pred - target) chooses the cell; its rounding error (Knuth's two-sum) goes into the offset. */
static void boxes(const float *restrict pred, const float *restrict target, const float *restrict w,
                  int n, const ghm_plan *restrict plan, ghm_block *restrict block)
{
    const wide_plan wide = widen_plan(plan);
    const __m512i sign = _mm512_set1_epi32((int)SIGN);
    const __m512i most = _mm512_set1_epi32((1 << GHM_FINE_BITS) - 1);
    wide_facts facts = no_wide_facts();
    for (int i = 0; i < n; i += 16) {
        __mmask16 here = first_lanes(n - i);
        __m512 p = _mm512_maskz_loadu_ps(here, pred + i);
        __m512 t = _mm512_maskz_loadu_ps(here, target + i);
        __mmask16 used = note_weight(&facts, _mm512_maskz_loadu_ps(here, w + i));
        __m512 d = _mm512_sub_ps(p, t), back = _mm512_sub_ps(p, d);
        __m512 error = _mm512_add_ps(_mm512_sub_ps(p, _mm512_add_ps(d, back)),
                                     _mm512_sub_ps(back, t));
        __m512i bits = _mm512_castps_si512(d), key = _mm512_andnot_si512(sign, bits);
        note_finite(&facts, d, used);
        /* 2^(156 - exponent): the error in 1/64 of d's spacing. Below 2^-98 it is left out. */
        __m512i exponent = _mm512_srli_epi32(key, 23);
        __mmask16 large = _mm512_cmpgt_epu32_mask(exponent, _mm512_set1_epi32(28));
        __m512i scale = _mm512_slli_epi32(_mm512_sub_epi32(_mm512_set1_epi32(283), exponent), 23);
        __m512 factor = _mm512_castsi512_ps(_mm512_maskz_mov_epi32(large, scale));
        /* The error with d's sign: + means that |d| is larger. */
        __m512i signed_error = _mm512_xor_si512(_mm512_castps_si512(error),
                                                _mm512_and_si512(bits, sign));
        __m512i fine = _mm512_cvttps_epi32(_mm512_add_ps(
            _mm512_mul_ps(_mm512_castsi512_ps(signed_error), factor), _mm512_set1_ps(32.5f)));
        __m512i low = _mm512_and_si512(key, wide.low_mask);
        __m512i offset = _mm512_or_si512(_mm512_slli_epi32(low, GHM_FINE_BITS),
                                         _mm512_min_epu32(fine, most));
        place(key, low, offset, used, 0, &wide, &facts, block, i);
    }
    tell_facts(&facts, block);
}

/* low_of sixteen words. */
static inline __m512i load_low(const ghm_block *block, int i)
{
    const unsigned shift = GHM_OFFSETS_SHIFT + GHM_FINE_BITS;
    __m512i first = _mm512_load_si512(block->word + i),
            second = _mm512_load_si512(block->word + i + 8);
    return _mm512_inserti64x4(
        _mm512_castsi256_si512(_mm512_cvtepi64_epi32(_mm512_srli_epi64(first, shift))),
        _mm512_cvtepi64_epi32(_mm512_srli_epi64(second, shift)), 1);
}

/* From edge to edge inside a cell, while some lane has another edge before it. */
static void settle(const ghm_plan *restrict plan, int n, ghm_block *restrict block)
{
    const wide_plan wide = widen_plan(plan);
    const __m512i trash = _mm512_set1_epi32((int)plan->trash);
    const __m512i more = _mm512_set1_epi32((int)GHM_MORE);
    const __m512i n_cells = _mm512_set1_epi32((int)plan->n_cells);
    for (int i = 0; i < n; i += 16) {
        __m512i slot = _mm512_load_si512(block->slot + i);
        __m512i low = _mm512_and_si512(load_low(block, i), wide.low_mask);
        __mmask16 positive = _mm512_cmpge_epu32_mask(slot, wide.stride);
        __mmask16 active = first_lanes(n - i) & _mm512_cmplt_epu32_mask(slot, trash);
        positive &= active;
        slot = _mm512_mask_sub_epi32(slot, positive, slot, wide.stride);
        while (active) {
            __m512i entry = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), active, slot,
                                                        plan->split, 4);
            __m512i reach = _mm512_add_epi32(low, _mm512_and_si512(entry, wide.low_mask));
            __mmask16 beyond = _mm512_cmpgt_epu32_mask(reach, wide.low_mask);
            __m512i side = _mm512_srl_epi32(_mm512_andnot_si512(more, entry), wide.shift);
            slot = _mm512_mask_add_epi32(slot, beyond, n_cells, side);
            active = _mm512_mask_test_epi32_mask(beyond, entry, more);
        }
        _mm512_store_si512(block->slot + i,
                           _mm512_mask_add_epi32(slot, positive, slot, wide.stride));
    }
}

/* -- GHM-C's gradient with few regions, whose tables fit two registers each -------------- */

enum { FEW_REGIONS = 31 };

static inline int few_regions(const ghm_slopes *slopes)
{
    return slopes->function == GHM_BCE && slopes->bins <= FEW_REGIONS;
}

/*
 * From here on several vectors go abreast: each step is a dozen cycles behind the one before it, and
 * steps of one vector alone would fill the scheduler with waiting ones.
 */
enum { ABREAST = 4 };

typedef struct wide {
    __m512 v[ABREAST];
} wide;

#define EACH for (int k = 0; k < ABREAST; k++)

/* ((c0 r + c1) r + ...) + c4: the polynomials of formula.h. */
static inline wide wide_polynomial(const float c[5], wide r)
{
    wide p;
    EACH p.v[k] = _mm512_set1_ps(c[0]);
    for (int i = 1; i < 5; i++) {
        EACH p.v[k] = _mm512_fmadd_ps(p.v[k], r.v[k], _mm512_set1_ps(c[i]));
    }
    return p;
}

/* ghm_exp_minus, sixteen at a time. */
static inline wide wide_exp_minus(wide a)
{
    const float c[] = {GHM_EXP_TERMS};
    const __m512 magic = _mm512_set1_ps(GHM_ROUND_MAGIC), end = _mm512_set1_ps(GHM_EXP_END);
    wide x, n, r, p;
    EACH x.v[k] = _mm512_sub_ps(_mm512_setzero_ps(), _mm512_min_ps(a.v[k], end));
    EACH n.v[k] = _mm512_mul_ps(x.v[k], _mm512_set1_ps(GHM_LOG2_E));
    EACH n.v[k] = _mm512_sub_ps(_mm512_add_ps(n.v[k], magic), magic);
    EACH r.v[k] = _mm512_fnmadd_ps(n.v[k], _mm512_set1_ps(GHM_LN2_HIGH), x.v[k]);
    EACH r.v[k] = _mm512_fnmadd_ps(n.v[k], _mm512_set1_ps(GHM_LN2_LOW), r.v[k]);
    p = wide_polynomial(c, r);
    EACH p.v[k] = _mm512_mul_ps(p.v[k], r.v[k]);
    EACH p.v[k] = _mm512_fmadd_ps(p.v[k], r.v[k], r.v[k]);
    EACH p.v[k] = _mm512_add_ps(p.v[k], _mm512_set1_ps(1.0f));
    EACH p.v[k] = _mm512_scalef_ps(p.v[k], n.v[k]);
    return p;
}

/* 1 / a within an ulp or two: the estimate and one Newton step instead of a slow division. */
static inline wide reciprocal(wide a)
{
    wide guess;
    EACH guess.v[k] = _mm512_rcp14_ps(a.v[k]);
    EACH a.v[k] = _mm512_fnmadd_ps(a.v[k], guess.v[k], _mm512_set1_ps(2.0f));
    EACH a.v[k] = _mm512_mul_ps(guess.v[k], a.v[k]);
    return a;
}

/* ghm_log1p_unit, sixteen at a time. */
static inline wide wide_log1p_unit(wide e)
{
    const float c[] = {GHM_LOG1P_TERMS};
    wide z, q, half;
    EACH z.v[k] = _mm512_add_ps(_mm512_set1_ps(2.0f), e.v[k]);
    z = reciprocal(z);
    EACH z.v[k] = _mm512_mul_ps(e.v[k], z.v[k]);
    EACH q.v[k] = _mm512_mul_ps(z.v[k], z.v[k]);
    half = wide_polynomial(c, q);
    EACH half.v[k] = _mm512_mul_ps(q.v[k], half.v[k]);
    EACH half.v[k] = _mm512_fmadd_ps(z.v[k], half.v[k], z.v[k]);
    EACH half.v[k] = _mm512_add_ps(half.v[k], half.v[k]);
    return half;
}

/* Up to 32 floats in two registers, and one of them for each lane. */
typedef struct wide_table {
    __m512 low, high;
} wide_table;

static inline wide_table load_table(const float *from, int n)
{
    return (wide_table){_mm512_maskz_loadu_ps(first_lanes(n), from),
                        _mm512_maskz_loadu_ps(first_lanes(n - 16), from + 16)};
}

static inline __m512 look_up(const wide_table *table, __m512i index)
{
    return _mm512_permutex2var_ps(table->low, index, table->high);
}

static void classes_few(const float *restrict x, const float *restrict t, const float *restrict w,
                        int n, const ghm_slopes *restrict slopes, const ghm_results *restrict out)
{
    const __m512 zero = _mm512_setzero_ps(), one = _mm512_set1_ps(1), half = _mm512_set1_ps(0.5f);
    const __m512 bins = _mm512_set1_ps((float)slopes->bins);
    const __m512 scale = _mm512_set1_ps(slopes->grad_scale);
    const __m512 loss_scale = _mm512_set1_ps(slopes->loss_scale);
    const __m512i sign = _mm512_set1_epi32((int)SIGN);
    const wide_table edges = load_table(slopes->thresholds, slopes->bins + 1);
    const wide_table betas = load_table(slopes->beta, slopes->bins + 1);
    const ghm_results to = *out;
    for (int i = 0; i < n; i += 16 * ABREAST) {
        __mmask16 here[ABREAST], positive[ABREAST], used[ABREAST], mask[ABREAST];
        __m512i edge[ABREAST];
        wide key, e, g, beta, slope;
        EACH here[k] = first_lanes(n - i - 16 * k);
        EACH key.v[k] = _mm512_maskz_loadu_ps(here[k], x + i + 16 * k);
        EACH positive[k] = _mm512_cmp_ps_mask(_mm512_maskz_loadu_ps(here[k], t + i + 16 * k), one,
                                              _CMP_EQ_OQ);
        EACH used[k] = _mm512_cmp_ps_mask(_mm512_maskz_loadu_ps(here[k], w + i + 16 * k), zero,
                                          _CMP_GT_OQ);
        EACH used[k] &= is_finite(_mm512_castps_si512(key.v[k]));
        EACH key.v[k] = _mm512_mask_xor_ps(key.v[k], positive[k], key.v[k],
                                           _mm512_castsi512_ps(sign));
        EACH e.v[k] = _mm512_abs_ps(key.v[k]);
        e = wide_exp_minus(e);
        EACH mask[k] = _mm512_cmp_ps_mask(key.v[k], zero, _CMP_GE_OQ);
        EACH g.v[k] = _mm512_add_ps(one, e.v[k]);
        g = reciprocal(g);
        EACH g.v[k] = _mm512_mul_ps(_mm512_mask_mov_ps(e.v[k], mask[k], one), g.v[k]);
        EACH edge[k] = _mm512_cvttps_epi32(_mm512_fmadd_ps(g.v[k], bins, half));
        EACH mask[k] = _mm512_cmp_ps_mask(key.v[k], look_up(&edges, edge[k]), _CMP_LT_OQ);
        EACH edge[k] = _mm512_mask_sub_epi32(edge[k], mask[k], edge[k], _mm512_set1_epi32(1));
        EACH beta.v[k] = _mm512_maskz_mov_ps(used[k], look_up(&betas, edge[k]));
        EACH slope.v[k] = _mm512_mul_ps(_mm512_mul_ps(scale, beta.v[k]), g.v[k]);
        EACH slope.v[k] = _mm512_mask_xor_ps(slope.v[k], positive[k], slope.v[k],
                                             _mm512_castsi512_ps(sign));
        EACH _mm512_mask_storeu_ps(to.grad + i + 16 * k, here[k],
                                   _mm512_maskz_mov_ps(used[k], slope.v[k]));
        if (slopes->with_rest) {
            EACH _mm512_mask_storeu_ps(to.beta + i + 16 * k, here[k], beta.v[k]);
            EACH _mm512_mask_storeu_ps(to.norm + i + 16 * k, here[k],
                                       _mm512_maskz_mov_ps(used[k], g.v[k]));
        }
        if (slopes->with_loss) {
            wide loss = wide_log1p_unit(e);
            EACH loss.v[k] = _mm512_add_ps(_mm512_max_ps(key.v[k], zero), loss.v[k]);
            EACH loss.v[k] = _mm512_mul_ps(_mm512_mul_ps(loss_scale, beta.v[k]), loss.v[k]);
            EACH _mm512_mask_storeu_ps(to.loss + i + 16 * k, here[k],
                                       _mm512_maskz_mov_ps(used[k], loss.v[k]));
        }
    }
}
