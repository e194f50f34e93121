/*
 * cpu_table.c - a thread's table: a slot for every cell, zero pages until touched, which a pass fills
 * and then drains into a sorted list of cells.
 */
#include "cpu.h"

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

enum { STRIP = 8 }; /* slots looked at together: most of a table is empty */

static inline bool is_empty(const ghm_table *table, uint32_t first)
{
    uint64_t any = 0;
    for (uint32_t slot = first; slot < first + STRIP; slot++) {
        any |= table->words[slot] | (table->spilled ? table->wide[slot].n : 0);
    }
    return any == 0;
}

/* What a slot of the table holds, as that slot of its group. */
static inline ghm_cell cell_of(const ghm_table *table, uint32_t slot, uint32_t group)
{
    const uint64_t offsets = ((uint64_t)1 << (GHM_COUNT_SHIFT - GHM_OFFSETS_SHIFT)) - 1;
    const uint64_t squares = ((uint64_t)1 << GHM_OFFSETS_SHIFT) - 1, word = table->words[slot];
    ghm_cell cell = {slot - group, word >> GHM_COUNT_SHIFT, word >> GHM_OFFSETS_SHIFT & offsets,
                     word & squares};
    if (table->spilled) {
        cell.n += table->wide[slot].n;
        cell.offsets += table->wide[slot].offsets;
        cell.squares += table->wide[slot].squares;
        table->wide[slot] = (ghm_cell){0};
    }
    return cell;
}

/* Moves slots [first, first + n) of the table, which are of a group that begins at `group`, into
 * cells; they are zero afterwards. */
GHM_CLONES
static int take_slots(ghm_table *table, uint32_t group, uint32_t first, uint32_t n, ghm_cells *out)
{
    if (out->n + n + 1 > out->room) { /* one more: the loop writes before it knows */
        int64_t room = 2 * out->room + n + 1;
        ghm_cell *at = realloc(out->at, (size_t)room * sizeof *at);
        if (!at) {
            return ghm_fail(GHM_E_MEMORY, "no memory for %lld cells", (long long)room);
        }
        out->at = at;
        out->room = room;
    }
    for (uint32_t slot = first, end = first + n, stop; slot < end; slot = stop) {
        stop = slot + STRIP < end ? slot + STRIP : end;
        if (stop - slot == STRIP && is_empty(table, slot)) {
            continue;
        }
        for (; slot < stop; slot++) { /* no branch: which slots are in use is hard to foresee */
            out->at[out->n] = cell_of(table, slot, group);
            out->n += out->at[out->n].n != 0;
            table->words[slot] = 0;
        }
    }
    return GHM_OK;
}

/* Moves one group (negatives or positives) of a table into cells, by rising slot. */
static int drain_group(ghm_table *table, uint32_t group, const ghm_edges *edges, uint32_t seen,
                       ghm_cells *scratch, ghm_cells *into)
{
    uint32_t span = 1u << (26 - edges->shift); /* cells of one bit of seen */
    uint32_t half = edges->task == GHM_REGRESSION ? edges->n_cells : edges->n_cells / 2;
    int status = GHM_OK;
    for (uint32_t sign = 0; sign < edges->n_cells; sign += half) {
        for (uint32_t m = 0; m < 32 && status == GHM_OK; m++) {
            if (seen >> m & 1) {
                status = take_slots(table, group, group + sign + m * span, span, scratch);
            }
        }
    }
    uint32_t sides = group + edges->n_cells;
    status = status ? status : take_slots(table, group, sides, edges->n_sides, scratch);
    status = status ? status : ghm_cells_merge(into, scratch);
    scratch->n = 0;
    return status;
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

int cpu_drain(ghm_table *table, const ghm_plan *plan, const ghm_edges *edges, uint32_t seen,
              ghm_cells *scratch, ghm_cells cells[2])
{
    int status = GHM_OK;
    cpu_watch_splits(table, plan, edges, false);
    for (uint32_t group = 0; group < plan->trash; group += plan->stride) {
        int one = drain_group(table, group, edges, seen, scratch, &cells[group / plan->stride]);
        status = status ? status : one;
    }
    memset(table->words + plan->trash, 0, GHM_TRASH * sizeof *table->words);
    table->spilled = false;
    return status;
}
