/* Times OpenBLAS' sgemm and the C library's memcpy on rows of `vkflux bench`.
 *
 * stdin: lines "name TAB shape TAB dtype"; stdout: the same with TAB and the median time in ms, for the rows
 * it can measure: "linear", "linear dx", "linear dw" in f32, and "copy".
 *
 *   cc -O2 openblas_peer.c -o openblas_peer -lopenblas
 */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { kMostRepeats = 200 };

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static int by_value(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

static float* values(size_t n) {
  float* x = malloc(n * sizeof *x);
  if (!x) {
    fprintf(stderr, "no memory for %zu floats\n", n);
    exit(1);
  }
  for (size_t i = 0; i < n; ++i) x[i] = (float)(rand() % 2001 - 1000) * 1e-3f;
  return x;
}

struct Product {
  int m, n, k;
  char kind; /* f forward, x dx, w dw */
  float *x, *w, *y;
};

static void run_product(const struct Product* p) {
  if (p->kind == 'f') /* y[M, N] = x[M, K] w[N, K]^T */
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, p->m, p->n, p->k, 1, p->x, p->k, p->w, p->k, 0, p->y,
                p->n);
  else if (p->kind == 'x') /* dx[M, K] = dy[M, N] w[N, K] */
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, p->m, p->k, p->n, 1, p->y, p->n, p->w, p->k, 0,
                p->x, p->k);
  else /* dw[N, K] = dy[M, N]^T x[M, K] */
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, p->n, p->k, p->m, 1, p->y, p->n, p->x, p->k, 0, p->w,
                p->k);
}

struct Copy {
  size_t bytes;
  float *from, *to;
};

/* The median of repeats over about 0.4 s, at least 3, after one that isn't counted. */
static double median_ms(const struct Product* p, const struct Copy* c) {
  double ms[kMostRepeats], total = 0;
  int n = 0;
  for (int i = 0; n < kMostRepeats && (n < 3 || total < 400); ++i) {
    const double start = now_ms();
    if (p)
      run_product(p);
    else
      memcpy(c->to, c->from, c->bytes);
    const double took = now_ms() - start;
    if (i == 0) continue;
    ms[n++] = took;
    total += took;
  }
  qsort(ms, (size_t)n, sizeof *ms, by_value);
  return n % 2 ? ms[n / 2] : 0.5 * (ms[n / 2 - 1] + ms[n / 2]);
}

static double product_ms(int m, int n, int k, char kind) {
  struct Product p = {m, n, k, kind, values((size_t)m * k), values((size_t)n * k), values((size_t)m * n)};
  const double ms = median_ms(&p, NULL);
  free(p.x), free(p.w), free(p.y);
  return ms;
}

static double copy_ms(int rows, int columns) {
  const size_t n = (size_t)rows * columns;
  struct Copy c = {n * sizeof(float), values(n), values(n)};
  const double ms = median_ms(NULL, &c);
  free(c.from), free(c.to);
  return ms;
}

int main(void) {
  char line[512];
  fprintf(stderr, "%s\n", openblas_get_config());
  while (fgets(line, sizeof line, stdin)) {
    char name[128], shape[256], dtype[32];
    int m, n, k;
    if (sscanf(line, "%127[^\t]\t%255[^\t]\t%31s", name, shape, dtype) != 3 || strcmp(dtype, "f32") != 0)
      continue;
    double ms = 0;
    if (sscanf(shape, "M%d N%d K%d", &m, &n, &k) == 3) {
      if (!strcmp(name, "linear")) ms = product_ms(m, n, k, 'f');
      if (!strcmp(name, "linear dx")) ms = product_ms(m, n, k, 'x');
      if (!strcmp(name, "linear dw")) ms = product_ms(m, n, k, 'w');
    } else if (!strcmp(name, "copy") && sscanf(shape, "N%d C%d", &m, &n) == 2) {
      ms = copy_ms(m, n);
    }
    if (ms > 0) printf("%s\t%s\t%s\t%.6f\n", name, shape, dtype, ms);
    fflush(stdout);
  }
  return 0;
}
