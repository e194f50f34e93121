/*
 * cpu_sketch.c - the sketch pass on the CPU.
 *
 * Each thread owns a table with a slot for every cell (zero pages until touched) and adds blocks to
 * it; at the end all of them together become one sorted list of cells. All of it is integer addition,
 * so neither threads nor order change a bit.
 */
#include "cpu.h"
#include "formula.h"

#include <omp.h>
#include <stdlib.h>

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

void cpu_first_of(int64_t *first, int64_t other)
{
    *first = *first < 0 || (other >= 0 && other < *first) ? other : *first;
}

void cpu_add_facts(ghm_facts *into, const ghm_facts *from)
{
    into->valid += from->valid;
    into->positive += from->positive;
    into->nonfinite += from->nonfinite;
    into->soft += from->soft;
    into->bad_labels += from->bad_labels;
    cpu_first_of(&into->first_nonfinite, from->first_nonfinite);
    cpu_first_of(&into->first_soft, from->first_soft);
    cpu_first_of(&into->first_bad_label, from->first_bad_label);
}

const ghm_facts cpu_no_facts = {.first_nonfinite = -1, .first_soft = -1, .first_bad_label = -1};

/* One thread's share of a pass. */
typedef struct worker {
    ghm_buffers buffers;
    ghm_block block;
    ghm_facts facts;
    ghm_weights weights;
    uint32_t seen;      /* of the blocks */
    ghm_cells cells[2]; /* of patterns, and how many samples were counted since */
    int64_t counted;
    bool odd; /* of sketch_pass */
    int status;
} worker;

static worker *new_worker(void)
{
    worker *fresh = aligned_alloc(64, sizeof *fresh);
    if (fresh) {
        memset(fresh, 0, sizeof *fresh);
        fresh->facts = cpu_no_facts;
    }
    return fresh;
}

/* What is known of a loaded block. */
static void note_block(worker *me, int n)
{
    const ghm_buffers *b = &me->buffers;
    cpu_first_of(&me->facts.first_bad_label, b->first_bad_label);
    me->facts.bad_labels += b->bad_labels;
    me->facts.valid += me->block.valid;
    me->facts.positive += me->block.positive;
    add_weights(b->pw, n, &me->block, &me->weights);
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
    note_block(me, n);
}

/* A pass over hard targets, by every thread. */
typedef struct sketch_pass {
    cpu_state *cpu;
    const ghm_edges *edges;
    const ghm_batch *batch;
    ghm_plan plan;
    bool patterns; /* count 16-bit patterns instead of adding to cells */
    bool odd;      /* then: something is not finite, or not hard, and where is yet to be found */
    uint32_t seen; /* by all threads */
} sketch_pass;

/* Adds one block of 16-bit logits to the counts of their patterns. */
static void count_block(const sketch_pass *pass, int64_t begin, int n, ghm_table *table, worker *me)
{
    cpu_count_patterns(pass->cpu->kernels, pass->batch, begin, n, (uint32_t *)table->words,
                       &me->buffers, &me->block);
    me->odd |= me->block.suspect != 0;
    note_block(me, n);
}

static void add_block(const sketch_pass *pass, int64_t begin, int n, ghm_table *table, worker *me)
{
    const ghm_kernels *kernels = pass->cpu->kernels;
    ghm_ahead ahead = ghm_look_ahead(pass->batch, begin + 3 * GHM_BLOCK);
    fill_block(pass->cpu, &pass->plan, pass->batch, begin, n, me);
    if (!pass->plan.watch) {
        kernels->settle(&pass->plan, n, &me->block);
    }
    kernels->scatter(&pass->plan, &me->block, n, &ahead, table);
    me->seen |= me->block.seen;
}

static int take_patterns(const sketch_pass *pass, const ghm_table *table, worker *me)
{
    me->counted = 0;
    return cpu_take_patterns((uint32_t *)table->words, pass->batch->pred_dtype, pass->edges,
                             me->cells, &me->odd);
}

/* Adds what a thread found to the whole; odd ones find nothing. */
static int collect(sketch_pass *pass, worker *me, ghm_scan *out)
{
    int status = me->status;
    for (int group = 0; group < 2 && status == GHM_OK; group++) {
        status = ghm_cells_take(&out->cells[group], &me->cells[group]);
    }
    pass->odd |= me->odd;
    pass->seen |= me->seen;
    cpu_add_facts(&out->facts, &me->facts);
    ghm_weights_add(&out->weights, &me->weights);
    ghm_cells_free(&me->cells[0]);
    ghm_cells_free(&me->cells[1]);
    return status;
}

static int run_pass(sketch_pass *pass, ghm_scan *out)
{
    enum { WORTH_WHILE = 32 }; /* blocks a thread: fewer do not repay reading its table */
    cpu_state *cpu = pass->cpu;
    int64_t blocks = block_count(pass->batch), most = blocks / WORTH_WHILE + 1;
    int threads = cpu->threads < most ? cpu->threads : (int)most;
    int status = GHM_OK;
#pragma omp parallel num_threads(threads)
    {
        ghm_table *table = &cpu->tables[omp_get_thread_num()];
        worker *me = new_worker();
        if (!pass->patterns) {
            cpu_watch_splits(table, &pass->plan, pass->edges, true);
        }
#pragma omp for schedule(static) nowait
        for (int64_t block = 0; block < blocks; block++) {
            if (!me || me->status != GHM_OK || me->odd) {
                continue;
            }
            if (ghm_interrupted()) {
                me->status = GHM_E_INTERRUPTED;
                continue;
            }
            (pass->patterns ? count_block : add_block)(pass, block * GHM_BLOCK,
                                                       block_size(pass->batch, block), table, me);
            me->counted += GHM_BLOCK;
            if (pass->patterns && me->counted > UINT32_MAX - GHM_BLOCK) {
                me->status = take_patterns(pass, table, me);
            }
        }
        int ended = me ? GHM_OK : GHM_E_MEMORY;
        if (me && pass->patterns) {
            ended = take_patterns(pass, table, me);
        }
#pragma omp critical
        {
            if (me) {
                me->status = me->status ? me->status : ended;
                ended = collect(pass, me, out);
            }
            status = status ? status : ended;
        }
        free(me);
    }
    if (!pass->patterns) {
        int drained = cpu_drain(cpu, threads, &pass->plan, pass->edges, pass->seen, out->cells);
        status = status ? status : drained;
    }
    if (status == GHM_E_MEMORY) {
        cpu_drop_tables(cpu); /* what is left in a table must not leak into the next pass */
    }
    return status;
}

static void reset_scan(const ghm_batch *batch, ghm_scan *out)
{
    ghm_cells_free(&out->cells[0]);
    ghm_cells_free(&out->cells[1]);
    out->facts = cpu_no_facts;
    out->facts.samples = batch->rows * batch->cols;
    out->weights = (ghm_weights){{0}};
}

static int sketch_hard(cpu_state *cpu, const ghm_edges *edges, const ghm_batch *batch,
                       ghm_scan *out)
{
    sketch_pass pass = {cpu, edges, batch, .patterns = cpu_has_patterns(batch)};
    uint32_t stride = ghm_slot_count(edges);
    uint32_t trash = stride * (edges->task == GHM_REGRESSION ? 1 : 2);
    pass.plan = (ghm_plan){edges->split, edges->n_cells, stride,
                           trash,        edges->shift,   .watch = edges->n_sides <= FEW_SPLITS};
    GHM_TRY(cpu_reserve_tables(cpu, (size_t)trash + GHM_TRASH));
    int status = run_pass(&pass, out);
    if (status == GHM_OK && pass.odd) {
        reset_scan(batch, out);
        pass.patterns = pass.odd = false;
        status = run_pass(&pass, out);
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
            cpu_first_of(&me->facts.first_soft, begin + i);
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
                cpu_add_facts(&out->facts, &me->facts);
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
    reset_scan(batch, out);
    return batch->target_form == GHM_SOFT ? sketch_soft(state, edges, batch, out)
                                          : sketch_hard(state, edges, batch, out);
}
