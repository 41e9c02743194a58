#ifndef VKFLUX_KERNEL_REGRESSION_ARGS
#define VKFLUX_KERNEL_REGRESSION_ARGS
// Rows [batch heads, count] of width numbers (a multiple of 4, at least cols + 1) made of v[batch, heads,
// keys, cols], keys start .. start + count.
struct KernelValuesArgs {
  uint units, heads, keys, start, count, cols, width;
};
struct KernelQuotientArgs {
  uint rows, cols, width;
  float eps;
};
struct MinimumArgs {
  uint n, results, per_result;
};
#endif
