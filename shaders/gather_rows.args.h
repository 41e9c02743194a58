#ifndef VKFLUX_GATHER_ROWS_ARGS
#define VKFLUX_GATHER_ROWS_ARGS
struct GatherRowsArgs {
  uint count, cols, rows_per_group;
  uint table_rows;
  uint first_row, rows;  // of the table that are bound: the others are left to other launches
};
#endif
