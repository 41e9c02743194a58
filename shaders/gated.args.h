#ifndef VKFLUX_GATED_ARGS
#define VKFLUX_GATED_ARGS
struct GatedArgs {
  uint rows, cols, rows_per_group;
  uint stride,
      b_offset;  // numbers: between rows of a and of b, and from the start of the binding of b to its first
};
#endif
