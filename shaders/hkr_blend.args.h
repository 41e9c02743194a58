#ifndef VKFLUX_HKR_BLEND_ARGS
#define VKFLUX_HKR_BLEND_ARGS
struct HkrBlendArgs {
  uint rows, cols;
  uint tokens;  // rows that share a mean
  float alpha_max, gamma;
};
#endif
