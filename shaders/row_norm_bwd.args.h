#ifndef VKFLUX_ROW_NORM_BWD_ARGS
#define VKFLUX_ROW_NORM_BWD_ARGS
struct RowNormBwdArgs {
  uint rows, cols;
  uint rows_per_vector, weight_stride;
};
#endif
