#ifndef VKFLUX_L2NORM_ARGS
#define VKFLUX_L2NORM_ARGS
struct L2NormArgs {
  uint rows, cols;
  float eps;
};
#endif
