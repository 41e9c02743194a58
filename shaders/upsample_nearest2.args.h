#ifndef UPSAMPLE_NEAREST2_ARGS_H
#define UPSAMPLE_NEAREST2_ARGS_H
struct UpsampleArgs {
  uint count;         // units of the result
  uint width, units;  // of x: pixels of a row, units of a pixel
};
#endif
