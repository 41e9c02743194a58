#ifndef VKFLUX_COLUMN_SUMS_ARGS
#define VKFLUX_COLUMN_SUMS_ARGS
struct ColumnSumsArgs {
  uint rows, cols, chunk;
};
#endif
