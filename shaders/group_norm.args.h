#ifndef GROUP_NORM_ARGS_H
#define GROUP_NORM_ARGS_H
// x[batch, pixels, channels]; a chunk is the run of pixels that one partial sum covers.
struct GroupNormArgs {
  uint batch, pixels, channels, groups;
  uint chunk, chunks;
  uint silu;
  float eps;
};
#endif
