#ifndef VKFLUX_BLEND_INPLACE_ARGS
#define VKFLUX_BLEND_INPLACE_ARGS
struct BlendInplaceArgs {
  uint units;
  float keep, take;
};
#endif
