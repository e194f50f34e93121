/*
 * sketch_file.c - sketches on disk.
 *
 * A file: magic, version, number of calls; each call's note (its length and its bytes) and sketch;
 * last an FNV-1a checksum of all before it.
 */
#include "private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char magic[8] = "ghmskch";
enum { VERSION = 3 };

/* Devices and pipes: a file renamed into their place would take them away from everybody. */
static bool is_no_file(const char *path)
{
    struct stat facts;
    return stat(path, &facts) == 0 && !S_ISREG(facts.st_mode);
}

/* Whether a file must be on the disk before it gets its name. Not each of many new ones a second:
 * what a power failure then spoils is the work of a second, and the checksum tells. */
static bool is_sync_due(bool replaces)
{
    static _Atomic int64_t last = INT64_MIN;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    bool due = replaces || (int64_t)now.tv_sec != last;
    if (due) {
        last = (int64_t)now.tv_sec;
    }
    return due;
}

/* path: what a failure names; target: the file that is written. */
static int write_all(const char *target, const char *path, const ghm_bytes *all, bool sync)
{
    int file = open(target, O_WRONLY | O_CREAT | O_TRUNC, 0666);
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
    bool good = file >= 0 && done == all->n;
    int why = errno;
    if (good && sync && fsync(file) != 0 && errno != EINVAL &&
        errno != ENOTSUP) { /* a pipe has no sync */
        good = false;
        why = errno;
    }
    if (file >= 0 && close(file) != 0 && good) {
        good = false;
        why = errno;
    }
    return good ? GHM_OK : ghm_fail(GHM_E_WRITE, "%s: cannot write: %s", path, strerror(why));
}

int ghm_sketch_write(const ghm_sketch *const *sketches, const char *const *notes, int64_t n,
                     const char *path)
{
    if (!path || n < 0 || (n > 0 && !sketches)) {
        return ghm_fail(GHM_E_ARGUMENT, "the path or the list of sketches is NULL");
    }
    ghm_bytes all = {0};
    ghm_put(&all, magic, sizeof magic);
    ghm_put_count(&all, VERSION);
    ghm_put_count(&all, (uint64_t)n);
    for (int64_t i = 0; i < n; i++) {
        if (!sketches[i]) {
            free(all.at);
            return ghm_fail(GHM_E_ARGUMENT, "sketch %lld is NULL", (long long)i);
        }
        const char *note = notes && notes[i] ? notes[i] : "";
        ghm_put_count(&all, strlen(note));
        ghm_put(&all, note, strlen(note));
        ghm_put_sketch(&all, sketches[i]);
    }
    uint64_t sum = ghm_checksum(all.at, all.n);
    ghm_put(&all, &sum, sizeof sum);
    char *end = realpath(path, NULL); /* of links; NULL: there is nothing yet */
    const char *target = end ? end : path;
    size_t room = strlen(target) + 32;
    char *beside = malloc(room);
    if (all.failed || !beside) {
        free(all.at);
        free(beside);
        free(end);
        return ghm_fail(GHM_E_MEMORY, "no memory to save a sketch");
    }
    bool in_place = is_no_file(path);
    snprintf(beside, room, "%s.part-%ld", target, (long)getpid());
    int status = write_all(in_place ? path : beside, path, &all, is_sync_due(end != NULL));
    if (status == GHM_OK && !in_place && rename(beside, target) != 0) {
        status = ghm_fail(GHM_E_WRITE, "%s: cannot rename into place: %s", path, strerror(errno));
    }
    if (status != GHM_OK && !in_place) {
        unlink(beside);
    }
    free(all.at);
    free(beside);
    free(end);
    return status;
}

int ghm_sketch_save(const ghm_sketch *sketch, const char *path)
{
    return ghm_sketch_write(&sketch, NULL, 1, path);
}

/* -- reading ---------------------------------------------------------------------------------- */

struct ghm_reader {
    char *path, *note;
    unsigned char *at;
    ghm_bytes rest;
    int64_t left;
};

static int read_all(const char *path, ghm_bytes *out)
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

static int take_head(ghm_reader *reader)
{
    ghm_bytes *in = &reader->rest;
    char head[sizeof magic];
    uint64_t sum = 0;
    if (in->n < sizeof magic + sizeof sum || memcmp(in->at, magic, sizeof magic) != 0) {
        return ghm_fail(GHM_E_FILE, "it does not begin like a sketch");
    }
    in->n -= sizeof sum;
    memcpy(&sum, in->at + in->n, sizeof sum);
    if (sum != ghm_checksum(in->at, in->n)) {
        return ghm_fail(GHM_E_FILE, "its checksum is wrong: it is damaged or cut short");
    }
    ghm_take(in, head, sizeof head);
    uint64_t version = ghm_take_count(in, UINT64_MAX);
    if (version != VERSION) {
        return ghm_fail(GHM_E_FILE, "its version is %llu, expected %d", (unsigned long long)version,
                        VERSION);
    }
    reader->left = (int64_t)ghm_take_count(in, in->n);
    return in->failed ? ghm_fail(GHM_E_FILE, "its header is not possible") : GHM_OK;
}

/* Puts the path before the reason why a file is refused. */
static int refusal(const char *path, int status)
{
    if (status == GHM_E_FILE) {
        char why[256];
        snprintf(why, sizeof why, "%s", ghm_last_error());
        return ghm_fail(status, "%s: not a sketch: %s", path, why);
    }
    return status;
}

int ghm_reader_open(const char *path, ghm_reader **out)
{
    if (!path || !out) {
        return ghm_fail(GHM_E_ARGUMENT, "the path or the place for the reader is NULL");
    }
    ghm_reader *reader = calloc(1, sizeof *reader);
    if (!reader || !(reader->path = strdup(path))) {
        ghm_reader_free(reader);
        return ghm_fail(GHM_E_MEMORY, "no memory to read a file");
    }
    int status = read_all(path, &reader->rest);
    reader->at = reader->rest.at;
    if (status == GHM_OK) {
        status = refusal(path, take_head(reader));
    }
    if (status != GHM_OK) {
        ghm_reader_free(reader);
        return status;
    }
    *out = reader;
    return GHM_OK;
}

int64_t ghm_reader_left(const ghm_reader *reader)
{
    return reader->left;
}

static int next_call(ghm_reader *reader, const ghm_sketch *like, ghm_sketch **out)
{
    ghm_bytes *in = &reader->rest;
    size_t n = (size_t)ghm_take_count(in, in->n);
    free(reader->note);
    reader->note = malloc(n + 1);
    if (!reader->note) {
        return ghm_fail(GHM_E_MEMORY, "no memory for a note");
    }
    reader->note[n] = 0;
    if (!ghm_take(in, reader->note, n) || memchr(reader->note, 0, n)) {
        return ghm_fail(GHM_E_FILE, "a note is not possible");
    }
    GHM_TRY(ghm_take_sketch(in, like, out));
    if (reader->left == 1 && in->n > 0) {
        ghm_sketch_free(*out);
        return ghm_fail(GHM_E_FILE, "bytes follow its last call");
    }
    return GHM_OK;
}

int ghm_reader_next(ghm_reader *reader, const ghm_sketch *like, ghm_sketch **out, const char **note)
{
    if (!reader || !out || !note) {
        return ghm_fail(GHM_E_ARGUMENT, "the reader or a place is NULL");
    }
    if (reader->left == 0) {
        return ghm_fail(GHM_E_ARGUMENT, "%s: there is no further call", reader->path);
    }
    const ghm_bytes before = reader->rest;
    int status = refusal(reader->path, next_call(reader, like, out));
    if (status != GHM_OK) {
        reader->rest = before;
        return status;
    }
    reader->left--;
    *note = reader->note[0] ? reader->note : NULL;
    return GHM_OK;
}

void ghm_reader_free(ghm_reader *reader)
{
    if (reader) {
        free(reader->path);
        free(reader->note);
        free(reader->at);
        free(reader);
    }
}

int ghm_sketch_load(const char *path, ghm_sketch **out)
{
    ghm_reader *reader;
    const char *note;
    if (!path || !out) {
        return ghm_fail(GHM_E_ARGUMENT, "the path or the place for the sketch is NULL");
    }
    GHM_TRY(ghm_reader_open(path, &reader));
    int status = reader->left == 1 ? ghm_reader_next(reader, NULL, out, &note)
                                   : ghm_fail(GHM_E_FILE, "%s: holds %lld calls, expected one",
                                              path, (long long)reader->left);
    ghm_reader_free(reader);
    return status;
}
