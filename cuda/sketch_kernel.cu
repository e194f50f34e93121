/*
 * sketch_kernel.cu - samples to slots, and slots to a sorted list of cells.
 *
 * Reading 12 bytes a sample at 4.3 TB/s leaves a multiprocessor of an H200 21 cycles for 32 samples,
 * so the three sums of a sample cannot go to global memory (a RED each: about ten times too many).
 * They go to 32-bit counters in shared memory, whose carries are counted beside them:
 *
 * - A block has a table of lines. A slot takes the line that its number leads to, or the one half a
 *   table away, and keeps it; slots without a line add to global memory. Eight thousand lines hold
 *   eight binades of cells, or four of either sign, and the busiest slots come first.
 * - The line knows its slot's entry in the split table, which would otherwise be read for each sample.
 * - Lanes of one warp that hit one slot would wait for one another: they add up first, by two
 *   elections, so that a table of one or two hot slots is not slower than a spread one.
 *
 * All of it is integer addition, so no order matters. This is reasoning: nothing of it was measured.
 */
#include "facts.cuh"

#define NO_LINE   0xffffffffu
#define EMPTY     (~static_cast<uint64_t>(0))
#define ELECTIONS 2
#define FEW       4 /* lanes that gain nothing from adding up first */

/* A block's table. key: the split entry above the slot's place in the global table. */
struct lines {
    uint64_t *key;
    uint32_t *n, *offsets, *squares;
    uint32_t *carries; /* of offsets << 20 | of squares */
};

extern __shared__ uint64_t block_memory[];

static __device__ __forceinline__ lines lines_of(uint32_t count, block_units &units)
{
    lines own;
    own.key = block_memory;
    own.n = reinterpret_cast<uint32_t *>(own.key + count);
    own.offsets = own.n + count;
    own.squares = own.offsets + count;
    own.carries = own.squares + count;
    units.low = own.carries + count;
    units.high = units.low + 256;
    return own;
}

/* The line of a slot, taken if it is free, or NO_LINE; and the slot's entry in the split table. */
static __device__ __forceinline__ uint32_t find_line(const job_sketch &job, const lines &own,
                                                     uint32_t slot, uint32_t place, uint32_t home,
                                                     uint32_t *entry)
{
    for (int probe = 0; probe < 2; probe++, home ^= job.lines / 2) {
        uint64_t key = *const_cast<volatile uint64_t *>(&own.key[home]);
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

/* From edge to edge inside the key's cell. Returns the line; *place is in the global table. */
static __device__ __forceinline__ uint32_t find_slot(const job_sketch &job, const lines &own,
                                                     uint32_t key, bool positive, uint32_t *place)
{
    uint32_t slot = key >> job.shift, low = key & ((1u << job.shift) - 1), entry, line;
    uint32_t group = positive ? job.stride : 0;
    uint32_t fold = (key >> 31) ^ positive ? job.lines / 2 : 0;
    do {
        *place = slot + group;
        line = find_line(job, own, slot, *place, (slot ^ fold) & (job.lines - 1), &entry);
    } while (ghm_step(entry, low, job.shift, job.n_cells, &slot));
    return line;
}

static __device__ __forceinline__ void add_to_slot(const job_sketch &job, const lines &own,
                                                   uint32_t line, uint32_t place, uint32_t n,
                                                   uint32_t offsets, uint32_t squares)
{
    if (line == NO_LINE) {
        job.touched[place / JOB_TILE] = 1;
        add64(&job.table[place].n, n);
        add64(&job.table[place].offsets, offsets);
        add64(&job.table[place].squares, squares);
        return;
    }
    atomicAdd(&own.n[line], n);
    uint32_t before = atomicAdd(&own.offsets[line], offsets);
    if (before + offsets < before) {
        atomicAdd(&own.carries[line], 1u << 20);
    }
    before = atomicAdd(&own.squares[line], squares);
    if (before + squares < before) {
        atomicAdd(&own.carries[line], 1u);
    }
}

/* Adds the samples of a whole warp. 32 offsets stay below 2^24 and 32 squares below 2^19. */
static __device__ __forceinline__ void add_samples(const job_sketch &job, const lines &own,
                                                   bool used, uint32_t line, uint32_t place,
                                                   uint32_t offset, uint32_t square)
{
    uint32_t lane = lane_number(), left = __ballot_sync(ALL_LANES, used);
    for (int round = 0; round < ELECTIONS && left; round++) {
        int leader = __ffs(static_cast<int>(left)) - 1;
        uint32_t elected = __shfl_sync(ALL_LANES, place, leader);
        uint32_t same = __ballot_sync(ALL_LANES, (left >> lane & 1) && place == elected);
        if (__popc(same) < FEW) {
            break;
        }
        uint32_t offsets = warp_sum(same >> lane & 1 ? offset : 0);
        uint32_t squares = warp_sum(same >> lane & 1 ? square : 0);
        if (lane == static_cast<uint32_t>(leader)) {
            add_to_slot(job, own, line, place, static_cast<uint32_t>(__popc(same)), offsets,
                        squares);
        }
        left &= ~same;
    }
    if (left >> lane & 1) {
        add_to_slot(job, own, line, place, 1, offset, square);
    }
}

template <bool BOXES>
static __device__ __forceinline__ void sketch_sample(const job_sketch &job, const lines &own,
                                                     const block_units &units, uint32_t i, float x,
                                                     float t, float w, tally &seen)
{
    bool used = inspect(job.part, i, x, t, w, seen), positive = !BOXES && t == 1;
    uint32_t key = BOXES ? ghm_bits(x - t) & ~SIGN : ghm_bits(x) ^ (positive ? SIGN : 0);
    uint32_t low = key & ((1u << job.shift) - 1), line = NO_LINE, place = 0;
    if (used) {
        line = find_slot(job, own, key, positive, &place);
    }
    __syncwarp();
    uint32_t offset = BOXES && used ? ghm_offset_of_difference(low, x, t) : ghm_offset(low);
    add_samples(job, own, used, line, place, offset, ghm_square(low));
    if (__any_sync(ALL_LANES, used && w != 1)) {
        add_units(w, used, units);
    }
}

template <bool BOXES> static __device__ __forceinline__ void sketch(const job_sketch &job)
{
    block_units units;
    lines own = lines_of(job.lines, units);
    for (uint32_t line = threadIdx.x; line < job.lines; line += blockDim.x) {
        own.key[line] = EMPTY;
        own.n[line] = own.offsets[line] = own.squares[line] = own.carries[line] = 0;
    }
    clear_units(units);
    __syncthreads();
    tally seen = no_tally();
    uint32_t group = blockDim.x * JOB_GROUP;
    for (uint32_t first = blockIdx.x * group; first < job.part.n; first += gridDim.x * group) {
        uint32_t i = first + threadIdx.x * JOB_GROUP; /* warps stay whole, also at the end */
        four_samples four = read_samples(job.part, i);
        check_labels(job.part, i, job.totals);
        for (int k = 0; k < JOB_GROUP; k++) {
            sketch_sample<BOXES>(job, own, units, i + k, four.x[k], four.t[k], four.w[k], seen);
        }
    }
    add_tally(job.part, seen, job.totals);
    __syncthreads();
    for (uint32_t line = threadIdx.x; line < job.lines; line += blockDim.x) {
        if (own.n[line]) {
            uint32_t place = static_cast<uint32_t>(own.key[line]);
            ghm_cell *cell = &job.table[place];
            uint64_t carries = own.carries[line];
            job.touched[place / JOB_TILE] = 1;
            add64(&cell->n, own.n[line]);
            add64(&cell->offsets, (carries >> 20) << 32 | own.offsets[line]);
            add64(&cell->squares, (carries & 0xfffff) << 32 | own.squares[line]);
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

/* -- the table as a list -------------------------------------------------------------------- */

/* Which of a thread's slots are in use, as bits. */
static __device__ __forceinline__ uint32_t used_slots(const job_take &job, uint32_t first)
{
    uint32_t used = 0;
    for (uint32_t k = 0; k < JOB_TAKE; k++) {
        used |= first + k < job.slots && job.table[first + k].n ? 1u << k : 0;
    }
    return used;
}

/* The sum of a block's counts over the threads before this one, and over all. */
static __device__ __forceinline__ uint32_t sum_before(uint32_t count, uint32_t *all)
{
    uint32_t *sums = reinterpret_cast<uint32_t *>(block_memory), lane = lane_number(), before = 0;
    uint32_t in_warp = 0;
    for (uint32_t other = 0; other < JOB_WARP; other++) {
        uint32_t theirs = __shfl_sync(ALL_LANES, count, static_cast<int>(other));
        before += other < lane ? theirs : 0;
        in_warp += theirs;
    }
    __syncthreads(); /* the sums of the last tile were read */
    if (lane == 0) {
        sums[threadIdx.x / JOB_WARP] = in_warp;
    }
    __syncthreads();
    *all = 0;
    for (uint32_t warp = 0; warp < blockDim.x / JOB_WARP; warp++) {
        before += warp < threadIdx.x / JOB_WARP ? sums[warp] : 0;
        *all += sums[warp];
    }
    return before;
}

__global__ void __launch_bounds__(JOB_THREADS, 4) ghm_count_cells(const job_take job)
{
    for (uint32_t tile = blockIdx.x; tile < job.tiles; tile += gridDim.x) {
        uint32_t all = 0, first = tile * JOB_TILE + threadIdx.x * JOB_TAKE;
        if (job.touched[tile]) {
            sum_before(static_cast<uint32_t>(__popc(used_slots(job, first))), &all);
        }
        if (threadIdx.x == 0) {
            job.counts[tile] = all;
        }
    }
}

static __device__ __forceinline__ void take_tile(const job_take &job, uint32_t tile, uint32_t base)
{
    uint32_t all, first = tile * JOB_TILE + threadIdx.x * JOB_TAKE, used = used_slots(job, first);
    uint32_t rank = base + sum_before(static_cast<uint32_t>(__popc(used)), &all);
    for (uint32_t k = 0; k < JOB_TAKE; k++) {
        if (used >> k & 1 && rank++ < job.room) {
            ghm_cell cell = job.table[first + k], none = {0, 0, 0, 0};
            cell.slot = first + k;
            job.out[rank - 1] = cell;
            job.table[first + k] = none;
        }
    }
    if (threadIdx.x == 0) {
        job.touched[tile] = base + all > job.room;
    }
}

__global__ void __launch_bounds__(JOB_THREADS, 4) ghm_take_cells(const job_take job)
{
    uint32_t base = 0, tile = 0;
    for (uint32_t mine = blockIdx.x; mine < job.tiles; mine += gridDim.x) {
        for (; tile < mine; tile++) {
            base += job.counts[tile]; /* the same for all threads: read from a cache */
        }
        if (job.counts[mine]) {
            take_tile(job, mine, base);
        }
        if (mine == job.tiles - 1 && threadIdx.x == 0) {
            *job.found = base + job.counts[mine];
        }
    }
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

cudaError_t job_take_start(const job_take *job, uint32_t blocks, cudaStream_t stream)
{
    size_t shared = JOB_THREADS / JOB_WARP * sizeof(uint32_t);
    cudaError_t status = start(ghm_count_cells, *job, blocks, JOB_THREADS, shared, stream);
    return status != cudaSuccess ? status
                                 : start(ghm_take_cells, *job, blocks, JOB_THREADS, shared, stream);
}
}
