#ifndef VKFLUX_ROPE_ARGS
#define VKFLUX_ROPE_ARGS
struct RopeArgs {
  uint units, heads;  // units of one head: joined_tokens * head_dim / UNIT
  uint rope_batch;
};
#endif
