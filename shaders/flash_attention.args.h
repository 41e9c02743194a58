#ifndef VKFLUX_FLASH_ATTENTION_ARGS_H
#define VKFLUX_FLASH_ATTENTION_ARGS_H
// q, o and their gradients are [batch_heads, nq, d4] vec4, k and v [batch_heads, nk, d4]; the key mask is u8
// [batch_heads / heads, nk].
struct FlashAttentionArgs {
  uint batch_heads, heads;
  uint nq, nk, d4;
  float scale;
};
#endif
