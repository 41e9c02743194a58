#ifndef VKFLUX_ACCUMULATE_ARGS_H
#define VKFLUX_ACCUMULATE_ARGS_H
struct AccumulateArgs {
  uint count;       // elements
  uint dst_offset;  // elements before the destination's first one
  uint shifts;
  uint size[5];
  uint magic[5];
  uint dst_stride[6];
};
#endif
