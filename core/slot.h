/*
 * slot.h - what a sketch keeps of a sample: the slot its key falls into, and where in it. Compiled
 * by C and by CUDA, so that every backend takes the same steps to the same integers.
 *
 * A key (s, or |d|) is a float32, and a cell is all keys that share their top bits: narrow, of a
 * fixed relative width, covering every float. An edge that falls inside a cell splits it: keys whose
 * low bits are at or above the split go to a side slot of that edge, which a further edge in the same
 * cell splits again. So slot = cell number, or n_cells + side number, and no edge is inside a slot.
 *
 * Splits live in the domain of bits, not of values: among negative keys larger bits are smaller
 * values, so there the side slot holds the keys *below* the edge.
 */
#ifndef GHM_SLOT_H
#define GHM_SLOT_H

#include "formula.h"

enum {
    /* Cells of 2^-10 relative width. Of a loss, the worst samples that a cell of width w can hold
     * leave at most w^3 / 62 from the third moment, which is not kept (it is at most sqrt(3)/18 w^3,
     * over 3!), and w^2 / 2^15 from squares that are rounded: 1.5e-9 at |s| < 8, 1e-8 at |s| < 16,
     * 7e-8 at |s| < 32, where the loss is below 2e-7, and more only where it is below 2e-14. For
     * boxes below 4e-9, of differences that are normal floats. */
    GHM_SHIFT = 13,
    GHM_SHIFT_MIN = 8,    /* finer cells only where many edges share one */
    GHM_DEPTH = 4,        /* edges in one cell that are no reason for finer ones */
    GHM_FINE_BITS = 6,    /* offsets carry 6 bits below a float32 spacing, */
    GHM_SQUARE_SHIFT = 12 /* squares leave 12 bits out: so a thousand samples' fit one word */
};

#define GHM_MORE 0x80000000u

/*
 * A slot in use. low = the bits of a key below its cell's; offset = low * 64 + 32 + the rounding
 * error of pred - target in 1/64 of a float32 spacing (32 alone for logits, which are exact).
 * The sums are integers, so adding cells is exact and has no order.
 */
typedef struct ghm_cell {
    uint32_t slot;
    uint64_t n;
    uint64_t offsets; /* sum of offset, each below 2^19 */
    uint64_t squares; /* sum of ghm_square(low), each below 2^14 */
} ghm_cell;

/* low^2 / 4096, rounded; low is below 2^13. */
GHM_INLINE uint32_t ghm_square(uint32_t low)
{
    return (low * low + (1u << (GHM_SQUARE_SHIFT - 1))) >> GHM_SQUARE_SHIFT;
}

/* The offset of a key that is exact. */
GHM_INLINE uint32_t ghm_offset(uint32_t low)
{
    return low << GHM_FINE_BITS | 1u << (GHM_FINE_BITS - 1);
}

/* Whether the key is at or beyond the entry's edge; an entry of 0 has none. low: the key's bits below
 * its cell's. */
GHM_INLINE uint32_t ghm_is_beyond(uint32_t entry, uint32_t low, int shift)
{
    return (low + (entry & ((1u << shift) - 1))) >> shift;
}

/* One step along the edges inside a cell. low: the key's bits below its cell's; entry: split[*slot],
 * see ghm_edges. A key beyond the entry's edge goes to that edge's side. Returns the entry in that
 * case, 0 otherwise: GHM_MORE in it says that the step is to be taken again, from there. */
GHM_INLINE uint32_t ghm_step(uint32_t entry, uint32_t low, int shift, uint32_t n_cells,
                             uint32_t *slot)
{
    uint32_t beyond = ghm_is_beyond(entry, low, shift);
    uint32_t side = n_cells + ((entry & ~GHM_MORE) >> shift);
    *slot = beyond ? side : *slot;
    return beyond ? entry : 0;
}

/* All steps: the slot of a key in this cell. */
GHM_INLINE uint32_t ghm_slot_of(const uint32_t *split, uint32_t n_cells, int shift, uint32_t cell,
                                uint32_t low)
{
    uint32_t slot = cell;
    while (ghm_step(split[slot], low, shift, n_cells, &slot) & GHM_MORE) {
    }
    return slot;
}

/* The same for d = pred - target, whose rounding error, away from zero, counts in 1/64 of d's spacing:
 * what Knuth's two-sum tells. It never moves an offset into the next spacing's. Below 2^-98 it is
 * left out. */
GHM_INLINE uint32_t ghm_offset_of_difference(uint32_t low, float pred, float target)
{
    const uint32_t most = (1u << GHM_FINE_BITS) - 1;
    float d = pred - target, back = pred - d;
    float error = (pred - (d + back)) + (back - target);
    uint32_t exponent = (ghm_bits(d) & 0x7fffffffu) >> 23;
    float scale = ghm_float(exponent > 28 ? (283 - exponent) << 23 : 0); /* 2^(156 - exponent) */
    uint32_t fine = (uint32_t)(int32_t)((d < 0.0f ? -error : error) * scale + 32.5f);
    return low << GHM_FINE_BITS | (fine < most ? fine : most);
}

#endif
