#ifndef VKFLUX_SUM_SQUARES_ARGS
#define VKFLUX_SUM_SQUARES_ARGS
struct SumSquaresArgs {
  uint count;
  uint units_per_group;
};
#endif
