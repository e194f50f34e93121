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

static inline __attribute__((always_inline)) double key_of(int task, double g, double mu)
{
    double least = task == GHM_REGRESSION ? 0 : -(double)INFINITY;
    double key = task == GHM_REGRESSION ? ghm_asl1_key(g, mu) : ghm_logit(g);
    return g <= 0 ? least : g >= 1 ? (double)INFINITY : key;
}

double ghm_key(int32_t task, double g, double mu)
{
    return key_of(task, g, mu);
}

/* Where the ends of a window lie among the lines. */
typedef struct window {
    int64_t from, to;
} window;

/* Paper, eq. 5 and 6. The window is [g - eps/2, g + eps/2), but g = 1 belongs to the last one. from and
 * to are its keys; near: of the g before, which is best close to this one. */
static double density_at(const ghm_line *lines, int64_t n, double g, double eps, double from,
                         double to, window *near)
{
    double count = count_below(lines, n, to, &near->to) - count_below(lines, n, from, &near->from);
    double first = g - eps / 2, last = g + eps / 2;
    return count / ((last < 1 ? last : 1) - (first > 0 ? first : 0));
}

static inline __attribute__((always_inline)) void windows_of(int task, int64_t n, double mu,
                                                             double eps, double *restrict g,
                                                             double *restrict from,
                                                             double *restrict to)
{
    for (int64_t i = 0; i < n; i++) {
        double norm = task == GHM_REGRESSION ? ghm_asl1_norm(g[i], mu) : ghm_sigmoid(g[i]);
        g[i] = norm;
        from[i] = key_of(task, norm - eps / 2, mu);
        to[i] = key_of(task, norm + eps / 2, mu);
    }
}

/* Of every line, whose mean is in g: g, and the keys of its window. */
GHM_CLONES
static void find_windows(int task, int64_t n, double mu, double eps, double *g, double *from,
                         double *to)
{
    if (task == GHM_REGRESSION) { /* a loop for each task, so that neither computes both */
        windows_of(GHM_REGRESSION, n, mu, eps, g, from, to);
    } else {
        windows_of(GHM_CLASSIFICATION, n, mu, eps, g, from, to);
    }
}

/* The exact density of every line's samples, density[n], and their gradient norm, at *g: one piece of
 * memory, which the caller frees. NULL where there is none. */
static double *new_densities(const ghm_line *lines, int64_t n, int task, double mu, double eps,
                             double **g)
{
    double *density = malloc((size_t)(4 * n + 1) * sizeof *density);
    if (density) {
        double *norm = density + n, *from = norm + n, *to = from + n;
        window near = {0};
        for (int64_t i = 0; i < n; i++) {
            norm[i] = lines[i].mean;
        }
        find_windows(task, n, mu, eps, norm, from, to);
        for (int64_t i = 0; i < n; i++) {
            density[i] = density_at(lines, n, norm[i], eps, from[i], to[i], &near);
        }
        *g = norm;
    }
    return density;
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
    int task = sketch->edges->task;
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
        out[i] = density_at(own, kept, g[i], eps, ghm_key(task, g[i] - eps / 2, mu),
                            ghm_key(task, g[i] + eps / 2, mu), &near);
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
    double *g, *density = new_densities(lines, cells, task, mu, eps, &g);
    if (!density) {
        return ghm_fail(GHM_E_MEMORY, "no memory to answer from the sketch");
    }
    memset(out, 0, (size_t)intervals * sizeof *out);
    for (int64_t i = 0; i < cells; i++) {
        const ghm_line *line = &lines[i];
        if (group != GHM_BOTH && (uint32_t)group != line->group) {
            continue;
        }
        double beta = (double)sketch->facts.valid / density[i];
        out[line->interval] += line->n * ghm_line_mean(task, function, a, b, line) * beta *
                               (power == 2 ? beta : 1);
    }
    free(density);
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
    double *norm, *exact_density = new_densities(lines, cells, task, mu, eps, &norm);
    int status = cut && region && share && exact_density
                   ? ghm_sketch_cut(sketch, bins, mu, cut)
                   : ghm_fail(GHM_E_MEMORY, "no memory for a study");
    if (status == GHM_OK) {
        double *count = share + bins;
        for (int64_t j = 0; j < bins; j++) {
            for (int64_t i = cut[j]; i < cut[j + 1]; i++) {
                region[i] = j;
            }
        }
        double total = sketch->facts.valid > 0 ? (double)sketch->facts.valid : 1;
        double worst = 0, error = 0, both = 0, ours = 0, exact = 0, sum = 0, squares = 0;
        for (int64_t i = 0; i < cells; i++) {
            int64_t j = region[lines[i].interval];
            double n = lines[i].n, g = norm[i], gd = exact_density[i], other = total / gd;
            double difference = fabs(density[j] - gd) / gd;
            worst = difference > worst ? difference : worst;
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
    free(exact_density);
    return status;
}
