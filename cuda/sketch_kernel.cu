/*
 * sketch_kernel.cu - samples to slots, and their sums to a table.
 *
 * Reading 12 bytes a sample at 4.3 TB/s leaves a multiprocessor of an H200 21 cycles for 32 samples,
 * so the three sums of a sample cannot go to global memory (a RED each: about ten times too many).
 * They go to 32-bit words in shared memory, two for the three of them, whose carries are counted beside:
 *
 * - A block has a table of lines. A slot takes the line that its number leads to, or the one half a
 *   table away, and keeps it; slots without a line add to global memory. Eight thousand lines hold
 *   eight binades of cells, or four of either sign, and the busiest slots come first.
 * - The line knows its slot's entry in the split table, which would otherwise be read for each sample.
 * - Lanes of one warp that hit one slot would wait for one another: they add up first, by two
 *   elections, so that a table of one or two hot slots is not slower than a spread one.
 * - A thread takes four samples at a time, whose look-ups and additions do not wait for one another,
 *   and most of which need no more than that. For sm_90, 32 such samples are 81 instructions; in the 21
 *   cycles 84 can be issued.
 *
 * All of it is integer addition, so no order matters. This is reasoning: nothing of it was measured.
 */
#include "facts.cuh"

#define NO_LINE   0xffffffffu
#define EMPTY     (~static_cast<uint64_t>(0))
#define ELECTIONS 2
#define FEW       4 /* lanes that gain nothing from adding up first */
#define SQUARES   22

/* A block's table. key: the split entry above the slot's place in the global table. Samples and their
 * squares are one number, n << SQUARES plus the sum of squares, for one addition instead of two. */
struct lines {
    uint64_t *key;
    uint32_t *both, *offsets;    /* modulo 2^32, of which */
    uint32_t *wraps;             /* so much went beyond: of offsets << 16 | of both */
    uint32_t *from_squares_to_n; /* so often the sum of squares reached into n */
};

extern __shared__ uint64_t block_memory[];

static __device__ __forceinline__ lines lines_of(uint32_t count, block_units &units)
{
    lines own;
    own.key = block_memory;
    own.both = reinterpret_cast<uint32_t *>(own.key + count);
    own.offsets = own.both + count;
    own.wraps = own.offsets + count;
    own.from_squares_to_n = own.wraps + count;
    units.low = own.from_squares_to_n + count;
    units.high = units.low + 256;
    return own;
}

/* Whose line it is. Another thread may be taking it: then this is EMPTY or the slot's, never a mix,
 * and whoever finds EMPTY asks again with a compare and swap. */
static __device__ __forceinline__ uint64_t owner_of(const lines &own, uint32_t line)
{
    return *const_cast<volatile uint64_t *>(&own.key[line]);
}

/* The line of a slot, taken if it is free, or NO_LINE; and the slot's entry in the split table. */
static __device__ __forceinline__ uint32_t find_line(const job_sketch &job, const lines &own,
                                                     uint32_t slot, uint32_t place, uint32_t home,
                                                     uint32_t *entry)
{
    for (int probe = 0; probe < 2; probe++, home ^= job.lines / 2) {
        uint64_t key = owner_of(own, home);
        if (key == EMPTY) {
            uint64_t mine = static_cast<uint64_t>(job.split[slot]) << 32 | place;
            key = atomicCAS(reinterpret_cast<unsigned long long *>(&own.key[home]), EMPTY, mine);
            key = key == EMPTY ? mine : key;
        }
        if (static_cast<uint32_t>(key) == place) {
            *entry = static_cast<uint32_t>(key >> 32);
            return home;
        }
    }
    *entry = job.split[slot];
    return NO_LINE;
}

/* The line that a slot looks at first; keys of x below and above 0 half a table apart. */
static __device__ __forceinline__ uint32_t home_of(const job_sketch &job, uint32_t slot, bool below)
{
    return (slot ^ (below ? job.lines / 2 : 0)) & (job.lines - 1);
}

/* From edge to edge inside the key's cell. Returns the line; *place, in the global table, is `group`
 * above the slot. */
static __device__ __forceinline__ uint32_t find_slot(const job_sketch &job, const lines &own,
                                                     uint32_t key, uint32_t group, bool below,
                                                     uint32_t *place)
{
    uint32_t slot = key >> job.shift, low = key & ((1u << job.shift) - 1), entry, line;
    do {
        *place = slot + group;
        line = find_line(job, own, slot, *place, home_of(job, slot, below), &entry);
    } while (ghm_step(entry, low, job.shift, job.n_cells, &slot));
    return line;
}

/* Four samples of a thread on their way into a table. */
struct addends {
    uint32_t place[JOB_GROUP]; /* NOWHERE: not used, or added already */
    uint32_t line[JOB_GROUP], offset[JOB_GROUP], square[JOB_GROUP];
};

/* What a look at a slot's first line tells: whether it is the slot's, and then the slot's entry. */
struct glance {
    uint32_t line, entry;
    bool own;
};

static __device__ __forceinline__ glance look(const job_sketch &job, const lines &own,
                                              uint32_t slot, uint32_t place, bool below)
{
    uint32_t line = home_of(job, slot, below);
    uint64_t owner = owner_of(own, line);
    return {line, static_cast<uint32_t>(owner >> 32), static_cast<uint32_t>(owner) == place};
}

/* Where four samples belong; bit k of used: whether sample k counts. Nearly all slots have their first
 * line, where they are found at a glance, or at two beyond an edge; four glances do not wait for one
 * another. No && between conditions here: branches would cost more than they save. */
template <bool BOXES>
static __device__ __forceinline__ addends find_four(const job_sketch &job, const lines &own,
                                                    const four_samples &four, uint32_t used)
{
    addends out;
    glance seen[JOB_GROUP];
    uint32_t key[JOB_GROUP], low[JOB_GROUP], slot[JOB_GROUP], group[JOB_GROUP];
    uint32_t found = 0;
    bool below[JOB_GROUP], beyond = false;
    for (int k = 0; k < JOB_GROUP; k++) {
        float x = four.x[k], t = four.t[k];
        bool positive = !BOXES && t == 1, exact = !BOXES || !(used >> k & 1);
        key[k] = BOXES ? ghm_bits(x - t) & ~SIGN : ghm_bits(x) ^ (positive ? SIGN : 0);
        below[k] = !BOXES && ghm_bits(x) >> 31;
        low[k] = key[k] & ((1u << job.shift) - 1);
        slot[k] = key[k] >> job.shift;
        group[k] = positive ? job.stride : 0;
        out.offset[k] = exact ? ghm_offset(low[k]) : ghm_offset_of_difference(low[k], x, t);
        out.square[k] = ghm_square(low[k]);
        seen[k] = look(job, own, slot[k], slot[k] + group[k], below[k]);
    }
    for (int k = 0; k < JOB_GROUP; k++) {
        bool past = ghm_is_beyond(seen[k].entry, low[k], job.shift);
        beyond |= seen[k].own & past;
        found |= seen[k].own & !past ? 1u << k : 0;
    }
    if (__any_sync(ALL_LANES, beyond)) {
        for (int k = 0; k < JOB_GROUP; k++) {
            ghm_step(seen[k].own ? seen[k].entry : 0, low[k], job.shift, job.n_cells, &slot[k]);
            seen[k] = look(job, own, slot[k], slot[k] + group[k], below[k]);
            bool past = ghm_is_beyond(seen[k].entry, low[k], job.shift);
            found |= seen[k].own & !past ? 1u << k : 0;
        }
    }
    for (int k = 0; k < JOB_GROUP; k++) {
        uint32_t place = slot[k] + group[k];
        out.line[k] = seen[k].line;
        if (used & ~found & 1u << k) {
            out.line[k] = find_slot(job, own, key[k], group[k], below[k], &place);
        }
        out.place[k] = used >> k & 1 ? place : NOWHERE;
    }
    __syncwarp();
    return out;
}

/* Adds to the counters of a line, or of the global table. *before: what the line's sums were. */
static __device__ __forceinline__ void add_to_slot(const job_sketch &job, const lines &own,
                                                   uint32_t line, uint32_t place, uint32_t n,
                                                   uint32_t offsets, uint32_t squares,
                                                   uint2 *before)
{
    if (line == NO_LINE) {
        job.touched[place / JOB_TILE] = 1;
        add64(&job.table[place].n, n);
        add64(&job.table[place].offsets, offsets);
        add64(&job.table[place].squares, squares);
        return;
    }
    before->x = atomicAdd(&own.both[line], n << SQUARES | squares);
    before->y = atomicAdd(&own.offsets[line], offsets);
}

/* What the addition of n samples to a line's sums has carried. */
struct carries {
    bool offsets, both, from_squares_to_n;
};

static __device__ __forceinline__ carries carries_of(uint32_t n, uint32_t offsets, uint32_t squares,
                                                     uint2 before)
{
    const uint32_t most = (1u << SQUARES) - 1;
    return {before.y > ~offsets, before.x > ~(n << SQUARES | squares),
            (before.x & most) + squares > most};
}

/* Whether one sample may have: quickly, and rarely for nothing. Its offset is below 2^19, its square
 * below 2^14. */
static __device__ __forceinline__ bool may_carry(uint32_t square, uint2 before)
{
    const uint32_t most = (1u << SQUARES) - 1;
    return (before.y > ~(1u << 19)) | (before.x > ~((1u << SQUARES) + (1u << 14))) |
           ((before.x & most) + square > most);
}

static __device__ __forceinline__ void carry(const lines &own, uint32_t line, carries what)
{
    uint32_t wraps = (what.offsets ? 1u << 16 : 0) + (what.both ? 1u : 0);
    if (wraps) {
        atomicAdd(&own.wraps[line], wraps);
    }
    if (what.from_squares_to_n) {
        atomicAdd(&own.from_squares_to_n[line], 1u);
    }
}

/* Adds what a whole warp has to add to one slot, if that is much of it; false if there is no such slot.
 * 128 offsets stay below 2^26, 128 squares below 2^21. */
static __device__ __forceinline__ bool add_elected(const job_sketch &job, const lines &own,
                                                   addends &some)
{
    uint32_t mine = NOWHERE, line = NO_LINE, n = 0, offsets = 0, squares = 0;
    for (int k = JOB_GROUP - 1; k >= 0; k--) {
        mine = some.place[k] != NOWHERE ? some.place[k] : mine;
    }
    uint32_t candidates = __ballot_sync(ALL_LANES, mine != NOWHERE);
    int leader = candidates ? __ffs(static_cast<int>(candidates)) - 1 : 0;
    uint32_t elected = __shfl_sync(ALL_LANES, mine, leader);
    uint32_t voters = __ballot_sync(ALL_LANES, mine == elected);
    if (elected == NOWHERE || __popc(voters) < FEW) {
        return false;
    }
    for (int k = 0; k < JOB_GROUP; k++) {
        if (some.place[k] == elected) {
            n++;
            offsets += some.offset[k];
            squares += some.square[k];
            line = some.line[k];
            some.place[k] = NOWHERE;
        }
    }
    n = warp_sum(n);
    offsets = warp_sum(offsets);
    squares = warp_sum(squares);
    if (lane_number() == static_cast<uint32_t>(leader)) {
        uint2 before = {0, 0};
        add_to_slot(job, own, line, elected, n, offsets, squares, &before);
        carry(own, line, carries_of(n, offsets, squares, before));
    }
    return true;
}

/* Adds four samples of each lane of a whole warp. */
static __device__ __forceinline__ void add_samples(const job_sketch &job, const lines &own,
                                                   addends some)
{
    uint2 before[JOB_GROUP];
    bool carried = false;
    for (int round = 0; round < ELECTIONS && add_elected(job, own, some); round++) {
    }
    for (int k = 0; k < JOB_GROUP; k++) {
        before[k].x = before[k].y = 0;
        if (some.place[k] != NOWHERE) {
            add_to_slot(job, own, some.line[k], some.place[k], 1, some.offset[k], some.square[k],
                        &before[k]);
        }
    }
    for (int k = 0; k < JOB_GROUP; k++) { /* now that all are on their way */
        carried |= may_carry(some.square[k], before[k]);
    }
    for (int k = 0; k < JOB_GROUP && carried; k++) {
        carry(own, some.line[k], carries_of(1, some.offset[k], some.square[k], before[k]));
    }
}

/* Which of four samples count, as bits. Most have finite numbers, a weight of 0 or 1 and a hard target;
 * a warp that holds any other looks at each sample. */
template <bool BOXES>
static __device__ __forceinline__ uint32_t inspect_four(const job_sketch &job,
                                                        const block_units &units, uint32_t i,
                                                        const four_samples &four, tally &seen)
{
    uint32_t used = 0, positive = 0;
    bool plain = true;
    for (int k = 0; k < JOB_GROUP; k++) {
        float x = four.x[k], t = four.t[k], w = four.w[k];
        bool fine = BOXES ? is_finite(x - t) : is_finite(x) & ((t == 0) | (t == 1));
        plain &= (w == 0) | ((w == 1) & fine);
        used |= w == 1 ? 1u << k : 0;
        positive |= !BOXES && t == 1 ? 1u << k : 0;
    }
    if (!__any_sync(ALL_LANES, !plain)) {
        seen.valid += static_cast<uint32_t>(__popc(used));
        seen.unit += static_cast<uint32_t>(__popc(used));
        seen.positive += static_cast<uint32_t>(__popc(used & positive));
        return used;
    }
    used = 0;
    for (int k = 0; k < JOB_GROUP; k++) {
        bool counts = inspect(job.part, i + k, four.x[k], four.t[k], four.w[k], seen);
        used |= counts ? 1u << k : 0;
        if (__any_sync(ALL_LANES, counts && four.w[k] != 1)) {
            add_units(four.w[k], counts, units);
        }
    }
    return used;
}

template <bool BOXES> static __device__ __forceinline__ void sketch(const job_sketch &job)
{
    block_units units;
    lines own = lines_of(job.lines, units);
    for (uint32_t line = threadIdx.x; line < job.lines; line += blockDim.x) {
        own.key[line] = EMPTY;
        own.both[line] = own.offsets[line] = own.wraps[line] = own.from_squares_to_n[line] = 0;
    }
    clear_units(units);
    __syncthreads();
    tally seen = no_tally();
    uint32_t group = blockDim.x * JOB_GROUP;
    for (uint32_t first = blockIdx.x * group; first < job.part.n; first += gridDim.x * group) {
        uint32_t i = first + threadIdx.x * JOB_GROUP; /* warps stay whole, also at the end */
        four_samples four = read_samples(job.part, i);
        check_labels(job.part, i, job.totals);
        uint32_t used = inspect_four<BOXES>(job, units, i, four, seen);
        add_samples(job, own, find_four<BOXES>(job, own, four, used));
    }
    add_tally(job.part, seen, job.totals);
    __syncthreads();
    for (uint32_t line = threadIdx.x; line < job.lines; line += blockDim.x) {
        uint64_t low_squares = own.both[line] & ((1u << SQUARES) - 1), wraps = own.wraps[line];
        uint64_t squares = static_cast<uint64_t>(own.from_squares_to_n[line]) << SQUARES |
                           low_squares;
        uint64_t n = (((wraps & 0xffff) << 32 | own.both[line]) - squares) >> SQUARES;
        if (n) {
            uint32_t place = static_cast<uint32_t>(own.key[line]);
            ghm_cell *cell = &job.table[place];
            job.touched[place / JOB_TILE] = 1;
            add64(&cell->n, n);
            add64(&cell->offsets, wraps >> 16 << 32 | own.offsets[line]);
            add64(&cell->squares, squares);
        }
    }
    flush_units(units, job.totals);
}

extern "C" {

__global__ void __launch_bounds__(JOB_SKETCH_THREADS, 1) ghm_sketch_classes(const job_sketch job)
{
    sketch<false>(job);
}

__global__ void __launch_bounds__(JOB_SKETCH_THREADS, 1) ghm_sketch_boxes(const job_sketch job)
{
    sketch<true>(job);
}

cudaError_t job_sketch_prepare(size_t shared)
{
    cudaError_t status = cudaFuncSetAttribute(reinterpret_cast<const void *>(ghm_sketch_classes),
                                              cudaFuncAttributeMaxDynamicSharedMemorySize,
                                              static_cast<int>(shared));
    if (status != cudaSuccess) {
        return status;
    }
    return cudaFuncSetAttribute(reinterpret_cast<const void *>(ghm_sketch_boxes),
                                cudaFuncAttributeMaxDynamicSharedMemorySize,
                                static_cast<int>(shared));
}

cudaError_t job_sketch_start(const job_sketch *job, uint32_t blocks, cudaStream_t stream)
{
    return start(job->part.task == GHM_REGRESSION ? ghm_sketch_boxes : ghm_sketch_classes, *job,
                 blocks, JOB_SKETCH_THREADS, job_sketch_shared(job->lines), stream);
}
}
