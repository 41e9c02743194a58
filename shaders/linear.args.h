#ifndef VKFLUX_LINEAR_ARGS_H
#define VKFLUX_LINEAR_ARGS_H
struct LinearActArgs {
  uint n4;
};
struct ColumnSumArgs {
  uint rows, columns, rows_per_part;
};
#endif
