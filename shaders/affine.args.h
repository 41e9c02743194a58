#ifndef VKFLUX_AFFINE_ARGS_H
#define VKFLUX_AFFINE_ARGS_H
struct AffineArgs {
  uint count;
  float scale, shift;
};
#endif
