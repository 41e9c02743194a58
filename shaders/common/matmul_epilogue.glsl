// What becomes of a finished sum of alpha op(A) op(B): bias, accumulation, activation, for rows of C that start at multiples of
// four elements. The including shader has the push constants p (matmul.args.h) and the constants FLAGS and ACT.
#ifndef VKFLUX_MATMUL_EPILOGUE_GLSL
#define VKFLUX_MATMUL_EPILOGUE_GLSL
#include "linear_activation.glsl"

layout(set = 0, binding = 2) readonly buffer Bias { vec4 bias[]; };
layout(set = 0, binding = 3) buffer C { vec4 c[]; };
layout(set = 0, binding = 4) writeonly buffer Pre { vec4 pre[]; };

// Elements [at, at + 4) of C, columns n and following.
void store(uint at, uint n, vec4 v) {
  if ((FLAGS & 1) != 0) v += bias[n / 4];
  if ((FLAGS & 2) != 0) v += c[at / 4];
  if ((FLAGS & 4) != 0) pre[at / 4] = v;
  c[at / 4] = linear_activation(ACT, v);
}
#endif
