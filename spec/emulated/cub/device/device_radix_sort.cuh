/* device_radix_sort.cuh - CUB's sort of pairs, by the standard library: stable, as a radix sort is. */
#ifndef EMULATED_DEVICE_RADIX_SORT_CUH
#define EMULATED_DEVICE_RADIX_SORT_CUH

#include <algorithm>
#include <numeric>
#include <vector>

namespace cub
{
struct DeviceRadixSort {
    template <typename key, typename value>
    static cudaError_t SortPairs(void *temporary, size_t &bytes, const key *keys, key *sorted_keys,
                                 const value *values, value *sorted_values, int64_t n, int, int,
                                 cudaStream_t)
    {
        if (!temporary) {
            bytes = 1;
            return cudaSuccess;
        }
        std::vector<size_t> order(static_cast<size_t>(n));
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(),
                         [keys](size_t a, size_t b) { return keys[a] < keys[b]; });
        for (size_t i = 0; i < order.size(); i++) {
            sorted_keys[i] = keys[order[i]];
            sorted_values[i] = values[order[i]];
        }
        return cudaSuccess;
    }
};
} // namespace cub

#endif
