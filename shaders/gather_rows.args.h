#ifndef VKFLUX_GATHER_ROWS_ARGS
#define VKFLUX_GATHER_ROWS_ARGS
struct GatherRowsArgs {
  uint count, cols, rows_per_group;
  uint table_rows;
};
#endif
