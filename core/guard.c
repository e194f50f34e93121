/* guard.c - mapped files that another process cuts short: zeros and a count instead of SIGBUS. */
#include "private.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

enum { GUARDS = 64 };

/* start and end are those of the range; both 0: free, end alone 0: being filled in. */
static struct {
    _Atomic uintptr_t start, end;
    _Atomic int64_t lost;
} guards[GUARDS];

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct sigaction before;
static uintptr_t page;

/* Puts a page of zeros where the fault was, so that the instruction goes on when it is run again.
 * mmap is no more than a system call, so it may be called here. */
static void on_bus_error(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    int saved = errno;
    uintptr_t at = (uintptr_t)info->si_addr;
    void *first = (void *)(at - at % page);
    for (int i = 0; i < GUARDS; i++) {
        if (at >= guards[i].start && at < guards[i].end &&
            mmap(first, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == first) {
            guards[i].lost++;
            errno = saved;
            return;
        }
    }
    sigaction(SIGBUS, &before, NULL); /* not ours: run again, it takes its usual course */
    errno = saved;
}

static void install(void)
{
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    page = (uintptr_t)sysconf(_SC_PAGESIZE);
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &before);
}

int ghm_guard_begin(const void *start, int64_t bytes, int32_t *guard)
{
    if (!start || bytes < 1 || !guard) {
        return ghm_fail(GHM_E_ARGUMENT, "the range to guard, or the place for its number, is none");
    }
    pthread_once(&once, install);
    for (int i = 0; i < GUARDS; i++) {
        uintptr_t free_place = 0;
        if (atomic_compare_exchange_strong(&guards[i].start, &free_place, (uintptr_t)start)) {
            guards[i].lost = 0;
            guards[i].end = (uintptr_t)start + (uintptr_t)bytes;
            *guard = i;
            return GHM_OK;
        }
    }
    return ghm_fail(GHM_E_MEMORY, "%d ranges are guarded, there is room for no more", GUARDS);
}

int64_t ghm_guard_lost(int32_t guard)
{
    return guard >= 0 && guard < GUARDS ? guards[guard].lost : 0;
}

void ghm_guard_end(int32_t guard)
{
    if (guard >= 0 && guard < GUARDS) {
        guards[guard].end = 0;
        guards[guard].start = 0;
    }
}
