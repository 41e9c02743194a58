#ifndef VKFLUX_FEATURE_MAP_ARGS
#define VKFLUX_FEATURE_MAP_ARGS
struct FeatureMapArgs {
  uint rows, cols;
  float eps;
};
#endif
