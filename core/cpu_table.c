/*
 * cpu_table.c - a thread's table: a slot for every cell, zero pages until touched, which a pass fills
 * and then drains into a sorted list of cells.
 */
#include "cpu.h"

#include <stdlib.h>
#include <sys/mman.h>

void cpu_drop_tables(cpu_state *cpu)
{
    for (int i = 0; i < cpu->threads && cpu->tables; i++) {
        if (cpu->tables[i]) {
            munmap(cpu->tables[i], cpu->table_slots * sizeof(ghm_pair));
            cpu->tables[i] = NULL;
        }
    }
    cpu->table_slots = 0;
}

int cpu_reserve_tables(cpu_state *cpu, size_t slots)
{
    if (cpu->table_slots >= slots) {
        return GHM_OK;
    }
    cpu_drop_tables(cpu);
    cpu->table_slots = slots;
    for (int i = 0; i < cpu->threads; i++) {
        void *table = mmap(NULL, slots * sizeof(ghm_pair), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (table == MAP_FAILED) {
            cpu_drop_tables(cpu);
            return ghm_fail(GHM_E_MEMORY, "no address space for a table of %zu slots", slots);
        }
        cpu->tables[i] = table;
    }
    return GHM_OK;
}

enum { STRIP = 8 }; /* slots looked at together: most of a table is empty */

static inline bool is_empty(const ghm_pair *strip)
{
    ghm_pair any = {0, 0};
    for (int i = 0; i < STRIP; i++) {
        any |= strip[i];
    }
    return !(any[0] | any[1]);
}

/* Moves slots [first, first + n) of a group into cells; their pairs are zero afterwards. */
GHM_CLONES
static int take_slots(ghm_pair *group, uint32_t first, uint32_t n, ghm_cells *out)
{
    const uint64_t low = ((uint64_t)1 << GHM_COUNT_SHIFT) - 1;
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
        if (stop - slot == STRIP && is_empty(group + slot)) {
            continue;
        }
        for (; slot < stop; slot++) { /* no branch: which slots are in use is hard to foresee */
            uint64_t pair = group[slot][0];
            out->at[out->n] = (ghm_cell){slot, pair >> GHM_COUNT_SHIFT, pair & low, group[slot][1]};
            out->n += pair != 0;
            group[slot] = (ghm_pair){0, 0};
        }
    }
    return GHM_OK;
}

/* Moves one group (negatives or positives) of a table into cells, by rising slot. */
static int drain_group(ghm_pair *group, const ghm_edges *edges, uint32_t seen, ghm_cells *scratch,
                       ghm_cells *into)
{
    uint32_t span = 1u << (26 - edges->shift); /* cells of one bit of seen */
    uint32_t half = edges->task == GHM_REGRESSION ? edges->n_cells : edges->n_cells / 2;
    int status = GHM_OK;
    for (uint32_t sign = 0; sign < edges->n_cells; sign += half) {
        for (uint32_t m = 0; m < 32 && status == GHM_OK; m++) {
            if (seen >> m & 1) {
                status = take_slots(group, sign + m * span, span, scratch);
            }
        }
    }
    status = status ? status : take_slots(group, edges->n_cells, edges->n_sides, scratch);
    status = status ? status : ghm_cells_merge(into, scratch);
    scratch->n = 0;
    return status;
}

void cpu_mark_splits(ghm_pair *table, const ghm_plan *plan, const ghm_edges *edges, uint64_t mark)
{
    for (uint32_t i = 0; i < edges->n_sides && edges->n_sides <= FEW_SPLITS; i++) {
        for (uint32_t group = 0; group < plan->trash; group += plan->stride) {
            ghm_pair *pair = &table[group + edges->side_cell[i]];
            (*pair)[0] = ((*pair)[0] & ~GHM_SPLIT) | mark;
        }
    }
}

int cpu_drain(ghm_pair *table, const ghm_plan *plan, const ghm_edges *edges, uint32_t seen,
              ghm_cells *scratch, ghm_cells cells[2])
{
    int groups = edges->task == GHM_REGRESSION ? 1 : 2;
    int status = GHM_OK;
    cpu_mark_splits(table, plan, edges, 0);
    for (int group = 0; group < groups; group++) {
        ghm_pair *pairs = table + (size_t)group * plan->stride;
        int one = drain_group(pairs, edges, seen, scratch, &cells[group]);
        status = status ? status : one;
    }
    table[plan->trash] = (ghm_pair){0, 0};
    return status;
}
