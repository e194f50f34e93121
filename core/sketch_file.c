/*
 * sketch_file.c - a sketch as bytes: saved, loaded, digested.
 *
 * Little-endian, in this order: magic, version, task, soft, counts; thresholds and norms; facts;
 * weights; cells of both groups; soft sums; and last an FNV-1a checksum of all before it.
 */
#include "private.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "sketch files are little-endian: give put() and take() a byte swap for this machine"
#endif

static const char magic[8] = "ghmskch";
enum { VERSION = 1 };

/* A growing buffer when writing, a shrinking one when reading. */
typedef struct bytes {
    unsigned char *at;
    size_t n, room;
    bool failed;
} bytes;

static void put(bytes *out, const void *data, size_t n)
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

static void put_count(bytes *out, int64_t value)
{
    put(out, &value, sizeof value);
}

static bool take(bytes *in, void *data, size_t n)
{
    if (in->failed || n > in->n) {
        in->failed = true;
        return false;
    }
    memcpy(data, in->at, n);
    in->at += n;
    in->n -= n;
    return true;
}

static int64_t take_count(bytes *in)
{
    int64_t value = 0;
    take(in, &value, sizeof value);
    return value;
}

static uint64_t checksum(const unsigned char *at, size_t n)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ at[i]) * 0x100000001b3u;
    }
    return hash;
}

static bytes serialise(const ghm_sketch *sketch)
{
    const ghm_edges *edges = sketch->edges;
    size_t n = (size_t)edges->n_thresholds;
    bytes out = {0};
    put(&out, magic, sizeof magic);
    put_count(&out, VERSION);
    put_count(&out, edges->task);
    put_count(&out, sketch->soft_targets);
    put_count(&out, edges->n_thresholds);
    put_count(&out, sketch->cells[0].n);
    put_count(&out, sketch->cells[1].n);
    put(&out, edges->thresholds, n * sizeof *edges->thresholds);
    put(&out, edges->norms, n * sizeof *edges->norms);
    put_count(&out, sketch->facts.samples);
    put_count(&out, sketch->facts.valid);
    put_count(&out, sketch->facts.positive);
    put_count(&out, sketch->facts.nonfinite);
    put(&out, &sketch->weights, sizeof sketch->weights);
    for (int group = 0; group < 2; group++) {
        for (int64_t i = 0; i < sketch->cells[group].n; i++) {
            const ghm_cell *cell = &sketch->cells[group].at[i];
            put_count(&out, cell->slot);
            put(&out, &cell->n, sizeof cell->n);
            put(&out, &cell->offsets, sizeof cell->offsets);
            put(&out, &cell->squares, sizeof cell->squares);
        }
    }
    if (sketch->soft_targets) {
        put(&out, sketch->soft.n, (n + 1) * sizeof *sketch->soft.n);
        put(&out, sketch->soft.bce, (n + 1) * sizeof *sketch->soft.bce);
        put(&out, sketch->soft.norm, (n + 1) * sizeof *sketch->soft.norm);
    }
    uint64_t sum = checksum(out.at, out.n);
    put(&out, &sum, sizeof sum);
    return out;
}

uint64_t ghm_sketch_digest(const ghm_sketch *sketch)
{
    bytes all = serialise(sketch);
    uint64_t digest = all.failed ? 0 : checksum(all.at, all.n);
    free(all.at);
    return digest;
}

static int write_all(const char *path, const bytes *all)
{
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    size_t done = 0;
    while (file >= 0 && done < all->n) {
        ssize_t wrote = write(file, all->at + done, all->n - done);
        if (wrote < 0 && errno == EINTR) {
            continue;
        }
        if (wrote <= 0) {
            break;
        }
        done += (size_t)wrote;
    }
    bool good = file >= 0 && done == all->n && fsync(file) == 0;
    int why = errno;
    if (file >= 0 && close(file) != 0 && good) {
        good = false;
        why = errno;
    }
    return good ? GHM_OK : ghm_fail(GHM_E_FILE, "%s: cannot write: %s", path, strerror(why));
}

int ghm_sketch_save(const ghm_sketch *sketch, const char *path)
{
    if (!sketch || !path) {
        return ghm_fail(GHM_E_ARGUMENT, "the sketch or the path is NULL");
    }
    bytes all = serialise(sketch);
    size_t room = strlen(path) + 32;
    char *beside = malloc(room);
    if (all.failed || !beside) {
        free(all.at);
        free(beside);
        return ghm_fail(GHM_E_MEMORY, "no memory to save a sketch");
    }
    snprintf(beside, room, "%s.part-%ld", path, (long)getpid());
    int status = write_all(beside, &all);
    if (status == GHM_OK && rename(beside, path) != 0) {
        status = ghm_fail(GHM_E_FILE, "%s: cannot rename into place: %s", path, strerror(errno));
    }
    if (status != GHM_OK) {
        unlink(beside);
    }
    free(all.at);
    free(beside);
    return status;
}

static int read_all(const char *path, bytes *out)
{
    struct stat facts;
    int file = open(path, O_RDONLY | O_NONBLOCK); /* a FIFO must not hang us */
    if (file < 0 || fstat(file, &facts) != 0 || !S_ISREG(facts.st_mode)) {
        int why = file < 0 ? errno : EINVAL;
        if (file >= 0) {
            close(file);
        }
        return ghm_fail(GHM_E_FILE, "%s: cannot read: %s", path,
                        why == EINVAL ? "not a regular file" : strerror(why));
    }
    out->n = (size_t)facts.st_size;
    out->at = malloc(out->n + 1);
    size_t done = 0;
    while (out->at && done < out->n) {
        ssize_t got = read(file, out->at + done, out->n - done);
        if (got <= 0) {
            break;
        }
        done += (size_t)got;
    }
    close(file);
    if (!out->at || done < out->n) {
        return ghm_fail(out->at ? GHM_E_FILE : GHM_E_MEMORY, "%s: cannot read %zu bytes", path,
                        out->n);
    }
    return GHM_OK;
}

/* Edges are remade by the same function that made them, so a file cannot describe odd cells. */
static int take_edges(bytes *in, int64_t task, int64_t n, ghm_edges **out)
{
    ghm_edge *list = malloc(((size_t)n + 1) * sizeof *list);
    if (!list) {
        return ghm_fail(GHM_E_MEMORY, "no memory for %lld edges", (long long)n);
    }
    bool good = true;
    for (int64_t i = 0; i < n; i++) {
        good = take(in, &list[i].threshold, sizeof list[i].threshold) && good;
        good = good && !isnan(list[i].threshold) &&
               (i > 0 ? list[i].threshold > list[i - 1].threshold
                      : task == GHM_CLASSIFICATION || list[i].threshold > 0);
    }
    for (int64_t i = 0; i < n; i++) {
        good = take(in, &list[i].norm, sizeof list[i].norm) && good;
    }
    int status = good ? ghm_edges_from((int)task, list, n, out)
                      : ghm_fail(GHM_E_FILE, "its edges do not rise");
    free(list);
    return status;
}

static bool take_cells(bytes *in, int64_t n, uint32_t slots, ghm_cells *cells)
{
    int64_t last = -1;
    cells->at = malloc(((size_t)n + 1) * sizeof *cells->at);
    cells->room = n;
    for (int64_t i = 0; cells->at && i < n; i++) {
        int64_t slot = take_count(in);
        ghm_cell cell = {.slot = (uint32_t)slot};
        take(in, &cell.n, sizeof cell.n);
        take(in, &cell.offsets, sizeof cell.offsets);
        take(in, &cell.squares, sizeof cell.squares);
        if (in->failed || slot <= last || slot >= slots || cell.n == 0) {
            return false;
        }
        last = slot;
        cells->at[cells->n++] = cell;
    }
    return cells->at != NULL;
}

static bool take_body(bytes *in, ghm_sketch *sketch, const int64_t cells[2], bool soft)
{
    uint32_t slots = ghm_slot_count(sketch->edges);
    size_t n = (size_t)ghm_sketch_intervals(sketch);
    sketch->facts.samples = take_count(in);
    sketch->facts.valid = take_count(in);
    sketch->facts.positive = take_count(in);
    sketch->facts.nonfinite = take_count(in);
    take(in, &sketch->weights, sizeof sketch->weights);
    sketch->soft_targets = soft;
    bool good = take_cells(in, cells[0], slots, &sketch->cells[0]) &&
                take_cells(in, cells[1], slots, &sketch->cells[1]);
    if (good && soft) {
        good = ghm_soft_new((int64_t)n, &sketch->soft) == GHM_OK &&
               take(in, sketch->soft.n, n * sizeof *sketch->soft.n) &&
               take(in, sketch->soft.bce, n * sizeof *sketch->soft.bce) &&
               take(in, sketch->soft.norm, n * sizeof *sketch->soft.norm);
    }
    return good && !in->failed && in->n == 0;
}

static int parse(bytes *in, ghm_sketch **out)
{
    char head[sizeof magic];
    uint64_t sum = 0;
    if (in->n < sizeof magic + sizeof sum || memcmp(in->at, magic, sizeof magic) != 0) {
        return ghm_fail(GHM_E_FILE, "it does not begin like a sketch");
    }
    in->n -= sizeof sum;
    memcpy(&sum, in->at + in->n, sizeof sum);
    if (sum != checksum(in->at, in->n)) {
        return ghm_fail(GHM_E_FILE, "its checksum is wrong: it is damaged or cut short");
    }
    take(in, head, sizeof head);
    int64_t version = take_count(in), task = take_count(in), soft = take_count(in);
    int64_t n = take_count(in), cells[2];
    cells[0] = take_count(in);
    cells[1] = take_count(in);
    if (version != VERSION) {
        return ghm_fail(GHM_E_FILE, "its version is %lld, expected %d", (long long)version,
                        VERSION);
    }
    int64_t left = (int64_t)in->n;
    if (in->failed || (task != GHM_CLASSIFICATION && task != GHM_REGRESSION) || soft < 0 ||
        soft > 1 || n < 0 || n > left / 12 || cells[0] < 0 || cells[0] > left / 32 ||
        cells[1] < 0 || cells[1] > left / 32) {
        return ghm_fail(GHM_E_FILE, "its header is not possible");
    }
    ghm_edges *edges;
    GHM_TRY(take_edges(in, task, n, &edges));
    ghm_sketch *sketch;
    GHM_TRY(ghm_sketch_with(edges, &sketch));
    if (!take_body(in, sketch, cells, soft)) {
        ghm_sketch_free(sketch);
        return ghm_fail(GHM_E_FILE, "its cells are not possible");
    }
    *out = sketch;
    return GHM_OK;
}

int ghm_sketch_load(const char *path, ghm_sketch **out)
{
    if (!path || !out) {
        return ghm_fail(GHM_E_ARGUMENT, "the path or the place for the sketch is NULL");
    }
    bytes all = {0};
    int status = read_all(path, &all);
    if (status == GHM_OK) {
        bytes cursor = all;
        status = parse(&cursor, out);
        if (status == GHM_E_FILE) {
            char why[256];
            snprintf(why, sizeof why, "%s", ghm_last_error());
            status = ghm_fail(status, "%s: not a sketch: %s", path, why);
        }
    }
    free(all.at);
    return status;
}
