/*
 * ghm.h - the one public contract of ghm.
 *
 * The region between the two cdef marks is plain C declarations and nothing else: lua/ghm/clib.lua
 * cuts it out and gives it to LuaJIT's ffi.cdef, so C and Lua read the same lines.
 *
 * What holds for every function below, unless it says otherwise:
 * - It returns GHM_OK (0) or another ghm_status; ghm_last_error() then tells, for this thread, which
 *   argument was wrong, its value and what was expected. Nothing prints, exits or aborts.
 * - On failure no object is changed and no output is promised.
 * - Inputs are const and are not kept after the call. What a *_new, *_load or *_open function makes
 *   is freed by the matching *_free; freeing NULL is harmless.
 * - Arrays are contiguous and row-major; counts and positions are int64_t; positions begin at 0.
 * - An object serves one thread at a time; different objects are independent.
 */
#ifndef GHM_H
#define GHM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* cdef: begin */

enum {
    GHM_ABI = 2,         /* raised whenever a declaration in this region changes meaning */
    GHM_MAX_BINS = 65536 /* the most unit regions of one configuration */
};

enum ghm_status {
    GHM_OK = 0,
    GHM_E_ARGUMENT,   /* a value outside its range, a NULL that is not allowed, an unknown name */
    GHM_E_MEMORY,     /* an allocation failed */
    GHM_E_NONFINITE,  /* NaN or infinity in a valid sample; see ghm_facts for how many and where */
    GHM_E_SOFT,       /* a dense target other than 0 or 1, where a hard one was announced */
    GHM_E_LABEL,      /* an integer label outside the classes and the background */
    GHM_E_EDGES,      /* edges that were not declared when the sketch was made, or too many */
    GHM_E_MISMATCH,   /* two sketches that do not fit together */
    GHM_E_FILE,       /* a file that cannot be read, or is no sketch */
    GHM_E_WRITE,      /* a file that cannot be written */
    GHM_E_DEVICE,     /* no such device, or it failed */
    GHM_E_OVERFLOW,   /* more samples than the integer state can hold */
    GHM_E_INTERRUPTED /* ghm_interrupt_set(1), or SIGINT after ghm_interrupt_catch() */
};

/* What one sample is: an element of [rows, cols]. */
enum ghm_task {
    GHM_CLASSIFICATION = 0, /* logit x and target t: key s = (1 - 2t) x, g = |sigmoid(x) - t| */
    GHM_REGRESSION = 1      /* d = pred - target: key |d|, g = |d| / sqrt(d^2 + mu^2) */
};

enum ghm_dtype { GHM_F32 = 0, GHM_F16, GHM_BF16, GHM_U8, GHM_I32, GHM_I64 };

enum ghm_target {
    GHM_DENSE = 0,  /* [rows, cols]: 0 or 1 (classification), any finite value (regression) */
    GHM_SOFT,       /* [rows, cols] in [0, 1], classification only */
    GHM_ZERO_BASED, /* [rows] integers: class k is k; a negative one or cols is background */
    GHM_ONE_BASED   /* [rows] integers: class k is k + 1; 0 or a negative one is background */
};

/* One call of the loss. Nothing here is owned; the memory must outlive the calls that use it. */
typedef struct ghm_batch {
    int32_t task;           /* enum ghm_task */
    int32_t target_form;    /* enum ghm_target */
    int32_t pred_dtype;     /* F32, F16, BF16 */
    int32_t target_dtype;   /* dense and soft: F32, F16, BF16, U8; labels: U8, I32, I64 */
    int32_t weight_dtype;   /* F32, U8 */
    int32_t weight_per_row; /* 0: weight is [rows, cols]; 1: weight is [rows] */
    int64_t rows;           /* >= 0 */
    int64_t cols;           /* >= 1: classes, or 4 for boxes */
    const void *pred;       /* logits, or predicted box deltas: [rows, cols] */
    const void *target;
    const void *weight; /* label_weight: a sample is valid where it is > 0; NULL: all are */
} ghm_batch;

/* What a pass saw. Positions are flat indices into [rows, cols]; -1 where there is none. */
typedef struct ghm_facts {
    int64_t samples;
    int64_t valid;     /* weight > 0, finite */
    int64_t positive;  /* valid with target 1; 0 for regression and soft targets */
    int64_t nonfinite; /* NaN or infinity in pred, target or weight of a sample in use */
    int64_t first_nonfinite;
    int64_t soft; /* dense targets other than 0 and 1 in valid samples */
    int64_t first_soft;
    int64_t bad_labels;      /* labels outside the classes and the background */
    int64_t first_bad_label; /* the row */
    double weight_sum;       /* exact sum of the valid weights, rounded once */
} ghm_facts;

/* Per-sample losses and what they need; a and b are the two parameters, in this order. */
enum ghm_function {
    GHM_BCE = 0,        /* binary cross-entropy with logits; no parameters */
    GHM_FOCAL,          /* a = alpha in (0, 1), or negative for none; b = gamma >= 0 */
    GHM_ASL1,           /* a = mu > 0: sqrt(d^2 + mu^2) - mu */
    GHM_SMOOTH_L1,      /* a = beta > 0: d^2 / 2 beta below beta, |d| - beta / 2 above */
    GHM_NORM,           /* classification: g, a and b unused. Regression: g with a = mu */
    GHM_NORM_SQUARED,   /* g^2, with the parameters of GHM_NORM */
    GHM_FOCAL_NORM,     /* |d focal / dx| */
    GHM_SMOOTH_L1_NORM, /* |d smooth L1 / dd| */
    GHM_FOCAL_NORM_SQUARED,
    GHM_SMOOTH_L1_NORM_SQUARED
};

enum ghm_divide { GHM_DIVIDE_NONEMPTY = 0, GHM_DIVIDE_ALL };
/* S before the first call: 0; its counts; its samples, spread evenly; 0, then S_j / (1 - m^k). */
enum ghm_start { GHM_START_ZERO = 0, GHM_START_FIRST, GHM_START_UNIFORM, GHM_START_CORRECTED };
enum ghm_empty { GHM_EMPTY_KEEP = 0, GHM_EMPTY_DECAY };
enum ghm_reduction { GHM_MEAN = 0, GHM_SUM, GHM_NONE };
enum ghm_group { GHM_BOTH = -1, GHM_NEGATIVES = 0, GHM_POSITIVES = 1 };

/* The switches of GHM, mmdetection's newest being the defaults that ghm_config_default gives. */
typedef struct ghm_config {
    int64_t bins;       /* M, 1..GHM_MAX_BINS */
    double momentum;    /* [0, 1) */
    double loss_weight; /* finite */
    double mu;          /* > 0; regression only */
    double beta_max;    /* the most that a sample may weigh; 0: no limit */
    int32_t divide;     /* enum ghm_divide: by the non-empty regions, or by M (the paper) */
    int32_t start;      /* enum ghm_start: what S is before the first call */
    int32_t empty;      /* enum ghm_empty: what an empty region's S does */
    int32_t reduction;  /* enum ghm_reduction */
} ghm_config;

typedef struct ghm_result {
    double loss;         /* 0 with GHM_NONE: the elements come from ghm_gradient */
    double tot;          /* max(valid, 1), or max(sum of weights, 1) for regression */
    int64_t n;           /* non-empty regions of this call */
    int64_t limited;     /* regions of this call that beta_max holds down */
    double beta_largest; /* of the non-empty regions */
    double grad_scale;   /* what ghm_gradient multiplies beta * dl/dx with */
} ghm_result;

/* How one configuration's weights treat the samples of a sketch. See ghm_sketch_study. */
typedef struct ghm_study {
    double density_error_max;  /* largest |GD^ - GD| / GD over samples */
    double density_error_mean; /* mean over samples */
    double cosine;             /* between beta * g and the exact density's beta * g */
    double entropy;            /* of the contribution per region, over ln(non-empty): 1 is flat */
    double effective;          /* (sum beta)^2 / sum beta^2 over samples */
    double scarce_share;       /* share of sum beta * g in regions with R_j < scarce */
} ghm_study;

typedef struct ghm_device ghm_device;
typedef struct ghm_sketch ghm_sketch;

/* -- the library --------------------------------------------------------------------------- */

int32_t ghm_abi(void);
const char *ghm_version(void);    /* "0.1.0"; static */
const char *ghm_build(void);      /* commit, compiler and flags; static */
const char *ghm_last_error(void); /* this thread's last failure, one line; never NULL */

/* The defaults of every switch for a task (enum ghm_task). */
int ghm_config_default(int32_t task, ghm_config *out);

/* SIGINT sets a flag that every pass polls; a second SIGINT has its usual effect. */
int ghm_interrupt_catch(void);
/* The same for every SIGINT from now on, whatever calls ghm_interrupt_catch: for a prompt, which
 * outlives them. */
int ghm_interrupt_keep(void);
void ghm_interrupt_set(int32_t value);
int32_t ghm_interrupted(void);

/* Touching a mapped page whose file another process has cut short, or whose disk fails, kills the
 * process by SIGBUS. Within a guarded range such a page turns into zeros, and is counted; at most 64
 * ranges at a time (GHM_E_MEMORY). A guard ends before its range is unmapped. */
int ghm_guard_begin(const void *start, int64_t bytes, int32_t *guard);
int64_t ghm_guard_lost(int32_t guard);
void ghm_guard_end(int32_t guard);

/* -- devices ------------------------------------------------------------------------------- */

/* name: "cpu", "cuda", "cuda:1" or "auto". threads: 0 for all the machine offers.
 * GHM_E_DEVICE where there is none; "auto" takes the best there is, and ghm_device_name says which. */
int ghm_device_open(const char *name, int32_t threads, ghm_device **out);
void ghm_device_free(ghm_device *device);
const char *ghm_device_name(const ghm_device *device); /* "cpu avx2, 2 threads"; lives with it */
int32_t ghm_device_threads(const ghm_device *device);

/* Memory where the device computes: arrays of a batch and outputs that lie there are used in place,
 * all others are copied piece by piece. On "cpu" it is ordinary memory. Contents are undefined at
 * first; the device lives on until it is freed. GHM_E_MEMORY where there is not so much. */
int ghm_memory_new(ghm_device *device, int64_t bytes, void **out);
void ghm_memory_free(ghm_device *device, void *memory);
/* bytes from one place to another, each ordinary memory or the device's. */
int ghm_memory_copy(ghm_device *device, void *to, const void *from, int64_t bytes);
/* Seconds from the beginning to the end of the last pass or copy, by the device's own clock. GHM_E_DEVICE on
 * "cpu", which has none, and before the first pass. */
int ghm_device_elapsed(ghm_device *device, double *seconds);

/* -- the sketch: read the data once -------------------------------------------------------- */

/* An empty sketch that will answer exactly for every M of bins[0..n_bins): for regression, for
 * every pair of an M and a mu of mu[0..n_mu). knots[0..n_knots), in the units of |d|, are further
 * places where a function bends (smooth L1's beta). Unused lists are NULL with 0 entries.
 * GHM_E_EDGES from 2^23 edges on, and where more than 2^26 are asked for, repeated ones included. */
int ghm_sketch_new(int32_t task, const int64_t *bins, int64_t n_bins, const double *mu,
                   int64_t n_mu, const double *knots, int64_t n_knots, ghm_sketch **out);
/* Another empty sketch with the same edges, which the two then share. */
int ghm_sketch_like(const ghm_sketch *sketch, ghm_sketch **out);
void ghm_sketch_free(ghm_sketch *sketch);

/* Reads a batch into the sketch, in one pass. facts (NULL allowed) is filled for this batch also
 * when the status is GHM_E_NONFINITE, GHM_E_SOFT or GHM_E_LABEL. ignore_nonfinite: non-finite
 * samples count as ignored, and in facts->nonfinite, instead of failing. A sketch holds hard targets
 * or soft ones, not both (GHM_E_MISMATCH). */
int ghm_sketch_add(ghm_device *device, ghm_sketch *sketch, const ghm_batch *batch,
                   int32_t ignore_nonfinite, ghm_facts *facts);

/* The status that ghm_sketch_add makes of a batch's facts; here they may be sums over its blocks. */
int ghm_judge(const ghm_batch *batch, const ghm_facts *facts, int32_t ignore_nonfinite);

/* into += from. Both must have the same edges and kind of target. Hard targets: exact. */
int ghm_sketch_merge(ghm_sketch *into, const ghm_sketch *from);

/* What was declared when the sketch was made, ascending, each value once; out may be NULL. Returns
 * the number of values. mu of classification: none. */
enum ghm_declared { GHM_DECLARED_BINS = 0, GHM_DECLARED_MU, GHM_DECLARED_KNOTS };
int64_t ghm_sketch_declared(const ghm_sketch *sketch, int32_t what, double *out);

int ghm_sketch_facts(const ghm_sketch *sketch, ghm_facts *out); /* totals; first_* are -1 */
int32_t ghm_sketch_task(const ghm_sketch *sketch);
int32_t ghm_sketch_soft(const ghm_sketch *sketch);    /* 1: holds soft targets */
int64_t ghm_sketch_cells(const ghm_sketch *sketch);   /* cells in use */
uint64_t ghm_sketch_digest(const ghm_sketch *sketch); /* equal state, equal digest */

/* -- sketch files ----------------------------------------------------------------------------- */

/* A file holds calls of the loss in their order, each a sketch and a note, a text that the core does
 * not read (notes, or any of them, may be NULL). Little-endian, with a checksum; renamed into place
 * whole or not at all, but for devices, pipes and power cuts, after which it is refused. */
int ghm_sketch_write(const ghm_sketch *const *sketches, const char *const *notes, int64_t n,
                     const char *path);

typedef struct ghm_reader ghm_reader;
/* Reads a whole file; GHM_E_FILE says why it is refused. */
int ghm_reader_open(const char *path, ghm_reader **out);
/* Calls that ghm_reader_next has not given yet. */
int64_t ghm_reader_left(const ghm_reader *reader);
/* The next call. like: NULL, or a sketch whose edges the new one shares where both were declared
 * alike. note is NULL where there is none, and lives until the next call of a function of reader. */
int ghm_reader_next(ghm_reader *reader, const ghm_sketch *like, ghm_sketch **out,
                    const char **note);
void ghm_reader_free(ghm_reader *reader);

/* A file of one call without a note. */
int ghm_sketch_save(const ghm_sketch *sketch, const char *path);
int ghm_sketch_load(const char *path, ghm_sketch **out);

/* -- questions to a sketch: nothing reads data again ---------------------------------------- */

/* The declared edges cut the line of keys into intervals, 0..n-1 in rising g. */
int64_t ghm_sketch_intervals(const ghm_sketch *sketch);

/* Where they begin: interval i is [edge[i-1], edge[i]) of keys, the first from -inf (|d|: from 0) and
 * the last to +inf. edge[intervals - 1]. */
int ghm_sketch_edges(const ghm_sketch *sketch, float *edge);

/* Per interval: number of samples of a group (enum ghm_group), out[intervals]. */
int ghm_sketch_counts(const ghm_sketch *sketch, int32_t group, int64_t *out);

/* Per interval: sum of a function (enum ghm_function) over a group's samples, out[intervals].
 * Soft targets know GHM_BCE and GHM_NORM of GHM_BOTH alone. */
int ghm_sketch_sums(const ghm_sketch *sketch, int32_t function, double a, double b, int32_t group,
                    double *out);

/* Region j of bins (and mu) is the intervals cut[j] .. cut[j+1]-1; cut has bins + 1 entries.
 * GHM_E_EDGES when these edges were not declared: they could only be answered with a miscount. */
int ghm_sketch_cut(const ghm_sketch *sketch, int64_t bins, double mu, int64_t *cut);

/* The key at which a gradient norm in [0, 1] is reached: s, or |d| for this mu. Cannot fail. */
double ghm_key(int32_t task, double g, double mu);

/* Exact-density estimate at n gradient norms g[0..n): the number of samples of a group in
 * [g - eps/2, g + eps/2) over the window's length in [0, 1] (paper, eq. 5); narrow cells are cut
 * by interpolation, so a count is off by at most the content of the two cells at its borders. */
int ghm_sketch_density(const ghm_sketch *sketch, double mu, double eps, int32_t group,
                       const double *g, int64_t n, double *out);

/* ghm_sketch_sums with each sample weighed by the exact density of window eps among all samples:
 * out[intervals] = sum of (N / GD(g))^power * function. power: 1, or 2 where function is a square.
 * GHM_BCE or GHM_ASL1 over all, by N: the loss of ghm_exact_density, off as ghm_sketch_density is. */
int ghm_sketch_exact_sums(const ghm_sketch *sketch, int32_t function, double a, double b,
                          int32_t group, double mu, double eps, int32_t power, double *out);

/* Compares beta[bins] (0 for empty regions) with the exact density of window eps. density[bins] is
 * the configuration's own GD^ (S_j * M). scarce: a region with fewer samples is scarce. */
int ghm_sketch_study(const ghm_sketch *sketch, int64_t bins, double mu, double eps,
                     const double *beta, const double *density, int64_t scarce, ghm_study *out);

/* -- harmonise: momentum, beta, loss ------------------------------------------------------- */

/* One call of the loss from its regions: counts R[bins], loss sums L[bins] and tot as in ghm_result.
 * S[bins] is the momentum state, updates[bins] the number of times each S_j was updated; both begin
 * as zeros and stay so while momentum is 0. Outputs: density S_j in use (0 where R_j = 0 and there
 * is no history), beta[bins] (0 for empty regions), result.
 * Source: Li et al. 2019 eq. 9-12; mmdetection ghm_loss.py. */
int ghm_harmonise(const ghm_config *config, const int64_t *R, const double *L, double tot,
                  double *S, int64_t *updates, double *used, double *beta, ghm_result *result);

/* -- the gradient pass ----------------------------------------------------------------------- */

/* Outputs of [rows, cols], which overlap neither each other nor the batch; NULL where not wanted.
 * Ignored samples get 0, and so do those some number of which is not finite. */
typedef struct ghm_outputs {
    float *grad; /* grad_scale * beta_j * dl/dx */
    float *beta; /* beta_j */
    float *norm; /* g of the loss that chooses the region */
    float *loss; /* loss_scale * beta_j * l */
} ghm_outputs;

/* function: GHM_BCE, GHM_FOCAL, GHM_ASL1 or GHM_SMOOTH_L1 with its a and b; beta[bins] is the
 * coefficient of each region (one region with beta 1 gives the plain loss). config gives bins, mu. */
int ghm_gradient(ghm_device *device, const ghm_batch *batch, int32_t function, double a, double b,
                 int64_t bins, double mu, const double *beta, double grad_scale, double loss_scale,
                 const ghm_outputs *out);

/* -- softmax: rows of exclusive classes ---------------------------------------------------------- */

/* m_c = x_c - ln sum over k != c of e^x_k, so that p_c = sigmoid(m_c): in margins[rows, cols] for
 * every class and in true_margins[rows] for the row's own (either may be NULL), rounded to float32:
 * a cross-entropy is off by up to |m| 2^-24 of itself.
 * A row's own margin with target 1 has g = 1 - p_true and BCE = cross-entropy; the margins with the
 * row's targets have g_c = |p_c - y_c|. valid[rows] is 1 where the row's weight is above 0 and its
 * label not negative; else 0, and the margins are 0. A valid row with a logit or weight that is not
 * finite has NaN margins, which a sketch counts and tells. Takes GHM_ZERO_BASED labels, which are
 * columns, or one-hot GHM_DENSE targets; weights per row; 2 columns or more. GHM_E_LABEL: a valid
 * row without exactly one class. Runs on the CPU, whatever the device. */
int ghm_softmax_margins(ghm_device *device, const ghm_batch *batch, float *margins,
                        float *true_margins, uint8_t *valid);

/* grad[rows, cols], by the logits. per_row: beta[rows] weighs the cross-entropies, so grad is
 * scale * beta_i (p_c - y_c). Otherwise beta[rows, cols] weighs the BCE of each margin, and grad is
 * that of scale * sum_c beta_c BCE(m_c, y_c) with beta held. A row whose betas are all 0 is not
 * looked at and gets 0. */
int ghm_softmax_gradient(ghm_device *device, const ghm_batch *batch, const float *beta,
                         int32_t per_row, double scale, float *grad);

/* -- the exact density ------------------------------------------------------------------------ */

/* density[rows*cols] (NULL allowed) of the paper's equation 5 by sorting, NaN for ignored samples;
 * *loss = sum of l / GD over valid samples = the exact-density GHM loss. Hard targets; mu for
 * regression; eps in [1e-12, 1]: a density is off by up to 1e-15 / eps, relative, as the window's ends
 * are rounded. At most 2^32 - 1 samples. On a CPU the device keeps the memory of the sort, 24 bytes a
 * sample or 32 for boxes, where that is at most 256 MB. */
int ghm_exact_density(ghm_device *device, const ghm_batch *batch, double mu, double eps,
                      double *density, double *loss);

/* -- synthetic batches ------------------------------------------------------------------------ */

/* Shares are of all samples and the rest are easy negatives; means and deviations are of logits. */
typedef struct ghm_mixture {
    double hard_share, hard_mean, hard_sd;             /* hard negatives */
    double positive_share, positive_mean, positive_sd; /* logits of positives */
    double outlier_share, outlier_mean, outlier_sd;    /* mislabelled: sign of the logit wrong */
    double easy_mean, easy_sd;
    double ignored_share;                     /* weight 0 */
    double uniform;                           /* 1: g uniform on [0, 1], shares unused */
    double laplace_scale;                     /* boxes: scale b of the errors */
    double box_outlier_share, box_outlier_sd; /* boxes: normal errors far out */
} ghm_mixture;

/* name: detector, converged, fresh, uniform. drift in [0, 1] moves the mixture from `fresh` (0) to
 * `converged` (1) and overrides the name; negative: no drift. */
int ghm_mixture_preset(const char *name, double drift, ghm_mixture *out);

/* Fills pred and target [rows, cols] and, unless NULL, weight. Philox 4x32-10 counters are (sample,
 * step, stream) and the key is the seed, so a sample depends on nothing else: not on threads,
 * not on the size. Only IEEE basic operations are used, so every machine gives the same bits. */
int ghm_synth(ghm_device *device, int32_t task, const ghm_mixture *mixture, uint64_t seed,
              int64_t step, int64_t rows, int64_t cols, float *pred, float *target, float *weight);

/* -- resampling ------------------------------------------------------------------------------- */

/* Both fill out[0..n), each entry a function of (seed, draw, its place) alone, the same on every
 * machine: even numbers in (0, 1), and Poisson counts with the means mean[0..n), 0 to 2^53. A
 * resampled histogram is Poisson with its own counts as means. 0 <= draw < 2^32. */
int ghm_uniform(uint64_t seed, int64_t draw, int64_t n, double *out);
int ghm_poisson(uint64_t seed, int64_t draw, int64_t n, const double *mean, int64_t *out);

/* out[0..n): of each of counts[0..n), whose sum is at most 2^53, how many are among `take` of all of
 * them, drawn blindly and not put back. A function of (seed, draw, counts, take) alone; out is
 * not counts. 0 <= draw < 2^32. */
int ghm_divide(uint64_t seed, int64_t draw, int64_t n, const int64_t *counts, int64_t take,
               int64_t *out);

/* into += samples drawn anew from those of a sketch: each cell's number is Poisson with its own as
 * the mean, where they lie in it stays. Both must have the same edges and kind of target. */
int ghm_sketch_resample(const ghm_sketch *from, uint64_t seed, int64_t draw, ghm_sketch *into);

/* cdef: end */

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
