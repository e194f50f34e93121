/* blocks.c - from the memory of a batch to blocks of float32. */
#include "blocks.h"

#include "formula.h"

static const float *widen(const ghm_kernels *kernels, const void *data, int32_t dtype,
                          int64_t begin, int n, float *buffer)
{
    switch (dtype) {
    case GHM_F16:
        kernels->widen_half((const uint16_t *)data + begin, buffer, n);
        return buffer;
    case GHM_BF16:
        kernels->widen_bfloat((const uint16_t *)data + begin, buffer, n);
        return buffer;
    case GHM_U8:
        kernels->widen_byte((const uint8_t *)data + begin, buffer, n);
        return buffer;
    default:
        return (const float *)data + begin;
    }
}

static float weight_at(const ghm_batch *batch, int64_t at)
{
    return batch->weight_dtype == GHM_U8 ? (float)((const uint8_t *)batch->weight)[at]
                                         : ((const float *)batch->weight)[at];
}

/* Whether any sample of a row is valid: in a row without, a label may be anything. */
static bool row_in_use(const ghm_batch *batch, int64_t row)
{
    int64_t per_row = batch->weight_per_row ? 1 : batch->cols;
    bool used = !batch->weight;
    for (int64_t i = 0; i < per_row && !used; i++) {
        used = weight_at(batch, row * per_row + i) > 0;
    }
    return used;
}

int64_t ghm_label_of_row(const ghm_batch *batch, int64_t row)
{
    switch (batch->target_dtype) {
    case GHM_U8:
        return ((const uint8_t *)batch->target)[row];
    case GHM_I32:
        return ((const int32_t *)batch->target)[row];
    default:
        return ((const int64_t *)batch->target)[row];
    }
}

static bool has_labels(const ghm_batch *batch)
{
    return batch->target_form == GHM_ZERO_BASED || batch->target_form == GHM_ONE_BASED;
}

int ghm_find_positives(const ghm_batch *batch, int64_t begin, int n, int *at, ghm_buffers *out)
{
    int64_t row = begin / batch->cols, col = begin % batch->cols;
    int64_t base = batch->target_form == GHM_ONE_BASED, most = batch->cols - base;
    int found = 0;
    out->bad_labels = 0;
    out->first_bad_label = -1;
    for (int64_t i = 0; i < n; i += batch->cols - col, row++, col = 0) {
        int64_t label = ghm_label_of_row(batch, row), class = label < 0 ? -1 : label - base;
        if (class >= col && class < batch->cols && i + (class - col) < n) {
            at[found++] = (int)(i + (class - col));
        }
        if (class > most && col == 0 && row_in_use(batch, row)) {
            out->first_bad_label = out->bad_labels++ ? out->first_bad_label : row;
        }
    }
    return found;
}

static void expand_row_weights(const ghm_batch *batch, int64_t begin, int n, float *w)
{
    int64_t row = begin / batch->cols, col = begin % batch->cols;
    for (int i = 0; i < n; row++, col = 0) {
        int64_t left = batch->cols - col;
        int end = left < n - i ? i + (int)left : n;
        for (float weight = weight_at(batch, row); i < end; i++) {
            w[i] = weight;
        }
    }
}

void ghm_load_targets(const ghm_kernels *kernels, const ghm_batch *batch, int64_t begin, int n,
                      ghm_buffers *out)
{
    out->bad_labels = 0;
    out->first_bad_label = -1;
    out->pt = out->t;
    out->pw = out->w;
    if (has_labels(batch)) {
        int at[GHM_BLOCK], found = ghm_find_positives(batch, begin, n, at, out);
        memset(out->t, 0, (size_t)n * sizeof *out->t);
        for (int k = 0; k < found; k++) {
            out->t[at[k]] = 1;
        }
    } else {
        out->pt = widen(kernels, batch->target, batch->target_dtype, begin, n, out->t);
    }
    if (batch->weight && batch->weight_per_row) {
        expand_row_weights(batch, begin, n, out->w);
    } else if (batch->weight) {
        out->pw = widen(kernels, batch->weight, batch->weight_dtype, begin, n, out->w);
    } else {
        for (int i = 0; i < n; i++) {
            out->w[i] = 1;
        }
    }
}

void ghm_load_block(const ghm_kernels *kernels, const ghm_batch *batch, int64_t begin, int n,
                    ghm_buffers *out)
{
    out->px = widen(kernels, batch->pred, batch->pred_dtype, begin, n, out->x);
    ghm_load_targets(kernels, batch, begin, n, out);
}

ghm_ahead ghm_look_ahead(const ghm_batch *batch, int64_t begin)
{
    static const size_t sizes[] = {[GHM_F32] = 4, [GHM_F16] = 2, [GHM_BF16] = 2, [GHM_U8] = 1};
    ghm_ahead ahead = {.pred_size = sizes[batch->pred_dtype]};
    ahead.pred = (const char *)batch->pred + begin * (int64_t)ahead.pred_size;
    ahead.target = ahead.weight = ahead.pred;
    if (batch->target_form == GHM_DENSE) {
        ahead.target_size = sizes[batch->target_dtype];
        ahead.target = (const char *)batch->target + begin * (int64_t)ahead.target_size;
    }
    if (batch->weight && !batch->weight_per_row) {
        ahead.weight_size = sizes[batch->weight_dtype];
        ahead.weight = (const char *)batch->weight + begin * (int64_t)ahead.weight_size;
    }
    return ahead;
}

static void count_first(int64_t *count, int64_t *first, int64_t position)
{
    if ((*count)++ == 0) {
        *first = position;
    }
}

void ghm_inspect_block(const ghm_batch *batch, int64_t begin, int n, ghm_buffers *buffers,
                       ghm_facts *facts)
{
    bool dense_classes = batch->task == GHM_CLASSIFICATION && batch->target_form == GHM_DENSE;
    for (int i = 0; i < n; i++) {
        float x = buffers->px[i], t = buffers->pt[i], w = buffers->pw[i];
        bool finite = batch->task == GHM_REGRESSION ? isfinite(x - t) : isfinite(x) && isfinite(t);
        bool used = w > 0;
        if (!isfinite(w) || (used && !finite)) {
            count_first(&facts->nonfinite, &facts->first_nonfinite, begin + i);
            x = t = w = 0;
        } else if (used && dense_classes && t != 0 && t != 1) {
            count_first(&facts->soft, &facts->first_soft, begin + i);
        }
        buffers->x[i] = x;
        buffers->t[i] = t;
        buffers->w[i] = w;
    }
    buffers->px = buffers->x;
    buffers->pt = buffers->t;
    buffers->pw = buffers->w;
}
