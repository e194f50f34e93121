/* cuda_state.h - what the host's files of the CUDA backend share. */
#ifndef GHM_CUDA_STATE_H
#define GHM_CUDA_STATE_H

#include "../core/private.h"
#include "jobs.h"

/* Device memory that grows and is kept between calls; memory that the host pins likewise. */
typedef struct cuda_buffer {
    void *at;
    size_t bytes;
} cuda_buffer;

/* One of two places where a part of a batch stands on its way. */
typedef struct cuda_slot {
    cuda_buffer pinned, device;
    cudaEvent_t arrived, done, returned; /* copied up; computed; copied down */
} cuda_slot;

enum { CUDA_SLOTS = 2 };

typedef struct cuda_state {
    int index, threads;
    uint32_t processors;         /* multiprocessors */
    uint32_t lines;              /* of a sketch block's table */
    cudaStream_t up, work, down; /* copies to the device, kernels, copies back */
    cudaEvent_t began, ended;    /* the last pass, by the device's clock */
    cuda_slot slots[CUDA_SLOTS];
    cuda_buffer table;        /* of the sketch pass: all zero between passes, unless */
    bool table_used;          /* a pass ended early, */
    uint32_t table_slots;     /* or the next one wants another number of slots */
    cuda_buffer split, norms; /* of the edges below, to which this is a reference */
    ghm_edges *edges;
    job_totals *totals;         /* on the device */
    struct cuda_report *report; /* pinned: what a pass gives back */
    cuda_buffer cells;          /* pinned: see job_take */
    cuda_buffer chunks, sums, coefficients, ranks;
} cuda_state;

typedef struct cuda_report {
    job_totals totals;
    uint32_t found; /* cells */
    double sums[JOB_SUM_BLOCKS];
} cuda_report;

/* A status with a message for what CUDA said; what: "the sketch", in "cuda:0, WHAT: reason". */
int cuda_status(const cuda_state *cuda, cudaError_t error, const char *what);

#define CUDA_TRY(cuda, what, call)                      \
    do {                                                \
        cudaError_t error_ = (call);                    \
        if (error_ != cudaSuccess) {                    \
            return cuda_status((cuda), error_, (what)); \
        }                                               \
    } while (0)

/* At least so many bytes. Contents are lost when it grows; no stream may be using it then. */
int cuda_reserve(cuda_state *cuda, cuda_buffer *buffer, size_t bytes, bool pinned);
/* Fresh totals on the device, and the clock started. */
int cuda_begin(cuda_state *cuda);
/* Waits for everything; totals into facts. The only wait of a pass whose data is on the device. */
int cuda_end(cuda_state *cuda);
/* After cuda_end: the totals of the report as facts. */
void cuda_facts(const cuda_state *cuda, ghm_facts *facts);
/* Waits for whatever a failed pass has left in the streams. */
void cuda_drop(cuda_state *cuda);

/* Blocks that fill the device with groups of samples, for so many samples. */
uint32_t cuda_blocks(const cuda_state *cuda, uint32_t samples, uint32_t per_block, uint32_t most);

int cuda_sketch(void *state, const ghm_edges *edges, const ghm_batch *batch, ghm_scan *out);
int cuda_gradient(void *state, const ghm_batch *batch, const ghm_coefficients *c,
                  const ghm_outputs *out);
int cuda_exact(void *state, const ghm_batch *batch, double mu, double eps, double *density,
               double *loss);
int cuda_synth(void *state, const ghm_recipe *recipe, float *pred, float *target, float *weight);

#endif
