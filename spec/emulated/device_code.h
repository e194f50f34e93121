/* device_code.h - what code inside a kernel uses: places, atomics, and what a warp does together. */
#ifndef EMULATED_DEVICE_CODE_H
#define EMULATED_DEVICE_CODE_H

#define __global__
#define __device__
#define __shared__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
    explicit dim3(unsigned n = 1) : x(n), y(1), z(1) {}
};
struct uint2 {
    unsigned x, y;
};
struct uint4 {
    unsigned x, y, z, w;
};
struct float4 {
    float x, y, z, w;
};

/* The fiber that runs. */
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

/* Ends the process where an access would be a fault: `bytes` at an address that they do not divide. */
void emulated_access(const void *at, size_t bytes);

template <typename T> inline T __ldcs(const T *from)
{
    emulated_access(from, sizeof *from);
    return *from;
}
template <typename T> inline void __stcs(T *to, T value)
{
    emulated_access(to, sizeof *to);
    *to = value;
}

/* Fibers take turns at barriers and before these alone, so they are atomic as they stand. */
void emulated_let_others();

template <typename T> inline T atomicAdd(T *at, T value)
{
    emulated_let_others();
    T before = *at;
    *at += value;
    return before;
}
template <typename T> inline T atomicMax(T *at, T value)
{
    emulated_let_others();
    T before = *at;
    *at = before > value ? before : value;
    return before;
}
inline unsigned long long atomicCAS(unsigned long long *at, unsigned long long expected,
                                    unsigned long long value)
{
    emulated_let_others();
    unsigned long long before = *at;
    *at = before == expected ? value : before;
    return before;
}

inline int __popc(unsigned bits)
{
    return __builtin_popcount(bits);
}
inline int __ffs(int bits)
{
    return __builtin_ffs(bits);
}

/* A barrier of a warp at which each lane gives a value; all[32] holds those of all lanes. Ends the
 * process where lanes of a warp do not all come to the same one. */
enum emulated_barrier { EMULATED_BALLOT, EMULATED_SHUFFLE, EMULATED_SYNC, EMULATED_BLOCK };
const uint64_t *emulated_meet(enum emulated_barrier what, uint64_t value);
bool emulated_meet_block(bool value); /* whether any thread of the block gave true */

inline unsigned __ballot_sync(unsigned, bool value)
{
    const uint64_t *all = emulated_meet(EMULATED_BALLOT, value);
    unsigned bits = 0;
    for (int lane = 0; lane < 32; lane++) {
        bits |= static_cast<unsigned>(all[lane]) << lane;
    }
    return bits;
}
inline bool __any_sync(unsigned lanes, bool value)
{
    return __ballot_sync(lanes, value) != 0;
}
inline unsigned __shfl_sync(unsigned, unsigned value, int lane)
{
    return static_cast<unsigned>(emulated_meet(EMULATED_SHUFFLE, value)[lane]);
}
inline unsigned __shfl_xor_sync(unsigned lanes, unsigned value, int apart)
{
    return __shfl_sync(lanes, value, static_cast<int>(threadIdx.x % 32) ^ apart);
}
inline void __syncwarp()
{
    emulated_meet(EMULATED_SYNC, 0);
}
inline void __syncthreads()
{
    emulated_meet_block(false);
}
inline int __syncthreads_or(int value)
{
    return emulated_meet_block(value != 0);
}

cudaError_t emulated_launch(void (*body)(void *), void *what, unsigned blocks, unsigned threads,
                            size_t shared);

template <typename job>
cudaError_t cudaLaunchKernel(void (*kernel)(job), dim3 blocks, dim3 threads, void **parameters,
                             size_t shared, cudaStream_t)
{
    struct call {
        void (*kernel)(job);
        job *parameter;
        static void run(void *what)
        {
            call *self = static_cast<call *>(what);
            self->kernel(*self->parameter);
        }
    } one = {kernel, static_cast<job *>(parameters[0])};
    return emulated_launch(call::run, &one, blocks.x, threads.x, shared);
}

#endif
