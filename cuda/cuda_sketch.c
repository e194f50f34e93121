/* cuda_sketch.c - starts the sketch pass, and makes of its table what the CPU makes of its own. */
#include "parts.h"

#include <stdlib.h>
#include <string.h>

#ifndef GHM_ROOM
#define GHM_ROOM (1 << 18) /* cells that are taken at once: more than data ever touched here */
#endif

enum { TAKE_BLOCKS = 8 }; /* on a multiprocessor */

/* -- hard targets ----------------------------------------------------------------------------- */

/* The split table of these edges on the device; that of the last ones is still there. */
static int send_edges(cuda_state *cuda, const ghm_edges *edges)
{
    const char *what = "copying the edges";
    if (cuda->edges && ghm_edges_equal(cuda->edges, edges)) {
        return GHM_OK;
    }
    ghm_edges_release(cuda->edges);
    cuda->edges = NULL;
    size_t bytes = ghm_slot_count(edges) * sizeof *edges->split;
    size_t norms = (size_t)edges->n_thresholds * sizeof *edges->norms;
    GHM_TRY(cuda_reserve(cuda, &cuda->split, bytes, false));
    GHM_TRY(cuda_reserve(cuda, &cuda->norms, norms + sizeof *edges->norms, false));
    CUDA_TRY(
        cuda, what,
        cudaMemcpyAsync(cuda->split.at, edges->split, bytes, cudaMemcpyHostToDevice, cuda->work));
    CUDA_TRY(
        cuda, what,
        cudaMemcpyAsync(cuda->norms.at, edges->norms, norms, cudaMemcpyHostToDevice, cuda->work));
    cuda->edges = (ghm_edges *)
        edges; /* kept by its count of references, which is all that changes */
    cuda->edges->references++;
    return GHM_OK;
}

static int start_sketch(cuda_state *cuda, parts_walk *walk, void *const *out)
{
    job_sketch *job = walk->context;
    (void)out;
    job->part = walk->part;
    uint32_t blocks = cuda_blocks(cuda, walk->part.n, JOB_SKETCH_THREADS * JOB_GROUP, 1);
    uint32_t least = (walk->part.n - 1) / JOB_SKETCH_MOST + 1; /* a part may be one long row */
    blocks = blocks > least ? blocks : least;
    CUDA_TRY(cuda, "the sketch", job_sketch_start(job, blocks, cuda->work));
    return GHM_OK;
}

/* Appends n cells; slots from `stride` on are those of positives. */
static int keep_cells(const ghm_cell *cells, uint32_t n, uint32_t stride, ghm_cells out[2])
{
    uint32_t negatives = 0;
    while (negatives < n && cells[negatives].slot < stride) {
        negatives++;
    }
    for (int group = 0; group < 2; group++) {
        int64_t more = group ? n - negatives : negatives;
        if (more == 0) {
            continue;
        }
        GHM_TRY(ghm_cells_reserve(&out[group], out[group].count + more));
        for (int64_t i = 0; i < more; i++) {
            ghm_cell cell = cells[i + (group ? negatives : 0)];
            cell.slot -= group ? stride : 0;
            ghm_cell_put(&out[group], out[group].count++, cell);
        }
    }
    return GHM_OK;
}

/* Empties the table into cells. Waits once, unless the data touched more cells than there is room. */
static int take_cells(cuda_state *cuda, const job_sketch *sketch, job_take *job, ghm_scan *out)
{
    uint32_t blocks = cuda_blocks(cuda, job->slots, JOB_TILE, TAKE_BLOCKS);
    do {
        CUDA_TRY(cuda, "the cells of the sketch", job_take_start(job, blocks, cuda->work));
        GHM_TRY(cuda_end(cuda));
        uint32_t found = cuda->report->found, n = found < GHM_ROOM ? found : GHM_ROOM;
        GHM_TRY(keep_cells(job->out, n, sketch->stride, out->cells));
    } while (cuda->report->found > GHM_ROOM);
    return GHM_OK;
}

/* The table, its tiles, and a place for its cells; zeros all of them unless they are. */
static int reserve(cuda_state *cuda, uint32_t slots, job_sketch *sketch, job_take *take)
{
    uint32_t tiles = (slots + JOB_TILE - 1) / JOB_TILE;
    size_t cells = slots * sizeof(ghm_cell), bytes = cells + 2 * tiles * sizeof(uint32_t);
    cuda->table_used |= cuda->table_slots != slots;
    GHM_TRY(cuda_reserve(cuda, &cuda->table, bytes, false));
    GHM_TRY(cuda_reserve(cuda, &cuda->cells, GHM_ROOM * sizeof(ghm_cell), true));
    if (cuda->table_used) {
        CUDA_TRY(cuda, "clearing the table", cudaMemsetAsync(cuda->table.at, 0, bytes, cuda->work));
    }
    cuda->table_used = true;
    cuda->table_slots = slots;
    sketch->table = cuda->table.at;
    sketch->touched = (uint32_t *)((char *)cuda->table.at + cells);
    *take = (job_take){.table = sketch->table,
                       .touched = sketch->touched,
                       .counts = sketch->touched + tiles,
                       .slots = slots,
                       .tiles = tiles,
                       .out = cuda->cells.at,
                       .found = &cuda->report->found,
                       .room = GHM_ROOM};
    return GHM_OK;
}

static int sketch_hard(cuda_state *cuda, const ghm_edges *edges, parts_walk *walk, ghm_scan *out)
{
    uint32_t slots = ghm_slot_count(edges) * (edges->task == GHM_REGRESSION ? 1 : 2);
    job_sketch job = {.split = cuda->split.at,
                      .totals = cuda->totals,
                      .n_cells = edges->n_cells,
                      .stride = ghm_slot_count(edges),
                      .lines = cuda->lines,
                      .shift = edges->shift};
    job_take take;
    GHM_TRY(reserve(cuda, slots, &job, &take));
    walk->launch = start_sketch;
    walk->context = &job;
    GHM_TRY(parts_run(cuda, walk));
    GHM_TRY(take_cells(cuda, &job, &take, out));
    cuda->table_used = false;
    return GHM_OK;
}

/* -- soft targets ----------------------------------------------------------------------------- */

enum { WAVE_BYTES = 64 << 20 }; /* of the sums of the chunks that are under way together */

static int start_soft(cuda_state *cuda, parts_walk *walk, void *const *out)
{
    job_soft *job = walk->context;
    (void)out;
    job->part = walk->part;
    uint32_t chunks = (walk->part.n + JOB_CHUNK - 1) / JOB_CHUNK;
    uint32_t wave = (uint32_t)(cuda->chunks.bytes / (3 * job->intervals * sizeof(double)));
    for (job->first = 0; job->first < chunks; job->first += job->n) {
        uint32_t left = chunks - job->first;
        job->n = left < wave ? left : wave;
        CUDA_TRY(cuda, "the sums of soft targets", job_soft_start(job, cuda->work));
    }
    return GHM_OK;
}

static int sketch_soft(cuda_state *cuda, const ghm_edges *edges, parts_walk *walk, ghm_scan *out)
{
    size_t intervals = (size_t)edges->n_thresholds + 1, bytes = 3 * intervals * sizeof(double);
    GHM_TRY(cuda_reserve(cuda, &cuda->chunks, bytes > WAVE_BYTES ? bytes : WAVE_BYTES, false));
    GHM_TRY(cuda_reserve(cuda, &cuda->sums, bytes, false));
    CUDA_TRY(cuda, "the sums of soft targets",
             cudaMemsetAsync(cuda->sums.at, 0, bytes, cuda->work));
    job_soft job = {.norms = cuda->norms.at,
                    .totals = cuda->totals,
                    .chunks = cuda->chunks.at,
                    .sums = cuda->sums.at,
                    .intervals = (uint32_t)intervals};
    walk->launch = start_soft;
    walk->context = &job;
    GHM_TRY(parts_run(cuda, walk));
    double *sums = malloc(bytes);
    if (!sums) {
        return ghm_fail(GHM_E_MEMORY, "no memory for %zu regions", intervals);
    }
    cudaError_t error = cudaMemcpyAsync(sums, cuda->sums.at, bytes, cudaMemcpyDeviceToHost,
                                        cuda->work);
    int status = error == cudaSuccess ? cuda_end(cuda) : cuda_status(cuda, error, "the sums");
    for (size_t i = 0; i < intervals && status == GHM_OK; i++) {
        out->soft.n[i] += (int64_t)sums[i];
        out->soft.bce[i] += sums[intervals + i];
        out->soft.norm[i] += sums[2 * intervals + i];
    }
    free(sums);
    return status;
}

/* -- the sketch pass -------------------------------------------------------------------------- */

static int scan(cuda_state *cuda, const ghm_edges *edges, const ghm_batch *batch, ghm_scan *out)
{
    parts_walk walk;
    GHM_TRY(cuda_begin(cuda));
    GHM_TRY(parts_of_batch(cuda, batch, &walk));
    GHM_TRY(send_edges(cuda, edges));
    GHM_TRY(batch->target_form == GHM_SOFT ? sketch_soft(cuda, edges, &walk, out)
                                           : sketch_hard(cuda, edges, &walk, out));
    cuda_facts(cuda, &out->facts);
    for (int e = 0; e < 256; e++) {
        out->weights.units[e] = cuda->report->totals.units[e];
    }
    return GHM_OK;
}

int cuda_sketch(void *state, const ghm_edges *edges, const ghm_batch *batch, ghm_scan *out)
{
    cuda_state *cuda = state;
    out->facts.samples = batch->rows * batch->cols;
    int status = scan(cuda, edges, batch, out);
    if (status != GHM_OK) {
        cuda_drop(cuda);
    }
    return status;
}
