// The masked scores of one row of a slab (attention.args.h), shared by the softmax and its backward: the including shader
// declares the bindings S, Keep and Bias, the push constants `a`, and FLAGS (1 key mask, 2 causal, 4 bias).
#ifndef VKFLUX_ATTENTION_SCORES_GLSL
#define VKFLUX_ATTENTION_SCORES_GLSL

#include "attention_weights.glsl"

struct Row {
  uint s;  // first texel of the row in the slab
  uint bh, q;
};

Row row_of(uint r) { return Row(r * a.ld4, a.bh0 + r / a.slab_rows, a.q0 + r % a.slab_rows); }

vec4 bias_of(Row row, uint k4) {
  const uint at = ((row.bh % a.heads) * a.nq + row.q) * a.nk + 4 * k4;
  if (a.nk % 4 == 0) return texelFetch(Bias, int(at / 4));
  vec4 x;
  for (uint i = 0; i < 4; i++) {
    const uint e = min(at + i, a.heads * a.nq * a.nk - 1);
    x[i] = texelFetch(Bias, int(e / 4))[e % 4];
  }
  return x;
}

vec4 scores(Row row, uint k4) {
  vec4 x = texelFetch(S, int(row.s + k4));
  const uvec4 k = uvec4(4 * k4) + uvec4(0, 1, 2, 3);
  bvec4 drop = greaterThanEqual(k, uvec4(a.nk));
  if ((FLAGS & 4) != 0) x += bias_of(row, k4);
  if ((FLAGS & 1) != 0) {
    const vec4 keep = texelFetch(Keep, int(row.bh / a.heads * a.ld4 + k4));
    x = mix(x, vec4(kDropped), lessThan(keep, vec4(0.5)));
  }
  if ((FLAGS & 2) != 0) x = mix(x, vec4(kDropped), greaterThan(k + a.nq, uvec4(row.q + a.nk)));
  return mix(keep_nan(x, max(x, kDropped)), vec4(kDropped), drop);
}
#endif
