#ifndef VKFLUX_ADAMW_ARGS
#define VKFLUX_ADAMW_ARGS
struct AdamWArgs {
  uint units;
  float beta1, beta2, eps;
  float rest1, rest2;  // 1 - beta
  float step_size, inv_sqrt_correction2, decay;
};
#endif
