#ifndef VKFLUX_FEATURE_NETWORK_ARGS_H
#define VKFLUX_FEATURE_NETWORK_ARGS_H
struct FeatureNetworkArgs {
  uint rows, d, width, features;
  float eps;
};
#endif
