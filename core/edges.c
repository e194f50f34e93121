/* edges.c - unit-region edges as float32 keys, and the cells that they split. */
#include "formula.h"
#include "private.h"

#include <stdlib.h>

int ghm_check_bins(int task, int64_t bins, double mu)
{
    if (bins < 1 || bins > GHM_MAX_BINS) {
        return ghm_fail(GHM_E_ARGUMENT, "bins is %lld, expected 1 to %d", (long long)bins,
                        GHM_MAX_BINS);
    }
    if (task == GHM_REGRESSION && !(mu > 0 && isfinite(mu))) {
        return ghm_fail(GHM_E_ARGUMENT, "mu is %g, expected a finite number above 0", mu);
    }
    return GHM_OK;
}

static float round_up(long double value)
{
    float rounded = (float)value;
    return (long double)rounded < value ? nextafterf(rounded, INFINITY) : rounded;
}

/* sigmoid(s) >= j/M exactly when s >= ln(j / (M - j)); g of GHM-R likewise.
 * The extra digits of long double keep the rounding to float32 the same on every machine. */
float ghm_threshold(int task, int64_t j, int64_t bins, double mu)
{
    if (task == GHM_CLASSIFICATION) {
        return round_up(logl((long double)j / (long double)(bins - j)));
    }
    long double run = sqrtl((long double)(bins - j) * (long double)(bins + j));
    return round_up((long double)mu * (long double)j / run);
}

void ghm_thresholds(int task, int64_t bins, double mu, float *out)
{
    out[0] = -INFINITY;
    for (int64_t j = 1; j < bins; j++) {
        out[j] = ghm_threshold(task, j, bins, mu);
    }
    out[bins] = INFINITY;
}

/* A logit of -0 has g = 1/2 like one of +0, so a threshold at 0 stands at -0. */
static uint32_t threshold_bits(float threshold)
{
    return threshold == 0 ? 0x80000000u : ghm_bits(threshold);
}

typedef struct ghm_edge {
    float threshold;
    double norm;
} ghm_edge;

static int ascending(const void *a, const void *b)
{
    float x = ((const ghm_edge *)a)->threshold, y = ((const ghm_edge *)b)->threshold;
    return (x > y) - (x < y);
}

/* The first bits, counting away from zero, on the far side of a threshold. */
static uint32_t first_beyond(float threshold)
{
    uint32_t bits = threshold_bits(threshold);
    return bits & 0x80000000u ? bits + 1 : bits;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The most splits that fall inside one cell; bits are ascending. */
static int deepest(const uint32_t *bits, int64_t n, int shift)
{
    int most = 0, run = 0;
    for (int64_t i = 0; i < n; i++) {
        bool inside = bits[i] & ((1u << shift) - 1);
        bool same_cell = i > 0 && bits[i] >> shift == bits[i - 1] >> shift;
        run = inside ? (same_cell ? run : 0) + 1 : 0;
        most = run > most ? run : most;
    }
    return most;
}

/* Hands each edge inside a cell a side slot, chained from its cell in the order of bits. */
static int split_cells(ghm_edges *edges)
{
    int64_t n = edges->n_thresholds;
    size_t room = ((size_t)n + 1) * sizeof(uint32_t);
    uint32_t *bits = malloc(room);
    edges->side_cell = malloc(room);
    edges->side_split = malloc(room);
    if (!bits || !edges->side_cell || !edges->side_split) {
        free(bits);
        return ghm_fail(GHM_E_MEMORY, "no memory for %lld edges", (long long)n);
    }
    for (int64_t i = 0; i < n; i++) {
        bits[i] = first_beyond(edges->thresholds[i]);
    }
    qsort(bits, (size_t)n, sizeof *bits, by_value);
    int shift = GHM_SHIFT;
    while (shift > GHM_SHIFT_MIN && (n >> (31 - shift) || deepest(bits, n, shift) > GHM_DEPTH)) {
        shift--;
    }
    if (n >> (31 - shift)) {
        free(bits);
        return ghm_fail(GHM_E_EDGES, "%lld edges are too many for one sketch, expected at most %d",
                        (long long)n, (1 << (31 - GHM_SHIFT_MIN)) - 1);
    }
    int key_bits = edges->task == GHM_REGRESSION ? 31 : 32;
    edges->shift = shift;
    edges->depth = deepest(bits, n, shift);
    edges->n_cells = 1u << (key_bits - shift);
    edges->split = calloc(edges->n_cells + (size_t)n, sizeof *edges->split);
    if (!edges->split) {
        free(bits);
        return ghm_fail(GHM_E_MEMORY, "no memory for %u cells", edges->n_cells);
    }
    for (int64_t i = 0; i < n; i++) {
        uint32_t cell = bits[i] >> shift, split = bits[i] & ((1u << shift) - 1);
        if (split == 0) {
            continue; /* the edge is a cell boundary already */
        }
        uint32_t side = edges->n_sides++;
        bool chained = side > 0 && edges->side_cell[side - 1] == cell;
        edges->side_cell[side] = cell;
        edges->side_split[side] = split;
        edges->split[chained ? edges->n_cells + side - 1 : cell] = side << shift |
                                                                   ((1u << shift) - split);
        if (chained) { /* say so where the chain enters the side before this one */
            uint32_t before = side > 1 && edges->side_cell[side - 2] == cell
                                ? edges->n_cells + side - 2
                                : cell;
            edges->split[before] |= GHM_MORE;
        }
    }
    free(bits);
    return GHM_OK;
}

static int edges_from(int task, ghm_edge *list, int64_t n, ghm_edges **out)
{
    ghm_edges *edges = calloc(1, sizeof *edges);
    if (!edges) {
        return ghm_fail(GHM_E_MEMORY, "no memory for edges");
    }
    edges->references = 1;
    edges->task = task;
    edges->thresholds = malloc(((size_t)n + 1) * sizeof *edges->thresholds);
    edges->order = malloc(((size_t)n + 1) * sizeof *edges->order);
    edges->norms = malloc(((size_t)n + 1) * sizeof *edges->norms);
    if (!edges->thresholds || !edges->order || !edges->norms) {
        ghm_edges_release(edges);
        return ghm_fail(GHM_E_MEMORY, "no memory for %lld edges", (long long)n);
    }
    qsort(list, (size_t)n, sizeof *list, ascending);
    for (int64_t i = 0; i < n; i++) {
        if (i == 0 || list[i].threshold != list[i - 1].threshold) {
            edges->order[edges->n_thresholds] = ghm_ordered(threshold_bits(list[i].threshold));
            edges->thresholds[edges->n_thresholds] = list[i].threshold;
            edges->norms[edges->n_thresholds++] = list[i].norm;
        }
    }
    edges->order[edges->n_thresholds] = UINT32_MAX; /* the bits of a NaN: no key reaches them */
    int status = split_cells(edges);
    if (status != GHM_OK) {
        ghm_edges_release(edges);
        return status;
    }
    *out = edges;
    return GHM_OK;
}

static int by_number(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* More are not looked at, each counted as often as it is asked for: 2^23 distinct ones are too many. */
enum { EDGES_ASKED = 1 << 26 };

/* bins or numbers: the list; the other one is NULL. */
static int declare(ghm_numbers *out, const int64_t *bins, const double *numbers, int64_t n)
{
    double *own = out->at = malloc((size_t)(n + 1) * sizeof *own);
    if (!own) {
        return ghm_fail(GHM_E_MEMORY, "no memory for %lld numbers", (long long)n);
    }
    for (int64_t i = 0; i < n; i++) {
        own[i] = bins ? (double)bins[i] : numbers[i];
    }
    qsort(own, (size_t)n, sizeof *own, by_number);
    for (int64_t i = 0; i < n; i++) {
        if (i == 0 || own[i] != own[out->n - 1]) {
            own[out->n++] = own[i];
        }
    }
    return GHM_OK;
}

int ghm_edges_new(int task, const int64_t *bins, int64_t n_bins, const double *mu, int64_t n_mu,
                  const double *knots, int64_t n_knots, ghm_edges **out)
{
    static const double unused = 1;
    if (task != GHM_CLASSIFICATION && task != GHM_REGRESSION) {
        return ghm_fail(GHM_E_ARGUMENT, "task is %d, expected 0 or 1", task);
    }
    if (n_bins < 0 || n_mu < 0 || n_knots < 0 || (n_bins && !bins) || (n_mu && !mu) ||
        (n_knots && !knots)) {
        return ghm_fail(GHM_E_ARGUMENT, "a list of edges is NULL or has a negative length");
    }
    if (task == GHM_CLASSIFICATION) {
        mu = &unused;
        n_mu = 1;
    }
    int64_t inner = 0; /* edges of all bins, for one mu */
    for (int64_t i = 0; i < n_bins; i++) {
        GHM_TRY(ghm_check_bins(GHM_CLASSIFICATION, bins[i], 1));
        inner += bins[i] - 1;
    }
    for (int64_t k = 0; k < n_mu; k++) {
        GHM_TRY(ghm_check_bins(task, 1, mu[k]));
    }
    if ((double)inner * (double)n_mu + (double)n_knots > EDGES_ASKED) {
        return ghm_fail(GHM_E_EDGES, "more than %d edges are asked for", EDGES_ASKED);
    }
    for (int64_t i = 0; i < n_knots; i++) {
        if (!isfinite(knots[i]) || (task == GHM_REGRESSION && knots[i] <= 0)) {
            return ghm_fail(GHM_E_ARGUMENT, "knot %lld is %g, expected a finite number%s",
                            (long long)i, knots[i], task == GHM_REGRESSION ? " above 0" : "");
        }
    }
    int64_t room = inner * n_mu + n_knots;
    ghm_edge *list = malloc((size_t)(room + 1) * sizeof *list);
    if (!list) {
        return ghm_fail(GHM_E_MEMORY, "no memory for %lld edges", (long long)room);
    }
    int64_t n = 0;
    for (int64_t i = 0; i < n_bins; i++) {
        for (int64_t k = 0; k < n_mu; k++) {
            for (int64_t j = 1; j < bins[i]; j++) {
                list[n++] = (ghm_edge){ghm_threshold(task, j, bins[i], mu[k]),
                                       (double)j / (double)bins[i]};
            }
        }
    }
    for (int64_t i = 0; i < n_knots; i++) {
        list[n++] = (ghm_edge){round_up(knots[i]), ghm_sigmoid(knots[i])};
    }
    ghm_edges *edges = NULL;
    int status = edges_from(task, list, n, &edges);
    free(list);
    if (status == GHM_OK) {
        bool boxes = task == GHM_REGRESSION;
        ghm_numbers *declared = edges->declared;
        status = declare(&declared[GHM_DECLARED_BINS], bins, NULL, n_bins);
        status = status ? status : declare(&declared[GHM_DECLARED_MU], NULL, mu, boxes ? n_mu : 0);
        status = status ? status : declare(&declared[GHM_DECLARED_KNOTS], NULL, knots, n_knots);
    }
    if (status != GHM_OK) {
        ghm_edges_release(edges);
        return status;
    }
    *out = edges;
    return GHM_OK;
}

void ghm_edges_release(ghm_edges *edges)
{
    if (edges && --edges->references == 0) {
        for (int i = 0; i < 3; i++) {
            free(edges->declared[i].at);
        }
        free(edges->thresholds);
        free(edges->order);
        free(edges->norms);
        free(edges->split);
        free(edges->side_cell);
        free(edges->side_split);
        free(edges);
    }
}

bool ghm_edges_equal(const ghm_edges *a, const ghm_edges *b)
{
    return a == b || (a->task == b->task && a->n_thresholds == b->n_thresholds &&
                      memcmp(a->thresholds, b->thresholds,
                             (size_t)a->n_thresholds * sizeof *a->thresholds) == 0);
}
