#ifndef VKFLUX_QK_SCALE_GRAD_ARGS
#define VKFLUX_QK_SCALE_GRAD_ARGS
struct QkScaleGradArgs {
  uint batch, tokens, first_token;
  uint joined_tokens, heads, head_dim;
  uint rope_batch, rows_per_chunk;
};
#endif
