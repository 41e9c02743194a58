#ifndef VKFLUX_ROW_NORM_ARGS
#define VKFLUX_ROW_NORM_ARGS
struct RowNormArgs {
  uint rows, cols;
  uint rows_per_vector;  // this many rows share one weight and bias vector
  uint weight_stride, bias_stride;
  float eps;
};
#endif
