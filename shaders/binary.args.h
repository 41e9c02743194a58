#ifndef VKFLUX_BINARY_ARGS_H
#define VKFLUX_BINARY_ARGS_H
struct BinaryArgs {
  uint count;  // results: groups of four, or elements when rows aren't whole vectors
  uint first;  // of this dispatch
  uint a_offset, b_offset;
  uint shifts;
  uint size[5];
  uint magic[5];
  uint a_stride[6];
  uint b_stride[6];
};
#endif
