/*
 * philox.h - one synthetic sample from its counter: the same bits on every machine and backend.
 *
 * Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Normals
 * come from the inverse distribution function (Wichura, algorithm AS 241, PPND16). The only
 * operations are + - * / and sqrt, which IEEE 754 rounds alike everywhere; libm's log is not.
 */
#ifndef GHM_PHILOX_H
#define GHM_PHILOX_H

#include "formula.h"
#include "ghm.h"

typedef struct ghm_draw {
    uint32_t word[4];
} ghm_draw;

GHM_INLINE ghm_draw ghm_philox(uint64_t seed, uint64_t sample, uint32_t step, uint32_t stream)
{
    uint32_t c[4] = {(uint32_t)sample, (uint32_t)(sample >> 32), step, stream};
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k0, (uint32_t)b,
                            (uint32_t)(a >> 32) ^ c[3] ^ k1, (uint32_t)a};
        memcpy(c, next, sizeof c);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    ghm_draw draw;
    memcpy(draw.word, c, sizeof c);
    return draw;
}

/* (0, 1) from 32 bits, and from 53. */
GHM_INLINE double ghm_unit(uint32_t a)
{
    return ((double)a + 0.5) * 0x1p-32;
}

GHM_INLINE double ghm_unit_fine(uint32_t a, uint32_t b)
{
    return ((double)((uint64_t)a << 20 | b >> 12) + 0.5) * 0x1p-52;
}

/* ln x for normal x > 0 within 2 ulp: atanh series on [sqrt 1/2, sqrt 2). */
GHM_INLINE double ghm_log_portable(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int exponent = (int)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffffu) | (uint64_t)1023 << 52;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        exponent++;
    }
    double z = (m - 1) / (m + 1), q = z * z, sum = 0;
    for (int k = 23; k >= 3; k -= 2) {
        sum = (sum + 1.0 / k) * q;
    }
    return exponent * 0.6931471805599453 + 2 * (z + z * sum);
}

GHM_INLINE double ghm_ratio(const double *p, const double *q, double r)
{
    double top = p[7], bottom = q[7];
    for (int i = 6; i >= 0; i--) {
        top = top * r + p[i];
        bottom = bottom * r + q[i];
    }
    return top / bottom;
}

/* The standard normal's quantile at u in (0, 1), relative error about 1e-16. */
GHM_INLINE double ghm_normal(double u)
{
    const double a[] = {3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3,
                        1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4,
                        3.3430575583588128105e4, 2.5090809287301226727e3};
    const double b[] = {1,
                        4.2313330701600911252e1,
                        6.8718700749205790830e2,
                        5.3941960214247511077e3,
                        2.1213794301586595867e4,
                        3.9307895800092710610e4,
                        2.8729085735721942674e4,
                        5.2264952788528545610e3};
    const double c[] = {1.42343711074968357734,    4.63033784615654529590,
                        5.76949722146069140550,    3.64784832476320460504,
                        1.27045825245236838258,    2.41780725177450611770e-1,
                        2.27238449892691845833e-2, 7.74545014278341407640e-4};
    const double d[] = {1,
                        2.05319162663775882187,
                        1.67638483018380384940,
                        6.89767334985100004550e-1,
                        1.48103976427480074590e-1,
                        1.51986665636164571966e-2,
                        5.47593808499534494600e-4,
                        1.05075007164441684324e-9};
    const double e[] = {6.65790464350110377720,    5.46378491116411436990,
                        1.78482653991729133580,    2.96560571828504891230e-1,
                        2.65321895265761230930e-2, 1.24266094738807843860e-3,
                        2.71155556874348757815e-5, 2.01033439929228813265e-7};
    const double f[] = {1,
                        5.99832206555887937690e-1,
                        1.36929880922735805310e-1,
                        1.48753612908506148525e-2,
                        7.86869131145613259100e-4,
                        1.84631831751005468180e-5,
                        1.42151175831644588870e-7,
                        2.04426310338993978564e-15};
    double middle = u - 0.5;
    if (fabs(middle) <= 0.425) {
        return middle * ghm_ratio(a, b, 0.180625 - middle * middle);
    }
    double r = sqrt(-ghm_log_portable(middle < 0 ? u : 1 - u));
    double far = r <= 5 ? ghm_ratio(c, d, r - 1.6) : ghm_ratio(e, f, r - 5);
    return middle < 0 ? -far : far;
}

typedef struct ghm_sample {
    float pred, target, weight;
} ghm_sample;

/* Stream 0: logits. word 0 chooses the component, 1 and 2 the logit, 3 the weight. */
GHM_INLINE ghm_sample ghm_synth_class(const ghm_mixture *m, ghm_draw draw)
{
    double choice = ghm_unit(draw.word[0]), u = ghm_unit_fine(draw.word[1], draw.word[2]);
    double z, x, positives = m->positive_share, outliers = positives + m->outlier_share;
    ghm_sample out = {0, 0, ghm_unit(draw.word[3]) < m->ignored_share ? 0.0f : 1.0f};
    if (m->uniform > 0) {
        z = ghm_log_portable(u) - ghm_log_portable(1 - u); /* s with g = u */
        out.target = choice < positives ? 1.0f : 0.0f;
        out.pred = (float)(choice < positives ? -z : z);
        return out;
    }
    z = ghm_normal(u);
    if (choice < positives) {
        out.target = 1.0f;
        x = m->positive_mean + m->positive_sd * z;
    } else if (choice < outliers) { /* half of them positives with the logit of a clear negative */
        out.target = choice < positives + m->outlier_share / 2 ? 1.0f : 0.0f;
        x = m->outlier_mean + m->outlier_sd * z;
        x = out.target == 1.0f ? -x : x;
    } else if (choice < outliers + m->hard_share) {
        x = m->hard_mean + m->hard_sd * z;
    } else {
        x = m->easy_mean + m->easy_sd * z;
    }
    out.pred = (float)x;
    return out;
}

/* Stream 1: box errors; stream 2: the targets they are added to. */
GHM_INLINE ghm_sample ghm_synth_box(const ghm_mixture *m, ghm_draw draw, ghm_draw target)
{
    double choice = ghm_unit(draw.word[0]), u = ghm_unit_fine(draw.word[1], draw.word[2]), d;
    if (choice < m->box_outlier_share) {
        d = m->box_outlier_sd * ghm_normal(u);
    } else { /* Laplace by inversion */
        d = u < 0.5 ? m->laplace_scale * ghm_log_portable(2 * u)
                    : -m->laplace_scale * ghm_log_portable(2 * (1 - u));
    }
    ghm_sample out = {0, (float)ghm_normal(ghm_unit_fine(target.word[0], target.word[1])),
                      ghm_unit(draw.word[3]) < m->ignored_share ? 0.0f : 1.0f};
    out.pred = (float)((double)out.target + d);
    return out;
}

/* Sample number `at` of a step: all that a backend's loop calls. */
GHM_INLINE ghm_sample ghm_synth_sample(int task, const ghm_mixture *m, uint64_t seed, uint64_t at,
                                       uint32_t step)
{
    return task == GHM_CLASSIFICATION
             ? ghm_synth_class(m, ghm_philox(seed, at, step, 0))
             : ghm_synth_box(m, ghm_philox(seed, at, step, 1), ghm_philox(seed, at, step, 2));
}

#endif
