/*
 * exact.c - the paper's exact gradient density: sort by key, then two pointers, O(N).
 *
 * The oracle that approximations are held against. It reads the batch, unlike ghm_sketch_density.
 */
#include "exact.h"
#include "cpu.h"
#include "formula.h"

#include <float.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Keys of hard targets into order. Not 0 where a sample is not finite or its target not hard. */
GHM_CLONES
static uint32_t order_classes(const float *restrict x, const float *restrict t,
                              const float *restrict w, int n, int64_t begin,
                              uint64_t *restrict order)
{
    uint32_t suspect = 0;
    for (int i = 0; i < n; i++) {
        uint32_t one = t[i] == 1.0f, hard = one | (t[i] == 0.0f), used = w[i] > 0.0f;
        uint32_t finite = fabsf(x[i]) <= FLT_MAX, weight_finite = fabsf(w[i]) <= FLT_MAX;
        uint64_t key = ghm_ordered(ghm_bits(x[i]) ^ one << 31);
        suspect |= (used & ((finite & hard) ^ 1)) | (weight_finite ^ 1);
        order[i] = used ? key << 32 | (uint64_t)(begin + i) : IGNORED;
    }
    return suspect;
}

static void order_boxes(const ghm_buffers *b, int n, int64_t begin, uint64_t *order,
                        double *residual)
{
    for (int i = 0; i < n; i++) {
        residual[i] = fabs((double)b->px[i] - (double)b->pt[i]);
        uint64_t key = ghm_ordered(ghm_bits((float)residual[i]));
        order[i] = b->pw[i] > 0 ? key << 32 | (uint64_t)(begin + i) : IGNORED;
    }
}

/* One block into order; what is odd is counted, and ignored. Returns the number of valid samples. */
static int64_t gather_block(const ghm_kernels *kernels, const ghm_batch *batch, int64_t begin,
                            int n, const exact_work *work, double *density, ghm_facts *facts)
{
    uint64_t *order = work->order + begin;
    ghm_buffers b;
    ghm_load_block(kernels, batch, begin, n, &b);
    if (batch->task == GHM_REGRESSION) {
        ghm_inspect_block(batch, begin, n, &b, facts);
        order_boxes(&b, n, begin, order, work->residual + begin);
    } else if (order_classes(b.px, b.pt, b.pw, n, begin, order)) {
        ghm_inspect_block(batch, begin, n, &b, facts);
        order_classes(b.px, b.pt, b.pw, n, begin, order);
    }
    facts->bad_labels += b.bad_labels;
    cpu_first_of(&facts->first_bad_label, b.first_bad_label);
    int64_t valid = 0;
    for (int i = 0; i < n; i++) {
        valid += order[i] != IGNORED;
        if (density && order[i] == IGNORED) {
            density[begin + i] = NAN;
        }
    }
    return valid;
}

static void gather(const ghm_kernels *kernels, const ghm_batch *batch, exact_work *work,
                   double *density, ghm_facts *facts)
{
    int64_t blocks = block_count(batch), valid = 0;
#pragma omp parallel num_threads(work->threads) reduction(+ : valid)
    {
        ghm_facts mine = cpu_no_facts;
#pragma omp for schedule(static)
        for (int64_t block = 0; block < blocks; block++) {
            valid += is_stopped(work)
                       ? 0
                       : gather_block(kernels, batch, block * GHM_BLOCK, block_size(batch, block),
                                      work, density, &mine);
        }
#pragma omp critical
        cpu_add_facts(facts, &mine);
    }
    work->n = valid;
}

enum { BATCH = 256 }; /* ranks evaluated together, in loops that become vector code */

GHM_CLONES
static void evaluate_classes(const uint64_t *restrict order, int n, double *restrict g,
                             double *restrict loss)
{
    double s[BATCH];
    for (int i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)(order[i] >> 32);
        s[i] = ghm_float(bits >> 31 ? bits & 0x7fffffffu : ~bits);
    }
    for (int i = 0; i < n; i++) {
        ghm_sigmoid_softplus(s[i], &g[i], &loss[i]);
    }
}

static void evaluate_boxes(const uint64_t *restrict order, int n, const double *residual, double mu,
                           double *restrict g, double *restrict loss)
{
    for (int i = 0; i < n; i++) {
        double d = residual[order[i] & 0xffffffffu];
        g[i] = ghm_asl1_norm(d, mu);
        loss[i] = ghm_asl1(d, mu);
    }
}

/* Norms and losses by rank. */
static void evaluate(int task, double mu, exact_work *work)
{
#pragma omp parallel for schedule(static) num_threads(work->threads)
    for (int64_t i = 0; i < work->n; i += BATCH) {
        if (is_stopped(work)) {
            continue;
        }
        int n = work->n - i < BATCH ? (int)(work->n - i) : BATCH;
        if (task == GHM_REGRESSION) {
            evaluate_boxes(work->order + i, n, work->residual, mu, work->g + i, work->loss + i);
        } else {
            evaluate_classes(work->order + i, n, work->g + i, work->loss + i);
        }
    }
}

/* The first rank from which on g >= limit. */
static int64_t rank_of(const exact_work *work, double limit)
{
    int64_t low = 0, high = work->n;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (work->g[middle] < limit) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Slides the window over ranks [begin, end): density by position (NULL: not wanted); sum of l / GD. */
static double slide(double eps, const exact_work *work, int64_t begin, int64_t end, double *density)
{
    double sum = 0;
    int64_t from = rank_of(work, work->g[begin] - eps / 2);
    int64_t to = rank_of(work, work->g[begin] + eps / 2);
    for (int64_t i = begin; i < end; i++) {
        double low = work->g[i] - eps / 2, high = work->g[i] + eps / 2;
        while (work->g[from] < low) {
            from++;
        }
        while (to < work->n && work->g[to] < high) {
            to++;
        }
        double length = (high < 1 ? high : 1) - (low > 0 ? low : 0);
        double gd = (double)(to - from) / length;
        sum += work->loss[i] / gd;
        if (density) {
            density[work->order[i] & 0xffffffffu] = gd;
        }
    }
    return sum;
}

/* Chunks are summed alone and added in their order: the same bits for any number of threads. */
static int slide_all(double eps, exact_work *work, double *density, double *sum)
{
    enum { CHUNK = 1 << 14 };
    int64_t chunks = (work->n + CHUNK - 1) / CHUNK;
    double *parts = malloc((size_t)(chunks + 1) * sizeof *parts);
    if (!parts) {
        return ghm_fail(GHM_E_MEMORY, "no memory for %lld sums", (long long)chunks);
    }
#pragma omp parallel for schedule(static) num_threads(work->threads)
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        int64_t begin = chunk * CHUNK, end = begin + CHUNK < work->n ? begin + CHUNK : work->n;
        parts[chunk] = is_stopped(work) ? 0 : slide(eps, work, begin, end, density);
    }
    *sum = 0;
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        *sum += parts[chunk];
    }
    free(parts);
    return GHM_OK;
}

/* More is not kept from call to call. */
#define MOST_KEPT ((size_t)256 << 20)

/* Bytes in large pages where the system has them, kept for the next call: fresh ones, and small ones,
 * cost as much as the sort. */
static char *borrow(cpu_state *cpu, size_t bytes)
{
    const size_t page = 2 << 20;
    if (cpu->kept_bytes < bytes) {
        cpu->kept_bytes = (bytes + page - 1) / page * page;
        free(cpu->kept);
        cpu->kept = aligned_alloc(page, cpu->kept_bytes);
        if (!cpu->kept) {
            cpu->kept_bytes = 0;
            return NULL;
        }
        madvise(cpu->kept, cpu->kept_bytes, MADV_HUGEPAGE); /* a wish: not heard, nothing is lost */
    }
    return cpu->kept;
}

static void give_back(cpu_state *cpu)
{
    if (cpu->kept_bytes > MOST_KEPT) {
        free(cpu->kept);
        cpu->kept = NULL;
        cpu->kept_bytes = 0;
    }
}

int cpu_exact(void *state, const ghm_batch *batch, double mu, double eps, double *density,
              double *loss)
{
    cpu_state *cpu = state;
    int64_t samples = batch->rows * batch->cols;
    bool boxes = batch->task == GHM_REGRESSION;
    size_t words = ((size_t)samples + 8) / 8 * 8; /* a cache line, and one sample more */
    char *memory = borrow(cpu, words * 8 * (boxes ? 4 : 3));
    if (!memory) {
        return ghm_fail(GHM_E_MEMORY, "no memory to sort %lld samples", (long long)samples);
    }
    exact_work work = {
        .order = (uint64_t *)memory,
        .spare = (uint64_t *)memory + words,
        .g = (double *)memory + 2 * words,
        .residual = boxes ? (double *)memory + 3 * words : NULL,
        .threads = cpu->threads,
    };
    ghm_facts facts = cpu_no_facts;
    facts.samples = samples;
    gather(cpu->kernels, batch, &work, density, &facts);
    int status = work.stopped ? GHM_OK : ghm_judge(batch, &facts, 0);
    status = status ? status : exact_sort(&work, samples);
    if (status == GHM_OK && !work.stopped) {
        if (boxes) {
            exact_sort_ties(&work);
        }
        work.loss = (double *)work.spare;
        evaluate(batch->task, mu, &work);
        status = slide_all(eps, &work, density, loss);
    }
    give_back(cpu);
    return status ? status : cpu_end_of_pass(work.stopped ? GHM_E_INTERRUPTED : GHM_OK);
}

int ghm_exact_density(ghm_device *device, const ghm_batch *batch, double mu, double eps,
                      double *density, double *loss)
{
    if (!device || !loss) {
        return ghm_fail(GHM_E_ARGUMENT, "the device or the place for the loss is NULL");
    }
    GHM_TRY(ghm_check_batch(batch));
    GHM_TRY(ghm_check_window(batch->task, mu, eps));
    if (batch->target_form == GHM_SOFT) {
        return ghm_fail(GHM_E_SOFT, "the exact density is defined for hard targets");
    }
    int64_t samples = batch->rows * batch->cols;
    if (samples > UINT32_MAX) {
        return ghm_fail(GHM_E_OVERFLOW, "%lld samples, expected fewer than 2^32",
                        (long long)samples);
    }
    return device->backend->exact(device->state, batch, mu, eps, density, loss);
}
