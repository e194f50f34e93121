/*
 * cells.c - lists of cells: their memory, and sums of two of them.
 */
#include "private.h"

#include <stdlib.h>
#include <string.h>

/* A sample's offset is below 2^19 and its square below 2^14, so this many fit 64 bits with room. */
#define CELL_LIMIT ((uint64_t)1 << 37)

void ghm_cells_free(ghm_cells *cells)
{
    free(cells->n);
    *cells = (ghm_cells){0};
}

void ghm_cells_copy(ghm_cells *to, int64_t at, const ghm_cells *from, int64_t begin, int64_t n)
{
    if (n > 0) {
        memcpy(to->slot + at, from->slot + begin, (size_t)n * sizeof *to->slot);
        memcpy(to->n + at, from->n + begin, (size_t)n * sizeof *to->n);
        memcpy(to->offsets + at, from->offsets + begin, (size_t)n * sizeof *to->offsets);
        memcpy(to->squares + at, from->squares + begin, (size_t)n * sizeof *to->squares);
    }
}

int ghm_cells_reserve(ghm_cells *cells, int64_t room)
{
    if (room <= cells->room && cells->n) {
        return GHM_OK;
    }
    size_t n = (size_t)room;
    uint64_t *at = malloc((n + 1) * (3 * sizeof *at + sizeof *cells->slot));
    if (!at) {
        return ghm_fail(GHM_E_MEMORY, "no memory for %lld cells", (long long)room);
    }
    ghm_cells grown = {(uint32_t *)(at + 3 * n), at, at + n, at + 2 * n, cells->count, room};
    ghm_cells_copy(&grown, 0, cells, 0, cells->count);
    free(cells->n);
    *cells = grown;
    return GHM_OK;
}

int ghm_cells_take(ghm_cells *into, ghm_cells *from)
{
    int status = GHM_OK;
    if (into->count == 0) {
        ghm_cells empty = *into;
        *into = *from;
        *from = empty;
    } else {
        status = ghm_cells_merge(into, from);
    }
    ghm_cells_free(from);
    return status;
}

int ghm_cells_merge(ghm_cells *into, const ghm_cells *from)
{
    if (from->count == 0) {
        return GHM_OK;
    }
    int64_t i = 0, k = 0;
    ghm_cells sum = {0};
    GHM_TRY(ghm_cells_reserve(&sum, into->count + from->count));
    while (i < into->count || k < from->count) {
        uint64_t a = i < into->count ? into->slot[i] : UINT64_MAX;
        uint64_t b = k < from->count ? from->slot[k] : UINT64_MAX;
        ghm_cell cell = a <= b ? ghm_cell_at(into, i++) : ghm_cell_at(from, k++);
        if (a == b) {
            ghm_cell other = ghm_cell_at(from, k++);
            cell.n += other.n;
            cell.offsets += other.offsets;
            cell.squares += other.squares;
        }
        if (cell.n > CELL_LIMIT) {
            ghm_cells_free(&sum);
            return ghm_fail(GHM_E_OVERFLOW, "more than 2^37 samples in one cell");
        }
        ghm_cell_put(&sum, sum.count++, cell);
    }
    ghm_cells_free(into);
    *into = sum;
    return GHM_OK;
}
