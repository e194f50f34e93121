/*
 * formula.h - the mathematics of one sample: the only place where each formula stands.
 *
 * Compiled by C and by CUDA. Doubles serve the questions to a sketch, where exactness counts;
 * floats serve the gradient pass, where a vector unit does many at once, so they are free of
 * branches and of libm. No fused multiply-add is written or wanted here.
 *
 * Sources: Li et al. 2019 (g: eq. 4; ASL1: eq. 14), mmdetection ghm_loss.py, Lin et al. 2017 (focal).
 */
#ifndef GHM_FORMULA_H
#define GHM_FORMULA_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define GHM_INLINE static __host__ __device__ __forceinline__
#else
#define GHM_INLINE static inline __attribute__((always_inline))
#endif

GHM_INLINE uint32_t ghm_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

GHM_INLINE float ghm_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* 2^n, where `shifted` is n + 1.5 * 2^52 and so ends in the bits of n. */
GHM_INLINE double ghm_power_of_two(double shifted)
{
    uint64_t bits;
    double power;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 1023) << 52;
    memcpy(&power, &bits, sizeof power);
    return power;
}

/* -- doubles ---------------------------------------------------------------------------------- */

/* e^-a for a >= 0 and ln(1 + e) for e in [0, 1], within 4e-16 and 2e-15 relative. Own, because libm's
 * differ from machine to machine, and because loops over these become vector code. */
GHM_INLINE double ghm_exp_minus_fine(double a)
{
    const double magic = 6755399441055744.0; /* 1.5 * 2^52: adding it rounds to an integer */
    double x = -(a < 745.2 ? a : 745.2);
    double n = (x * 1.4426950408889634 + magic) - magic;
    double r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
    /* Taylor: |r| <= ln2 / 2, so r^13 / 13! is below 2e-16. By halves, quarters and so on, because a
     * sum in one chain would wait for each of its steps. */
    double r2 = r * r, r4 = r2 * r2;
    double low = (1 / 2.0 + r * (1 / 6.0)) + r2 * (1 / 24.0 + r * (1 / 120.0));
    double middle = (1 / 720.0 + r * (1 / 5040.0)) + r2 * (1 / 40320.0 + r * (1 / 362880.0));
    double high = (1 / 3628800.0 + r * (1 / 39916800.0)) + r2 * (1 / 479001600.0);
    double p = (low + r4 * (middle + r4 * high)) * r2 + r + 1;
    /* 2^n in two halves, to reach subnormals; n + magic holds n in its low bits. */
    double half = (n * 0.5 + magic) - magic;
    return p * ghm_power_of_two(half + magic) * ghm_power_of_two((n - half) + magic);
}

GHM_INLINE double ghm_log1p_unit_fine(double e)
{
    double z = e / (2 + e), q = z * z; /* 2 atanh z: q <= 1/9, q^14 / 29 is below 2e-15 */
    double q2 = q * q, q4 = q2 * q2;
    double low = (1 / 3.0 + q * (1 / 5.0)) + q2 * (1 / 7.0 + q * (1 / 9.0));
    double middle = (1 / 11.0 + q * (1 / 13.0)) + q2 * (1 / 15.0 + q * (1 / 17.0));
    double high = (1 / 19.0 + q * (1 / 21.0)) + q2 * (1 / 23.0 + q * (1 / 25.0));
    double sum = (low + q4 * (middle + q4 * (high + q4 * (1 / 27.0)))) * q;
    return 2 * (z + z * sum);
}

/* ln x for normal x >= 1, within 3e-16 absolute or relative: x = 2^k (1 + e). */
GHM_INLINE double ghm_log_fine(double x)
{
    uint64_t bits;
    double fraction;
    memcpy(&bits, &x, sizeof bits);
    int k = (int)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffffu) | 0x3ff0000000000000u;
    memcpy(&fraction, &bits, sizeof fraction);
    return k * 0.69314718055994530942 + ghm_log1p_unit_fine(fraction - 1);
}

/* From one exponential: g = sigmoid(s), accurate in both tails, and softplus(s) = ln(1 + e^s), which
 * is the BCE of a hard target, s = (1 - 2t) x. */
GHM_INLINE void ghm_sigmoid_softplus(double s, double *g, double *l)
{
    double e = ghm_exp_minus_fine(fabs(s));
    *g = (s >= 0 ? 1 : e) / (1 + e);
    *l = (s > 0 ? s : 0) + ghm_log1p_unit_fine(e);
}

GHM_INLINE double ghm_softplus(double s)
{
    double g, l;
    ghm_sigmoid_softplus(s, &g, &l);
    return l;
}

GHM_INLINE double ghm_sigmoid(double s)
{
    double g, l;
    ghm_sigmoid_softplus(s, &g, &l);
    return g;
}

/* The key at which a normal g is reached: the inverse of ghm_sigmoid. */
GHM_INLINE double ghm_logit(double g)
{
    double other = 1 - g;
    return g < other ? -ghm_log_fine(other / g) : ghm_log_fine(g / other);
}

/* sqrt(d^2 + mu^2) without overflow. */
GHM_INLINE double ghm_hypot(double d, double mu)
{
    double hi = fabs(d) > mu ? fabs(d) : mu, r = (fabs(d) > mu ? mu : fabs(d)) / hi;
    return hi * sqrt(1 + r * r);
}

/* ASL1; this form does not cancel where d is much smaller than mu. */
GHM_INLINE double ghm_asl1(double d, double mu)
{
    return fabs(d) * (fabs(d) / (ghm_hypot(d, mu) + mu));
}

/* g of GHM-R: |d ASL1 / dd|. */
GHM_INLINE double ghm_asl1_norm(double d, double mu)
{
    return fabs(d) / ghm_hypot(d, mu);
}

/* The |d| at which GHM-R's g is reached. */
GHM_INLINE double ghm_asl1_key(double g, double mu)
{
    return mu * g / sqrt((1 - g) * (1 + g));
}

GHM_INLINE double ghm_smooth_l1(double d, double beta)
{
    double a = fabs(d);
    return a < beta ? 0.5 * a * a / beta : a - 0.5 * beta;
}

GHM_INLINE double ghm_smooth_l1_norm(double d, double beta)
{
    double a = fabs(d);
    return a < beta ? a / beta : 1;
}

/* Focal's weight of the class; alpha < 0 means no balance. */
GHM_INLINE double ghm_focal_alpha(double alpha, int positive)
{
    return alpha < 0 ? 1 : positive ? alpha : 1 - alpha;
}

/* Of a hard target with key s: (1 - p_true)^gamma BCE, and its derivative in s, which is never negative,
 * so that it is also |d focal / dx|. 1 - p_true = g = e^-softplus(-s): in float, g^gamma would be off
 * by gamma roundings. */
GHM_INLINE void ghm_focal_and_norm(double s, double gamma, double *focal, double *norm)
{
    double e = ghm_exp_minus_fine(fabs(s)), l = ghm_log1p_unit_fine(e);
    double g = (s >= 0 ? 1 : e) / (1 + e), away = (s >= 0 ? e : 1) / (1 + e);
    double bce = (s > 0 ? s : 0) + l, power = ghm_exp_minus_fine(gamma * ((s < 0 ? -s : 0) + l));
    *focal = power * bce;
    *norm = power * (gamma * away * bce + g);
}

GHM_INLINE double ghm_focal(double s, double gamma)
{
    double focal, norm;
    ghm_focal_and_norm(s, gamma, &focal, &norm);
    return focal;
}

GHM_INLINE double ghm_focal_norm(double s, double gamma)
{
    double focal, norm;
    ghm_focal_and_norm(s, gamma, &focal, &norm);
    return norm;
}

/* Soft target t: BCE and its signed derivative, in double because both cancel near x = logit t. */
GHM_INLINE double ghm_soft_bce(double x, double t)
{
    return (x > 0 ? x : 0) - x * t + ghm_log1p_unit_fine(ghm_exp_minus_fine(fabs(x)));
}

GHM_INLINE double ghm_soft_slope(double x, double t)
{
    return ghm_sigmoid(x) - t;
}

/* -- floats ----------------------------------------------------------------------------------- */

/* Coefficients, highest power first; vector code takes them from here too. */
#define GHM_EXP_TERMS   1.3981999e-3f, 8.3334519e-3f, 4.1665795e-2f, 1.6666665e-1f, 0.5f
#define GHM_LOG1P_TERMS 0.0993f, 0.1108f, 0.14286f, 0.2f, 0.33333333f
#define GHM_LOG2_E      1.44269504f
#define GHM_LN2_HIGH    0.693359375f /* 10 bits: n * this is exact */
#define GHM_LN2_LOW     -2.12194440e-4f
#define GHM_EXP_END     104.0f      /* e^-104 is below every float */
#define GHM_ROUND_MAGIC 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer */

/* e^-a for a >= 0 within 2.5e-7 relative; 0 from about 103 on. Cody-Waite reduction, then a
 * polynomial of degree 6 on [-ln2/2, ln2/2]; 2^n is applied in two halves to reach subnormals. */
GHM_INLINE float ghm_exp_minus(float a)
{
    const float c[] = {GHM_EXP_TERMS};
    float x = -(a < GHM_EXP_END ? a : GHM_EXP_END);
    float n = (x * GHM_LOG2_E + GHM_ROUND_MAGIC) - GHM_ROUND_MAGIC;
    float r = (x - n * GHM_LN2_HIGH) - n * GHM_LN2_LOW;
    float p = (((c[0] * r + c[1]) * r + c[2]) * r + c[3]) * r + c[4];
    p = (p * r) * r + r + 1.0f;
    int32_t k = (int32_t)n, half = k >> 1;
    return p * ghm_float((uint32_t)(half + 127) << 23) *
           ghm_float((uint32_t)(k - half + 127) << 23);
}

/* ln(1 + e) for e in [0, 1] within 2e-7 relative: 2 atanh(e / (2 + e)). */
GHM_INLINE float ghm_log1p_unit(float e)
{
    const float c[] = {GHM_LOG1P_TERMS};
    float z = e / (2.0f + e), q = z * z;
    float p = (((c[0] * q + c[1]) * q + c[2]) * q + c[3]) * q + c[4];
    return 2.0f * (z + z * (q * p));
}

/* IEEE half to float, exact, without branches; infinities and NaN stay what they are. */
GHM_INLINE float ghm_half(uint16_t h)
{
    uint32_t magnitude = h & 0x7fffu;
    float scaled = ghm_float(magnitude << 13) * 0x1p112f;
    uint32_t special = magnitude >= 0x7c00u ? 0x7f800000u : 0;
    return ghm_float((ghm_bits(scaled) | special) | (uint32_t)(h & 0x8000u) << 16);
}

GHM_INLINE float ghm_bfloat(uint16_t h)
{
    return ghm_float((uint32_t)h << 16);
}

#endif
