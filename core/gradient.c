/* gradient.c - the second primitive: one coefficient per region to one gradient per sample. */
#include "private.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

/* What passes compute with as a float: neither 0 nor infinite there. */
static double within_floats(double x)
{
    return fmin(fmax(x, (double)FLT_MIN), (double)FLT_MAX);
}

int ghm_gradient(ghm_device *device, const ghm_batch *batch, int32_t function, double a, double b,
                 int64_t bins, double mu, const double *beta, double grad_scale, double loss_scale,
                 const ghm_outputs *out)
{
    if (!device || !beta || !out) {
        return ghm_fail(GHM_E_ARGUMENT, "the device, beta or the outputs are NULL");
    }
    GHM_TRY(ghm_check_batch(batch));
    GHM_TRY(ghm_check_bins(batch->task, bins, mu));
    bool boxes = batch->task == GHM_REGRESSION;
    bool known = boxes ? function == GHM_ASL1 || function == GHM_SMOOTH_L1
                       : function == GHM_BCE ||
                             (function == GHM_FOCAL && batch->target_form != GHM_SOFT);
    if (!known) {
        return ghm_fail(GHM_E_ARGUMENT, "function is %d, which has no gradient for this batch",
                        function);
    }
    if (function == GHM_ASL1 && a != mu) {
        return ghm_fail(GHM_E_ARGUMENT, "ASL1's mu is %g and the regions' %g, expected one mu", a,
                        mu);
    }
    if ((function == GHM_SMOOTH_L1 && !(a > 0 && isfinite(a))) ||
        (function == GHM_FOCAL && !(a < 1 && b >= 0 && isfinite(b)))) {
        return ghm_fail(GHM_E_ARGUMENT,
                        "the loss has parameters %g and %g, which are outside its "
                        "range",
                        a, b);
    }
    float *thresholds = malloc((size_t)(bins + 1) * sizeof *thresholds);
    if (!thresholds) {
        return ghm_fail(GHM_E_MEMORY, "no memory for %lld edges", (long long)bins);
    }
    ghm_thresholds(batch->task, bins, mu, thresholds);
    if (function == GHM_FOCAL) {
        b = fmin(b, 1e30); /* as good as any above: g^gamma is 0 or 1, and times gamma no NaN */
    } else {
        a = within_floats(a);
    }
    ghm_coefficients coefficients = {function,   a,    b,          bins,      within_floats(mu),
                                     thresholds, beta, grad_scale, loss_scale};
    int status = device->backend->gradient(device->state, batch, &coefficients, out);
    free(thresholds);
    return status;
}
