/* registry.c - which backends were built, and how a name becomes a device. */
#include "private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef GHM_WITH_CUDA
extern const ghm_backend ghm_cuda_backend;
#endif

/* Best first: "auto" takes the first that opens. */
static const ghm_backend *const backends[] = {
#ifdef GHM_WITH_CUDA
    &ghm_cuda_backend,
#endif
    &ghm_cpu_backend,
};

enum { N_BACKENDS = sizeof backends / sizeof *backends };

static int open_backend(const ghm_backend *backend, int index, ghm_device *device)
{
    device->backend = backend;
    return backend->open(index, &device->threads, &device->state, device->name,
                         sizeof device->name);
}

static int open_named(const char *name, ghm_device *device)
{
    size_t length = strcspn(name, ":");
    char index[5] = "0", rest;
    if (name[length] == ':' && sscanf(name + length, ":%4[0-9]%c", index, &rest) != 1) {
        return ghm_fail(GHM_E_ARGUMENT, "device '%s': expected a number after the colon", name);
    }
    for (int i = 0; i < N_BACKENDS; i++) {
        const char *known = backends[i]->name;
        if (strlen(known) == length && strncmp(known, name, length) == 0) {
            return open_backend(backends[i], atoi(index), device);
        }
    }
    if (length == 4 && strncmp(name, "cuda", 4) == 0) {
        return ghm_fail(GHM_E_DEVICE, "device '%s': this library was built without CUDA", name);
    }
    return ghm_fail(GHM_E_ARGUMENT, "device '%s': expected auto, cpu, cuda or cuda:N", name);
}

int ghm_device_open(const char *name, int32_t threads, ghm_device **out)
{
    if (!name || !out) {
        return ghm_fail(GHM_E_ARGUMENT, "the device's name or its place is NULL");
    }
    if (threads < 0 || threads > 1024) {
        return ghm_fail(GHM_E_ARGUMENT, "threads is %d, expected 0 (all) to 1024", threads);
    }
    ghm_device *device = calloc(1, sizeof *device);
    if (!device) {
        return ghm_fail(GHM_E_MEMORY, "no memory for a device");
    }
    int status = GHM_E_DEVICE;
    device->threads = threads;
    if (strcmp(name, "auto") != 0) {
        status = open_named(name, device);
    }
    for (int i = 0; i < N_BACKENDS && strcmp(name, "auto") == 0 && status != GHM_OK; i++) {
        status = open_backend(backends[i], 0, device);
    }
    if (status != GHM_OK) {
        free(device);
        return status;
    }
    device->references = 1;
    *out = device;
    return GHM_OK;
}

static void drop(ghm_device *device)
{
    if (--device->references == 0) {
        device->backend->close(device->state);
        free(device);
    }
}

void ghm_device_free(ghm_device *device)
{
    if (device) {
        drop(device);
    }
}

const char *ghm_device_name(const ghm_device *device)
{
    return device ? device->name : "no device";
}

int32_t ghm_device_threads(const ghm_device *device)
{
    return device ? device->threads : 0;
}

int ghm_memory_new(ghm_device *device, int64_t bytes, void **out)
{
    if (!device || !out || bytes < 0) {
        return ghm_fail(GHM_E_ARGUMENT, "%s is %s",
                        !device ? "the device"
                        : !out  ? "the place for the memory"
                                : "bytes",
                        device && out ? "below 0" : "NULL");
    }
    GHM_TRY(device->backend->memory_new(device->state, (size_t)bytes, out));
    device->references++;
    return GHM_OK;
}

void ghm_memory_free(ghm_device *device, void *memory)
{
    if (device && memory) {
        device->backend->memory_free(device->state, memory);
        drop(device);
    }
}

int ghm_memory_copy(ghm_device *device, void *to, const void *from, int64_t bytes)
{
    if (!device || bytes < 0 || (bytes > 0 && (!to || !from))) {
        return ghm_fail(GHM_E_ARGUMENT, "the device or a place is NULL, or bytes (%lld) below 0",
                        (long long)bytes);
    }
    return bytes ? device->backend->memory_copy(device->state, to, from, (size_t)bytes) : GHM_OK;
}

int ghm_device_elapsed(ghm_device *device, double *seconds)
{
    if (!device || !seconds) {
        return ghm_fail(GHM_E_ARGUMENT, "the device or the place for the seconds is NULL");
    }
    if (!device->backend->elapsed) {
        return ghm_fail(GHM_E_DEVICE, "%s has no clock of its own", device->backend->name);
    }
    return device->backend->elapsed(device->state, seconds);
}
