/*
 * facts.cuh - what a pass sees on its way: the same counts and first positions as on the CPU, and
 * the weights' exact sum. Counts stay in registers; a warp adds them up once, when it is done.
 */
#ifndef GHM_FACTS_CUH
#define GHM_FACTS_CUH

#include "samples.cuh"

#define NOWHERE 0xffffffffu

struct tally {
    uint32_t valid, positive, unit, nonfinite, soft;
    uint32_t first_nonfinite, first_soft; /* in the part */
};

static __device__ __forceinline__ tally no_tally()
{
    tally fresh = {0, 0, 0, 0, 0, NOWHERE, NOWHERE};
    return fresh;
}

static __device__ __forceinline__ void count_soft(uint32_t i, tally &seen)
{
    seen.soft++;
    seen.first_soft = i < seen.first_soft ? i : seen.first_soft;
}

/* Whether a sample counts; sample i of the part. One that is not finite does not. */
static __device__ __forceinline__ bool inspect(const job_part &part, uint32_t i, float x, float t,
                                               float w, tally &seen)
{
    bool boxes = part.task == GHM_REGRESSION, used = w > 0;
    bool finite = boxes ? is_finite(x - t) : is_finite(x) && is_finite(t);
    if (!is_finite(w) || (used && !finite)) {
        seen.nonfinite++;
        seen.first_nonfinite = i < seen.first_nonfinite ? i : seen.first_nonfinite;
        return false;
    }
    if (used && !boxes && part.target_form == GHM_DENSE && t != 0 && t != 1) {
        count_soft(i, seen);
    }
    seen.valid += used;
    seen.positive += used && !boxes && part.target_form != GHM_SOFT && t == 1;
    seen.unit += used && w == 1;
    return used;
}

static __device__ __forceinline__ void note_first(uint64_t *first, int64_t position)
{
    max64(first, ~static_cast<uint64_t>(position));
}

static __device__ __forceinline__ void add_tally(const job_part &part, const tally &seen,
                                                 job_totals *totals)
{
    uint32_t valid = warp_sum(seen.valid), positive = warp_sum(seen.positive);
    uint32_t unit = warp_sum(seen.unit), nonfinite = warp_sum(seen.nonfinite);
    uint32_t soft = warp_sum(seen.soft);
    if (lane_number() == 0) {
        add64(&totals->valid, valid);
        add64(&totals->positive, positive);
        add64(&totals->units[127], static_cast<uint64_t>(unit) << 23);
        add64(&totals->nonfinite, nonfinite);
        add64(&totals->soft, soft);
    }
    if (seen.first_nonfinite != NOWHERE) {
        note_first(&totals->first_nonfinite, part.begin + seen.first_nonfinite);
    }
    if (seen.first_soft != NOWHERE) {
        note_first(&totals->first_soft, part.begin + seen.first_soft);
    }
}

/* Whether any sample of a row is valid: in a row without, a label may be anything. */
static __device__ __forceinline__ bool row_in_use(const job_part &part, uint32_t row, uint32_t i)
{
    bool used = !part.weight;
    if (part.weight && part.weight_per_row) {
        used = float_at(part.weight, part.weight_dtype, row) > 0;
    }
    for (uint32_t k = 0; part.weight && !part.weight_per_row && k < part.cols && !used; k++) {
        used = float_at(part.weight, part.weight_dtype, static_cast<size_t>(i) + k) > 0;
    }
    return used;
}

/* Counts labels beyond the classes at the first samples of their rows, which i .. i + 3 may hold.
 * A part of a batch with labels begins and ends with whole rows. */
static __device__ __forceinline__ void check_labels(const job_part &part, uint32_t i,
                                                    job_totals *totals)
{
    if (part.target_form != GHM_ZERO_BASED && part.target_form != GHM_ONE_BASED) {
        return;
    }
    uint32_t row = (part.col + i) / part.cols, col = (part.col + i) % part.cols;
    for (int k = 0; k < JOB_GROUP && i + k < part.n; k++) {
        if (col == 0 && label_at(part, row) > part.cols && row_in_use(part, row, i + k)) {
            add64(&totals->bad_labels, 1);
            note_first(&totals->first_bad_label, part.begin / part.cols + row);
        }
        if (++col == part.cols) {
            col = 0;
            row++;
        }
    }
}

/* A block's sums of significands per exponent, as two words each. */
struct block_units {
    uint32_t *low, *high; /* [256], shared */
};

static __device__ __forceinline__ void clear_units(const block_units &units)
{
    for (uint32_t e = threadIdx.x; e < 256; e += blockDim.x) {
        units.low[e] = units.high[e] = 0;
    }
}

/* Adds weights other than 1 of a whole warp, those of one exponent together. */
static __device__ __forceinline__ void add_units(float w, bool used, const block_units &units)
{
    uint32_t bits = ghm_bits(w), exponent = bits >> 23, lane = lane_number();
    uint32_t significand = (bits & 0x7fffffu) | (exponent ? 0x800000u : 0);
    uint32_t left = __ballot_sync(ALL_LANES, used && w != 1);
    while (left) {
        int leader = __ffs(static_cast<int>(left)) - 1;
        uint32_t shared = __shfl_sync(ALL_LANES, exponent, leader);
        uint32_t same = __ballot_sync(ALL_LANES, (left >> lane & 1) && exponent == shared);
        uint32_t sum = warp_sum(same >> lane & 1 ? significand : 0);
        if (lane == static_cast<uint32_t>(leader)) {
            uint32_t before = atomicAdd(&units.low[exponent], sum);
            if (before + sum < before) {
                atomicAdd(&units.high[exponent], 1u);
            }
        }
        left &= ~same;
    }
}

/* After a barrier. */
static __device__ __forceinline__ void flush_units(const block_units &units, job_totals *totals)
{
    for (uint32_t e = threadIdx.x; e < 256; e += blockDim.x) {
        uint64_t sum = static_cast<uint64_t>(units.high[e]) << 32 | units.low[e];
        if (sum) {
            add64(&totals->units[e], sum);
        }
    }
}

#endif
