#ifndef VKFLUX_QK_NORM_ROPE_ARGS
#define VKFLUX_QK_NORM_ROPE_ARGS
struct QkNormRopeArgs {
  uint tokens, first_token;  // of this part, and where it starts in the joined sequence
  uint joined_tokens, heads, head_dim;
  uint rope_batch;  // 1: a rotation table per batch element, 0: one for all
  float eps;
};
#endif
