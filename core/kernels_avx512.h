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

/* What a block tells of its samples beside their cells. 0 * x is NaN, and stays so, where x is not
 * finite. */
typedef struct wide_facts {
    uint32_t valid, positive, soft, uneven;
    __m512 finite_x, finite_w;
    __m512i seen;
} wide_facts;

static inline wide_facts no_wide_facts(void)
{
    __m512 none = _mm512_setzero_ps();
    return (wide_facts){0, 0, 0, 0, none, none, _mm512_setzero_si512()};
}

static inline __mmask16 note_weight(wide_facts *facts, __m512 w)
{
    __mmask16 used = _mm512_cmp_ps_mask(w, _mm512_setzero_ps(), _CMP_GT_OQ);
    facts->finite_w = _mm512_fmadd_ps(w, _mm512_setzero_ps(), facts->finite_w);
    facts->uneven |= _mm512_mask_cmp_ps_mask(used, w, _mm512_set1_ps(1), _CMP_NEQ_UQ);
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
    block->uneven = facts->uneven;
    block->suspect = (uint32_t)_mm512_cmp_ps_mask(finite, finite, _CMP_UNORD_Q) | facts->soft;
    block->seen = (uint32_t)_mm512_reduce_or_epi32(facts->seen);
}

/* Sixteen samples into the block: the halves of their words, woven together. fine: the bits of their
 * offsets below `low`. */
static inline void place(__m512i key, __m512i low, __m512i fine, __mmask16 used, __mmask16 positive,
                         const wide_plan *wide, wide_facts *facts, ghm_block *block, int i)
{
    enum { LOW_SHIFT = GHM_OFFSETS_SHIFT + GHM_FINE_BITS, OR_3 = 0xfe };
    const __m512i one = _mm512_set1_epi32(1 << (GHM_COUNT_SHIFT - 32));
    const __m512i half = _mm512_set1_epi32(1 << (GHM_SQUARE_SHIFT - 1));
    __m512i cell = _mm512_srl_epi32(key, wide->shift);
    cell = _mm512_mask_add_epi32(cell, positive, cell, wide->stride);
    _mm512_store_si512(block->slot + i, _mm512_mask_mov_epi32(wide->trash, used, cell));
    __m512i square = _mm512_add_epi32(_mm512_madd_epi16(low, low), half); /* low is below 2^15 */
    square = _mm512_srli_epi32(square, GHM_SQUARE_SHIFT);
    __m512i bottom = _mm512_ternarylogic_epi32(_mm512_slli_epi32(low, LOW_SHIFT), square,
                                               _mm512_slli_epi32(fine, GHM_OFFSETS_SHIFT), OR_3);
    __m512i top = _mm512_or_si512(_mm512_srli_epi32(low, 32 - LOW_SHIFT), one);
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
        __mmask16 zero = _mm512_cmp_ps_mask(target, _mm512_setzero_ps(), _CMP_EQ_OQ);
        note_finite(&facts, _mm512_castsi512_ps(bits), used);
        facts.soft |= used ^ (used & zero) ^ positive;
        facts.positive += (uint32_t)__builtin_popcount(positive);
        /* The bits of 1.0, 8 places up, are the sign. */
        __m512i key = _mm512_xor_si512(bits, _mm512_slli_epi32(target_bits, 8));
        __m512i low = _mm512_and_si512(key, wide.low_mask);
        place(key, low, half, used, positive, &wide, &facts, block, i);
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
        place(key, low, _mm512_min_epu32(fine, most), used, 0, &wide, &facts, block, i);
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

/* -- tables into cells ------------------------------------------------------------------------ */

/* Eight slots' sums. */
typedef struct strip {
    __m512i n, offsets, squares;
} strip;

static inline void take_from(const ghm_table *table, bool spilled, uint32_t slot, __mmask8 here,
                             strip *sum)
{
    const __m512i offsets = _mm512_set1_epi64((1ll << (GHM_COUNT_SHIFT - GHM_OFFSETS_SHIFT)) - 1);
    const __m512i squares = _mm512_set1_epi64((1ll << GHM_OFFSETS_SHIFT) - 1);
    __m512i word = _mm512_maskz_loadu_epi64(here, table->words + slot);
    __m512i shifted = _mm512_srli_epi64(word, GHM_OFFSETS_SHIFT);
    _mm512_mask_storeu_epi64(table->words + slot, _mm512_test_epi64_mask(word, word),
                             _mm512_setzero_si512());
    sum->n = _mm512_add_epi64(sum->n, _mm512_srli_epi64(word, GHM_COUNT_SHIFT));
    sum->offsets = _mm512_add_epi64(sum->offsets, _mm512_and_si512(shifted, offsets));
    sum->squares = _mm512_add_epi64(sum->squares, _mm512_and_si512(word, squares));
    if (spilled && table->spilled) {
        const __m512i each = _mm512_setr_epi64(0, 4, 8, 12, 16, 20, 24, 28); /* words of a cell */
        const __m512i none = _mm512_setzero_si512();
        ghm_cell *full = table->wide + slot;
        __m512i n = _mm512_mask_i64gather_epi64(none, here, each, &full->n, 8);
        sum->n = _mm512_add_epi64(sum->n, n);
        sum->offsets = _mm512_add_epi64(
            sum->offsets, _mm512_mask_i64gather_epi64(none, here, each, &full->offsets, 8));
        sum->squares = _mm512_add_epi64(
            sum->squares, _mm512_mask_i64gather_epi64(none, here, each, &full->squares, 8));
        if (_mm512_test_epi64_mask(n, n)) {
            memset(full, 0, (size_t)__builtin_popcount(here) * sizeof *full);
        }
    }
}

/* Appends the slots in use of eight; `here` masks those that are meant. */
static inline __attribute__((always_inline)) int64_t
take_strip(const ghm_table *tables, int n_tables, bool spilled, uint32_t group, uint32_t slot,
           __mmask8 here, ghm_cells *to, int64_t at)
{
    const __m512i lane = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
    strip sum = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
    for (int t = 0; t < n_tables; t++) {
        take_from(&tables[t], spilled, slot, here, &sum);
    }
    __mmask8 used = _mm512_test_epi64_mask(sum.n, sum.n);
    __m512i number = _mm512_add_epi64(_mm512_set1_epi64(slot - group), lane);
    number = _mm512_maskz_compress_epi64(used, number);
    _mm256_storeu_si256((__m256i *)(to->slot + at), _mm512_cvtepi64_epi32(number));
    _mm512_storeu_si512(to->n + at, _mm512_maskz_compress_epi64(used, sum.n));
    _mm512_storeu_si512(to->offsets + at, _mm512_maskz_compress_epi64(used, sum.offsets));
    _mm512_storeu_si512(to->squares + at, _mm512_maskz_compress_epi64(used, sum.squares));
    return at + __builtin_popcount(used);
}

static inline __attribute__((always_inline)) void take_strips(const ghm_table *tables, int n_tables,
                                                              bool spilled, uint32_t group,
                                                              uint32_t first, uint32_t n,
                                                              ghm_cells *to)
{
    enum { STRIPS = 4 }; /* at a time, as most are empty */
    int64_t at = to->count;
    uint32_t slot = first, end = first + n;
    for (; end - slot >= STRIPS * GHM_STRIP; slot += STRIPS * GHM_STRIP) {
        __m512i any = _mm512_setzero_si512();
        for (uint32_t k = 0; k < STRIPS; k++) {
            for (int t = 0; t < n_tables; t++) {
                any = _mm512_or_si512(any,
                                      _mm512_loadu_si512(tables[t].words + slot + k * GHM_STRIP));
            }
        }
        if (!_mm512_test_epi64_mask(any, any)) {
            continue;
        }
        for (uint32_t k = 0; k < STRIPS; k++) {
            at = take_strip(tables, n_tables, spilled, group, slot + k * GHM_STRIP, 0xff, to, at);
        }
    }
    for (; slot < end; slot += GHM_STRIP) {
        __mmask8 here = (__mmask8)first_lanes(end - slot < GHM_STRIP ? (int)(end - slot)
                                                                     : GHM_STRIP);
        at = take_strip(tables, n_tables, spilled, group, slot, here, to, at);
    }
    to->count = at;
}

/* Compiled apart for the one or two tables, without spilled words, of a small batch. */
static void take_slots(const ghm_table *tables, int n_tables, uint32_t group, uint32_t first,
                       uint32_t n, ghm_cells *to)
{
    bool spilled = false;
    for (int t = 0; t < n_tables; t++) {
        spilled |= tables[t].spilled;
    }
    if (n_tables == 1 && !spilled) {
        take_strips(tables, 1, false, group, first, n, to);
    } else if (n_tables == 2 && !spilled) {
        take_strips(tables, 2, false, group, first, n, to);
    } else {
        take_strips(tables, n_tables, true, group, first, n, to);
    }
}
