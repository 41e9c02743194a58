// Which keys a query sees. The including shader declares the push constants `a` (flash_attention.args.h), the binding Mask and
// FLAGS: 1 key mask, 2 causal.
#ifndef VKFLUX_FLASH_ATTENTION_MASK_GLSL
#define VKFLUX_FLASH_ATTENTION_MASK_GLSL

const float kLog2E = 1.4426950408889634, kLn2 = 0.6931471805599453;
const float kDropped = -3.0e38;  // the score of a key that is masked
const float kDroppedBelow = -1.0e38;

bool key_in_mask(uint bh, uint key) {
  if ((FLAGS & 1) == 0) return true;
  const uint at = bh / a.heads * a.nk + key;
  return (mask[at / 4] >> (8 * (at % 4)) & 255u) != 0;
}
bool visible(uint query, uint key) { return (FLAGS & 2) == 0 || key + a.nq <= query + a.nk; }

// Keys that any of the queries before `query_end` sees, and the first query that sees `key`.
uint key_end(uint query_end) {
  if ((FLAGS & 2) == 0) return a.nk;
  return query_end + a.nk > a.nq ? min(a.nk, query_end + a.nk - a.nq) : 0;
}
uint first_query(uint key) { return (FLAGS & 2) != 0 && key + a.nq > a.nk ? key + a.nq - a.nk : 0; }
#endif
