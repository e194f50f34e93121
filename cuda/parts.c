/* parts.c - see parts.h. */
#include "parts.h"

#include <omp.h>
#include <string.h>

#ifndef GHM_PART
#define GHM_PART (1 << 22) /* samples: 48 MB of float32, large enough for the bus's full rate */
#endif

enum {
    ALIGNED = 256,   /* where arrays begin in a part's memory */
    PIECE = 1 << 20, /* bytes that a thread copies at a time */
    RESIDENT_MOST = 1 << 30
};

/* -- which parts there are -------------------------------------------------------------------- */

int64_t parts_length(const parts_walk *walk, int64_t begin)
{
    int64_t left = walk->samples - begin;
    int64_t whole = walk->most > walk->multiple ? walk->most - walk->most % walk->multiple
                                                : walk->multiple;
    return left < whole ? left : whole;
}

/* Entries of an array that a part needs, from *first on. */
static int64_t entries_of(const parts_walk *walk, const parts_array *array, int64_t begin,
                          int64_t n, int64_t *first)
{
    *first = array->per_row ? begin / walk->cols : begin;
    return array->per_row ? (begin + n - 1) / walk->cols - *first + 1 : n;
}

/* Where each array begins in a part's memory, and the bytes of all of them. */
static size_t lay_out(const parts_walk *walk, int64_t begin, int64_t n, size_t at[PARTS_ARRAYS])
{
    size_t bytes = 0;
    for (int i = 0; i < PARTS_ARRAYS; i++) {
        const parts_array *array = &walk->arrays[i];
        int64_t first;
        at[i] = bytes;
        if ((array->from || array->to) && !array->resident) {
            bytes += (size_t)entries_of(walk, array, begin, n, &first) * array->size;
            bytes = (bytes + ALIGNED - 1) / ALIGNED * ALIGNED;
        }
    }
    return bytes;
}

/* Whether memory is on the device; it must then be on this one. */
static int find_place(cuda_state *cuda, const void *memory, bool *resident)
{
    struct cudaPointerAttributes found;
    CUDA_TRY(cuda, "the place of an array", cudaPointerGetAttributes(&found, memory));
    *resident = found.type == cudaMemoryTypeDevice || found.type == cudaMemoryTypeManaged;
    if (found.type == cudaMemoryTypeDevice && found.device != cuda->index) {
        return ghm_fail(GHM_E_DEVICE, "an array lies on cuda:%d, the pass runs on cuda:%d",
                        found.device, cuda->index);
    }
    return GHM_OK;
}

static int add_array(cuda_state *cuda, parts_walk *walk, int which, const void *from, void *to,
                     size_t size, bool per_row)
{
    parts_array *array = &walk->arrays[which];
    *array = (parts_array){.from = from, .to = to, .size = size, .per_row = per_row};
    return from || to ? find_place(cuda, from ? from : to, &array->resident) : GHM_OK;
}

int parts_of_batch(cuda_state *cuda, const ghm_batch *batch, parts_walk *walk)
{
    static const size_t sizes[] = {
        [GHM_F32] = 4, [GHM_F16] = 2, [GHM_BF16] = 2, [GHM_U8] = 1, [GHM_I32] = 4, [GHM_I64] = 8};
    bool labels = batch->target_form == GHM_ZERO_BASED || batch->target_form == GHM_ONE_BASED;
    bool per_row = batch->weight && batch->weight_per_row;
    if ((labels || per_row) && batch->cols > RESIDENT_MOST) {
        return ghm_fail(GHM_E_OVERFLOW, "rows of %lld columns, expected at most 2^30 on cuda",
                        (long long)batch->cols);
    }
    *walk = (parts_walk){
        .samples = batch->rows * batch->cols,
        .cols = labels || per_row ? batch->cols : 1, /* rows matter to no one else */
        .part = {.task = batch->task,
                 .target_form = batch->target_form,
                 .pred_dtype = batch->pred_dtype,
                 .target_dtype = batch->target_dtype,
                 .weight_dtype = batch->weight_dtype,
                 .weight_per_row = per_row,
                 .floats = batch->pred_dtype == GHM_F32 && batch->target_dtype == GHM_F32 &&
                           batch->weight && batch->weight_dtype == GHM_F32 && !per_row},
    };
    walk->multiple = batch->target_form == GHM_SOFT ? JOB_CHUNK : labels ? batch->cols : JOB_GROUP;
    if (walk->samples == 0) {
        return GHM_OK;
    }
    GHM_TRY(add_array(cuda, walk, PARTS_PRED, batch->pred, NULL, sizes[batch->pred_dtype], false));
    GHM_TRY(add_array(cuda, walk, PARTS_TARGET, batch->target, NULL, sizes[batch->target_dtype],
                      labels));
    return add_array(cuda, walk, PARTS_WEIGHT, batch->weight, NULL,
                     batch->weight ? sizes[batch->weight_dtype] : 0, per_row);
}

int parts_write(cuda_state *cuda, parts_walk *walk, int which, void *to, size_t size)
{
    return add_array(cuda, walk, PARTS_IN + which, NULL, walk->samples ? to : NULL, size, false);
}

/* -- copies ----------------------------------------------------------------------------------- */

/* By all threads: one alone neither fills the bus nor takes the page faults of a mapped file. */
static void copy(const cuda_state *cuda, char *to, const char *from, size_t bytes)
{
    int64_t pieces = (int64_t)((bytes + PIECE - 1) / PIECE);
#pragma omp parallel for schedule(static) num_threads(cuda->threads) if (pieces > 1)
    for (int64_t i = 0; i < pieces; i++) {
        size_t begin = (size_t)i * PIECE, left = bytes - begin;
        memcpy(to + begin, from + begin, left < PIECE ? left : PIECE);
    }
}

/* A part that is under way. */
typedef struct parts_step {
    cuda_slot *slot;
    int64_t begin, n;
    size_t at[PARTS_ARRAYS];
} parts_step;

/* Copies the arrays of a part from the caller to pinned memory and on, or results back. */
static int send(cuda_state *cuda, const parts_walk *walk, const parts_step *step)
{
    char *pinned = step->slot->pinned.at, *device = step->slot->device.at;
    for (int i = 0; i < PARTS_IN; i++) {
        const parts_array *array = &walk->arrays[i];
        if (array->from && !array->resident) {
            int64_t first, n = entries_of(walk, array, step->begin, step->n, &first);
            size_t bytes = (size_t)n * array->size, at = step->at[i];
            copy(cuda, pinned + at, (const char *)array->from + (size_t)first * array->size, bytes);
            CUDA_TRY(
                cuda, "copying a part to the device",
                cudaMemcpyAsync(device + at, pinned + at, bytes, cudaMemcpyHostToDevice, cuda->up));
        }
    }
    CUDA_TRY(cuda, "copying a part to the device", cudaEventRecord(step->slot->arrived, cuda->up));
    CUDA_TRY(cuda, "copying a part to the device",
             cudaStreamWaitEvent(cuda->work, step->slot->arrived, 0));
    return GHM_OK;
}

static bool is_result(const parts_array *array)
{
    return array->to && !array->resident;
}

static int fetch(cuda_state *cuda, const parts_walk *walk, const parts_step *step)
{
    const char *what = "copying a part's results";
    char *pinned = step->slot->pinned.at, *device = step->slot->device.at;
    CUDA_TRY(cuda, what, cudaEventRecord(step->slot->done, cuda->work));
    CUDA_TRY(cuda, what, cudaStreamWaitEvent(cuda->down, step->slot->done, 0));
    for (int i = PARTS_IN; i < PARTS_ARRAYS; i++) {
        if (is_result(&walk->arrays[i])) {
            CUDA_TRY(cuda, what,
                     cudaMemcpyAsync(pinned + step->at[i], device + step->at[i],
                                     (size_t)step->n * walk->arrays[i].size, cudaMemcpyDeviceToHost,
                                     cuda->down));
        }
    }
    CUDA_TRY(cuda, what, cudaEventRecord(step->slot->returned, cuda->down));
    return GHM_OK;
}

/* Waits until a part is done and its results are back, and hands them to the caller. */
static int settle(cuda_state *cuda, const parts_walk *walk, const parts_step *step)
{
    if (!step->slot) {
        return GHM_OK;
    }
    CUDA_TRY(cuda, "a part of the pass", cudaEventSynchronize(step->slot->returned));
    for (int i = PARTS_IN; i < PARTS_ARRAYS; i++) {
        const parts_array *array = &walk->arrays[i];
        if (is_result(array)) {
            copy(cuda, (char *)array->to + (size_t)step->begin * array->size,
                 (const char *)step->slot->pinned.at + step->at[i], (size_t)step->n * array->size);
        }
    }
    return GHM_OK;
}

/* -- the walk --------------------------------------------------------------------------------- */

/* Where the kernels find an array: in the part's memory or where it lies. */
static void *place_of(const parts_walk *walk, const parts_step *step, int which)
{
    const parts_array *array = &walk->arrays[which];
    int64_t first;
    if (!array->from && !array->to) {
        return NULL;
    }
    if (!array->resident) {
        return (char *)step->slot->device.at + step->at[which];
    }
    entries_of(walk, array, step->begin, step->n, &first);
    return (char *)(array->from ? (uintptr_t)array->from : (uintptr_t)array->to) +
           (size_t)first * array->size;
}

static int launch(cuda_state *cuda, parts_walk *walk, const parts_step *step)
{
    void *at[PARTS_ARRAYS];
    walk->part.aligned = 1;
    for (int i = 0; i < PARTS_ARRAYS; i++) {
        at[i] = place_of(walk, step, i);
        if (at[i] && !walk->arrays[i].per_row) { /* four entries are read at once */
            walk->part.aligned &= (uintptr_t)at[i] % (JOB_GROUP * walk->arrays[i].size) == 0;
        }
    }
    walk->part.pred = at[PARTS_PRED];
    walk->part.target = at[PARTS_TARGET];
    walk->part.weight = at[PARTS_WEIGHT];
    walk->part.begin = step->begin;
    walk->part.n = (uint32_t)step->n;
    walk->part.cols = (uint32_t)walk->cols;
    walk->part.col = (uint32_t)(step->begin % walk->cols);
    return walk->launch(cuda, walk, at + PARTS_IN);
}

int parts_run(cuda_state *cuda, parts_walk *walk)
{
    bool copies = false;
    for (int i = 0; i < PARTS_ARRAYS; i++) {
        const parts_array *array = &walk->arrays[i];
        copies |= (array->from || array->to) && !array->resident;
    }
    int64_t most = (int64_t)cuda->processors * JOB_SKETCH_MOST;
    most = copies ? GHM_PART : most < RESIDENT_MOST ? most : RESIDENT_MOST;
    walk->most = most;
    parts_step steps[CUDA_SLOTS] = {{0}};
    int turn = 0;
    for (int64_t begin = 0; begin < walk->samples; turn++) {
        parts_step *step = &steps[turn % CUDA_SLOTS];
        if (ghm_interrupted()) {
            return ghm_fail(GHM_E_INTERRUPTED, "interrupted");
        }
        if (copies) {
            GHM_TRY(settle(cuda, walk, step));
        }
        *step = (parts_step){
            &cuda->slots[turn % CUDA_SLOTS], begin, parts_length(walk, begin), {0}};
        if (copies) {
            size_t bytes = lay_out(walk, begin, step->n, step->at);
            GHM_TRY(cuda_reserve(cuda, &step->slot->pinned, bytes, true));
            GHM_TRY(cuda_reserve(cuda, &step->slot->device, bytes, false));
            GHM_TRY(send(cuda, walk, step));
        }
        GHM_TRY(launch(cuda, walk, step));
        if (copies) {
            GHM_TRY(fetch(cuda, walk, step));
        }
        begin += step->n;
    }
    for (int i = 0; i < CUDA_SLOTS && copies; i++, turn++) {
        GHM_TRY(settle(cuda, walk, &steps[turn % CUDA_SLOTS]));
    }
    return GHM_OK;
}
