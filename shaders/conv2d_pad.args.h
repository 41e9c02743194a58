#ifndef VKFLUX_CONV2D_PAD_ARGS_H
#define VKFLUX_CONV2D_PAD_ARGS_H
struct Conv2dPadArgs {
  uint n;  // texels of the result
  uint channels, channels4;
};
#endif
