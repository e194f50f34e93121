/* cpu_gradient.c - the gradient pass on the CPU: block by block, straight into the outputs. */
#include "cpu.h"
#include "slope.h"

#include <omp.h>
#include <stdlib.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

/* Soft targets cancel near x = logit t, so they are done one by one in double. */
static void soft_slope(const ghm_buffers *b, int n, const ghm_coefficients *c,
                       const ghm_results *out)
{
    for (int i = 0; i < n; i++) {
        out->grad[i] = out->beta[i] = out->norm[i] = out->loss[i] = 0;
        if (!(b->pw[i] > 0) || !isfinite(b->px[i]) || !isfinite(b->pt[i]) || !isfinite(b->pw[i])) {
            continue;
        }
        double slope = ghm_soft_slope(b->px[i], b->pt[i]), g = fabs(slope);
        int64_t j = ghm_soft_region(g, c->bins);
        out->grad[i] = (float)(c->grad_scale * c->beta[j] * slope);
        out->beta[i] = (float)c->beta[j];
        out->norm[i] = (float)g;
        out->loss[i] = (float)(c->loss_scale * c->beta[j] * ghm_soft_bce(b->px[i], b->pt[i]));
    }
}

/* So many bytes of an output outgrow the caches: whoever reads it finds it in memory anyway, and
 * storing past the caches spares reading the lines that are overwritten, 1.4 times the speed. */
enum { PAST_CACHES = 32 << 20 };

/* Where samples [begin, ...) of an output go first: where they belong, or to a buffer if nobody wants
 * them or they are to be streamed. */
static float *place_of(float *output, int64_t begin, int64_t samples, float *buffer)
{
    return output && samples < PAST_CACHES / (int64_t)sizeof *output ? output + begin : buffer;
}

static void stream(float *output, int64_t begin, const float *from, int n)
{
    if (!output || from == output + begin) {
        return;
    }
    float *to = output + begin;
#if defined(__SSE__)
    if ((uintptr_t)to % 16 == 0) {
        int whole = n - n % 4;
        for (int i = 0; i < whole; i += 4) {
            _mm_stream_ps(to + i, _mm_loadu_ps(from + i));
        }
        memcpy(to + whole, from + whole, (size_t)(n - whole) * sizeof *from);
        return;
    }
#endif
    memcpy(to, from, (size_t)n * sizeof *from);
}

/* Streamed stores are seen by other threads only after this. */
static void end_stores(void)
{
#if defined(__SSE__)
    _mm_sfence();
#endif
}

int cpu_gradient(void *state, const ghm_batch *batch, const ghm_coefficients *c,
                 const ghm_outputs *out)
{
    cpu_state *cpu = state;
    int64_t blocks = block_count(batch), samples = batch->rows * batch->cols;
    /* One more: where the infinite key of an ignored sample leads. */
    float *beta = calloc((size_t)c->bins + 1, sizeof *beta);
    if (!beta) {
        return ghm_fail(GHM_E_MEMORY, "no memory for %lld regions", (long long)c->bins);
    }
    for (int64_t j = 0; j < c->bins; j++) {
        beta[j] = (float)c->beta[j];
    }
    ghm_slopes slopes = {
        .function = c->function,
        .a = (float)c->a,
        .b = (float)c->b,
        .mu = (float)c->mu,
        .bins = (int32_t)c->bins,
        .thresholds = c->thresholds,
        .beta = beta,
        .grad_scale = (float)c->grad_scale,
        .loss_scale = (float)c->loss_scale,
        .with_rest = out->beta || out->norm,
        .with_loss = out->loss != NULL,
    };
    int stopped = 0;
#pragma omp parallel num_threads(cpu->threads) reduction(| : stopped)
    {
        ghm_buffers b;
        float grad[GHM_BLOCK], beta_of[GHM_BLOCK], norm[GHM_BLOCK], loss[GHM_BLOCK];
#pragma omp for schedule(static)
        for (int64_t block = 0; block < blocks; block++) {
            if (stopped || (stopped = ghm_interrupted())) {
                continue;
            }
            int n = block_size(batch, block);
            int64_t begin = block * GHM_BLOCK;
            ghm_ahead ahead = ghm_look_ahead(batch, begin + GHM_BLOCK);
            const ghm_results to = {
                place_of(out->grad, begin, samples, grad),
                place_of(out->beta, begin, samples, beta_of),
                place_of(out->norm, begin, samples, norm),
                place_of(out->loss, begin, samples, loss),
            };
            ghm_load_block(cpu->kernels, batch, begin, n, &b);
            if (batch->target_form == GHM_SOFT) {
                soft_slope(&b, n, c, &to);
            } else if (batch->task == GHM_REGRESSION) {
                cpu->kernels->boxes_slope(b.px, b.pt, b.pw, n, &slopes, &ahead, &to);
            } else {
                cpu->kernels->classes_slope(b.px, b.pt, b.pw, n, &slopes, &ahead, &to);
            }
            stream(out->grad, begin, to.grad, n);
            stream(out->beta, begin, to.beta, n);
            stream(out->norm, begin, to.norm, n);
            stream(out->loss, begin, to.loss, n);
        }
        end_stores();
    }
    free(beta);
    return cpu_end_of_pass(stopped ? GHM_E_INTERRUPTED : GHM_OK);
}
