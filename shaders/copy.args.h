#ifndef VKFLUX_COPY_ARGS_H
#define VKFLUX_COPY_ARGS_H
struct CopyArgs {
  uint count;       // groups of four; elements in the "element" variant and the gather mode
  uint first;       // of this dispatch
  uint src_offset;  // elements before the source's first one
  uint dst_offset;  // the same of a strided destination
  uint shifts;
  uint size[5];
  uint magic[5];
  uint src_stride[6];
  uint dst_stride[6];
};
#endif
