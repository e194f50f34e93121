/* study.c - densities from a sketch, and what a configuration's weights do to its samples. */
#include "formula.h"
#include "private.h"

#include <stdlib.h>

/* -- density ---------------------------------------------------------------------------------- */

/* Samples with a key below this one; inside a cell they are taken to lie evenly. *near: of the key
 * that was asked before, from which this one is sought. */
static double count_below(const ghm_line *lines, int64_t n, double key, int64_t *near)
{
    int64_t at = *near;
    while (at > 0 && lines[at - 1].low >= key) {
        at--;
    }
    while (at < n && lines[at].low < key) {
        at++;
    }
    *near = at;
    if (at == 0) {
        return 0;
    }
    const ghm_line *line = &lines[at - 1];
    double part = key >= line->high ? 1 : (key - line->low) / (line->high - line->low);
    return line->before + line->n * part;
}

double ghm_key(int32_t task, double g, double mu)
{
    if (g <= 0) {
        return task == GHM_REGRESSION ? 0 : -INFINITY;
    }
    if (g >= 1) {
        return INFINITY;
    }
    return task == GHM_REGRESSION ? ghm_asl1_key(g, mu) : ghm_logit(g);
}

/* Where the ends of a window lie among the lines. */
typedef struct window {
    int64_t from, to;
} window;

/* Paper, eq. 5 and 6. The window is [g - eps/2, g + eps/2), but g = 1 belongs to the last one. near: of
 * the g before, which is best close to this one. */
static double density_at(const ghm_line *lines, int64_t n, int task, double mu, double eps,
                         double g, window *near)
{
    double from = g - eps / 2, to = g + eps / 2;
    double count = count_below(lines, n, ghm_key(task, to, mu), &near->to) -
                   count_below(lines, n, ghm_key(task, from, mu), &near->from);
    return count / (fmin(to, 1) - fmax(from, 0));
}

int ghm_check_window(int task, double mu, double eps)
{
    /* A double near 1 is good to 1e-16: a window not much wider need not hold its own middle. */
    if (!(eps >= 1e-12 && eps <= 1)) {
        return ghm_fail(GHM_E_ARGUMENT, "eps is %g, expected a window of 1e-12 to 1", eps);
    }
    return ghm_check_bins(task, 1, mu);
}

int ghm_sketch_density(const ghm_sketch *sketch, double mu, double eps, int32_t group,
                       const double *g, int64_t n, double *out)
{
    const ghm_line *lines;
    GHM_TRY(ghm_ask_hard(sketch, out, true, &lines));
    GHM_TRY(ghm_check_window(sketch->edges->task, mu, eps));
    GHM_TRY(ghm_check_group(group));
    if (n < 0 || (!g && n > 0)) {
        return ghm_fail(GHM_E_ARGUMENT, "%lld norms: g is NULL, or fewer than 0", (long long)n);
    }
    int64_t cells = ghm_sketch_cells(sketch), kept = 0;
    ghm_line *own = malloc((size_t)(cells + 1) * sizeof *own);
    if (!own) {
        return ghm_fail(GHM_E_MEMORY, "no memory to answer from the sketch");
    }
    window near = {0};
    double before = 0;
    for (int64_t i = 0; i < cells; i++) {
        if (group == GHM_BOTH || (uint32_t)group == lines[i].group) {
            own[kept] = lines[i];
            own[kept++].before = before;
            before += lines[i].n;
        }
    }
    for (int64_t i = 0; i < n; i++) {
        out[i] = density_at(own, kept, sketch->edges->task, mu, eps, g[i], &near);
    }
    free(own);
    return GHM_OK;
}

int ghm_sketch_exact_sums(const ghm_sketch *sketch, int32_t function, double a, double b,
                          int32_t group, double mu, double eps, int32_t power, double *out)
{
    const ghm_line *lines;
    GHM_TRY(ghm_ask_hard(sketch, out, true, &lines));
    int task = sketch->edges->task;
    GHM_TRY(ghm_check_window(task, mu, eps));
    GHM_TRY(ghm_check_function(task, function, a, b));
    GHM_TRY(ghm_check_group(group));
    if (power != 1 && power != 2) {
        return ghm_fail(GHM_E_ARGUMENT, "power is %d, expected 1 or 2", power);
    }
    int64_t cells = ghm_sketch_cells(sketch), intervals = ghm_sketch_intervals(sketch);
    window near = {0};
    memset(out, 0, (size_t)intervals * sizeof *out);
    for (int64_t i = 0; i < cells; i++) {
        const ghm_line *line = &lines[i];
        if (group != GHM_BOTH && (uint32_t)group != line->group) {
            continue;
        }
        double key = line->mean;
        double g = task == GHM_REGRESSION ? ghm_asl1_norm(key, mu) : ghm_sigmoid(key);
        double beta = (double)sketch->facts.valid /
                      density_at(lines, cells, task, mu, eps, g, &near);
        out[line->interval] += line->n * ghm_line_mean(task, function, a, b, line) * beta *
                               (power == 2 ? beta : 1);
    }
    return GHM_OK;
}

/* -- study ------------------------------------------------------------------------------------ */

static double flatness(const double *share, int64_t bins, double total)
{
    double entropy = 0;
    int64_t used = 0;
    for (int64_t j = 0; j < bins; j++) {
        if (share[j] > 0) {
            double p = share[j] / total;
            entropy -= p * log(p);
            used++;
        }
    }
    return used > 1 ? entropy / log((double)used) : 1;
}

int ghm_sketch_study(const ghm_sketch *sketch, int64_t bins, double mu, double eps,
                     const double *beta, const double *density, int64_t scarce, ghm_study *out)
{
    const ghm_line *lines;
    GHM_TRY(ghm_ask_hard(sketch, out, true, &lines));
    GHM_TRY(ghm_check_window(sketch->edges->task, mu, eps));
    GHM_TRY(ghm_check_bins(sketch->edges->task, bins, mu));
    if (!beta || !density) {
        return ghm_fail(GHM_E_ARGUMENT, "%s is NULL", beta ? "density" : "beta");
    }
    int task = sketch->edges->task;
    int64_t cells = ghm_sketch_cells(sketch), intervals = ghm_sketch_intervals(sketch);
    int64_t *cut = malloc((size_t)(bins + 1) * sizeof *cut);
    int64_t *region = malloc((size_t)intervals * sizeof *region);
    double *share = calloc((size_t)(2 * bins), sizeof *share);
    int status = cut && region && share ? ghm_sketch_cut(sketch, bins, mu, cut)
                                        : ghm_fail(GHM_E_MEMORY, "no memory for a study");
    if (status == GHM_OK) {
        double *count = share + bins;
        for (int64_t j = 0; j < bins; j++) {
            for (int64_t i = cut[j]; i < cut[j + 1]; i++) {
                region[i] = j;
            }
        }
        double total = sketch->facts.valid > 0 ? (double)sketch->facts.valid : 1;
        window near = {0};
        double worst = 0, error = 0, both = 0, ours = 0, exact = 0, sum = 0, squares = 0;
        for (int64_t i = 0; i < cells; i++) {
            double n = lines[i].n, key = lines[i].mean;
            int64_t j = region[lines[i].interval];
            double g = task == GHM_REGRESSION ? ghm_asl1_norm(key, mu) : ghm_sigmoid(key);
            double gd = density_at(lines, cells, task, mu, eps, g, &near), other = total / gd;
            double difference = fabs(density[j] - gd) / gd;
            worst = fmax(worst, difference);
            error += n * difference;
            both += n * beta[j] * other * g * g;
            ours += n * beta[j] * beta[j] * g * g;
            exact += n * other * other * g * g;
            sum += n * beta[j];
            squares += n * beta[j] * beta[j];
            share[j] += n * beta[j] * g;
            count[j] += n;
        }
        double contribution = 0, rare = 0;
        for (int64_t j = 0; j < bins; j++) {
            contribution += share[j];
            rare += count[j] < (double)scarce ? share[j] : 0;
        }
        *out = (ghm_study){
            .density_error_max = worst,
            .density_error_mean = error / total,
            .cosine = ours > 0 && exact > 0 ? both / sqrt(ours * exact) : 1,
            .entropy = flatness(share, bins, contribution),
            .effective = squares > 0 ? sum * sum / squares : 0,
            .scarce_share = contribution > 0 ? rare / contribution : 0,
        };
    }
    free(cut);
    free(region);
    free(share);
    return status;
}
