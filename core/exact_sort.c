/* exact_sort.c - samples into the order of their keys: a radix sort, and what ties it leaves. */
#include "exact.h"
#include "formula.h"

#include <omp.h>
#include <stdlib.h>

/* A radix sort, least digit first: each thread counts the digits in its part, and then knows where
 * its samples go. */
int exact_sort(exact_work *work, int64_t samples)
{
    enum { BITS = 11, BUCKETS = 1 << BITS };
    int64_t *places = malloc((size_t)work->threads * BUCKETS * sizeof *places);
    if (!places) {
        return ghm_fail(GHM_E_MEMORY, "no memory to sort %lld samples", (long long)samples);
    }
    for (int shift = 32; shift < 64 && !is_stopped(work); shift += BITS) {
        const uint64_t *order = work->order;
        uint64_t *sorted = work->spare;
#pragma omp parallel num_threads(work->threads)
        {
            int parts = omp_get_num_threads(), part = omp_get_thread_num();
            int64_t begin = samples / parts * part;
            int64_t end = part + 1 < parts ? samples / parts * (part + 1) : samples;
            int64_t *mine = places + (size_t)part * BUCKETS;
            memset(mine, 0, BUCKETS * sizeof *mine);
            for (int64_t i = begin; i < end; i++) {
                mine[order[i] >> shift & (BUCKETS - 1)]++;
            }
#pragma omp barrier
#pragma omp single
            for (int64_t bucket = 0, place = 0; bucket < BUCKETS; bucket++) {
                for (int one = 0; one < parts; one++) {
                    int64_t *here = &places[(size_t)one * BUCKETS + (size_t)bucket], n = *here;
                    *here = place;
                    place += n;
                }
            }
            for (int64_t i = begin; i < end; i++) {
                sorted[mine[order[i] >> shift & (BUCKETS - 1)]++] = order[i];
            }
        }
        work->spare = work->order;
        work->order = sorted;
    }
    free(places);
    return GHM_OK;
}

static uint32_t key_at(const uint64_t *order, int64_t rank)
{
    return (uint32_t)(order[rank] >> 32);
}

static int rising(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Ranks [begin, end) of one key, by residual. It rounds to that key, so it is less than 2^30 doubles
 * away: how far stands in for the key while the run is sorted. */
static void sort_tie(const exact_work *work, int64_t begin, int64_t end)
{
    uint32_t key = key_at(work->order, begin);
    double rounded = ghm_float(key & 0x7fffffffu);
    uint64_t first, bits, before = 0;
    bool sorted = true;
    memcpy(&first, &rounded, sizeof first);
    first -= first < 1u << 30 ? first : 1u << 30;
    for (int64_t i = begin; i < end; i++) {
        uint64_t position = work->order[i] & 0xffffffffu;
        memcpy(&bits, &work->residual[position], sizeof bits);
        work->order[i] = (bits - first) << 32 | position;
        sorted = sorted && work->order[i] >= before;
        before = work->order[i];
    }
    if (!sorted) {
        qsort(work->order + begin, (size_t)(end - begin), sizeof *work->order, rising);
    }
    for (int64_t i = begin; i < end; i++) {
        work->order[i] = (uint64_t)key << 32 | (work->order[i] & 0xffffffffu);
    }
}

/* The first rank from this one on whose key the rank before it does not share. */
static int64_t new_key(const exact_work *work, int64_t rank)
{
    while (rank > 0 && rank < work->n &&
           key_at(work->order, rank) == key_at(work->order, rank - 1)) {
        rank++;
    }
    return rank;
}

/* Boxes of one key still differ by what float32 rounds away of pred - target, and so does their g: a
 * window that looked for its ends among ranks out of order would miss samples, even its own. */
void exact_sort_ties(const exact_work *work)
{
#pragma omp parallel num_threads(work->threads)
    {
        int64_t parts = omp_get_num_threads(), part = omp_get_thread_num();
        int64_t begin = new_key(work, work->n * part / parts);
        int64_t end = new_key(work, work->n * (part + 1) / parts);
#pragma omp barrier /* sorting disturbs the keys by which others find where they begin */
        for (int64_t next; begin < end; begin = next) {
            next = new_key(work, begin + 1);
            if (next - begin > 1) {
                sort_tie(work, begin, next);
            }
        }
    }
}
