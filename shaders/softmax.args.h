#ifndef VKFLUX_SOFTMAX_ARGS
#define VKFLUX_SOFTMAX_ARGS
struct SoftmaxArgs {
  uint rows, cols;
};
#endif
