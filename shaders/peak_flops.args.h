#ifndef VKFLUX_PEAK_FLOPS_ARGS_H
#define VKFLUX_PEAK_FLOPS_ARGS_H
struct PeakFlopsArgs {
  uint rounds;
  float scale, shift;
};
#endif
