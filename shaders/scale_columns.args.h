#ifndef VKFLUX_SCALE_COLUMNS_ARGS
#define VKFLUX_SCALE_COLUMNS_ARGS
struct ScaleColumnsArgs {
  uint rows, cols, rows_per_group;
  uint scale_stride, shift_stride;
};
#endif
