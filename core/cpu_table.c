/*
 * cpu_table.c - the threads' tables: a slot for every cell, zero pages until touched. A pass fills them,
 * and then they are read into one sorted list of cells.
 */
#include "cpu.h"

#include <omp.h>
#include <stdlib.h>
#include <sys/mman.h>

#define ALWAYS_INLINE inline __attribute__((always_inline))

static void drop(void *at, size_t bytes)
{
    if (at) {
        munmap(at, bytes);
    }
}

void cpu_drop_tables(cpu_state *cpu)
{
    for (int i = 0; i < cpu->threads; i++) {
        drop(cpu->tables[i].words, cpu->table_slots * sizeof(uint64_t));
        drop(cpu->tables[i].wide, cpu->table_slots * sizeof(ghm_cell));
        cpu->tables[i] = (ghm_table){0};
    }
    cpu->table_slots = 0;
}

static void *zeros(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

int cpu_reserve_tables(cpu_state *cpu, size_t slots)
{
    if (cpu->table_slots >= slots) {
        return GHM_OK;
    }
    cpu_drop_tables(cpu);
    cpu->table_slots = slots;
    for (int i = 0; i < cpu->threads; i++) {
        ghm_table *table = &cpu->tables[i];
        table->words = zeros(slots * sizeof *table->words);
        table->wide = zeros(slots * sizeof *table->wide);
        if (!table->words || !table->wide) {
            cpu_drop_tables(cpu);
            return ghm_fail(GHM_E_MEMORY, "no address space for a table of %zu slots", slots);
        }
    }
    return GHM_OK;
}

void cpu_watch_splits(ghm_table *table, const ghm_plan *plan, const ghm_edges *edges, bool watch)
{
    for (uint32_t i = 0; i < edges->n_sides && plan->watch; i++) {
        for (uint32_t group = 0; group < plan->trash; group += plan->stride) {
            uint64_t *word = &table->words[group + edges->side_cell[i]];
            *word = (*word & ~GHM_WATCHED) | (watch ? GHM_WATCHED : 0);
        }
    }
}

/* -- tables into cells ------------------------------------------------------------------------ */

/* Slots next to each other that one thread moves: a binade, or all sides of a group. */
typedef struct piece {
    uint32_t group, first, n; /* the group's first slot; slots of the table */
    int thread;               /* in whose scratch their cells are, from `begin` on */
    int64_t begin, cells;
    ghm_cell *to; /* and where they go from there */
} piece;

enum {
    STRIP = 8,   /* slots looked at together: most of a table is empty */
    BINADES = 8, /* of one bit of `seen` */
    MOST_PIECES = 2 * (2 * 32 * BINADES + 1)
};

typedef uint64_t four_words __attribute__((vector_size(32), aligned(8), may_alias));

/* Whether a strip of slots is empty in all tables. spilled: some word of some table did. */
static ALWAYS_INLINE bool is_empty(const ghm_table *tables, int n_tables, bool spilled,
                                   uint32_t slot)
{
    four_words any = {0};
    for (int t = 0; t < n_tables; t++) {
        const four_words *words = (const four_words *)(tables[t].words + slot);
        for (uint32_t k = 0; k < STRIP / 4; k++) {
            any |= words[k];
        }
        for (uint32_t k = 0; spilled && k < STRIP; k++) {
            any[0] |= tables[t].wide[slot + k].n;
        }
    }
    return !(any[0] | any[1] | any[2] | any[3]);
}

/* What a table holds in one slot. */
static ALWAYS_INLINE ghm_cell read_slot(const ghm_table *table, bool spilled, uint32_t slot)
{
    ghm_cell cell = {0};
    ghm_add_word(&cell, table->words[slot]);
    if (spilled) {
        const ghm_cell *wide = &table->wide[slot];
        cell.n += wide->n;
        cell.offsets += wide->offsets;
        cell.squares += wide->squares;
    }
    return cell;
}

/* The slots of a piece that are in use, summed over the tables, go to `out`, where there is room for
 * one more. Returns their number. */
static ALWAYS_INLINE int64_t read_slots(const ghm_table *tables, int n_tables, bool spilled,
                                        const piece *from, ghm_cell *restrict out)
{
    int64_t n = 0;
    uint32_t slot = from->first, end = slot + from->n, group = from->group;
    while (slot < end) {
        uint32_t stop = end - slot < STRIP ? end : slot + STRIP;
        if (stop - slot == STRIP && is_empty(tables, n_tables, spilled, slot)) {
            slot = stop;
            continue;
        }
        for (; slot < stop; slot++) { /* no branch: which slots are in use is hard to foresee */
            ghm_cell cell = read_slot(&tables[0], spilled, slot);
            for (int t = 1; t < n_tables; t++) {
                ghm_cell other = read_slot(&tables[t], spilled, slot);
                cell.n += other.n;
                cell.offsets += other.offsets;
                cell.squares += other.squares;
            }
            cell.slot = slot - group;
            out[n] = cell;
            n += cell.n != 0;
        }
    }
    return n;
}

/* Compiled apart for the one or two tables, without spilled words, of a small batch. */
GHM_CLONES
static int64_t read_piece(const ghm_table *tables, int n_tables, const piece *from, ghm_cell *out)
{
    bool spilled = false;
    for (int t = 0; t < n_tables; t++) {
        spilled |= tables[t].spilled;
    }
    if (n_tables == 1 && !spilled) {
        return read_slots(tables, 1, false, from, out);
    }
    if (n_tables == 2 && !spilled) {
        return read_slots(tables, 2, false, from, out);
    }
    return read_slots(tables, n_tables, true, from, out);
}

static int make_room(ghm_cells *cells, int64_t more)
{
    if (cells->n + more > cells->room) {
        int64_t room = 2 * cells->room + more;
        ghm_cell *at = realloc(cells->at, (size_t)room * sizeof *at);
        if (!at) {
            return ghm_fail(GHM_E_MEMORY, "no memory for %lld cells", (long long)room);
        }
        cells->at = at;
        cells->room = room;
    }
    return GHM_OK;
}

/* The pieces of a table that may be in use, by group, and in it by rising slot. */
static int list_pieces(const ghm_plan *plan, const ghm_edges *edges, uint32_t seen, piece *pieces)
{
    uint32_t binade = 1u << (23 - edges->shift);
    uint32_t signs = edges->task == GHM_REGRESSION ? 1 : 2, half = edges->n_cells / signs;
    int n = 0;
    for (uint32_t group = 0; group < plan->trash; group += plan->stride) {
        for (uint32_t at = 0; at < signs * 32 * BINADES; at++) {
            uint32_t of_sign = at % (32 * BINADES), sign = at / (32 * BINADES);
            if (seen >> (of_sign / BINADES) & 1) {
                uint32_t first = group + sign * half + of_sign * binade;
                pieces[n++] = (piece){group, first, binade, 0, 0, 0, NULL};
            }
        }
        pieces[n++] = (piece){group, group + edges->n_cells, edges->n_sides, 0, 0, 0, NULL};
    }
    return n;
}

/* Memory for the cells of both groups, and which of it is for which piece. */
static int lay_out(const ghm_plan *plan, piece *pieces, int n, ghm_cells cells[2])
{
    for (int i = 0; i < n; i++) {
        cells[pieces[i].group / plan->stride].room += pieces[i].cells;
    }
    for (int group = 0; group < 2; group++) {
        cells[group].at = malloc((size_t)(cells[group].room + 1) * sizeof *cells[group].at);
        if (!cells[group].at) {
            return ghm_fail(GHM_E_MEMORY, "no memory for %lld cells", (long long)cells[group].room);
        }
    }
    for (int i = 0; i < n; i++) {
        ghm_cells *mine = &cells[pieces[i].group / plan->stride];
        pieces[i].to = mine->at + mine->n;
        mine->n += pieces[i].cells;
    }
    return GHM_OK;
}

static void clear_table(ghm_table *table, const piece *pieces, int n)
{
    for (int i = 0; i < n; i++) {
        if (pieces[i].cells > 0) {
            memset(table->words + pieces[i].first, 0, pieces[i].n * sizeof *table->words);
        }
        if (pieces[i].cells > 0 && table->spilled) {
            memset(table->wide + pieces[i].first, 0, pieces[i].n * sizeof *table->wide);
        }
    }
    table->spilled = false;
}

int cpu_drain(cpu_state *cpu, int threads, const ghm_plan *plan, const ghm_edges *edges,
              uint32_t seen, ghm_cells cells[2])
{
    piece pieces[MOST_PIECES];
    int n = list_pieces(plan, edges, seen, pieces), status = GHM_OK;
    for (int i = 0; i < threads; i++) {
        cpu_watch_splits(&cpu->tables[i], plan, edges, false);
        memset(cpu->tables[i].words + plan->trash, 0, GHM_TRASH * sizeof(uint64_t));
    }
#pragma omp parallel num_threads(threads)
    {
        int me = omp_get_thread_num();
        ghm_cells *scratch = &cpu->scratch[me];
        scratch->n = 0;
#pragma omp for schedule(dynamic)
        for (int i = 0; i < n; i++) {
            if (make_room(scratch, pieces[i].n + 1) != GHM_OK) {
#pragma omp atomic write
                status = GHM_E_MEMORY;
                continue;
            }
            pieces[i].thread = me;
            pieces[i].begin = scratch->n;
            pieces[i].cells = read_piece(cpu->tables, threads, &pieces[i],
                                         scratch->at + scratch->n);
            scratch->n += pieces[i].cells;
        }
#pragma omp single
        status = status ? status : lay_out(plan, pieces, n, cells);
#pragma omp for schedule(static)
        for (int i = 0; i < n; i++) {
            if (status == GHM_OK) {
                memcpy(pieces[i].to, cpu->scratch[pieces[i].thread].at + pieces[i].begin,
                       (size_t)pieces[i].cells * sizeof(ghm_cell));
            }
        }
        /* Each its own, which stays in its cache; the others have only read it. */
#pragma omp for schedule(static)
        for (int i = 0; i < threads; i++) {
            clear_table(&cpu->tables[i], pieces, n);
        }
    }
    return status;
}
