/*
 * kernels.c - the inner loops, compiled once per instruction set (GHM_ISA: plain, avx2, avx512).
 *
 * The sketch pass stands here, the gradient pass in kernels_gradient.h; what AVX-512 does in another
 * way in headers of that name. Written as short loops over arrays of one block, each with one kind of
 * operation, because that is what compilers turn into vector code. No loop here has a branch on data.
 */
#include "kernels.h"

#ifndef GHM_ISA
#define GHM_ISA plain
#endif
#define PASTE(a, b) a##b
#define TABLE(isa)  PASTE(ghm_kernels_, isa)
#define TEXT_(isa)  #isa
#define TEXT(isa)   TEXT_(isa)

#define SIGN     0x80000000u
#define INFINITE 0x7f800000u

static void widen_half(const uint16_t *restrict in, float *restrict out, int n)
{
    for (int i = 0; i < n; i++) {
        out[i] = ghm_half(in[i]);
    }
}

static void widen_bfloat(const uint16_t *restrict in, float *restrict out, int n)
{
    for (int i = 0; i < n; i++) {
        out[i] = ghm_bfloat(in[i]);
    }
}

static void widen_byte(const uint8_t *restrict in, float *restrict out, int n)
{
    for (int i = 0; i < n; i++) {
        out[i] = (float)in[i];
    }
}

/* -- the table -------------------------------------------------------------------------------- */

/* What one sample adds to its slot. */
static inline uint64_t word_of(uint32_t offset, uint32_t low)
{
    return (uint64_t)1 << GHM_COUNT_SHIFT | (uint64_t)offset << GHM_OFFSETS_SHIFT | ghm_square(low);
}

/* The low bits of a sample's key, below bits of no meaning. */
static inline uint32_t low_of(uint64_t word)
{
    return (uint32_t)(word >> (GHM_OFFSETS_SHIFT + GHM_FINE_BITS));
}

/* A sample was added to a slot that calls for attention: it is trash, or full, or a cell with an edge
 * inside, in which case the sample may belong beyond it. */
static __attribute__((cold, noinline)) void attend(const ghm_plan *plan, ghm_table *table,
                                                   uint64_t *at, uint64_t word)
{
    uint32_t slot = (uint32_t)(at - table->words);
    uint64_t mark = 0;
    if (slot >= plan->trash) {
        *at = 0;
        return;
    }
    uint32_t group = slot >= plan->stride ? plan->stride : 0, cell = slot - group;
    if (cell < plan->n_cells && plan->split[cell] && plan->watch) {
        uint32_t to = ghm_slot_of(plan->split, plan->n_cells, plan->shift, cell,
                                  low_of(word) & ((1u << plan->shift) - 1));
        mark = to == cell ? GHM_WATCHED : 0;
        *at -= word;
        slot = group + to;
        at = &table->words[slot];
        *at += word;
    }
    if ((*at - mark) >> GHM_COUNT_SHIFT >= GHM_FULL) {
        ghm_add_word(&table->wide[slot], *at - mark - word);
        table->spilled = true;
        *at = mark + word;
    }
}

static inline void add_word(const ghm_plan *plan, ghm_table *table, uint64_t *at, uint64_t word)
{
    *at += word;
    if (__builtin_expect((int64_t)*at < 0, 0)) {
        attend(plan, table, at, word);
    }
}

#ifdef __AVX512F__
#include "kernels_avx512.h"
#else

/* Cell of the key, by group; ignored samples to the trash. */
static void find_cells(const uint32_t *restrict key, const float *restrict t,
                       const float *restrict w, int n, const ghm_plan *restrict plan,
                       ghm_block *restrict block)
{
    int shift = plan->shift;
    uint32_t stride = plan->stride, trash = plan->trash;
    for (int i = 0; i < n; i++) {
        uint32_t cell = (key[i] >> shift) + (t[i] == 1.0f ? stride : 0);
        uint32_t own = trash + ((uint32_t)i & (GHM_TRASH - 1));
        block->slot[i] = w[i] > 0.0f ? cell : own;
    }
}

static void settle(const ghm_plan *restrict plan, int n, ghm_block *restrict block)
{
    int shift = plan->shift;
    uint32_t low_mask = (1u << shift) - 1, n_cells = plan->n_cells, stride = plan->stride;
    uint32_t group[GHM_BLOCK], slot[GHM_BLOCK], low[GHM_BLOCK];
    const uint32_t *restrict split = plan->split;
    for (int i = 0; i < n; i++) {
        uint32_t was = block->slot[i];
        group[i] = was >= plan->trash ? was : was >= stride ? stride : 0;
        slot[i] = was >= plan->trash ? 0 : was - group[i];
        low[i] = low_of(block->word[i]) & low_mask;
    }
    for (uint32_t more = GHM_MORE; more & GHM_MORE;) {
        more = 0;
        for (int i = 0; i < n; i++) {
            more |= ghm_step(split[(int32_t)slot[i]], low[i], shift, n_cells, &slot[i]);
        }
    }
    for (int i = 0; i < n; i++) {
        block->slot[i] = group[i] >= plan->trash ? group[i] : slot[i] + group[i];
    }
}

/* Which groups of eight binades were seen, so that draining need not read a whole table. */
static uint32_t magnitudes_seen(const uint32_t *restrict key, int n)
{
    uint32_t seen = 0;
    for (int i = 0; i < n; i++) {
        seen |= 1u << (key[i] >> 26 & 31);
    }
    return seen;
}

static void classes(const float *restrict x, const float *restrict t, const float *restrict w,
                    int n, const ghm_plan *restrict plan, ghm_block *restrict block)
{
    uint32_t key[GHM_BLOCK], valid = 0, positive = 0, uneven = 0, suspect = 0;
    for (int i = 0; i < n; i++) {
        uint32_t one = t[i] == 1.0f, hard = one | (t[i] == 0.0f);
        uint32_t used = w[i] > 0.0f;
        uint32_t finite = (ghm_bits(x[i]) & ~SIGN) < INFINITE;
        uint32_t weight_finite = (ghm_bits(w[i]) & ~SIGN) < INFINITE;
        key[i] = ghm_bits(x[i]) ^ one << 31;
        valid += used;
        positive += used & one;
        uneven |= used & (w[i] != 1.0f);
        suspect += (used & ((finite & hard) ^ 1)) | (weight_finite ^ 1);
    }
    block->valid = valid;
    block->positive = positive;
    block->uneven = uneven;
    block->suspect = suspect;
    uint32_t low_mask = (1u << plan->shift) - 1;
    for (int i = 0; i < n; i++) {
        uint32_t low = key[i] & low_mask;
        block->word[i] = word_of(ghm_offset(low), low);
    }
    find_cells(key, t, w, n, plan, block);
    block->seen = magnitudes_seen(key, n);
}

/* fl(pred - target) chooses the cell; its rounding error goes into the offset. */
static void boxes(const float *restrict pred, const float *restrict target, const float *restrict w,
                  int n, const ghm_plan *restrict plan, ghm_block *restrict block)
{
    static const float no_positives[GHM_BLOCK];
    uint32_t key[GHM_BLOCK], offset[GHM_BLOCK], valid = 0, uneven = 0, suspect = 0;
    uint32_t low_mask = (1u << plan->shift) - 1;
    for (int i = 0; i < n; i++) {
        float d = pred[i] - target[i];
        uint32_t used = w[i] > 0.0f;
        uint32_t finite = (ghm_bits(d) & ~SIGN) < INFINITE;
        uint32_t weight_finite = (ghm_bits(w[i]) & ~SIGN) < INFINITE;
        key[i] = ghm_bits(d) & ~SIGN;
        valid += used;
        uneven |= used & (w[i] != 1.0f);
        suspect += (used & (finite ^ 1)) | (weight_finite ^ 1);
    }
    for (int i = 0; i < n; i++) { /* a loop of floats and one of words, which differ in width */
        offset[i] = ghm_offset_of_difference(key[i] & low_mask, pred[i], target[i]);
    }
    for (int i = 0; i < n; i++) {
        block->word[i] = word_of(offset[i], key[i] & low_mask);
    }
    block->valid = valid;
    block->positive = 0;
    block->uneven = uneven;
    block->suspect = suspect;
    find_cells(key, no_positives, w, n, plan, block);
    block->seen = magnitudes_seen(key, n);
}

#endif

static void scatter(const ghm_plan *plan, const ghm_block *restrict block, int n,
                    const ghm_ahead *ahead, ghm_table *table)
{
    const ghm_ahead later = *ahead; /* a copy: nothing that is stored to can change it */
    uint64_t *words = table->words;
    int whole = n - n % GHM_LINE;
    for (int i = 0; i < whole; i += GHM_LINE) {
        const uint32_t *slot = block->slot + i;
        const uint64_t *word = block->word + i;
        ghm_fetch(&later, i);
#pragma GCC unroll 16
        for (int k = 0; k < GHM_LINE; k++) {
            add_word(plan, table, words + slot[k], word[k]);
        }
    }
    for (int i = whole; i < n; i++) {
        add_word(plan, table, words + block->slot[i], block->word[i]);
    }
}

#ifndef __AVX512F__
/* What a table holds in one slot. */
static inline ghm_cell read_slot(const ghm_table *table, uint32_t slot)
{
    ghm_cell cell = {0};
    ghm_add_word(&cell, table->words[slot]);
    if (table->spilled) {
        const ghm_cell *full = &table->wide[slot];
        cell.n += full->n;
        cell.offsets += full->offsets;
        cell.squares += full->squares;
    }
    return cell;
}

static inline __attribute__((always_inline)) void take_strip(const ghm_table *tables, int n_tables,
                                                             uint32_t group, uint32_t slot,
                                                             uint32_t n, ghm_cells *to)
{
    uint64_t any = 0;
    for (int t = 0; t < n_tables; t++) {
        for (uint32_t k = 0; k < n; k++) {
            any |= tables[t].words[slot + k];
        }
    }
    if (!any) {
        return;
    }
    for (uint32_t k = 0; k < n; k++) { /* no branch: which slots are in use is hard to foresee */
        ghm_cell cell = read_slot(&tables[0], slot + k);
        for (int t = 1; t < n_tables; t++) {
            ghm_cell other = read_slot(&tables[t], slot + k);
            cell.n += other.n;
            cell.offsets += other.offsets;
            cell.squares += other.squares;
        }
        cell.slot = slot + k - group;
        ghm_cell_put(to, to->count, cell);
        to->count += cell.n != 0;
    }
    for (int t = 0; t < n_tables; t++) {
        memset(tables[t].words + slot, 0, n * sizeof *tables[t].words);
        if (tables[t].spilled) {
            memset(tables[t].wide + slot, 0, n * sizeof *tables[t].wide);
        }
    }
}

static void take_slots(const ghm_table *tables, int n_tables, uint32_t group, uint32_t first,
                       uint32_t n, ghm_cells *to)
{
    uint32_t slot = first, end = first + n;
    for (; end - slot >= GHM_STRIP; slot += GHM_STRIP) {
        take_strip(tables, n_tables, group, slot, GHM_STRIP, to);
    }
    take_strip(tables, n_tables, group, slot, end - slot, to);
}
#endif

static void tally(const uint16_t *restrict x, const float *restrict t, const float *restrict w,
                  int n, const ghm_ahead *ahead, uint32_t *restrict table,
                  ghm_block *restrict block)
{
    const ghm_ahead later = *ahead;
    uint32_t valid = 0, positive = 0, uneven = 0, suspect = 0;
    for (int i = 0; i < n; i++) {
        uint32_t one = t[i] == 1.0f, hard = one | (t[i] == 0.0f), used = w[i] > 0.0f;
        uint32_t weight_finite = (ghm_bits(w[i]) & ~SIGN) < INFINITE;
        block->slot[i] = used ? x[i] | one << 16 : GHM_PATTERNS;
        valid += used;
        positive += used & one;
        uneven |= used & (w[i] != 1.0f);
        suspect |= (used & (hard ^ 1)) | (weight_finite ^ 1);
    }
    block->valid = valid;
    block->positive = positive;
    block->uneven = uneven;
    block->suspect = suspect;
    int whole = n - n % GHM_LINE;
    for (int i = 0; i < whole; i += GHM_LINE) {
        ghm_fetch(&later, i); /* not all at once: a core waits for a dozen or two lines, no more */
#pragma GCC unroll 16
        for (int k = 0; k < GHM_LINE; k++) {
            table[block->slot[i + k]]++;
        }
    }
    for (int i = whole; i < n; i++) {
        table[block->slot[i]]++;
    }
}

#ifdef __AVX512F__
#include "kernels_gradient_avx512.h"
#endif
#include "kernels_gradient.h"

const ghm_kernels TABLE(GHM_ISA) = {
    .isa = TEXT(GHM_ISA),
    .widen_half = widen_half,
    .widen_bfloat = widen_bfloat,
    .widen_byte = widen_byte,
    .classes = classes,
    .boxes = boxes,
    .settle = settle,
    .scatter = scatter,
    .take = take_slots,
    .tally = tally,
    .classes_slope = classes_slope,
    .boxes_slope = boxes_slope,
};
