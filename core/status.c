/* status.c - last error, interrupt flag, version. */
#include "private.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>

#ifndef GHM_BUILD
#define GHM_BUILD "unknown build"
#endif

static _Thread_local char last_error[512] = "no error";
static _Atomic int interrupted; /* of threads and of a signal's handler, which it may be */
static _Atomic int keeps;       /* every SIGINT is caught, not the first alone */

int ghm_fail(int status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return status;
}

const char *ghm_last_error(void)
{
    return last_error;
}

int32_t ghm_abi(void)
{
    return GHM_ABI;
}

const char *ghm_version(void)
{
    return "0.1.0";
}

const char *ghm_build(void)
{
    return GHM_BUILD;
}

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

int ghm_interrupt_catch(void)
{
    struct sigaction action = {.sa_handler = on_interrupt,
                               .sa_flags = keeps ? 0 : (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGINT, &action, NULL) != 0) {
        return ghm_fail(GHM_E_DEVICE, "cannot catch SIGINT");
    }
    return GHM_OK;
}

int ghm_interrupt_keep(void)
{
    keeps = 1;
    return ghm_interrupt_catch();
}

void ghm_interrupt_set(int32_t value)
{
    interrupted = value != 0;
}

int32_t ghm_interrupted(void)
{
    return interrupted != 0;
}
