/*
 * cpu_sketch.c - the sketch pass on the CPU.
 *
 * Each thread owns a table with a slot for every cell (zero pages until touched), adds blocks to it,
 * and drains it into a sorted list of cells before its packed counters can overflow. Lists are added
 * at the end. All of it is integer addition, so neither threads nor order change a bit.
 */
#include "cpu.h"
#include "formula.h"

#include <omp.h>
#include <stdlib.h>

/* -- draining --------------------------------------------------------------------------------- */

/* Moves slots [first, first + n) of a group into cells; their pairs are zero afterwards. */
static int take_slots(ghm_pair *group, uint32_t first, uint32_t n, ghm_cells *out)
{
    enum { LINE = 4 }; /* slots in a cache line; most lines of a table are empty */
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
        stop = slot + LINE < end ? slot + LINE : end;
        if (stop - slot == LINE &&
            !(group[slot][0] | group[slot + 1][0] | group[slot + 2][0] | group[slot + 3][0])) {
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

/* Up to so many edges inside cells scatter sees to; more are settled before it. Measured: at 64 the
 * two cost about the same. */
enum { FEW_SPLITS = 64 };

/* Sets GHM_SPLIT (mark) in the cells that edges split, or clears it (0). */
static void mark_splits(ghm_pair *table, const ghm_plan *plan, const ghm_edges *edges,
                        uint64_t mark)
{
    for (uint32_t i = 0; i < edges->n_sides && edges->n_sides <= FEW_SPLITS; i++) {
        for (uint32_t group = 0; group < plan->trash; group += plan->stride) {
            ghm_pair *pair = &table[group + edges->side_cell[i]];
            (*pair)[0] = ((*pair)[0] & ~GHM_SPLIT) | mark;
        }
    }
}

static int drain(ghm_pair *table, const ghm_plan *plan, const ghm_edges *edges, uint32_t seen,
                 ghm_cells *scratch, ghm_cells cells[2])
{
    int groups = edges->task == GHM_REGRESSION ? 1 : 2;
    int status = GHM_OK;
    mark_splits(table, plan, edges, 0);
    for (int group = 0; group < groups; group++) {
        ghm_pair *pairs = table + (size_t)group * plan->stride;
        int one = drain_group(pairs, edges, seen, scratch, &cells[group]);
        status = status ? status : one;
    }
    table[plan->trash] = (ghm_pair){0, 0};
    return status;
}

/* -- the sketch pass -------------------------------------------------------------------------- */

static void add_weights(const float *w, int n, const ghm_block *block, ghm_weights *weights)
{
    const uint32_t one_unit = 1u << 23; /* 1.0 is 2^23 units of exponent 127 */
    if (!block->uneven) {
        weights->units[127] += (uint64_t)block->valid * one_unit;
        return;
    }
    for (int i = 0; i < n; i++) {
        uint32_t bits = ghm_bits(w[i]), exponent = bits >> 23;
        if (w[i] > 0) {
            weights->units[exponent] += (bits & (one_unit - 1)) | (exponent ? one_unit : 0);
        }
    }
}

static void first_of(int64_t *first, int64_t other)
{
    *first = *first < 0 || (other >= 0 && other < *first) ? other : *first;
}

static void add_facts(ghm_facts *into, const ghm_facts *from)
{
    into->valid += from->valid;
    into->positive += from->positive;
    into->nonfinite += from->nonfinite;
    into->soft += from->soft;
    into->bad_labels += from->bad_labels;
    first_of(&into->first_nonfinite, from->first_nonfinite);
    first_of(&into->first_soft, from->first_soft);
    first_of(&into->first_bad_label, from->first_bad_label);
}

static const ghm_facts no_facts = {.first_nonfinite = -1, .first_soft = -1, .first_bad_label = -1};

/* One thread's share of a pass. */
typedef struct worker {
    ghm_buffers buffers;
    ghm_block block;
    ghm_facts facts;
    ghm_weights weights;
    ghm_cells cells[2];
    int64_t taken;
    uint32_t seen;
    int status;
} worker;

static worker *new_worker(void)
{
    worker *fresh = aligned_alloc(64, sizeof *fresh);
    if (fresh) {
        memset(fresh, 0, sizeof *fresh);
        fresh->facts = no_facts;
    }
    return fresh;
}

/* Loads a block and looks at it closely where the kernel found something odd. */
static void fill_block(const cpu_state *cpu, const ghm_plan *plan, const ghm_batch *batch,
                       int64_t begin, int n, worker *me)
{
    ghm_buffers *b = &me->buffers;
    void (*keys)(const float *, const float *, const float *, int, const ghm_plan *,
                 ghm_block *) = batch->task == GHM_REGRESSION ? cpu->kernels->boxes
                                                              : cpu->kernels->classes;
    ghm_load_block(cpu->kernels, batch, begin, n, b);
    keys(b->px, b->pt, b->pw, n, plan, &me->block);
    if (me->block.suspect) {
        ghm_inspect_block(batch, begin, n, b, &me->facts);
        keys(b->px, b->pt, b->pw, n, plan, &me->block);
    }
    first_of(&me->facts.first_bad_label, b->first_bad_label);
    me->facts.bad_labels += b->bad_labels;
    me->facts.valid += me->block.valid;
    me->facts.positive += me->block.positive;
    add_weights(b->pw, n, &me->block, &me->weights);
}

static int sketch_hard(cpu_state *cpu, const ghm_edges *edges, const ghm_batch *batch,
                       ghm_scan *out)
{
    ghm_plan plan = {edges->split, edges->n_cells, ghm_slot_count(edges), 0, edges->shift};
    int64_t blocks = block_count(batch);
    int threads = cpu->threads < blocks ? cpu->threads : (int)(blocks ? blocks : 1);
    int status = GHM_OK;
    plan.trash = plan.stride * (edges->task == GHM_REGRESSION ? 1 : 2);
    GHM_TRY(cpu_reserve_tables(cpu, (size_t)plan.trash + 1));
#pragma omp parallel num_threads(threads)
    {
        ghm_pair *table = cpu->tables[omp_get_thread_num()];
        ghm_cells *scratch = &cpu->scratch[omp_get_thread_num()];
        worker *me = new_worker();
        mark_splits(table, &plan, edges, GHM_SPLIT);
#pragma omp for schedule(static)
        for (int64_t block = 0; block < blocks; block++) {
            if (!me || me->status != GHM_OK) {
                continue;
            }
            if (ghm_interrupted()) {
                me->status = GHM_E_INTERRUPTED;
                continue;
            }
            int n = block_size(batch, block);
            fill_block(cpu, &plan, batch, block * GHM_BLOCK, n, me);
            ghm_ahead ahead = ghm_look_ahead(batch, (block + 2) * GHM_BLOCK);
            if (edges->n_sides > FEW_SPLITS) {
                cpu->kernels->settle(&plan, n, &me->block);
            }
            cpu->kernels->scatter(table, &me->block, n, &plan, &ahead);
            me->seen |= me->block.seen;
            me->taken += n;
            if (me->taken > GHM_DRAIN - GHM_BLOCK) {
                me->status = drain(table, &plan, edges, me->seen, scratch, me->cells);
                me->taken = 0;
                me->seen = 0;
                mark_splits(table, &plan, edges, GHM_SPLIT);
            }
        }
        int drained = me ? drain(table, &plan, edges, me->seen, scratch, me->cells) : GHM_E_MEMORY;
#pragma omp critical
        {
            int mine = me && me->status ? me->status : drained;
            for (int group = 0; group < 2 && mine == GHM_OK; group++) {
                mine = ghm_cells_take(&out->cells[group], &me->cells[group]);
            }
            if (me) {
                add_facts(&out->facts, &me->facts);
                ghm_weights_add(&out->weights, &me->weights);
                ghm_cells_free(&me->cells[0]);
                ghm_cells_free(&me->cells[1]);
            }
            status = status ? status : mine;
        }
        free(me);
    }
    if (status == GHM_E_MEMORY) {
        cpu_drop_tables(cpu); /* an undrained table must not leak into the next pass */
    }
    return cpu_end_of_pass(status);
}

/* Adds one block to the sums per interval of g. */
static void add_soft_block(const ghm_edges *edges, int64_t begin, int n, worker *me, ghm_soft *soft)
{
    const ghm_buffers *b = &me->buffers;
    me->block.valid = me->block.uneven = 0;
    for (int i = 0; i < n; i++) {
        if (!(b->w[i] > 0)) {
            continue;
        }
        me->block.valid++;
        me->block.uneven |= b->w[i] != 1;
        if (!(b->t[i] >= 0 && b->t[i] <= 1)) {
            me->facts.soft++; /* a target that is no probability: see ghm_judge */
            first_of(&me->facts.first_soft, begin + i);
            continue;
        }
        double g = fabs(ghm_soft_slope(b->x[i], b->t[i]));
        int64_t low = 0, high = edges->n_thresholds;
        while (low < high) {
            int64_t middle = (low + high) / 2;
            if (edges->norms[middle] <= g) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        soft->n[low]++;
        soft->bce[low] += ghm_soft_bce(b->x[i], b->t[i]);
        soft->norm[low] += g;
    }
    me->facts.valid += me->block.valid;
    add_weights(b->w, n, &me->block, &me->weights);
}

/* Sums of doubles depend on their order, so each chunk is summed alone and chunks are added in
 * their order: the same bits for any number of threads. */
static int sketch_soft(cpu_state *cpu, const ghm_edges *edges, const ghm_batch *batch,
                       ghm_scan *out)
{
    enum { CHUNK = 32 }; /* blocks */
    int64_t blocks = block_count(batch), intervals = edges->n_thresholds + 1;
    int64_t chunks = (blocks + CHUNK - 1) / CHUNK;
    int status = GHM_OK;
#pragma omp parallel for ordered schedule(static, 1) num_threads(cpu->threads)
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        ghm_soft soft = {0};
        worker *me = new_worker();
        int mine = me ? ghm_soft_new(intervals, &soft) : GHM_E_MEMORY;
        int64_t end = (chunk + 1) * CHUNK < blocks ? (chunk + 1) * CHUNK : blocks;
        mine = ghm_interrupted() ? GHM_E_INTERRUPTED : mine;
        for (int64_t block = chunk * CHUNK; mine == GHM_OK && block < end; block++) {
            int64_t begin = block * GHM_BLOCK;
            int n = block_size(batch, block);
            ghm_load_block(cpu->kernels, batch, begin, n, &me->buffers);
            ghm_inspect_block(batch, begin, n, &me->buffers, &me->facts);
            add_soft_block(edges, begin, n, me, &soft);
        }
#pragma omp ordered
        {
            if (mine == GHM_OK) {
                add_facts(&out->facts, &me->facts);
                ghm_weights_add(&out->weights, &me->weights);
                ghm_soft_add(&out->soft, &soft, intervals);
            }
            status = status ? status : mine;
        }
        ghm_soft_free(&soft);
        free(me);
    }
    return cpu_end_of_pass(status);
}

int cpu_sketch(void *state, const ghm_edges *edges, const ghm_batch *batch, ghm_scan *out)
{
    out->facts = no_facts;
    out->facts.samples = batch->rows * batch->cols;
    return batch->target_form == GHM_SOFT ? sketch_soft(state, edges, batch, out)
                                          : sketch_hard(state, edges, batch, out);
}
