/*
 * sketch_bytes.c - one sketch as bytes, and its digest.
 *
 * Little-endian, in this order: task, soft; the declared lists; a checksum of the thresholds they
 * give; facts; weights; cells of both groups; soft sums. Counts take 7 bits a byte, low ones first.
 */
#include "private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "sketch files are little-endian: give ghm_put() and ghm_take() a byte swap for this machine"
#endif

void ghm_put(ghm_bytes *out, const void *data, size_t n)
{
    if (out->n + n > out->room && !out->failed) {
        size_t room = 2 * (out->n + n);
        unsigned char *at = realloc(out->at, room);
        out->failed = !at;
        out->at = at ? at : out->at;
        out->room = at ? room : out->room;
    }
    if (!out->failed && n > 0) {
        memcpy(out->at + out->n, data, n);
        out->n += n;
    }
}

void ghm_put_count(ghm_bytes *out, uint64_t value)
{
    unsigned char digits[10];
    size_t n = 0;
    for (; value >= 128; value >>= 7) {
        digits[n++] = (unsigned char)(value | 128);
    }
    digits[n++] = (unsigned char)value;
    ghm_put(out, digits, n);
}

bool ghm_take(ghm_bytes *in, void *data, size_t n)
{
    if (in->failed || n > in->n) {
        in->failed = true;
        return false;
    }
    if (n > 0) {
        memcpy(data, in->at, n);
    }
    in->at += n;
    in->n -= n;
    return true;
}

uint64_t ghm_take_count(ghm_bytes *in, uint64_t most)
{
    uint64_t value = 0;
    unsigned char digit = 128;
    for (int shift = 0; digit & 128; shift += 7) {
        if (!ghm_take(in, &digit, 1) || shift > 63 || (shift == 63 && digit > 1)) {
            in->failed = true;
            return 0;
        }
        value |= (uint64_t)(digit & 127) << shift;
    }
    in->failed = in->failed || value > most;
    return in->failed ? 0 : value;
}

uint64_t ghm_checksum(const unsigned char *at, size_t n)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ at[i]) * 0x100000001b3u;
    }
    return hash;
}

static uint64_t sum_of_edges(const ghm_edges *edges)
{
    return ghm_checksum((const unsigned char *)edges->thresholds,
                        (size_t)edges->n_thresholds * sizeof *edges->thresholds);
}

/* -- writing ---------------------------------------------------------------------------------- */

static void put_declared(ghm_bytes *out, const ghm_edges *edges)
{
    for (int i = 0; i < 3; i++) {
        const ghm_numbers *list = &edges->declared[i];
        ghm_put_count(out, (uint64_t)list->n);
        if (i == GHM_DECLARED_BINS) { /* as steps, most of them small */
            for (int64_t k = 0; k < list->n; k++) {
                ghm_put_count(out, (uint64_t)(list->at[k] - (k > 0 ? list->at[k - 1] : 0)));
            }
        } else {
            ghm_put(out, list->at, (size_t)list->n * sizeof *list->at);
        }
    }
    uint64_t sum = sum_of_edges(edges);
    ghm_put(out, &sum, sizeof sum);
}

void ghm_put_sketch(ghm_bytes *out, const ghm_sketch *sketch)
{
    ghm_put_count(out, (uint64_t)sketch->edges->task);
    ghm_put_count(out, sketch->soft_targets);
    put_declared(out, sketch->edges);
    ghm_put_count(out, (uint64_t)sketch->facts.samples);
    ghm_put_count(out, (uint64_t)sketch->facts.valid);
    ghm_put_count(out, (uint64_t)sketch->facts.positive);
    ghm_put_count(out, (uint64_t)sketch->facts.nonfinite);
    for (int e = 0; e < 256; e++) {
        ghm_put_count(out, sketch->weights.units[e]);
    }
    for (int group = 0; group < 2; group++) {
        const ghm_cells *cells = &sketch->cells[group];
        ghm_put_count(out, (uint64_t)cells->count);
        for (int64_t i = 0; i < cells->count; i++) {
            ghm_put_count(out, cells->slot[i] - (i > 0 ? cells->slot[i - 1] : 0));
            ghm_put_count(out, cells->n[i]);
            ghm_put_count(out, cells->offsets[i]);
            ghm_put_count(out, cells->squares[i]);
        }
    }
    if (sketch->soft_targets) {
        size_t n = (size_t)ghm_sketch_intervals(sketch);
        ghm_put(out, sketch->soft.n, n * sizeof *sketch->soft.n);
        ghm_put(out, sketch->soft.bce, n * sizeof *sketch->soft.bce);
        ghm_put(out, sketch->soft.norm, n * sizeof *sketch->soft.norm);
    }
}

uint64_t ghm_sketch_digest(const ghm_sketch *sketch)
{
    ghm_bytes all = {0};
    ghm_put_sketch(&all, sketch);
    uint64_t digest = all.failed ? 0 : ghm_checksum(all.at, all.n);
    free(all.at);
    return digest;
}

/* -- reading ---------------------------------------------------------------------------------- */

/* The three lists as ghm_edges_new wants them. */
typedef struct lists {
    int64_t *bins;
    double *at[3];
    int64_t n[3];
} lists;

static void free_lists(lists *own)
{
    free(own->bins);
    for (int i = 0; i < 3; i++) {
        free(own->at[i]);
    }
}

static int take_lists(ghm_bytes *in, lists *own)
{
    for (int i = 0; i < 3; i++) {
        size_t width = i == GHM_DECLARED_BINS ? 1 : sizeof(double);
        size_t n = (size_t)ghm_take_count(in, in->n / width);
        own->n[i] = (int64_t)n;
        own->at[i] = malloc((n + 1) * sizeof(double));
        own->bins = i == 0 ? malloc((n + 1) * sizeof *own->bins) : own->bins;
        if (!own->at[i] || !own->bins) {
            return ghm_fail(GHM_E_MEMORY, "no memory for %zu numbers", n);
        }
        if (i != GHM_DECLARED_BINS) {
            ghm_take(in, own->at[i], n * sizeof(double));
            continue;
        }
        int64_t last = 0;
        for (size_t k = 0; k < n; k++) {
            own->bins[k] = last = last + (int64_t)ghm_take_count(in, GHM_MAX_BINS);
            own->at[i][k] = (double)last;
        }
    }
    if (in->failed) {
        return ghm_fail(GHM_E_FILE, "its lists of edges are not possible");
    }
    return GHM_OK;
}

static bool declared_alike(const ghm_edges *edges, int task, const lists *own)
{
    bool alike = edges->task == task;
    for (int i = 0; i < 3; i++) {
        const ghm_numbers *list = &edges->declared[i];
        alike = alike && list->n == own->n[i] &&
                (list->n == 0 ||
                 memcmp(list->at, own->at[i], (size_t)list->n * sizeof *list->at) == 0);
    }
    return alike;
}

/* Edges are remade by the function that made them, or shared with `like`. */
static int take_edges(ghm_bytes *in, int task, const ghm_sketch *like, ghm_edges **out)
{
    lists own = {0};
    uint64_t sum = 0;
    int status = take_lists(in, &own);
    if (status == GHM_OK && like && declared_alike(like->edges, task, &own)) {
        *out = like->edges;
        (*out)->references++;
    } else if (status == GHM_OK) {
        status = ghm_edges_new(task, own.bins, own.n[0], own.at[1], own.n[1], own.at[2], own.n[2],
                               out);
        if (status == GHM_E_ARGUMENT || status == GHM_E_EDGES) {
            status = ghm_fail(GHM_E_FILE, "its lists of edges are not possible");
        }
    }
    free_lists(&own);
    if (status == GHM_OK && (!ghm_take(in, &sum, sizeof sum) || sum != sum_of_edges(*out))) {
        ghm_edges_release(*out);
        status = ghm_fail(GHM_E_FILE,
                          "its cells were made between other edges than these lists give");
    }
    return status;
}

static bool take_cells(ghm_bytes *in, uint32_t slots, ghm_cells *cells)
{
    int64_t n = (int64_t)ghm_take_count(in, in->n / 4); /* each takes at least four bytes */
    uint64_t slot = 0;
    if (ghm_cells_reserve(cells, n) != GHM_OK) {
        return false;
    }
    for (int64_t i = 0; i < n; i++) {
        uint64_t step = ghm_take_count(in, UINT32_MAX);
        slot += step;
        ghm_cell cell = {.slot = (uint32_t)slot};
        cell.n = ghm_take_count(in, UINT64_MAX);
        cell.offsets = ghm_take_count(in, UINT64_MAX);
        cell.squares = ghm_take_count(in, UINT64_MAX);
        if (in->failed || (i > 0 && step == 0) || slot >= slots || cell.n == 0) {
            return false;
        }
        ghm_cell_put(cells, cells->count++, cell);
    }
    return !in->failed;
}

static bool take_body(ghm_bytes *in, ghm_sketch *sketch)
{
    uint32_t slots = ghm_slot_count(sketch->edges);
    size_t n = (size_t)ghm_sketch_intervals(sketch);
    sketch->facts.samples = (int64_t)ghm_take_count(in, INT64_MAX);
    sketch->facts.valid = (int64_t)ghm_take_count(in, INT64_MAX);
    sketch->facts.positive = (int64_t)ghm_take_count(in, INT64_MAX);
    sketch->facts.nonfinite = (int64_t)ghm_take_count(in, INT64_MAX);
    for (int e = 0; e < 256; e++) {
        sketch->weights.units[e] = ghm_take_count(in, UINT64_MAX);
    }
    bool good = take_cells(in, slots, &sketch->cells[0]) &&
                take_cells(in, slots, &sketch->cells[1]);
    if (good && sketch->soft_targets) {
        good = n <= in->n / 24 && ghm_soft_new((int64_t)n, &sketch->soft) == GHM_OK &&
               ghm_take(in, sketch->soft.n, n * sizeof *sketch->soft.n) &&
               ghm_take(in, sketch->soft.bce, n * sizeof *sketch->soft.bce) &&
               ghm_take(in, sketch->soft.norm, n * sizeof *sketch->soft.norm);
    }
    return good && !in->failed;
}

int ghm_take_sketch(ghm_bytes *in, const ghm_sketch *like, ghm_sketch **out)
{
    int task = (int)ghm_take_count(in, GHM_REGRESSION);
    bool soft = ghm_take_count(in, 1);
    ghm_edges *edges;
    ghm_sketch *sketch;
    GHM_TRY(take_edges(in, task, like, &edges));
    GHM_TRY(ghm_sketch_with(edges, &sketch));
    sketch->soft_targets = soft;
    if (!take_body(in, sketch)) {
        ghm_sketch_free(sketch);
        return ghm_fail(GHM_E_FILE, "its cells are not possible");
    }
    *out = sketch;
    return GHM_OK;
}
