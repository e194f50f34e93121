/*
 * cpu_table.c - the threads' tables: a slot for every cell, zero pages until touched. A pass fills them,
 * and then they are moved into one sorted list of cells.
 */
#include "cpu.h"

#include <omp.h>
#include <stdlib.h>
#include <sys/mman.h>

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
    int64_t to; /* and where they go from there */
} piece;

enum {
    BINADES = 8, /* of one bit of `seen` */
    MOST_PIECES = 2 * (2 * 32 * BINADES + 1)
};

static int make_room(ghm_cells *cells, int64_t more)
{
    int64_t room = cells->count + more;
    return room <= cells->room ? GHM_OK : ghm_cells_reserve(cells, 2 * room);
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
                pieces[n++] = (piece){group, first, binade, 0, 0, 0, 0};
            }
        }
        pieces[n++] = (piece){group, group + edges->n_cells, edges->n_sides, 0, 0, 0, 0};
    }
    return n;
}

/* Memory for the cells of both groups, and which of it is for which piece. */
static int lay_out(const ghm_plan *plan, piece *pieces, int n, ghm_cells cells[2])
{
    for (int i = 0; i < n; i++) {
        ghm_cells *mine = &cells[pieces[i].group / plan->stride];
        pieces[i].to = mine->count;
        mine->count += pieces[i].cells;
    }
    for (int group = 0; group < 2; group++) {
        int64_t count = cells[group].count;
        cells[group].count = 0; /* none to keep */
        GHM_TRY(ghm_cells_reserve(&cells[group], count));
        cells[group].count = count;
    }
    return GHM_OK;
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
        scratch->count = 0;
        /* The same pieces to the same thread, here, below and in the next pass: lines that move from
         * one core to another are most of what two threads cost in a small batch. */
#pragma omp for schedule(static, 1)
        for (int i = 0; i < n; i++) {
            if (make_room(scratch, pieces[i].n + GHM_STRIP) != GHM_OK) {
#pragma omp atomic write
                status = GHM_E_MEMORY;
                continue;
            }
            pieces[i].thread = me;
            pieces[i].begin = scratch->count;
            cpu->kernels->take(cpu->tables, threads, pieces[i].group, pieces[i].first, pieces[i].n,
                               scratch);
            pieces[i].cells = scratch->count - pieces[i].begin;
        }
#pragma omp single
        status = status ? status : lay_out(plan, pieces, n, cells);
#pragma omp for schedule(static, 1) nowait
        for (int i = 0; i < n; i++) {
            if (status == GHM_OK) {
                ghm_cells_copy(&cells[pieces[i].group / plan->stride], pieces[i].to,
                               &cpu->scratch[pieces[i].thread], pieces[i].begin, pieces[i].cells);
            }
        }
    }
    for (int i = 0; i < threads; i++) {
        cpu->tables[i].spilled = false;
    }
    return status;
}
