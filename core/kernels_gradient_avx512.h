/*
 * kernels_gradient_avx512.h - GHM-C's gradient with so few regions that their tables fit two registers
 * each. Part of kernels.c when it is compiled for AVX-512.
 */
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
                        int n, const ghm_slopes *restrict slopes, const ghm_ahead *ahead,
                        const ghm_results *restrict out)
{
    const __m512 zero = _mm512_setzero_ps(), one = _mm512_set1_ps(1), half = _mm512_set1_ps(0.5f);
    const __m512 bins = _mm512_set1_ps((float)slopes->bins);
    const __m512 scale = _mm512_set1_ps(slopes->grad_scale);
    const __m512 loss_scale = _mm512_set1_ps(slopes->loss_scale);
    const __m512 infinite = _mm512_set1_ps(INFINITY);
    const __m512i sign = _mm512_set1_epi32((int)SIGN);
    const wide_table edges = load_table(slopes->thresholds, slopes->bins + 1);
    const wide_table betas = load_table(slopes->beta, slopes->bins + 1);
    const ghm_results to = *out; /* copies: nothing that is stored to can change them */
    const ghm_ahead later = *ahead;
    for (int i = 0; i < n; i += 16 * ABREAST) {
        __mmask16 here[ABREAST], positive[ABREAST], used[ABREAST], mask[ABREAST];
        __m512i edge[ABREAST];
        wide key, target, weight, e, g, beta, slope;
        EACH ghm_fetch(&later, i + 16 * k);
        EACH here[k] = first_lanes(n - i - 16 * k);
        EACH key.v[k] = _mm512_maskz_loadu_ps(here[k], x + i + 16 * k);
        EACH target.v[k] = _mm512_maskz_loadu_ps(here[k], t + i + 16 * k);
        EACH weight.v[k] = _mm512_maskz_loadu_ps(here[k], w + i + 16 * k);
        EACH positive[k] = _mm512_cmp_ps_mask(target.v[k], one, _CMP_EQ_OQ);
        EACH used[k] = _mm512_cmp_ps_mask(weight.v[k], zero, _CMP_GT_OQ);
        EACH key.v[k] = _mm512_fmadd_ps(target.v[k], zero, key.v[k]); /* NaN if it is not finite */
        EACH key.v[k] = _mm512_fmadd_ps(weight.v[k], zero, key.v[k]);
        EACH e.v[k] = _mm512_abs_ps(key.v[k]);
        EACH used[k] = _mm512_mask_cmp_ps_mask(used[k], e.v[k], infinite, _CMP_LT_OQ);
        EACH key.v[k] = _mm512_mask_xor_ps(key.v[k], positive[k], key.v[k],
                                           _mm512_castsi512_ps(sign));
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
