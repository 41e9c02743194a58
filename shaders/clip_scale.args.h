#ifndef VKFLUX_CLIP_SCALE_ARGS
#define VKFLUX_CLIP_SCALE_ARGS
struct ClipScaleArgs {
  float max_norm;
};
#endif
