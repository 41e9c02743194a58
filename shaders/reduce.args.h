#ifndef VKFLUX_REDUCE_ARGS_H
#define VKFLUX_REDUCE_ARGS_H
// x is [outer, extent] with extent cut into rows of `inner` (the last may be shorter).
struct ReduceColsArgs {
  uint count;   // invocations: outer * chunks * inner (or inner / 4)
  uint extent;  // elements of one outer item
  uint inner;
  uint chunk;  // rows summed by one invocation
  uint chunks;
  float scale;
};
struct ReduceRowsArgs {
  uint rows, extent;
  float scale;
};
#endif
