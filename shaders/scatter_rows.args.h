#ifndef VKFLUX_SCATTER_ROWS_ARGS
#define VKFLUX_SCATTER_ROWS_ARGS
struct ScatterRowsArgs {
  uint table_rows, cols, rows_per_group;
};
#endif
