/* cpu.c - the CPU backend: which instruction set, how many threads, the tables they own. */
#include "cpu.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int cpu_open(int index, int32_t *threads, void **state, char *name, size_t name_size)
{
    const ghm_kernels *kernels = ghm_kernels_choose(getenv("GHM_ISA"));
    if (index != 0) {
        return ghm_fail(GHM_E_DEVICE, "cpu:%d: there is one cpu device, cpu", index);
    }
    if (!kernels) {
        return ghm_fail(GHM_E_DEVICE,
                        "GHM_ISA is '%s', expected plain, avx2 or avx512 as far as "
                        "this CPU has it",
                        getenv("GHM_ISA"));
    }
    cpu_state *cpu = calloc(1, sizeof *cpu);
    *threads = *threads > 0 ? *threads : omp_get_num_procs();
    ghm_table *tables = calloc((size_t)*threads, sizeof *tables);
    ghm_cells *scratch = calloc((size_t)*threads, sizeof *scratch);
    if (!cpu || !tables || !scratch) {
        free(cpu);
        free(tables);
        free(scratch);
        return ghm_fail(GHM_E_MEMORY, "no memory for a device of %d threads", *threads);
    }
    cpu->kernels = kernels;
    cpu->threads = *threads;
    cpu->tables = tables;
    cpu->scratch = scratch;
    snprintf(name, name_size, "cpu %s, %d thread%s", kernels->isa, *threads,
             *threads == 1 ? "" : "s");
    *state = cpu;
    return GHM_OK;
}

static void cpu_close(void *state)
{
    cpu_state *cpu = state;
    cpu_drop_tables(cpu);
    for (int i = 0; i < cpu->threads; i++) {
        ghm_cells_free(&cpu->scratch[i]);
    }
    free(cpu->kept);
    free(cpu->scratch);
    free(cpu->tables);
    free(cpu);
}

int cpu_end_of_pass(int status)
{
    switch (status) {
    case GHM_OK:
        return status;
    case GHM_E_MEMORY:
        return ghm_fail(status, "no memory for a pass over the batch");
    case GHM_E_INTERRUPTED:
        return ghm_fail(status, "interrupted");
    default:
        return ghm_fail(status, "more samples in one cell than its counters hold");
    }
}

const ghm_kernels *ghm_kernels_choose(const char *isa)
{
    const ghm_kernels *best = &ghm_kernels_plain;
    bool found = !isa || strcmp(isa, "plain") == 0;
#if defined(__x86_64__)
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                __builtin_cpu_supports("bmi2");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (avx2 && (!isa || strcmp(isa, "avx2") == 0)) {
        best = &ghm_kernels_avx2;
        found = true;
    }
    if (avx512 && (!isa || strcmp(isa, "avx512") == 0)) {
        best = &ghm_kernels_avx512;
        found = true;
    }
#endif
    return found ? best : NULL;
}

static int cpu_memory_new(void *state, size_t bytes, void **out)
{
    (void)state;
    *out = malloc(bytes ? bytes : 1);
    return *out ? GHM_OK : ghm_fail(GHM_E_MEMORY, "no memory for an array of %zu bytes", bytes);
}

static void cpu_memory_free(void *state, void *at)
{
    (void)state;
    free(at);
}

static int cpu_memory_copy(void *state, void *to, const void *from, size_t bytes)
{
    (void)state;
    memcpy(to, from, bytes);
    return GHM_OK;
}

const ghm_backend ghm_cpu_backend = {
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .sketch = cpu_sketch,
    .gradient = cpu_gradient,
    .exact = cpu_exact,
    .synth = cpu_synth,
    .memory_new = cpu_memory_new,
    .memory_free = cpu_memory_free,
    .memory_copy = cpu_memory_copy,
};
